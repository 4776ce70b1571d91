"""Causal self-attention over packed documents, by the kernel that suits the model and the device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplit.model import cudnn, splash
from jaxsplit.model.config import ModelConfig


def segments(tokens_BxT: jax.Array, end_of_document: int) -> jax.Array:
  """Numbers the documents in each window: int32 [B, T], rising by one after every end-of-document token."""
  ends_BxT = (tokens_BxT == end_of_document).astype(jnp.int32)
  return jnp.cumsum(ends_BxT, axis=1) - ends_BxT


def kernel(config: ModelConfig) -> Literal["dense", "splash", "cudnn"]:
  """What computes this model's attention here."""
  if config.attention != "auto":
    return config.attention
  shape = config.sequence_length, config.head_dim
  if splash.suits(*shape) and jax.default_backend() == "tpu":
    return "splash"
  if cudnn.suits(*shape) and not config.document_masking and config.compute_dtype != "float32" and cudnn.is_here():
    return "cudnn"
  return "dense"


def attender(config: ModelConfig, tokens_BxT: jax.Array, end_of_document: int) -> Callable[..., jax.Array]:
  """The model's attention over these windows: a function of q [B, T, G, Q, d], k and v [B, T, G, d] that gives [B, T, G, Q, d].

  The Q queries of a group share its key and value. Made once, outside the scan over layers.
  """
  if kernel(config) == "cudnn":
    return cudnn.attend
  segments_BxT = segments(tokens_BxT, end_of_document) if config.document_masking else None
  if kernel(config) == "splash":
    return functools.partial(splash.attend, segments_BxT=jnp.zeros_like(tokens_BxT) if segments_BxT is None else segments_BxT)
  return functools.partial(dense, mask_Bx1xTxT=causal_mask(segments_BxT, tokens_BxT.shape[1]))


def causal_mask(segments_BxT: jax.Array | None, length: int) -> jax.Array:
  """Which keys a query may see: bool [B or 1, 1, T, T]; itself and earlier positions of its own document."""
  mask_1x1xTxT = jnp.tril(jnp.ones((length, length), bool))[None, None]
  if segments_BxT is None:
    return mask_1x1xTxT
  return mask_1x1xTxT & (segments_BxT[:, None, :, None] == segments_BxT[:, None, None, :])


class Rotation(NamedTuple):
  """What rotary embeddings (arXiv 2104.09864) multiply by: cosines and sines of position * theta^(-2i/d), [T, d / 2] each."""

  cos_Txh: jax.Array
  sin_Txh: jax.Array


def rotation(length: int, head_dim: int, theta: float) -> Rotation:
  """The rotation of positions 0 to length - 1. Made once, outside the scan over layers."""
  half = head_dim // 2
  angles_Txh = np.arange(length)[:, None] * theta ** (-np.arange(half) / half)
  return Rotation(jnp.asarray(np.cos(angles_Txh), jnp.float32), jnp.asarray(np.sin(angles_Txh), jnp.float32))


def rotate(x_BxTxGxPxd: jax.Array, rotation: Rotation) -> jax.Array:
  """Turns the pairs (i, i + d/2) of every head by its position's angles."""
  cos_Tx1x1xh, sin_Tx1x1xh = (a[:, None, None] for a in rotation)
  first, second = jnp.split(x_BxTxGxPxd.astype(jnp.float32), 2, axis=-1)
  rotated = jnp.concatenate([first * cos_Tx1x1xh - second * sin_Tx1x1xh, second * cos_Tx1x1xh + first * sin_Tx1x1xh], axis=-1)
  return rotated.astype(x_BxTxGxPxd.dtype)


def dense(q_BxTxGxQxd: jax.Array, k_BxTxGxd: jax.Array, v_BxTxGxd: jax.Array, mask_Bx1xTxT: jax.Array) -> jax.Array:
  """Softmax attention with whole scores; the Q queries of a group share its key and value. Returns [B, T, G, Q, d]."""
  batch, length, groups, queries, dim = q_BxTxGxQxd.shape
  q_BxTxHxd = q_BxTxGxQxd.reshape(batch, length, groups * queries, dim)
  return jax.nn.dot_product_attention(q_BxTxHxd, k_BxTxGxd, v_BxTxGxd, mask=mask_Bx1xTxT).reshape(q_BxTxGxQxd.shape)
