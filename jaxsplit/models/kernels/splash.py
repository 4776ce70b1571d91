"""Splash attention: JAX's flash attention kernel for TPUs (jax.experimental.pallas), on a mesh and under the stack's mapping.

It never holds [T, T] scores and skips blocks that are causally masked.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplit.models.kernels import mesh

LANES = 128  # A TPU's vector width: what lengths and head widths must be multiples of.
_BLOCK = 512  # Queries and keys that are worked on at once, where the length allows.


def suits(length: int, head_dim: int) -> bool:
  """Whether the kernel takes such shapes and wastes nothing."""
  return length % LANES == 0 and head_dim % LANES == 0


def attend(q_BxTxGxQxd: jax.Array, k_BxTxGxd: jax.Array, v_BxTxGxd: jax.Array, segments_BxT: jax.Array,
           interpret: bool = False) -> jax.Array:
  """Causal attention inside segments; the Q queries of a group share its key and value. Returns [B, T, G, Q, d].

  Args:
    segments_BxT: the number of each position's document.
    interpret: run the kernel's operations one by one on any device, to test it.
  """
  return mesh.on_each_device(
      functools.partial(_on_one_device, interpret=interpret), q_BxTxGxQxd, k_BxTxGxd, v_BxTxGxd, segments_BxT)


def _on_one_device(q_BxTxGxQxd: jax.Array, k_BxTxGxd: jax.Array, v_BxTxGxd: jax.Array, segments_BxT: jax.Array,
                   interpret: bool) -> jax.Array:
  # Imported where it is used: it is slow to import, and JAX calls it experimental.
  from jax.experimental.pallas.ops.tpu.splash_attention import BlockSizes, CausalMask, MultiHeadMask, SegmentIds, make_splash_mha

  batch, length, groups, queries, dim = q_BxTxGxQxd.shape
  block = next(size for size in (_BLOCK, _BLOCK // 2, LANES) if length % size == 0)
  forward, backward = ("q", "kv", "kv_compute"), ("q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
  sizes = BlockSizes(**{f"block_{name}": block for name in (*forward, *backward)})
  mask = MultiHeadMask([CausalMask((length, length))] * (groups * queries))
  attention = make_splash_mha(mask, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret)
  scale = np.float32(dim**-0.5)
  q_BxHxTxd = jnp.moveaxis((q_BxTxGxQxd * scale.astype(q_BxTxGxQxd.dtype)).reshape(batch, length, groups * queries, dim), 1, 2)
  k_BxGxTxd, v_BxGxTxd = jnp.moveaxis(k_BxTxGxd, 1, 2), jnp.moveaxis(v_BxTxGxd, 1, 2)
  one = lambda q_HxTxd, k_GxTxd, v_GxTxd, segments_T: attention(
      q_HxTxd, k_GxTxd, v_GxTxd, segment_ids=SegmentIds(q=segments_T, kv=segments_T))
  y_BxHxTxd = jax.vmap(one)(q_BxHxTxd, k_BxGxTxd, v_BxGxTxd, segments_BxT)
  return jnp.moveaxis(y_BxHxTxd, 1, 2).reshape(q_BxTxGxQxd.shape)
