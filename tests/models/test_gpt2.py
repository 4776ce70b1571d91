"""GPT-2's family: its logits are those that `transformers` computed of the same weights; it is one more model to everything else."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_near
from gpt2_golden import DEPTH, HEADS, LENGTH, LOGITS, VOCAB, WIDTH, tokens, weights

from jaxsplit.errors import InputError
from jaxsplit.models.config import Architecture, model_of

ARCHITECTURE = Architecture(family="gpt2", head_dim=WIDTH // HEADS, compute_dtype="float32")
CONFIG = ARCHITECTURE.at(WIDTH, DEPTH, VOCAB, LENGTH)
END = 0


def as_ours(theirs):
  """Weights by transformers' names as our tree."""
  layers = lambda name, *shape: jnp.stack([theirs[f"h.{i}.{name}"].reshape(*shape or (-1,)) for i in range(DEPTH)])
  norm = lambda name: {"scale": layers(f"{name}.weight"), "bias": layers(f"{name}.bias")}
  heads = HEADS, WIDTH // HEADS
  projection = lambda name, inputs, outputs: {
      "weight": layers(f"{name}.weight", *inputs, *outputs), "bias": layers(f"{name}.bias", *outputs)}
  return {
      "embed_VxD": jnp.array(theirs["wte.weight"]), "positions_TxD": jnp.array(theirs["wpe.weight"]),
      "norm": {"scale": jnp.array(theirs["ln_f.weight"]), "bias": jnp.array(theirs["ln_f.bias"])},
      "layers": {
          "attention_norm": norm("ln_1"), "mlp_norm": norm("ln_2"), "qkv": projection("attn.c_attn", (WIDTH,), (3, *heads)),
          "out": projection("attn.c_proj", heads, (WIDTH,)), "up": projection("mlp.c_fc", (WIDTH,), (4 * WIDTH,)),
          "down": projection("mlp.c_proj", (4 * WIDTH,), (WIDTH,))}}


def test_logits_are_those_of_transformers():
  params = as_ours(weights())
  jax.tree.map(lambda x, there: np.testing.assert_equal(x.shape, there.shape), params, CONFIG.abstract_params)
  x_BxTxD, unembed_DxV = CONFIG.apply(params, jnp.array(tokens()), END)
  assert_near(x_BxTxD @ unembed_DxV, np.load(LOGITS), 1e-5)


def test_counts_are_those_of_the_arrays():
  params = CONFIG.initialize(jnp.uint32(0))
  assert CONFIG.params_total == sum(x.size for x in jax.tree.leaves(params))
  assert CONFIG.params == CONFIG.params_total - params["embed_VxD"].size - params["positions_TxD"].size
  assert CONFIG.flops_per_token == 6 * (CONFIG.params + VOCAB * WIDTH) + 12 * DEPTH * WIDTH * LENGTH


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_remat_changes_no_gradient(remat):
  params = CONFIG.initialize(jnp.uint32(0))
  loss = lambda config: lambda p: jnp.mean(config.apply(p, jnp.array(tokens()), END)[0] ** 2 * jnp.arange(WIDTH))
  gradients = [jax.jit(jax.grad(loss(config)))(params) for config in (dataclasses.replace(CONFIG, remat=remat), CONFIG)]
  assert_near(*gradients, 1e-5)


@pytest.mark.parametrize("setting, value", [("rope_theta", 5e3), ("qk_norm", True), ("tie_embeddings", True), ("queries_per_kv", 1)])
def test_settings_of_other_families_are_refused(setting, value):
  with pytest.raises(InputError, match=f"Architecture.{setting} = {value}: family 'gpt2' has no such setting; leave it out"):
    Architecture(family="gpt2", **{setting: value})


def test_a_family_that_is_not_there_is_refused():
  with pytest.raises(InputError, match="Architecture.family = 'gpt-2': there is none of that name; did you mean gpt2.*--extension=FILE"):
    Architecture(family="gpt-2")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_model_is_that_of_its_record(family):
  model = dataclasses.replace(ARCHITECTURE, family=family).at(WIDTH, DEPTH, VOCAB, LENGTH)
  assert model_of(dataclasses.asdict(model)) == model
