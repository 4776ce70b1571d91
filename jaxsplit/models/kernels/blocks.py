"""Attention over rows of prefix trees on a CPU, a block of queries and a block of keys at a time, where one sees the other."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplit.models.kernels import mesh

BLOCK = 64  # Queries or keys of a block, whose scores of all heads fit a core's cache. T is a multiple of it.
_MASKED = np.float32(-1e30)  # A score whose exponential is 0 beside any other.


def suits() -> bool:
  """Whether the device here is one for it: elsewhere, thousands of small products one after the other take longer than whole scores."""
  return jax.default_backend() == "cpu"


def attend(q_BxTxGxQxd: jax.Array, k_BxTxGxd: jax.Array, v_BxTxGxd: jax.Array, first_BxT: jax.Array, end_BxT: jax.Array) -> jax.Array:
  """Softmax attention in float32, without whole scores (arXiv 2112.05682); it has no derivative. Returns [B, T, G, Q, d].

  Args:
    first_BxT, end_BxT: as in `cache.Tree`; every query sees itself.
  """
  return mesh.on_each_device(_on_one_device, q_BxTxGxQxd, k_BxTxGxd, v_BxTxGxd, first_BxT, end_BxT)


def _on_one_device(q_BxTxGxQxd: jax.Array, k_BxTxGxd: jax.Array, v_BxTxGxd: jax.Array, first_BxT: jax.Array,
                   end_BxT: jax.Array) -> jax.Array:
  rows, length, groups, queries, dim = q_BxTxGxQxd.shape
  count, scale = length // BLOCK, np.float32(dim**-0.5).astype(q_BxTxGxQxd.dtype)
  blocks = lambda a_BxTx: a_BxTx.reshape(rows * count, BLOCK, *a_BxTx.shape[2:])  # N = B * count of C = BLOCK columns.
  q_NxGxQxCxd = jnp.moveaxis(blocks(q_BxTxGxQxd * scale), 1, 3)
  k_NxGxCxd, v_NxGxCxd = (jnp.moveaxis(blocks(a_BxTxGxd), 1, 2) for a_BxTxGxd in (k_BxTxGxd, v_BxTxGxd))
  first_NxC, end_NxC, column_C = blocks(first_BxT), blocks(end_BxT), jnp.arange(BLOCK)

  def of_block(of):
    block, q_GxQxCxd, first_C = of
    row = block - block % count  # The first block of the same row.

    def with_keys(keys, so_far):
      most_GxQxC, sum_GxQxC, y_GxQxCxd = so_far
      at_C, key_C = (one * BLOCK + column_C for one in (block - row, keys - row))
      sees_CxC = (key_C <= at_C[:, None]) & (key_C >= first_C[:, None]) & (at_C[:, None] < end_NxC[keys])
      scores_GxQxCxC = jnp.einsum("GQcd,Gkd->GQck", q_GxQxCxd, k_NxGxCxd[keys], preferred_element_type=jnp.float32)
      scores_GxQxCxC = jnp.where(sees_CxC, scores_GxQxCxC, _MASKED)
      more_GxQxC = jnp.maximum(most_GxQxC, scores_GxQxCxC.max(-1))
      p_GxQxCxC, before_GxQxC = jnp.exp(scores_GxQxCxC - more_GxQxC[..., None]), jnp.exp(most_GxQxC - more_GxQxC)
      new_GxQxCxd = jnp.einsum("GQck,Gkd->GQcd", p_GxQxCxC.astype(v_NxGxCxd.dtype), v_NxGxCxd[keys], preferred_element_type=jnp.float32)
      return more_GxQxC, sum_GxQxC * before_GxQxC + p_GxQxCxC.sum(-1), y_GxQxCxd * before_GxQxC[..., None] + new_GxQxCxd

    nothing = jnp.zeros((groups, queries, BLOCK), jnp.float32)
    none = nothing + _MASKED, nothing, jnp.zeros((groups, queries, BLOCK, dim), jnp.float32)
    _, sum_GxQxC, y_GxQxCxd = jax.lax.fori_loop(row + first_C.min() // BLOCK, block + 1, with_keys, none)
    return (y_GxQxCxd / sum_GxQxC[..., None]).astype(q_BxTxGxQxd.dtype)

  y_NxGxQxCxd = jax.lax.map(of_block, (jnp.arange(rows * count), q_NxGxQxCxd, first_NxC))
  return jnp.moveaxis(y_NxGxQxCxd, 3, 1).reshape(q_BxTxGxQxd.shape)
