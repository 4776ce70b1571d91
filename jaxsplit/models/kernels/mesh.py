"""Attention kernels on a mesh.

The compiler cannot divide a kernel, so over the axes that are left to it (data, tensor) a kernel is mapped by hand: a device has
some sequences' heads whole.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec as P


def on_each_device(kernel: Callable[..., jax.Array], q_BxTxGxQxd: jax.Array, k_BxTxGxd: jax.Array, v_BxTxGxd: jax.Array,
                   *by_sequence: jax.Array) -> jax.Array:
  """`kernel(q, k, v, *by_sequence)`, as [B, T, G, Q, d], of each device's sequences and groups.

  Args:
    kernel: takes and gives what fits on one device.
    by_sequence: arrays [B, ...] that every group of a sequence reads.
  """
  mesh = jax.sharding.get_abstract_mesh()
  free = {"data", "tensor"} & set(mesh.axis_names) - set(mesh.manual_axes)
  if not free:
    return kernel(q_BxTxGxQxd, k_BxTxGxd, v_BxTxGxd, *by_sequence)
  divides = lambda axis, size: axis if axis in free and size % mesh.shape[axis] == 0 else None
  data, tensor = divides("data", q_BxTxGxQxd.shape[0]), divides("tensor", q_BxTxGxQxd.shape[2])
  heads = P(data, None, tensor)
  return jax.shard_map(
      kernel, in_specs=(heads, heads, heads, *[P(data)] * len(by_sequence)), out_specs=heads, axis_names=free, check_vma=False)(
          q_BxTxGxQxd, k_BxTxGxd, v_BxTxGxd, *by_sequence)
