"""Softmax attention with full [T, T] scores; its backward pass keeps only the probabilities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

_MASKED = np.float32(-1e30)  # A score whose exponential is 0 beside any other.


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


def attend(q_BxTxGxQxd: jax.Array, k_BxSxGxd: jax.Array, v_BxSxGxd: jax.Array, mask_Bx1xTxS: jax.Array) -> jax.Array:
  """Softmax attention with whole scores; the Q queries of a group share its key and value. Returns [B, T, G, Q, d].

  S is T where queries read their own window, more where they read a cache.
  """
  scale = np.float32(q_BxTxGxQxd.shape[-1] ** -0.5).astype(q_BxTxGxQxd.dtype)
  q_BxGxQxTxd = jnp.moveaxis(q_BxTxGxQxd * scale, 1, 3)
  k_BxGxSxd, v_BxGxSxd = jnp.swapaxes(k_BxSxGxd, 1, 2), jnp.swapaxes(v_BxSxGxd, 1, 2)
  return jnp.moveaxis(_attend(q_BxGxQxTxd, k_BxGxSxd, v_BxGxSxd, mask_Bx1xTxS[:, None]), 3, 1)


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
