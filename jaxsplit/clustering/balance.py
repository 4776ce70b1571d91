"""Clusters of one size: every cluster has a price, which is added to its squared distances.

This is optimal transport from the points to K clusters that each take the same share of the tokens, solved in its dual (a power
diagram): K prices, at which every point goes where it is cheapest. c-BTM's balanced assignment solves the same problem by an
auction over the points of one batch; prices instead hold for points that come later, need memory for K numbers, and come out of
the same passes over blocks as k-means. What they cannot do is to part points that are the same: a document goes one way.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsplit.clustering.kmeans import Pass, look, moved

_PASSES = 400  # In search of prices, at most.
_FIRST_STEP = 0.05  # Of the mean squared distance.


class _Prices(NamedTuple):
  """Prices, how far each is moved at a time, and whether it went up (1), down (-1) or stayed (0) [K]."""

  now: jax.Array
  step: jax.Array
  way: jax.Array


@functools.partial(jax.jit, static_argnames="block")
def balanced_lloyd(x_NxF: jax.Array, weight_N: jax.Array, size_N: jax.Array, centroids_KxF: jax.Array, iterations: int,
                   block: int) -> tuple[jax.Array, jax.Array]:
  """Lloyd's iterations that move prices as well as centroids. Returns centroids [K, F] and prices [K]."""

  def step(_, state):
    centroids_KxF, prices = state
    seen = look(x_NxF, weight_N, centroids_KxF, prices.now, block)
    return moved(x_NxF, weight_N, centroids_KxF, seen), _adjusted(prices, _sizes(seen, size_N), 0.0)

  start = centroids_KxF, _first(x_NxF, weight_N, centroids_KxF, jnp.zeros(len(centroids_KxF)), block)
  centroids_KxF, prices = jax.lax.fori_loop(0, iterations, step, start)
  return centroids_KxF, prices.now


@functools.partial(jax.jit, static_argnames="block")
def settle(x_NxF: jax.Array, weight_N: jax.Array, size_N: jax.Array, centroids_KxF: jax.Array, prices_K: jax.Array,
           tolerance: float, block: int) -> jax.Array:
  """The prices [K] at which no cluster's size is off the mean by more than `tolerance` times that, or the best found."""

  def step(state):
    i, prices, best_K, least = state
    sizes_K = _sizes(look(x_NxF, weight_N, centroids_KxF, prices.now, block), size_N)
    off = jnp.abs(sizes_K / sizes_K.mean() - 1).max()
    best_K = jnp.where(off < least, prices.now, best_K)
    return i + 1, _adjusted(prices, sizes_K, tolerance), best_K, jnp.minimum(off, least)

  start = 0, _first(x_NxF, weight_N, centroids_KxF, prices_K, block), prices_K, jnp.inf
  return jax.lax.while_loop(lambda s: (s[0] < _PASSES) & (s[3] > tolerance), step, start)[2]


def _first(x_NxF, weight_N, centroids_KxF, prices_K, block) -> _Prices:
  seen = look(x_NxF, weight_N, centroids_KxF, prices_K, block)
  step = _FIRST_STEP * (weight_N @ seen.squared) / weight_N.sum()
  return _Prices(prices_K, jnp.full(len(prices_K), step), jnp.zeros(len(prices_K)))


def _sizes(seen: Pass, size_N: jax.Array) -> jax.Array:
  return jax.ops.segment_sum(size_N, seen.cluster, len(seen.weights))


def _adjusted(prices: _Prices, sizes_K: jax.Array, tolerance: float) -> _Prices:
  """Prices of too large clusters go up, of too small ones down: further each time in one way, half as far where they turn."""
  excess_K = sizes_K / sizes_K.mean() - 1
  way_K = jnp.where(jnp.abs(excess_K) > tolerance / 2, jnp.sign(excess_K), 0)
  same_K = way_K * prices.way
  step_K = prices.step * jnp.where(same_K > 0, 1.2, jnp.where(same_K < 0, 0.5, 1))
  moved_K = prices.now + way_K * step_K
  return _Prices(moved_K - moved_K.mean(), step_K, way_K)
