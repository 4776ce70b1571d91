"""Attention with whole scores, and rotary positions: values and derivatives, against JAX's of the plain functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_near

from jaxsplit.models.kernels import attention, dense, reference, rotary


def values_and_gradients(f, *arrays):
  y, back = jax.vjp(f, *arrays)
  return y, *back(jnp.cos(y))


@pytest.mark.parametrize("dtype, within", [(jnp.float32, 2e-6), (jnp.bfloat16, 2e-2)])
def test_it_is_plain_attention(dtype, within):
  random = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(random.normal(size=(2, 12, 2, *shape, 8)), dtype)
  qkv, tokens = (draw(3), draw(), draw()), jnp.asarray(random.random((2, 12)) > 0.2, jnp.int32)
  mask = dense.causal_mask(dense.document_starts(tokens, 0), 12)
  segments = attention.segments(tokens, 0)
  found = jax.jit(lambda *x: values_and_gradients(lambda *x: dense.attend(*x, mask), *x))(*qkv)
  plain = lambda *x: values_and_gradients(lambda *x: reference.attend(*x, segments), *x)
  assert {x.dtype for x in found} == {jnp.dtype(dtype)}
  assert_near(found, jax.jit(plain)(*(x.astype(jnp.float32) for x in qkv)), within)


def test_rotations_are_those_of_complex_numbers():
  turns = rotary.rotation(7, 8, 100.0)
  x = jax.random.normal(jax.random.key(0), (2, 7, 3, 4, 8))
  assert_near(values_and_gradients(lambda x: rotary.rotate(x, turns), x),
              values_and_gradients(lambda x: reference.rotate(x, turns), x), 1e-6)
  assert_near(turns.cos_Txh, np.cos(np.arange(7)[:, None] * 100.0 ** (-np.arange(4) / 4)), 1e-6)
