"""Products with weights and splits: what they compute, and their derivatives, against JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_near

from jaxsplit.models.kernels import projection, reference
from jaxsplit.models.kernels.projection import project, split_last


def _normal(seed, shape, dtype=jnp.float32):
  return jax.random.normal(jax.random.key(seed), shape, dtype)


@pytest.mark.parametrize("x_shape, w_shape, axes", [
    ((2, 5, 3), (3, 7), 1), ((2, 5, 7), (7, 3), 1), ((2, 5, 4), (4, 2, 3, 6), 1), ((2, 5, 2, 3, 6), (2, 3, 6, 4), 3), ((9, 3), (3, 8), 1)])
@pytest.mark.parametrize("mapped", (False, True))
def test_projections_are_products(x_shape, w_shape, axes, mapped):
  lead = (3,) if mapped else ()
  over_runs = jax.vmap if mapped else lambda f: f
  x, w = _normal(0, lead + x_shape), _normal(1, lead + w_shape)
  ours, its = over_runs(lambda x, w: project(x, w, axes)), over_runs(lambda x, w: reference.project(x, w, axes))
  assert_near(ours(x, w), its(x, w), 1e-6)
  dy = _normal(2, its(x, w).shape)
  gradients = lambda f: jax.jit(jax.grad(lambda x, w: jnp.sum(f(x, w) * dy), (0, 1)))(x, w)
  assert_near(gradients(ours), gradients(its), 1e-6)


def test_a_policy_that_saves_products_sees_them():
  """Saving matmul outputs, none is computed twice: as many products as where everything is saved."""
  x, ws = _normal(0, (4, 8)), _normal(1, (3, 8, 8))

  def products(policy):
    layer = lambda x, w: (jnp.sin(project(x, w)), None)
    layer = layer if policy is None else jax.checkpoint(layer, policy=policy)
    loss = lambda ws: jnp.sum(jax.lax.scan(layer, x, ws)[0])
    return jax.jit(jax.grad(loss)).lower(ws).as_text().count("dot_general")

  saving = products(jax.checkpoint_policies.dots_with_no_batch_dims_saveable)
  assert saving == products(None) < products(jax.checkpoint_policies.nothing_saveable)


def test_every_platform_has_the_same_weight_gradient():
  x, dy = _normal(0, (2, 5, 3)), _normal(1, (2, 5, 4, 2))
  for a, b in ((x, dy), (dy, x)):
    assert_near(projection._weight_gradient_on_cpu(2, jnp.float32, a, b), projection._weight_gradient(2, jnp.float32, a, b), 1e-6)


def test_dtypes_are_those_of_a_product_that_is_summed_in_another():
  x, w = _normal(0, (4, 3), jnp.bfloat16), _normal(1, (3, 5), jnp.bfloat16)
  assert project(x, w).dtype == jnp.bfloat16
  assert project(x, w, 1, jnp.float32).dtype == jnp.float32
  ours = jax.grad(lambda x, w: jnp.sum(jnp.sin(project(x, w, 1, jnp.float32))), (0, 1))(x, w)
  its = jax.grad(lambda x, w: jnp.sum(jnp.sin(jnp.matmul(x, w, preferred_element_type=jnp.float32))), (0, 1))(x, w)
  for mine, theirs in zip(ours, its):
    assert mine.dtype == theirs.dtype == jnp.bfloat16
    assert_near(mine, theirs, 1e-2)


@pytest.mark.parametrize("axis", (-2, -1, 1))
def test_split_last_and_its_derivative(axis):
  x = _normal(0, (2, 3, 4, 5))
  jax.tree.map(np.testing.assert_array_equal, split_last(x, axis), reference.split_last(x, axis))
  gradients = [jax.grad(lambda x: sum(jnp.sum(jnp.sin(part) * (i + 1)) for i, part in enumerate(split(x, axis))))(x)
               for split in (split_last, reference.split_last)]
  assert_near(*gradients, 1e-6)
