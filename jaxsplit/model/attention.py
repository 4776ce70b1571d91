"""Causal self-attention over packed documents."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def segments(tokens_BxT: jax.Array, end_of_document: int) -> jax.Array:
  """Numbers the documents in each window: int32 [B, T], rising by one after every end-of-document token."""
  ends_BxT = (tokens_BxT == end_of_document).astype(jnp.int32)
  return jnp.cumsum(ends_BxT, axis=1) - ends_BxT


def causal_mask(segments_BxT: jax.Array | None, length: int) -> jax.Array:
  """Which keys a query may see: bool [B or 1, 1, T, T]; itself and earlier positions of its own document."""
  mask_1x1xTxT = jnp.tril(jnp.ones((length, length), bool))[None, None]
  if segments_BxT is None:
    return mask_1x1xTxT
  return mask_1x1xTxT & (segments_BxT[:, None, :, None] == segments_BxT[:, None, None, :])


def rotate(x_BxTxHxd: jax.Array, positions_T: jax.Array, theta: float) -> jax.Array:
  """Rotary position embedding (arXiv 2104.09864): pairs (i, i + d/2) turn by positions * theta^(-2i/d)."""
  half = x_BxTxHxd.shape[-1] // 2
  angles_Txh = positions_T[:, None] * theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
  cos_Tx1xh, sin_Tx1xh = jnp.cos(angles_Txh)[:, None], jnp.sin(angles_Txh)[:, None]
  first, second = jnp.split(x_BxTxHxd.astype(jnp.float32), 2, axis=-1)
  rotated = jnp.concatenate([first * cos_Tx1xh - second * sin_Tx1xh, second * cos_Tx1xh + first * sin_Tx1xh], axis=-1)
  return rotated.astype(x_BxTxHxd.dtype)


def attend(q_BxTxHxd: jax.Array, k_BxTxGxd: jax.Array, v_BxTxGxd: jax.Array, mask_Bx1xTxT: jax.Array) -> jax.Array:
  """Softmax attention; H query heads share G key/value heads. Returns [B, T, H, d]."""
  return jax.nn.dot_product_attention(q_BxTxHxd, k_BxTxGxd, v_BxTxGxd, mask=mask_Bx1xTxT)
