"""JAX's strict promotions, which a researcher turns on to find bugs, find none in a stack's programs."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from jaxsplit.evaluation import likelihood
from jaxsplit.models.config import Architecture
from jaxsplit.models.kernels import cudnn, splash
from jaxsplit.parallel.sharding import Layout, Machine
from jaxsplit.training import fingerprint, fork, stack
from jaxsplit.training.optimizer import Optimizer
from jaxsplit.training.stack import StackSpec

MODELS = {
    "plain": {}, "grouped": {"queries_per_kv": 2, "tie_embeddings": True, "remat": "full"},
    "bfloat16": {"compute_dtype": "bfloat16", "qk_norm": False, "document_masking": False, "remat": "dots"},
    "gpt2": {"family": "gpt2"}}


@pytest.fixture(autouse=True)
def strict():
  with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
    yield


@pytest.mark.parametrize("model", MODELS)
def test_a_stacks_programs(model):
  architecture = Architecture(head_dim=8, **MODELS[model])
  spec = StackSpec(architecture.at(16, 2, 32, 8), Optimizer(moments="float32" if model == "plain" else "bfloat16"), Layout(devices=1),
                   runs=2, runs_per_map=1, batch=4, end_of_document=0, weighted=True, accumulation=2)
  state = jax.eval_shape(lambda: stack.initialize(spec, [0, 1]))
  stack.lower_training(dataclasses.replace(spec, elsewhere=Machine("cpu", 1, 1 << 33)), 3)
  program = likelihood._program(spec, ("targets", "windows", "greedy", "total"))
  program.trace(*likelihood._arguments(spec, 6))
  program.trace(state["params"], jax.ShapeDtypeStruct((1, 6, 9), jnp.int32), jax.ShapeDtypeStruct((1, 6, 1), jnp.float32))
  for keep in (True, False):
    jax.eval_shape(lambda one: fork.gather(spec, [one, one], [0, 3], keep), state)
  jax.eval_shape(fingerprint.copy_with_fingerprint, state)


def test_kernels():
  q_BxTxGxQxd, k_BxTxGxd, segments_BxT = jnp.zeros((2, 128, 1, 2, 128)), jnp.zeros((2, 128, 1, 128)), jnp.zeros((2, 128), jnp.int32)

  def by_cudnn(q, k, v):
    return cudnn.attend(q, k, v, cudnn.digits(segments_BxT, 128), implementation="xla")

  def by_splash(q, k, v):
    return splash.attend(q, k, v, segments_BxT, interpret=True)

  for attend in (by_cudnn, by_splash):
    jax.eval_shape(jax.grad(lambda *qkv: jnp.sum(attend(*qkv)), argnums=(0, 1, 2)), q_BxTxGxQxd, k_BxTxGxd, k_BxTxGxd)
