"""Next-token loss in nats from hidden states, in chunks where all logits at once would take too much memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsplit.models.kernels.projection import project

_LOGITS_AT_ONCE = 1 << 24  # Elements of [rows, V]: above this, rows are taken in chunks and logits are recomputed backwards.


def logits_at_once(rows: int, vocab: int) -> int:
  """How many of the rows * vocab logits are held at once: those of an even part of the rows."""
  return -(-rows // _chunks(rows, vocab)) * vocab


def token_losses(x_BxTxD: jax.Array, unembed_DxV: jax.Array, targets_BxT: jax.Array) -> jax.Array:
  """Cross-entropy of each target under softmax(x @ unembed): float32 [B, T], nats per token."""
  losses = lambda logits_CxV, targets_C: jax.nn.logsumexp(logits_CxV, axis=1) - _target(logits_CxV, targets_C)

  return _of_logits(losses, x_BxTxD, unembed_DxV, targets_BxT)


def most_likely(x_BxTxD: jax.Array, unembed_DxV: jax.Array, targets_BxT: jax.Array) -> jax.Array:
  """Whether each target is the most likely token: bool [B, T]."""
  return _of_logits(lambda logits_CxV, targets_C: jnp.argmax(logits_CxV, axis=1) == targets_C, x_BxTxD, unembed_DxV, targets_BxT)


def scores(x_BxTxD: jax.Array, unembed_VxD: jax.Array, targets_BxT: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The log-probability of each target, float32 [B, T] in nats, and whether no token is likelier, bool [B, T], from one pass over the
  logits. Of models whose vocabulary no devices share.

  The output projection is given as tied embeddings lie in memory (of one that is turned over, a loop around this has a copy), and stands
  first in the product: on a CPU, logits of a few dozen targets then take a third less time.
  """
  unembed_VxD = unembed_VxD.astype(x_BxTxD.dtype)

  def of_chunk(x_CxD, targets_C):
    logits_VxC = jax.lax.dot_general(unembed_VxD, x_CxD, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    target_C = jnp.take_along_axis(logits_VxC, targets_C[None], axis=0)[0]
    most_C = jnp.max(logits_VxC, axis=0)
    return target_C - most_C - jnp.log(jnp.sum(jnp.exp(logits_VxC - most_C), axis=0)), target_C >= most_C

  return _in_chunks(of_chunk, x_BxTxD, unembed_VxD.shape[0], targets_BxT)


def _target(logits_CxV: jax.Array, targets_C: jax.Array) -> jax.Array:
  """The logit of each target [C]. Not a lookup: over a vocabulary that devices share, a sum is what each adds its part to."""
  return jnp.sum(jnp.where(targets_C[:, None] == jnp.arange(logits_CxV.shape[1])[None], logits_CxV, 0), axis=1)


def _of_logits(measure: Callable[[jax.Array, jax.Array], Any], x_BxTxD: jax.Array, unembed_DxV: jax.Array, targets_BxT: jax.Array) -> Any:
  """`measure` of float32 logits [C, V] and targets [C], see `_in_chunks`."""
  unembed_DxV = unembed_DxV.astype(x_BxTxD.dtype)
  of_chunk = lambda x_CxD, targets_C: measure(project(x_CxD, unembed_DxV, 1, jnp.float32), targets_C)
  return _in_chunks(of_chunk, x_BxTxD, unembed_DxV.shape[1], targets_BxT)


def _in_chunks(measure: Callable[[jax.Array, jax.Array], Any], x_BxTxD: jax.Array, vocab: int, targets_BxT: jax.Array) -> Any:
  """`measure` of hidden states [C, D] and targets [C], for all rows, in as few chunks as may be for logits [C, V]: an array [B, T], or
  several."""
  rows = targets_BxT.size
  x_NxD, targets_N = x_BxTxD.reshape(rows, -1), targets_BxT.reshape(rows)
  chunks = _chunks(rows, vocab)
  if chunks == 1:
    return jax.tree.map(lambda measured_N: measured_N.reshape(targets_BxT.shape), measure(x_NxD, targets_N))
  filled = -(-rows // chunks) * chunks
  split = lambda a: jnp.pad(a, ((0, filled - rows), *[(0, 0)] * (a.ndim - 1))).reshape(chunks, filled // chunks, *a.shape[1:])
  measured = jax.lax.map(jax.checkpoint(lambda chunk: measure(*chunk)), (split(x_NxD), split(targets_N)))
  return jax.tree.map(lambda measured_AxC: measured_AxC.reshape(filled)[:rows].reshape(targets_BxT.shape), measured)


def _chunks(rows: int, vocab: int) -> int:
  """In how many chunks the rows are taken: no more than twice as many as there must be, and evenly where that can be had.

  Otherwise (rows may be a prime number) the last chunk is filled up.
  """
  least = -(-rows * vocab // _LOGITS_AT_ONCE)
  return next((chunks for chunks in range(least, 2 * least) if rows % chunks == 0), min(least, rows))
