"""cuDNN's flash attention on NVIDIA GPUs, as jax.nn.dot_product_attention offers it: no [T, T] scores, masked blocks skipped.

It masks what is later. Documents are kept apart by coordinates of their own: queries and keys get, beside their d, the binary
digits of their document's number as +-c. In one document these add the same to every score, which softmax does not see; a key of
another document differs in a digit at least, and its score is lowered until its exponential is 0. (A bias [B, 1, T, T] is no
way to do it: JAX asks cuDNN for its gradient, which there is for a batch of one only, jax-ml/jax#30593, and cannot map it over runs.)
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.extend import backend

from jaxsplit.model import kernel

_APART = 256  # How much less, at least, a key of another document scores.


def width(length: int, head_dim: int, documents: bool) -> int:
  """The width of a head as the kernel has it, with the digits of as many documents as a window may hold, in multiples of 8."""
  return head_dim + (8 * math.ceil((length - 1).bit_length() / 8) if documents else 0)


def suits(length: int, head_dim: int) -> bool:
  """Whether some GPU's kernel takes such shapes."""
  return length % 2 == 0 and head_dim % 8 == 0 and head_dim <= 128


def widest() -> int:
  """The widest head that the kernel trains on this process's GPU: 128 from Ampere on, 256 on Hopper; 0 where there is none."""
  if "cuda" not in backend.get_backend().platform_version:
    return 0
  capability = float(jax.local_devices()[0].compute_capability)
  return 256 if 9 <= capability < 10 else 128 if capability >= 8 else 0


def attend(q_BxTxGxQxd: jax.Array, k_BxTxGxd: jax.Array, v_BxTxGxd: jax.Array, *segments_BxT: jax.Array,
           implementation: str = "cudnn") -> jax.Array:
  """Causal attention in bfloat16; the Q queries of a group share its key and value. Returns [B, T, G, Q, d].

  Args:
    segments_BxT: the number of each position's document, from 0, where attention is to stay inside it.
    implementation: what jax.nn.dot_product_attention computes by; "xla" runs anywhere, to test the rest.
  """
  on_one_device = lambda *arrays: _on_one_device(*arrays, implementation=implementation)
  return kernel.on_each_device(on_one_device, q_BxTxGxQxd, k_BxTxGxd, v_BxTxGxd, *segments_BxT)


def _on_one_device(q_BxTxGxQxd: jax.Array, k_BxTxGxd: jax.Array, v_BxTxGxd: jax.Array, *segments_BxT: jax.Array,
                   implementation: str) -> jax.Array:
  batch, length, groups, queries, dim = q_BxTxGxQxd.shape
  q_BxTxHxd = q_BxTxGxQxd.reshape(batch, length, groups * queries, dim)
  for numbers_BxT in segments_BxT:
    wider = width(length, dim, documents=True) - dim
    digits_BxTx1xe = _digits(numbers_BxT, wider, dim).astype(q_BxTxHxd.dtype)[:, :, None]
    q_BxTxHxd, k_BxTxGxd = (
        jnp.concatenate([x, jnp.broadcast_to(digits_BxTx1xe, (*x.shape[:3], wider))], axis=-1) for x in (q_BxTxHxd, k_BxTxGxd))
    v_BxTxGxd = jnp.pad(v_BxTxGxd, ((0, 0), (0, 0), (0, 0), (0, wider)))
  y_BxTxHxd = jax.nn.dot_product_attention(
      q_BxTxHxd, k_BxTxGxd, v_BxTxGxd, scale=dim**-0.5, is_causal=True, implementation=implementation)
  return y_BxTxHxd[..., :dim].reshape(q_BxTxGxQxd.shape)


def _digits(numbers_BxT: jax.Array, wide: int, dim: int) -> jax.Array:
  """The binary digits of numbers below T as +-c, and zeros: [B, T, wide]. c is a power of two, which bfloat16 has exactly, and
  2 c^2 / sqrt(dim), what one digit tells apart, is enough."""
  c = 2.0 ** math.ceil(math.log2(_APART * dim**0.5 / 2) / 2)
  count = (numbers_BxT.shape[1] - 1).bit_length()
  digits_BxTxn = c * (2 * (numbers_BxT[..., None] >> jnp.arange(count) & 1) - 1)
  return jnp.pad(digits_BxTxn, ((0, 0), (0, 0), (0, wide - count)))
