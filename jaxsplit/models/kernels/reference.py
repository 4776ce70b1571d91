"""Reference implementations of all kernels in plain JAX, with its automatic derivatives; tests compare the kernels with them."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsplit.models.kernels.rotary import Rotation


def rms_norm(x: jax.Array, scale: jax.Array) -> jax.Array:
  """x / rms(x) * scale over the last axis, computed in float32."""
  x32 = x.astype(jnp.float32)
  return (x32 / jnp.sqrt(jnp.mean(x32**2, axis=-1, keepdims=True) + 1e-6) * scale).astype(x.dtype)


def project(x: jax.Array, weights: jax.Array, axes: int = 1) -> jax.Array:
  """Contracts the last `axes` axes of x with the first of the weights."""
  return jnp.tensordot(x, weights, axes)


def split_last(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
  """x without its last slice along an axis, and that slice."""
  return jax.lax.slice_in_dim(x, 0, -1, axis=axis), jax.lax.index_in_dim(x, -1, axis, keepdims=False)


def rotate(x_BxTxGxPxd: jax.Array, rotation: Rotation) -> jax.Array:
  """Turns the pairs (i, i + d/2) as complex numbers."""
  first, second = jnp.split(x_BxTxGxPxd.astype(jnp.float32), 2, axis=-1)
  turned = (first + 1j * second) * (rotation.cos_Txh + 1j * rotation.sin_Txh)[None, :, None, None]
  return jnp.concatenate([turned.real, turned.imag], axis=-1).astype(x_BxTxGxPxd.dtype)


def attend(q_BxTxGxQxd: jax.Array, k_BxTxGxd: jax.Array, v_BxTxGxd: jax.Array, segments_BxT: jax.Array) -> jax.Array:
  """Causal softmax attention inside segments: what dense, splash and cuDNN's attention compute. Returns [B, T, G, Q, d]."""
  position_T = jnp.arange(q_BxTxGxQxd.shape[1])
  seen_BxTxS = (position_T[:, None] >= position_T)[None] & (segments_BxT[:, :, None] == segments_BxT[:, None])
  scores_BxGxQxTxS = jnp.einsum("BTGQd,BSGd->BGQTS", q_BxTxGxQxd, k_BxTxGxd) / q_BxTxGxQxd.shape[-1] ** 0.5
  p_BxGxQxTxS = jax.nn.softmax(jnp.where(seen_BxTxS[:, None, None], scores_BxGxQxTxS, -jnp.inf), axis=-1)
  return jnp.einsum("BGQTS,BSGd->BTGQd", p_BxGxQxTxS, v_BxTxGxd)
