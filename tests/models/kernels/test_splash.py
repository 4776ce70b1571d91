"""The TPU's attention kernel, interpreted: it is plain attention, alone, in a stack and on a mesh; and it lowers."""

import functools

import jax
import jax.numpy as jnp
import pytest
from closeness import assert_near
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

from jaxsplit.errors import InputError
from jaxsplit.models.config import Architecture
from jaxsplit.models.kernels import attention, reference, splash
from jaxsplit.training import stack
from jaxsplit.training.optimizer import Optimizer
from jaxsplit.parallel.sharding import Layout, Machine
from jaxsplit.training.stack import StackSpec

B, T, G, Q, D = 2, 128, 2, 2, 128


@pytest.fixture(scope="module")
def inputs():
  """q, k, v, and the tokens of windows with several documents: 1 ends one."""
  keys = jax.random.split(jax.random.key(0), 4)
  shapes = (B, T, G, Q, D), (B, T, G, D), (B, T, G, D)
  arrays = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes)]
  return *arrays, jax.random.bernoulli(keys[3], 0.05, (B, T)).astype(jnp.int32)


def gradients(attend, q, k, v, tokens):
  return jax.grad(lambda q, k, v: jnp.sum(jnp.sin(attend(q, k, v, tokens))), (0, 1, 2))(q, k, v)


interpreted = functools.partial(
    gradients, lambda q, k, v, tokens: splash.attend(q, k, v, attention.segments(tokens, 1), interpret=True))
plain = functools.partial(
    gradients, lambda q, k, v, tokens: reference.attend(q, k, v, attention.segments(tokens, 1)))


@pytest.fixture(scope="module")
def expected(inputs):
  return jax.jit(plain)(*inputs)


def test_it_is_plain_attention(inputs, expected):
  assert_near(jax.jit(interpreted)(*inputs), expected, 1e-5)


@pytest.mark.parametrize("mapping", [jax.lax.map, lambda run, stacked: jax.vmap(run)(stacked)], ids=["map", "vmap"])
def test_it_is_the_same_in_a_stack_on_a_mesh(inputs, expected, mapping):
  mesh = jax.make_mesh((1, 2, 1), ("expert", "data", "tensor"), devices=jax.devices("cpu")[:2], axis_types=(AxisType.Auto,) * 3)
  mapped = jax.jit(lambda *stacked: jax.shard_map(
      lambda *here: mapping(lambda run: interpreted(*run), here), mesh=mesh, in_specs=(P("expert"),) * 4, out_specs=P("expert"),
      axis_names={"expert"}, check_vma=False)(*stacked))
  stacked = [jax.device_put(jnp.stack([x, x]), NamedSharding(mesh, P("expert", "data"))) for x in inputs]
  for mine, theirs in zip(mapped(*stacked), expected):
    assert_near(mine[1], theirs, 1e-5)
    assert mine.sharding.spec[1] == "data"  # No device has the whole batch.


def test_shapes_that_it_does_not_take_are_dense():
  assert not splash.suits(100, 128) and splash.suits(256, 128)
  assert attention.kernel(Architecture(head_dim=128, attention="splash").at(128, 1, 32, 128)) == "splash"
  with pytest.raises(InputError, match="use 'auto'"):
    Architecture(head_dim=64, attention="splash").at(128, 1, 32, 128)


def test_a_stack_with_it_is_lowered_for_a_tpu():
  model = Architecture(head_dim=128, attention="splash", remat="dots", compute_dtype="bfloat16").at(256, 2, 64, 128)
  spec = StackSpec(model, Optimizer(), Layout(expert=2, tensor=2), 2, 1, 8, 0, elsewhere=Machine("tpu", 8, 16 << 30))
  assert dict(spec.mesh.shape) == {"expert": 2, "data": 2, "tensor": 2}
  assert "tpu_custom_call" in stack.lower_training(spec, 1)
