"""cuDNN's attention, as far as a machine without a GPU can say: what goes into it and comes out, where it is taken, and that stacks
with it lower."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_near
from jax._src.cudnn import fused_attention_stablehlo

from jaxsplit.errors import InputError
from jaxsplit.models.config import Architecture
from jaxsplit.models.kernels import attention, cudnn, reference
from jaxsplit.parallel.sharding import Layout
from jaxsplit.training import stack
from jaxsplit.training.optimizer import Optimizer, Schedule
from jaxsplit.training.stack import StackSpec

CUDNN = {"attention": "cudnn", "compute_dtype": "bfloat16"}


@functools.partial(jax.jit, static_argnums=0)
def values_and_gradients(attend, *qkv):
  """y, dq, dk, dv, where the last is of the sum of squares."""
  y, back = jax.vjp(attend, *qkv)
  return y, *back(y)


@pytest.mark.parametrize("implementation, dtype, apart", [
    ("xla", jnp.float32, 1e-3), ("xla", jnp.bfloat16, 2e-2),
    pytest.param("cudnn", jnp.bfloat16, 2e-2, marks=pytest.mark.skipif(not cudnn.widest(), reason="needs an NVIDIA GPU"))])
@pytest.mark.parametrize("length, dim, every", [(130, 64, 9), (62, 8, 20), (2, 16, 1)])
def test_documents_are_kept_apart_as_a_mask_keeps_them(implementation, dtype, apart, length, dim, every):
  """Documents of `every` tokens, of one, and of any number; queries and keys that point the same way score high."""
  random = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(random.normal(0.5, 1, (3, length, 2, *shape, dim)), dtype)
  qkv = draw(2), draw(), draw()
  tokens = np.ones((3, length), np.int32)
  tokens[0, every - 1::every] = 0
  tokens[1] = 0
  tokens[2, random.integers(0, length, 5)] = 0
  segments = attention.segments(jnp.asarray(tokens), 0)
  expected = values_and_gradients(lambda *x: reference.attend(*x, segments), *(x.astype(jnp.float32) for x in qkv))
  digits = cudnn.digits(segments, dim)
  found = values_and_gradients(lambda *x: cudnn.attend(*x, digits, implementation=implementation), *qkv)
  assert {here.dtype for here in found} == {jnp.dtype(dtype)} and [y.shape for y in found] == [y.shape for y in expected]
  assert_near(found, expected, apart)


@pytest.mark.skipif(cudnn.widest() > 0, reason="there is one")
def test_it_is_not_taken_without_its_gpu():
  assert attention.kernel(Architecture(head_dim=64).at(128, 1, 32, 128)) == "dense"
  assert attention.kernel(Architecture(head_dim=64, **CUDNN).at(128, 1, 32, 128)) == "cudnn"


@pytest.mark.parametrize("widest, head_dim, documents, taken", [
    (128, 128, False, "cudnn"), (128, 128, True, "dense"), (128, 112, True, "cudnn"), (256, 128, True, "cudnn"), (0, 64, False, "dense")])
def test_heads_with_digits_have_to_fit_the_gpu(monkeypatch, widest, head_dim, documents, taken):
  monkeypatch.setattr(cudnn, "widest", lambda: widest)
  model = lambda **changes: Architecture(head_dim=head_dim, document_masking=documents, **changes).at(head_dim, 1, 32, 2048)
  assert attention.kernel(model()) == taken
  if widest and taken == "dense":
    with pytest.raises(InputError, match="144 wide .* takes 128; use 'auto'"):
      attention.kernel(model(**CUDNN))


@pytest.mark.parametrize("wrong, line", [({"head_dim": 192}, "not 192"), ({"compute_dtype": "float32"}, "not 'float32'")])
def test_what_it_does_not_take_is_refused(wrong, line):
  with pytest.raises(InputError, match=f"{line}.* use 'auto'"):
    Architecture(**{"head_dim": 64, **CUDNN, **wrong}).at(192, 1, 32, 128)


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("together", [0, 1], ids=["vmap", "map"])
def test_a_stack_with_it_is_lowered_for_a_gpu(together, documents, monkeypatch):
  monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)  # JAX asks the machine that lowers.
  model = Architecture(head_dim=64, queries_per_kv=2, remat="dots", document_masking=documents, **CUDNN).at(256, 2, 64, 128)
  devices = min(2, jax.device_count())  # Present ones: the kernel cannot be lowered for others.
  spec = StackSpec(model, Optimizer(), Layout(data=devices, devices=devices), 2, together, 8, 0)
  program = stack.train_block(spec).trace(*stack._training_arguments(spec, 1))
  text = program.lower(lowering_platforms=("cuda",)).as_text()
  assert "__cudnn$fmhaSoftmaxBackward" in text and f"x{72 if documents else 64}xbf16" in text


@pytest.mark.skipif(not cudnn.widest(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("together", [0, 1], ids=["vmap", "map"])
def test_a_stack_trains_with_it_as_with_dense_attention(together):
  losses = training_losses("cudnn", together), training_losses("dense", together)
  np.testing.assert_allclose(*losses, atol=0.02)
  assert np.all(losses[0][0] - losses[0][-1] > 0.5)  # They learn, so that gradients count.


def training_losses(kernel, together):
  """Losses [S, R] of two runs of bfloat16, in windows of several documents."""
  model = Architecture(head_dim=64, remat="dots", attention=kernel, compute_dtype="bfloat16").at(128, 2, 64, 128)
  spec = StackSpec(model, Optimizer(), Layout(devices=1), 2, together, 4, 0)
  tokens = np.random.default_rng(0).integers(0, 8, (1, 2, 4, 129)).astype(np.int32).repeat(12, axis=0)
  per_run = lambda value, dtype: np.full(2, value, dtype)
  schedule = Schedule(per_run(5e-3, np.float32), *[per_run(0, np.int32)] * 5)
  return np.asarray(stack.train_block(spec)(stack.initialize(spec, range(2)), tokens, np.int32(12), schedule)[1]["loss"])
