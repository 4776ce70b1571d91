"""cuDNN's flash attention on NVIDIA GPUs, as jax.nn.dot_product_attention offers it: no [T, T] scores, masked blocks skipped.

It masks what is later. Documents are kept apart by coordinates of their own: queries and keys get, beside their d, the binary
digits of their document's number as +-c. In one document these add the same to every score, which softmax does not see; a key of
another document differs in a digit at least, and scores lower by `_APART` or more. (A bias [B, 1, T, T] is no way to do it:
JAX asks cuDNN for its gradient, which there is for a batch of one only, jax-ml/jax#30593, and cannot map it over runs.)
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax.extend import backend

from jaxsplit.models.kernels import mesh

# How much lower. Its exponential is 0 as long as a window's other scores differ by less than some 900; with QK-norm they do by 50.
_APART = 1024


def width(length: int, head_dim: int, documents: bool) -> int:
  """The width of a head as the kernel has it, with the digits of as many documents as a window may hold, in multiples of 8."""
  return head_dim + (8 * math.ceil((length - 1).bit_length() / 8) if documents else 0)


def suits(length: int, head_dim: int) -> bool:
  """Whether the kernel takes such shapes, without digits, on every GPU that has it."""
  return length % 2 == 0 and head_dim % 8 == 0 and head_dim <= 128


def widest() -> int:
  """The widest head that the kernel trains on this process's GPU: 128 from Ampere on, 256 on Hopper; 0 where there is none."""
  if "cuda" not in backend.get_backend().platform_version:
    return 0
  capability = float(jax.local_devices()[0].compute_capability)
  return 256 if 9 <= capability < 10 else 128 if capability >= 8 else 0


def digits(segments_BxT: jax.Array, head_dim: int) -> jax.Array:
  """The coordinates that keep documents apart, from the documents' numbers in each window, 0 to T - 1: bfloat16 [B, T, e].

  c is a power of two, which bfloat16 has exactly, and large enough for 2 c^2 / sqrt(head_dim), what one digit does to a score.
  """
  length = segments_BxT.shape[1]
  count, c = (length - 1).bit_length(), 2.0 ** math.ceil(math.log2(_APART * head_dim**0.5 / 2) / 2)
  digits_BxTxn = c * (2 * (segments_BxT[..., None] >> jnp.arange(count)[None, None] & 1) - 1).astype(jnp.float32)
  wide = width(length, head_dim, documents=True) - head_dim
  return jnp.pad(digits_BxTxn, ((0, 0), (0, 0), (0, wide - count))).astype(jnp.bfloat16)


def attend(q_BxTxGxQxd: jax.Array, k_BxTxGxd: jax.Array, v_BxTxGxd: jax.Array, digits_BxTxe: jax.Array | None = None,
           implementation: str = "cudnn") -> jax.Array:
  """Causal attention in bfloat16; the Q queries of a group share its key and value. Returns [B, T, G, Q, d].

  Args:
    digits_BxTxe: of `digits`, where attention is to stay inside documents.
    implementation: what jax.nn.dot_product_attention computes by; "xla" runs anywhere, to test the rest.
  """
  by_sequence = [] if digits_BxTxe is None else [digits_BxTxe]
  return mesh.on_each_device(
      functools.partial(_on_one_device, implementation=implementation), q_BxTxGxQxd, k_BxTxGxd, v_BxTxGxd, *by_sequence)


def _on_one_device(q_BxTxGxQxd: jax.Array, k_BxTxGxd: jax.Array, v_BxTxGxd: jax.Array, digits_BxTxe: jax.Array | None = None, *,
                   implementation: str) -> jax.Array:
  batch, length, groups, queries, dim = q_BxTxGxQxd.shape
  q_BxTxHxd = q_BxTxGxQxd.reshape(batch, length, groups * queries, dim)
  if digits_BxTxe is not None:
    q_BxTxHxd, k_BxTxGxd = _joined(q_BxTxHxd, digits_BxTxe), _joined(k_BxTxGxd, digits_BxTxe)
    v_BxTxGxd = _joined(v_BxTxGxd, jnp.zeros_like(digits_BxTxe))  # As wide as keys: JAX maps no other, and Ampere has no other.
  y_BxTxHxd = jax.nn.dot_product_attention(
      q_BxTxHxd, k_BxTxGxd, v_BxTxGxd, scale=dim**-0.5, is_causal=True, implementation=implementation)
  return y_BxTxHxd[..., :dim].reshape(q_BxTxGxQxd.shape)


def _joined(x_BxTxHxd: jax.Array, digits_BxTxe: jax.Array) -> jax.Array:
  """Every head with the digits of its position: [B, T, H, d + e]."""
  digits_BxTxHxe = jnp.broadcast_to(digits_BxTxe[:, :, None], (*x_BxTxHxd.shape[:3], digits_BxTxe.shape[-1]))
  return jnp.concatenate([x_BxTxHxd, digits_BxTxHxe.astype(x_BxTxHxd.dtype)], axis=-1)
