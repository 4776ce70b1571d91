"""Attention over rows of trees by blocks, against whole scores with the mask of what is on a token's path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_near

from jaxsplit.evaluation.batching import Span
from jaxsplit.evaluation.trees import tree_batches, trees_of
from jaxsplit.models.kernels import blocks, dense


@pytest.mark.parametrize("dtype, within", [(jnp.float32, 2e-6), (jnp.bfloat16, 2e-2)])
def test_it_is_attention_to_the_path(dtype, within):
  random = np.random.default_rng(0)
  spans = []
  for length in (5, 90, 200, 30, 61, 128, 64, 3):  # Some end and begin at a block's edge, some fill blocks that others do not see.
    context = random.integers(1, 9, length)
    spans += [Span(np.concatenate([context, random.integers(1, 9, more)]), length) for more in (1, 4, 70)]
  trees = trees_of(spans[:12], None) + trees_of(spans[12:], 8)
  (batch,) = tree_batches(trees, 2048, 2, None)
  rows = batch.rows
  assert rows.tokens_BxT.shape[1] > 2 * blocks.BLOCK
  column = np.arange(rows.tokens_BxT.shape[1])
  sees_BxTxS = (column <= column[:, None]) & (column >= rows.first_BxT[..., None]) & (column[:, None] < rows.end_BxT[:, None])
  draw = lambda *shape: jnp.asarray(random.normal(size=(*rows.tokens_BxT.shape, 2, *shape, 8)), dtype)
  q, k, v = draw(3), draw(), draw()
  found = jax.jit(blocks.attend)(q, k, v, rows.first_BxT, rows.end_BxT)
  assert found.dtype == dtype
  assert_near(found, dense.attend(*(x.astype(jnp.float32) for x in (q, k, v)), sees_BxTxS[:, None]), within)
  apart = jax.jit(blocks.attend)(q, k.at[:, 0].set(jnp.nan), v, rows.first_BxT, rows.end_BxT).astype(jnp.float32)
  np.testing.assert_array_equal(np.isnan(apart).all((2, 3, 4)), sees_BxTxS[..., 0])  # Only who sees the first token heeds it.
  np.testing.assert_array_equal(np.isnan(apart).any((2, 3, 4)), sees_BxTxS[..., 0])
