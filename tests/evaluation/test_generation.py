"""Generation: what a cache gives is what reading the whole text gives; sampling draws what it may."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_near

from jaxsplit.errors import InputError
from jaxsplit.evaluation import generation
from jaxsplit.evaluation.generation import Generation, generate
from jaxsplit.evaluation.likelihood import log_probabilities
from jaxsplit.interop import huggingface
from jaxsplit.models import cache as caches
from jaxsplit.parallel.sharding import Layout
from jaxsplit.training.optimizer import Optimizer
from jaxsplit.training.stack import StackSpec

GOLDEN = pathlib.Path(__file__).parent.parent / "interop" / "golden"


@pytest.fixture(scope="module", params=["qwen3", "gpt2"])
def model(request):
  return huggingface.load(GOLDEN / request.param)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("masking", [False, True])
def test_reading_in_pieces_is_reading_at_once(model, masking, apart):
  """Two texts, one shorter; with a document's end in the middle of the longer one; layers stacked, and as arrays of their own."""
  model = dataclasses.replace(model, config=dataclasses.replace(model.config, document_masking=masking))
  tokens = np.random.default_rng(0).integers(1, 29, (2, 12)).astype(np.int32)
  tokens[0, 4] = tokens[1, :3] = model.tokenizer.end_of_document
  cache, found = caches.empty(model.config, jnp.array([0, 3]), 16), []
  params = model.config.layers_apart(model.params) if apart else model.params
  extend = jax.jit(lambda tokens, cache: model.config.extend(params, tokens, 0, cache))
  for begin, stop in ((0, 6), (6, 12)):
    x, unembed, cache = extend(tokens[:, begin:stop], cache)
    found.append(x @ unembed)
  logits = np.concatenate(found, axis=1)
  assert_near(logits[0], model(tokens[:1])[0], 1e-5)
  assert_near(logits[1, 3:], model(tokens[1:, 3:])[0], 1e-5)


def greedily(model, prompt, count):
  """Without a cache: the whole text read anew for each token."""
  tokens = np.zeros((1, 16), int)  # What lies behind is not seen.
  tokens[0, :len(prompt)] = prompt
  for at in range(len(prompt), len(prompt) + count):
    tokens[0, at] = np.argmax(model(tokens)[0, at - 1])
  return tokens[0, len(prompt):len(prompt) + count].tolist()


def test_greedy_decoding_is_that_of_a_loop_without_cache(model, monkeypatch):
  monkeypatch.setattr(generation, "_STEP", 4)  # So that the tokens come in several pieces.
  prompts = [[5, 7, 2, 9, 4, 1], [3]]
  found = generate(model, prompts, Generation(tokens=10))
  for prompt, tokens in zip(prompts, found):
    whole = greedily(model, prompt, 10)
    assert list(tokens) == (whole[:whole.index(0)] if 0 in whole else whole)
  assert list(generate(model, [prompts[0]], Generation(tokens=10), enough=lambda tokens: len(tokens) >= 3)[0]) == list(found[0][:4])


def test_exact_match_in_one_pass_is_what_decoding_finds(model):
  """Entries whose numbers the model knows, and entries of which one digit is another."""
  prompts = np.random.default_rng(1).integers(1, 29, (6, 4)).astype(np.int32)
  numbers = [greedily(model, prompt, 5) for prompt in prompts]
  entries = np.concatenate([prompts, numbers], axis=1)
  for row, at in ((1, 4), (3, 6), (5, 8)):
    entries[row, at] = entries[row, at] % 28 + 1
  spec = StackSpec(model.config, Optimizer(), Layout(devices=1), 1, 1, 6, 0)
  weights = (np.arange(8) >= 3).astype(np.float32)[None, None]
  params = jax.tree.map(lambda x: x[None], model.params)
  exact = log_probabilities(spec, params, entries[None], weights, ("greedy",))["greedy"][0]
  decoded = generate(model, list(prompts), Generation(tokens=5))
  assert list(exact) == [True, False] * 3
  assert all(list(tokens) == list(entry[4:4 + len(tokens)]) for tokens, entry, known in zip(decoded, entries, exact) if known)


def test_samples_are_of_what_may_be_drawn():
  logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))
  keys = jax.random.split(jax.random.key(0), 4000)
  drawn = jax.jit(lambda k, p: jax.vmap(lambda key: generation._draw(key, logits, k, p)[0])(keys))
  draw = lambda k, p: np.bincount(drawn(k, p), minlength=4)
  np.testing.assert_allclose(draw(4, 1.0) / 4000, [0.5, 0.3, 0.15, 0.05], atol=0.03)
  np.testing.assert_allclose(draw(2, 1.0) / 4000, [0.625, 0.375, 0, 0], atol=0.03)
  np.testing.assert_allclose(draw(4, 0.85) / 4000, np.array([0.5, 0.3, 0.15, 0]) / 0.95, atol=0.03)


def test_seeds_repeat_and_differ(model):
  drawn = [generate(model, [[1, 2]], Generation(tokens=12, temperature=1.0, seed=seed))[0].tolist() for seed in (0, 0, 1)]
  assert drawn[0] == drawn[1] != drawn[2]


def test_what_cannot_be_read_is_refused_or_cut(model):
  with pytest.raises(InputError, match="this model reads 24 tokens, the prompt's and those that follow together; give 23 at most"):
    generate(model, [[1]], Generation(tokens=24))
  long = np.arange(40) % 28 + 1
  np.testing.assert_array_equal(*(generate(model, [prompt], Generation(tokens=4))[0] for prompt in (long, long[-20:])))
  with pytest.raises(InputError, match="Generation.top_p = 0"):
    Generation(top_p=0.0)


def test_jaxs_debug_switches_find_nothing(model):
  generation._reading.cache_clear()
  generation._writing.cache_clear()
  with jax.transfer_guard("disallow"), jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
    for settings in (Generation(tokens=5), Generation(tokens=5, temperature=0.8, top_k=4, top_p=0.9)):
      assert len(generate(model, [[5, 7], [3]], settings)) == 2
