import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_near

from jaxsplit.models import modules
from jaxsplit.models.config import Architecture
from jaxsplit.models.kernels import attention, dense
from jaxsplit.models.loss import logits_at_once, most_likely, token_losses

ARCHITECTURE = Architecture(head_dim=8, queries_per_kv=2, compute_dtype="float32")
CONFIG = ARCHITECTURE.at(32, 2, 50, 12)
END = 0


@pytest.fixture(scope="module")
def params():
  return CONFIG.initialize(jnp.uint32(0))


def hidden(params, tokens, config=CONFIG):
  return config.apply(params, tokens, END)[0]


def test_causality_by_gradient(params):
  """The output at t depends on the embeddings of tokens up to t, and of no later one."""
  tokens = jnp.arange(1, 13)[None]

  @jax.jit
  @jax.grad
  def gradient(embed, t):
    return jnp.sum(hidden({**params, "embed_VxD": embed}, tokens)[0, t] * jnp.arange(32))

  for t in (0, 5, 11):
    touched = np.abs(gradient(params["embed_VxD"], t)).sum(1)[1:13] > 0
    np.testing.assert_array_equal(touched, np.arange(12) <= t)


def test_documents_do_not_see_each_other(params):
  first = jnp.array([[5, 6, END, 7, 8, 9, 3, 4, 5, 6, 7, 8]])
  second = first.at[0, 0].set(20)
  after = np.asarray(hidden(params, first) - hidden(params, second))[0]
  assert np.abs(after[:3]).max() > 1e-3
  np.testing.assert_array_equal(after[3:], 0)


def test_a_query_sees_the_earlier_tokens_of_its_document():
  tokens = np.array([[5, END, 7, 8, END, END, 9, 3], [END, 1, 2, 3, 4, 5, 6, END], [1, 2, 3, 4, 5, 6, 7, 8]])
  mask = dense.causal_mask(dense.document_starts(tokens, END), 8)
  numbers = np.asarray(attention.segments(tokens, END))
  for b, t, s in np.ndindex(3, 8, 8):
    assert mask[b, 0, t, s] == (s <= t and not np.any(tokens[b, s:t] == END)) == (s <= t and numbers[b, s] == numbers[b, t])


def test_rotary_positions_are_relative(params):
  """Without document masking a window's attention depends on distances alone: a lone repeated token gives equal outputs."""
  out = hidden(params, jnp.full((1, 12), 7))
  assert_near(out[0], np.broadcast_to(out[0, :1], out[0].shape), 2e-6)


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_remat_changes_no_gradient(params, remat):
  tokens = jax.random.randint(jax.random.key(1), (2, 12), 1, 50)
  loss = lambda config: lambda p: jnp.mean(hidden(p, tokens, config) ** 2 * jnp.arange(32))
  config = dataclasses.replace(ARCHITECTURE, remat=remat).at(32, 2, 50, 12)
  assert_near(jax.jit(jax.grad(loss(config)))(params), jax.jit(jax.grad(loss(CONFIG)))(params), 1e-6)


def test_layers_scanned_or_in_turn_are_the_same_model(params, monkeypatch):
  tokens = jnp.arange(1, 13)[None]
  assert modules.layers_a_turn(CONFIG) == (CONFIG.depth if jax.default_backend() == "cpu" else 1)
  in_turn, scanned = (monkeypatch.setattr(modules, "layers_a_turn", lambda config: turn) or hidden(params, tokens)
                      for turn in (CONFIG.depth, 1))
  assert_near(in_turn, scanned, 3e-6)


@pytest.mark.parametrize("rows", [8, 7])
def test_loss_in_chunks_is_the_loss(rows, monkeypatch):
  x = jax.random.normal(jax.random.key(0), (3, rows, 16))
  unembed = jax.random.normal(jax.random.key(1), (16, 40))
  targets = jax.random.randint(jax.random.key(2), (3, rows), 0, 40)
  log_probabilities = lambda x: jax.nn.log_softmax(x @ unembed)
  losses = lambda x: -jnp.take_along_axis(log_probabilities(x), targets[..., None], 2)[..., 0]
  expected, gradient = losses(x), jax.grad(lambda x: losses(x).sum())(x)
  for at_once in (1 << 24, 200):
    monkeypatch.setattr("jaxsplit.models.loss._LOGITS_AT_ONCE", at_once)
    assert_near(token_losses(x, unembed, targets), expected, 1e-6)
    assert_near(jax.grad(lambda x: token_losses(x, unembed, targets).sum())(x), gradient, 1e-6)
    np.testing.assert_array_equal(most_likely(x, unembed, targets), log_probabilities(x).argmax(2) == targets)


@pytest.mark.parametrize("rows, vocab, least, filled", [
    (4096, 50_000, 13, 4096), (4099, 50_000, 13, 4108), (4096, 257, 1, 4096), (4099, 257, 1, 4099), (31, 2 << 24, 31, 31),
    (7, 9 << 20, 4, 7)])
def test_rows_are_taken_in_few_chunks_whatever_their_number(rows, vocab, least, filled):
  at_once = logits_at_once(rows, vocab) // vocab
  chunks = -(-rows // at_once)
  assert least <= chunks < 2 * least + 1 and chunks * at_once == filled


def test_a_fresh_model_is_near_uniform(params):
  tokens = jax.random.randint(jax.random.key(1), (4, 13), 1, 50)
  x, unembed = CONFIG.apply(params, tokens[:, :-1], END)
  assert abs(float(token_losses(x, unembed, tokens[:, 1:]).mean()) - np.log(50)) < 0.8
