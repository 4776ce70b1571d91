"""The key/value cache for generation: keys and values of earlier tokens, kept for those that follow.

A cache has room for S tokens a row. The rows of a batch fill the same columns of it; one with a shorter text has padding before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxsplit.models.family import ModelConfig
from jaxsplit.models.kernels import blocks, dense
from jaxsplit.models.modules import layers_a_turn


class Tree(NamedTuple):
  """Where the tokens of a row stand if texts that begin alike share their beginnings: a prefix tree, or several, depth first.

  A token sees itself and those on the path to it: of the columns up to its own, those from `first` on whose `end` it is before.

  Attributes:
    depth_BxT: int32, the position of each token in its text.
    first_BxT: int32, the column where the document begins that it is in.
    end_BxT: int32, the column behind the last that descends from it.
  """

  depth_BxT: jax.Array
  first_BxT: jax.Array
  end_BxT: jax.Array


class Cache(NamedTuple):
  """What was read so far.

  Attributes:
    k_LxBxSxGxd, v_LxBxSxGxd: keys and values of every layer, in the compute dtype.
    length: int32, how many columns are filled.
    first_B: int32, each row's first column of text.
    start_B: int32, the column where the document begins that each row reads on with.
    tree: of the tokens that are read next, which are then the first; None where every row is one text.
  """

  k_LxBxSxGxd: jax.Array
  v_LxBxSxGxd: jax.Array
  length: jax.Array
  first_B: jax.Array
  start_B: jax.Array
  tree: Tree | None = None

  @property
  def room(self) -> int:
    """S."""
    return self.k_LxBxSxGxd.shape[2]


def empty(config: ModelConfig, first_B: jax.Array, room: int) -> Cache:
  """A cache with nothing in it, for rows whose text begins at the columns `first_B`."""
  shape = (config.depth, first_B.shape[0], room, config.kv_heads, config.head_dim)
  none, first_B = jnp.zeros(shape, config.dtype), first_B.astype(jnp.int32)
  return Cache(none, none, jnp.int32(0), first_B, first_B)


def for_tree(config: ModelConfig, tree: Tree) -> Cache:
  """A cache with nothing in it, to read rows of prefix trees with."""
  rows, room = tree.depth_BxT.shape
  return empty(config, jnp.zeros(rows, jnp.int32), room)._replace(tree=tree)


def positions(cache: Cache, count: int) -> jax.Array:
  """Where in its text each of the next `count` columns lies: int32 [B, T]; 0 for padding."""
  if cache.tree:
    return cache.tree.depth_BxT
  return jnp.maximum(cache.length + jnp.arange(count)[None] - cache.first_B[:, None], 0)


def through_layers_on(config: ModelConfig, layers: nnx.Module, x_BxTxD: jax.Array, cache: Cache, tokens_BxT: jax.Array,
                      end_of_document: int, *shared: Any) -> tuple[jax.Array, Cache]:
  """As `modules.through_layers`, of tokens that follow those in the cache, which has room for them.

  Args:
    layers: called with the hidden states, an attention that reads the cache, and `shared`. Their parameters are stacked, or those of
      each apart (`ModelConfig.layers_apart`).
    tokens_BxT: the tokens that the hidden states are of.

  Returns:
    Hidden states after all layers [B, T, D], and the cache with these tokens.
  """
  starts_BxT, start_B = _starts(config, cache, tokens_BxT, end_of_document)
  by_blocks = cache.tree and blocks.suits()
  column_S, column_T = jnp.arange(cache.room), cache.length + jnp.arange(tokens_BxT.shape[1])
  mask_BxTxS = (column_S[None, None] <= column_T[None, :, None]) & (column_S[None, None] >= starts_BxT[..., None])
  if cache.tree:
    mask_BxTxS &= column_T[None, :, None] < cache.tree.end_BxT[:, None]
  graph, weights = nnx.split(layers)

  def layer(x_BxTxD, of_layer):
    weights, *old = of_layer
    kept = []

    def attend(q_BxTxGxQxd, k_BxTxGxd, v_BxTxGxd):
      kept.extend(jax.lax.dynamic_update_slice_in_dim(there, new, cache.length, axis=1) for there, new in zip(old, (k_BxTxGxd, v_BxTxGxd)))
      if by_blocks:
        return blocks.attend(q_BxTxGxQxd, k_BxTxGxd, v_BxTxGxd, starts_BxT, cache.tree.end_BxT)
      return dense.attend(q_BxTxGxQxd, *kept, mask_BxTxS[:, None])

    return nnx.merge(graph, weights)(x_BxTxD, attend, *shared), tuple(kept)

  k, v, is_apart = cache.k_LxBxSxGxd, cache.v_LxBxSxGxd, lambda value: isinstance(value, tuple)
  if any(map(is_apart, jax.tree.leaves(weights, is_leaf=is_apart))):
    for i in range(config.depth):
      own = jax.tree.map(lambda value: value[i], weights, is_leaf=is_apart)
      x_BxTxD, (k_BxSxGxd, v_BxSxGxd) = layer(x_BxTxD, (own, k[i], v[i]))
      k, v = k.at[i].set(k_BxSxGxd), v.at[i].set(v_BxSxGxd)
  else:
    x_BxTxD, (k, v) = jax.lax.scan(layer, x_BxTxD, (weights, k, v), unroll=layers_a_turn(config))
  return x_BxTxD, Cache(k, v, cache.length + tokens_BxT.shape[1], cache.first_B, start_B)


def _starts(config: ModelConfig, cache: Cache, tokens_BxT: jax.Array, end_of_document: int) -> tuple[jax.Array, jax.Array]:
  """The column where each token's document begins [B, T], and where that of the next token does [B]."""
  if cache.tree:
    return cache.tree.first_BxT, cache.start_B
  if not config.document_masking:
    return jnp.broadcast_to(cache.first_B[:, None], tokens_BxT.shape), cache.first_B
  columns_T = cache.length + jnp.arange(tokens_BxT.shape[1])
  after_BxT = jnp.where(tokens_BxT == end_of_document, columns_T + 1, 0)
  starts_BxT1 = jax.lax.cummax(jnp.concatenate([cache.start_B[:, None], after_BxT], axis=1), axis=1)
  return starts_BxT1[:, :-1], starts_BxT1[:, -1]
