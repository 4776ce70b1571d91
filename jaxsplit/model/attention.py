"""Causal self-attention over packed documents, by the kernel that suits the model and the device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.model import cudnn, splash
from jaxsplit.model.config import ModelConfig

_MASKED = np.float32(-1e30)  # A score whose exponential is 0 beside any other.


def segments(tokens_BxT: jax.Array, end_of_document: int) -> jax.Array:
  """Numbers the documents in each window: int32 [B, T], rising by one after every end-of-document token."""
  ends_BxT = (tokens_BxT == end_of_document).astype(jnp.int32)
  return jnp.cumsum(ends_BxT, axis=1) - ends_BxT


def kernel(config: ModelConfig) -> Literal["dense", "splash", "cudnn"]:
  """What computes this model's attention here, or as the config has it, which may be for another machine.

  Raises:
    InputError: cudnn was asked for, and heads are too wide for the GPU that is here.
  """
  shape = config.sequence_length, config.head_dim
  wide, widest = cudnn.width(*shape, config.document_masking), cudnn.widest()
  if config.attention == "cudnn" and 0 < widest < wide:
    raise InputError(f"Architecture.attention = 'cudnn' makes heads {wide} wide of Architecture.head_dim = {config.head_dim}, to keep "
                     f"documents apart, and this GPU takes {widest}; use 'auto'")
  if config.attention != "auto":
    return config.attention
  if splash.suits(*shape) and jax.default_backend() == "tpu":
    return "splash"
  if cudnn.suits(*shape) and wide <= widest and config.compute_dtype != "float32":
    return "cudnn"
  return "dense"


def check_here(config: ModelConfig) -> None:
  """Refuses a kernel that the devices which are here do not have.

  Raises:
    InputError: it says which they are.
  """
  needs = {"splash": "tpu", "cudnn": "cuda"}.get(kernel(config))
  platform = jax.devices()[0].client.platform_version if needs == "cuda" else jax.default_backend()
  if needs and needs not in platform:
    raise InputError(f"Architecture.attention = {config.attention!r} needs {needs.upper()} devices, and here is "
                     f"{jax.devices()[0].device_kind}; use 'auto'")


def attender(config: ModelConfig, tokens_BxT: jax.Array, end_of_document: int) -> Callable[..., jax.Array]:
  """The model's attention over these windows: a function of q [B, T, G, Q, d], k and v [B, T, G, d] that gives [B, T, G, Q, d].

  The Q queries of a group share its key and value. Made once, outside the scan over layers.
  """
  if kernel(config) == "cudnn":
    digits = cudnn.digits(segments(tokens_BxT, end_of_document), config.head_dim) if config.document_masking else None
    return functools.partial(cudnn.attend, digits_BxTxe=digits)
  if kernel(config) == "splash":
    apart = segments(tokens_BxT, end_of_document) if config.document_masking else jnp.zeros_like(tokens_BxT)
    return functools.partial(splash.attend, segments_BxT=apart)
  starts_BxT = document_starts(tokens_BxT, end_of_document) if config.document_masking else None
  return functools.partial(dense, mask_Bx1xTxT=causal_mask(starts_BxT, tokens_BxT.shape[1]))


def document_starts(tokens_BxT: jax.Array, end_of_document: int) -> jax.Array:
  """Where in its window each token's document begins: int32 [B, T], 0 up to and with the first end-of-document token."""
  ends_BxT = jnp.pad(tokens_BxT[:, :-1] == end_of_document, ((0, 0), (1, 0)))
  return jax.lax.cummax(jnp.where(ends_BxT, jnp.arange(tokens_BxT.shape[1])[None], 0), axis=1)


def causal_mask(starts_BxT: jax.Array | None, length: int) -> jax.Array:
  """Which keys a query may see: bool [B or 1, 1, T, T]; itself and earlier positions, from the start of its document on.

  A query's start, and nothing of the keys' documents, makes a row of the mask one comparison, which is all that attention then
  computes again in every layer.
  """
  position_T = jnp.arange(length)
  mask_1x1xTxT = (position_T[:, None] >= position_T[None])[None, None]
  if starts_BxT is None:
    return mask_1x1xTxT
  return mask_1x1xTxT & (starts_BxT[:, None, :, None] <= position_T[None, None, None])


class Rotation(NamedTuple):
  """What rotary embeddings (arXiv 2104.09864) multiply by: cosines and sines of position * theta^(-2i/d), [T, d / 2] each."""

  cos_Txh: jax.Array
  sin_Txh: jax.Array


def rotation(length: int, head_dim: int, theta: float) -> Rotation:
  """The rotation of positions 0 to length - 1. Made once, outside the scan over layers."""
  half = head_dim // 2
  angles_Txh = np.arange(length)[:, None] * theta ** (-np.arange(half) / half)
  return Rotation(jnp.asarray(np.cos(angles_Txh), jnp.float32), jnp.asarray(np.sin(angles_Txh), jnp.float32))


