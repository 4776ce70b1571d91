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

  def layer(x_BxTxD, weights, old, index=()):
    """One layer; `old` are its keys and values, or those of all layers and `index` says which is its own. Also returns the new ones."""
    kept = []

    def attend(q_BxTxGxQxd, k_BxTxGxd, v_BxTxGxd):
      for there, new in zip(old, (k_BxTxGxd, v_BxTxGxd)):
        new = jnp.expand_dims(new, range(len(index)))
        kept.append(jax.lax.dynamic_update_slice(there, new, (*index, 0, cache.length, 0, 0)))
      if by_blocks:
        return blocks.attend(q_BxTxGxQxd, k_BxTxGxd, v_BxTxGxd, starts_BxT, cache.tree.end_BxT)
      return dense.attend(q_BxTxGxQxd, *(values[index] for values in kept), mask_BxTxS[:, None])

    return nnx.merge(graph, weights)(x_BxTxD, attend, *shared), tuple(kept)

  old, is_apart = (cache.k_LxBxSxGxd, cache.v_LxBxSxGxd), lambda value: isinstance(value, tuple)
  if any(map(is_apart, jax.tree.leaves(weights, is_leaf=is_apart))):
    for i in range(config.depth):  # The new columns are written where they belong; no layer's keys and values are copied.
      x_BxTxD, old = layer(x_BxTxD, jax.tree.map(lambda value: value[i], weights, is_leaf=is_apart), old, (i,))
  else:
    # Weights are not what is scanned over: beside an axis of runs XLA would first copy all of them, to bring that of layers to the front.
    own = lambda index: jax.tree.map(lambda value: jax.lax.dynamic_index_in_dim(value, index, keepdims=False), weights)
    x_BxTxD, old = jax.lax.scan(lambda x_BxTxD, of: layer(x_BxTxD, own(of[0]), of[1:]), x_BxTxD, (jnp.arange(config.depth), *old),
                                unroll=layers_a_turn(config))
  return x_BxTxD, Cache(*old, cache.length + tokens_BxT.shape[1], cache.first_B, start_B)


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
