"""Splash attention: JAX's flash attention kernel for TPUs (jax.experimental.pallas), on a mesh and under the stack's mapping.

It never holds [T, T] scores and skips blocks that are causally masked. The compiler cannot divide a kernel, so over the axes that
are left to it (data, tensor) the kernel is mapped by hand: a device has some sequences' heads whole.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

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
  here = functools.partial(_on_one_device, interpret=interpret)
  mesh = jax.sharding.get_abstract_mesh()
  free = {"data", "tensor"} & set(mesh.axis_names) - set(mesh.manual_axes)
  if not free:
    return here(q_BxTxGxQxd, k_BxTxGxd, v_BxTxGxd, segments_BxT)
  divides = lambda axis, size: axis if axis in free and size % mesh.shape[axis] == 0 else None
  data, tensor = divides("data", q_BxTxGxQxd.shape[0]), divides("tensor", q_BxTxGxQxd.shape[2])
  heads = P(data, None, tensor)
  return jax.shard_map(here, in_specs=(heads, heads, heads, P(data)), out_specs=heads, axis_names=free, check_vma=False)(
      q_BxTxGxQxd, k_BxTxGxd, v_BxTxGxd, segments_BxT)


def _on_one_device(q_BxTxGxQxd: jax.Array, k_BxTxGxd: jax.Array, v_BxTxGxd: jax.Array, segments_BxT: jax.Array,
                   interpret: bool) -> jax.Array:
  # Imported where it is used: it is slow to import, and JAX calls it experimental.
  from jax.experimental.pallas.ops.tpu.splash_attention import BlockSizes, CausalMask, MultiHeadMask, SegmentIds, make_splash_mha

  batch, length, groups, queries, dim = q_BxTxGxQxd.shape
  block = next(size for size in (_BLOCK, _BLOCK // 2, LANES) if length % size == 0)
  forward, backward = ("q", "kv", "kv_compute"), ("q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
  sizes = BlockSizes(**{f"block_{name}": block for name in (*forward, *backward)})
  mask = MultiHeadMask([CausalMask((length, length))] * (groups * queries))
  kernel = make_splash_mha(mask, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret)
  scale = np.float32(dim**-0.5)
  q_BxHxTxd = jnp.moveaxis((q_BxTxGxQxd * scale.astype(q_BxTxGxQxd.dtype)).reshape(batch, length, groups * queries, dim), 1, 2)
  k_BxGxTxd, v_BxGxTxd = jnp.moveaxis(k_BxTxGxd, 1, 2), jnp.moveaxis(v_BxTxGxd, 1, 2)
  one = lambda q_HxTxd, k_GxTxd, v_GxTxd, segments_T: kernel(
      q_HxTxd, k_GxTxd, v_GxTxd, segment_ids=SegmentIds(q=segments_T, kv=segments_T))
  y_BxHxTxd = jax.vmap(one)(q_BxHxTxd, k_BxGxTxd, v_BxGxTxd, segments_BxT)
  return jnp.moveaxis(y_BxHxTxd, 1, 2).reshape(q_BxTxGxQxd.shape)
