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

from jaxsplit.clustering.kmeans import Pass, lengths, look

_ROUNDS = 20  # Of prices for the centroids, then centroids for the prices.
_PASSES, _PASSES_A_ROUND = 400, 40  # In search of prices, at most.
_FIRST_STEP, _LARGEST_STEP = 0.01, 0.1  # Of the mean squared distance.


class _Prices(NamedTuple):
  """Prices, how far each is moved at a time, and whether it went up (1), down (-1) or stayed (0) [K]; and the largest step."""

  now: jax.Array
  step: jax.Array
  way: jax.Array
  largest: jax.Array


def balanced(x_NxF: jax.Array, weight_N: jax.Array, size_N: jax.Array, centroids_KxF: jax.Array, tolerance: float,
             block: int) -> tuple[jax.Array, jax.Array]:
  """Centroids [K, F] and prices [K] of balanced clusters, from the centroids of clusters that are as they fall.

  Prices first come near the tolerance, and then centroids move to the means, again and again: when both are moved at a time,
  points go to and fro between clusters that have nothing to do with them.
  """
  prices_K = jnp.zeros(len(centroids_KxF))
  for _ in range(_ROUNDS):
    prices_K, _ = settle(x_NxF, weight_N, size_N, centroids_KxF, prices_K, tolerance, _PASSES_A_ROUND, block)
    centroids_KxF = _means(x_NxF, weight_N, centroids_KxF, prices_K, block)
  return centroids_KxF, settle(x_NxF, weight_N, size_N, centroids_KxF, prices_K, tolerance, _PASSES, block)[1]


@functools.partial(jax.jit, static_argnames="block")
def _means(x_NxF: jax.Array, weight_N: jax.Array, centroids_KxF: jax.Array, prices_K: jax.Array, block: int) -> jax.Array:
  seen = look(x_NxF, lengths(x_NxF), weight_N, centroids_KxF, prices_K, block)
  empty_K = seen.weights <= 0
  return jnp.where(empty_K[:, None], centroids_KxF, seen.sums / jnp.where(empty_K, 1, seen.weights)[:, None])


@functools.partial(jax.jit, static_argnames="block")
def settle(x_NxF: jax.Array, weight_N: jax.Array, size_N: jax.Array, centroids_KxF: jax.Array, prices_K: jax.Array,
           tolerance: float, passes: int, block: int) -> tuple[jax.Array, jax.Array]:
  """Looks for prices at which no cluster's size is off the mean by more than `tolerance` times that.

  Returns:
    The prices that were come to [K], and the best ones on the way there [K].
  """

  length_N = lengths(x_NxF)

  def step(state):
    i, prices, best_K, least = state
    sizes_K = _sizes(look(x_NxF, length_N, weight_N, centroids_KxF, prices.now, block), size_N)
    off = jnp.abs(sizes_K / sizes_K.mean() - 1).max()
    best_K = jnp.where(off < least, prices.now, best_K)
    return i + 1, _adjusted(prices, sizes_K, tolerance), best_K, jnp.minimum(off, least)

  start = 0, _first(x_NxF, weight_N, centroids_KxF, prices_K, block), prices_K, jnp.inf
  _, prices, best_K, least = jax.lax.while_loop(lambda s: (s[0] < passes) & (s[3] > tolerance), step, start)
  return jnp.where(least <= tolerance, best_K, prices.now), best_K


def _first(x_NxF, weight_N, centroids_KxF, prices_K, block) -> _Prices:
  seen = look(x_NxF, lengths(x_NxF), weight_N, centroids_KxF, prices_K, block)
  mean = (weight_N @ seen.squared) / weight_N.sum()
  return _Prices(prices_K, jnp.full(len(prices_K), _FIRST_STEP * mean), jnp.zeros(len(prices_K)), _LARGEST_STEP * mean)


def _sizes(seen: Pass, size_N: jax.Array) -> jax.Array:
  return jax.ops.segment_sum(size_N, seen.cluster, len(seen.weights))


def _adjusted(prices: _Prices, sizes_K: jax.Array, tolerance: float) -> _Prices:
  """Prices of too large clusters go up, of too small ones down: further each time in one way, half as far where they turn."""
  excess_K = sizes_K / sizes_K.mean() - 1
  way_K = jnp.where(jnp.abs(excess_K) > tolerance / 2, jnp.sign(excess_K), 0)
  same_K = way_K * prices.way
  step_K = jnp.minimum(prices.step * jnp.where(same_K > 0, 1.2, jnp.where(same_K < 0, 0.5, 1)), prices.largest)
  moved_K = prices.now + way_K * step_K
  return _Prices(moved_K - moved_K.mean(), step_K, way_K, prices.largest)
