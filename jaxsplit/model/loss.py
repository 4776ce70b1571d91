"""Next-token loss in nats, from hidden states, without ever holding a whole window's logits in float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsplit.model.projection import project

_LOGITS_AT_ONCE = 1 << 24  # Elements of [rows, V]: above this, rows are taken in chunks and logits are recomputed backwards.


def logits_at_once(rows: int, vocab: int) -> int:
  """How many of the rows * vocab logits are held at once: those of an even part of the rows."""
  chunks = -(-rows * vocab // _LOGITS_AT_ONCE)
  while rows % chunks:
    chunks += 1
  return rows * vocab // chunks


def token_losses(x_BxTxD: jax.Array, unembed_DxV: jax.Array, targets_BxT: jax.Array) -> jax.Array:
  """Cross-entropy of each target under softmax(x @ unembed): float32 [B, T], nats per token."""
  rows, vocab = targets_BxT.size, unembed_DxV.shape[1]
  x_NxD, targets_N = x_BxTxD.reshape(rows, -1), targets_BxT.reshape(rows)
  unembed_DxV = unembed_DxV.astype(x_BxTxD.dtype)

  def losses(chunk):
    x_CxD, targets_C = chunk
    logits_CxV = project(x_CxD, unembed_DxV, 1, jnp.float32)
    # Not a lookup: over a vocabulary that devices share, a sum is what each adds its part to.
    target_C = jnp.sum(jnp.where(targets_C[:, None] == jnp.arange(vocab)[None], logits_CxV, 0), axis=1)
    return jax.nn.logsumexp(logits_CxV, axis=1) - target_C

  chunks = rows * vocab // logits_at_once(rows, vocab)
  if chunks == 1:
    return losses((x_NxD, targets_N)).reshape(targets_BxT.shape)
  split = lambda a: a.reshape(chunks, rows // chunks, *a.shape[1:])
  return jax.lax.map(jax.checkpoint(losses), (split(x_NxD), split(targets_N))).reshape(targets_BxT.shape)
