"""RMS normalization and its derivative, against JAX's of the plain function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_near

from jaxsplit.models.kernels import reference
from jaxsplit.models.kernels.norm import rms_norm


@pytest.mark.parametrize("shape, scale_shape", [((2, 5, 8), (8,)), ((2, 5, 3, 4, 8), (4, 8)), ((7, 16), (16,))])
@pytest.mark.parametrize("mapped", (False, True))
def test_it_and_its_derivative(shape, scale_shape, mapped):
  lead, over_runs = ((3,), jax.vmap) if mapped else ((), lambda f: f)
  x, scale, dy = (jax.random.normal(jax.random.key(i), lead + s) for i, s in enumerate((shape, scale_shape, shape)))
  results = []
  for f in (rms_norm, reference.rms_norm):
    results.append((over_runs(f)(x, scale), *jax.jit(jax.grad(lambda x, s: jnp.sum(over_runs(f)(x, s) * dy), (0, 1)))(x, scale)))
  assert_near(*results, 2e-6)


def test_bfloat16_is_normalized_in_float32():
  x = (100 * jax.random.normal(jax.random.key(0), (4, 64))).astype(jnp.bfloat16)
  scale = jnp.full((64,), 1.5)
  assert rms_norm(x, scale).dtype == jnp.bfloat16
  np.testing.assert_array_equal(rms_norm(x, scale).astype(jnp.float32), reference.rms_norm(x, scale).astype(jnp.float32))
  dx, dscale = jax.grad(lambda x, s: jnp.sum(jnp.sin(rms_norm(x, s).astype(jnp.float32))), (0, 1))(x, scale)
  assert dx.dtype == jnp.bfloat16 and dscale.dtype == jnp.float32


def test_the_backward_pass_keeps_x_and_a_number_a_row():
  x, scale = jnp.ones((4, 64), jnp.bfloat16), jnp.ones((64,))
  _, backward = jax.vjp(rms_norm, x, scale)
  kept = sorted(leaf.size for leaf in jax.tree.leaves(backward) if leaf.size > 1)
  assert kept == [4, 64, 256]