@jax.custom_vjp
def rotate(x_BxTxGxPxd: jax.Array, rotation: Rotation) -> jax.Array:
  """Turns the pairs (i, i + d/2) of every head by its position's angles. Its derivative turns back."""
  cos_1xTx1x1xh, sin_1xTx1x1xh = (a[None, :, None, None] for a in rotation)
  first, second = jnp.split(x_BxTxGxPxd.astype(jnp.float32), 2, axis=-1)
  rotated = jnp.concatenate(
      [first * cos_1xTx1x1xh - second * sin_1xTx1x1xh, second * cos_1xTx1x1xh + first * sin_1xTx1x1xh], axis=-1)
  return rotated.astype(x_BxTxGxPxd.dtype)


rotate.defvjp(
    lambda x_BxTxGxPxd, rotation: (rotate(x_BxTxGxPxd, rotation), rotation),
    lambda rotation, dy_BxTxGxPxd: (rotate(dy_BxTxGxPxd, Rotation(rotation.cos_Txh, -rotation.sin_Txh)), None))


def dense(q_BxTxGxQxd: jax.Array, k_BxTxGxd: jax.Array, v_BxTxGxd: jax.Array, mask_Bx1xTxT: jax.Array) -> jax.Array:
  """Softmax attention with whole scores; the Q queries of a group share its key and value. Returns [B, T, G, Q, d]."""
  scale = np.float32(q_BxTxGxQxd.shape[-1] ** -0.5).astype(q_BxTxGxQxd.dtype)
  q_BxGxQxTxd = jnp.moveaxis(q_BxTxGxQxd * scale, 1, 3)
  k_BxGxTxd, v_BxGxTxd = jnp.swapaxes(k_BxTxGxd, 1, 2), jnp.swapaxes(v_BxTxGxd, 1, 2)
  return jnp.moveaxis(_attend(q_BxGxQxTxd, k_BxGxTxd, v_BxGxTxd, mask_Bx1xTxT[:, None]), 3, 1)


@jax.custom_vjp
def _attend(q_BxGxQxTxd: jax.Array, k_BxGxSxd: jax.Array, v_BxGxSxd: jax.Array, mask_Bx1x1xTxS: jax.Array) -> jax.Array:
  """softmax(q k') v, softmax in float32.

  The derivative is written out: it takes the sum over S of p dp as that of y dy over d (arXiv 2205.14135, section B.2), and
  keeps of [T, S] arrays only p, in the compute dtype. On a CPU that takes a twelfth off a training step.
  """
  return _attend_forward(q_BxGxQxTxd, k_BxGxSxd, v_BxGxSxd, mask_Bx1x1xTxS)[0]


def _attend_forward(q_BxGxQxTxd, k_BxGxSxd, v_BxGxSxd, mask_Bx1x1xTxS):
  scores_BxGxQxTxS = jnp.einsum("BGQTd,BGSd->BGQTS", q_BxGxQxTxd, k_BxGxSxd, preferred_element_type=jnp.float32)
  p_BxGxQxTxS = jax.nn.softmax(jnp.where(mask_Bx1x1xTxS, scores_BxGxQxTxS, _MASKED), axis=-1).astype(v_BxGxSxd.dtype)
  y_BxGxQxTxd = jnp.einsum("BGQTS,BGSd->BGQTd", p_BxGxQxTxS, v_BxGxSxd)
  return y_BxGxQxTxd, (q_BxGxQxTxd, k_BxGxSxd, v_BxGxSxd, p_BxGxQxTxS, y_BxGxQxTxd)


def _attend_backward(kept, dy_BxGxQxTxd):
  q_BxGxQxTxd, k_BxGxSxd, v_BxGxSxd, p_BxGxQxTxS, y_BxGxQxTxd = kept
  dp_BxGxQxTxS = jnp.einsum("BGQTd,BGSd->BGQTS", dy_BxGxQxTxd, v_BxGxSxd, preferred_element_type=jnp.float32)
  mean_BxGxQxTx1 = jnp.sum(dy_BxGxQxTxd.astype(jnp.float32) * y_BxGxQxTxd.astype(jnp.float32), axis=-1, keepdims=True)
  ds_BxGxQxTxS = (p_BxGxQxTxS.astype(jnp.float32) * (dp_BxGxQxTxS - mean_BxGxQxTx1)).astype(q_BxGxQxTxd.dtype)
  return (jnp.einsum("BGQTS,BGSd->BGQTd", ds_BxGxQxTxS, k_BxGxSxd), jnp.einsum("BGQTS,BGQTd->BGSd", ds_BxGxQxTxS, q_BxGxQxTxd),
          jnp.einsum("BGQTS,BGQTd->BGSd", p_BxGxQxTxS, dy_BxGxQxTxd), None)


_attend.defvjp(_attend_forward, _attend_backward)
