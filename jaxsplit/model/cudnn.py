"""cuDNN's flash attention on NVIDIA GPUs, as jax.nn.dot_product_attention offers it: no [T, T] scores, masked blocks skipped.

For causal attention alone. Documents would have to be kept apart by a bias [B, 1, T, T]; JAX then asks cuDNN for the bias's
gradient, which it gives for a batch of one only (jax-ml/jax#30593), and cannot map such a bias over runs.
"""

from __future__ import annotations

import jax
from jax.extend import backend

from jaxsplit.model import kernel

_CAPABILITY = 8.0  # Of the GPU: Ampere and newer.


def suits(length: int, head_dim: int) -> bool:
  """Whether the kernel takes such shapes, on every GPU that has it."""
  return length % 2 == 0 and head_dim % 8 == 0 and head_dim <= 128


def is_here() -> bool:
  """Whether this process computes on a GPU that has it."""
  return "cuda" in backend.get_backend().platform_version and float(jax.local_devices()[0].compute_capability) >= _CAPABILITY


def attend(q_BxTxGxQxd: jax.Array, k_BxTxGxd: jax.Array, v_BxTxGxd: jax.Array) -> jax.Array:
  """Causal attention in bfloat16; the Q queries of a group share its key and value. Returns [B, T, G, Q, d]."""
  return kernel.on_each_device(_on_one_device, q_BxTxGxQxd, k_BxTxGxd, v_BxTxGxd)


def _on_one_device(q_BxTxGxQxd: jax.Array, k_BxTxGxd: jax.Array, v_BxTxGxd: jax.Array) -> jax.Array:
  batch, length, groups, queries, dim = q_BxTxGxQxd.shape
  q_BxTxHxd = q_BxTxGxQxd.reshape(batch, length, groups * queries, dim)
  y_BxTxHxd = jax.nn.dot_product_attention(q_BxTxHxd, k_BxTxGxd, v_BxTxGxd, is_causal=True, implementation="cudnn")
  return y_BxTxHxd.reshape(q_BxTxGxQxd.shape)
