"""k-means on the accelerator: k-means++, Lloyd's iterations, minibatches; points have weights, clusters may have prices.

A point belongs to the cluster with the least squared distance plus price; prices are zero but where clusters are to be balanced
(balance.py). Distances are computed for a block of points at a time, so that memory holds the N x F points and nothing of the
size N x K. N points, F features, K clusters.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplit.errors import InputError

_BLOCK_DISTANCES, _BLOCK_POINTS = 1 << 19, 1024  # Of a block, at most: these, and their vectors, stay in a core's cache.
_PRODUCTS_UP_TO = 64  # Clusters whose sums are quicker as a product with zeros and ones than by adding to rows.
_SEEDING_POINTS = 32  # Points a cluster that k-means++ draws from, at most.
_dot = functools.partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)


class KMeans(NamedTuple):
  """Clusters that were found.

  Attributes:
    centroids: float32 [K, F].
    prices: float32 [K].
    weights, sizes: float64 [K], the weight and the size of each cluster's points.
    objective: the weighted sum of squared distances of points from their centroids.
    iterations: how many it took.
  """

  centroids: np.ndarray
  prices: np.ndarray
  weights: np.ndarray
  sizes: np.ndarray
  objective: float
  iterations: int


class Pass(NamedTuple):
  """What one look at all points shows.

  Attributes:
    sums: weighted sum of each cluster's points [K, F].
    weights: [K].
    cluster: of each point, int32 [N].
    squared: each point's squared distance from the centroid of its cluster [N].
  """

  sums: jax.Array
  weights: jax.Array
  cluster: jax.Array
  squared: jax.Array


def check_points(x: np.ndarray, weight: np.ndarray | None, what: str = "features") -> tuple[np.ndarray, np.ndarray]:
  """The points as float32 [N, F] and their weights as float32 with mean 1 [N].

  Raises:
    InputError: another shape, numbers that are not finite, or weights of which none is positive.
  """
  x = np.asarray(x)
  if x.ndim != 2 or not x.size or x.dtype.kind not in "fiu":
    raise InputError(f"{what}: {x.dtype} {list(x.shape)} where numbers are needed, [points, dimensions]")
  with np.errstate(over="ignore"):
    x = np.ascontiguousarray(x, np.float32)
  if not (finite := np.isfinite(x).all(1)).all():
    raise InputError(f"{what}: row {int(np.argmin(finite))} holds a number that is not finite in float32; mend the vectors")
  weight = np.ones(len(x)) if weight is None else np.asarray(weight, np.float64)
  if weight.shape != (len(x),) or not np.isfinite(weight).all() or (weight < 0).any() or not weight.sum():
    raise InputError(f"{what}: weights must be finite, none negative and one positive, one for each of {len(x)} points")
  return x, np.asarray(weight / weight.mean(), np.float32)


def block_size(points: int, clusters: int) -> int:
  """How many points have their distances computed at a time."""
  return min(points, max(256, min(_BLOCK_POINTS, _BLOCK_DISTANCES // clusters)))


def lengths(x_NxF: jax.Array) -> jax.Array:
  """Squared lengths of points [N]: what `look` needs, and what stays the same from one look to the next."""
  return (x_NxF**2).sum(1)


def look(x_NxF: jax.Array, length_N: jax.Array, weight_N: jax.Array, centroids_KxF: jax.Array, prices_K: jax.Array,
         block: int) -> Pass:
  """Finds the cluster of every point, and sums each cluster up."""
  n, k = len(x_NxF), len(centroids_KxF)
  offset_K = (centroids_KxF**2).sum(1)
  turned_FxK = -2 * centroids_KxF.T

  def step(i, seen):
    # The last block ends with the last point, and gives those no weight that the block before it had.
    first = jnp.minimum(i * block, n - block)
    x_BxF = jax.lax.dynamic_slice_in_dim(x_NxF, first, block)
    weight_B = jnp.where(first + jnp.arange(block) >= i * block, jax.lax.dynamic_slice_in_dim(weight_N, first, block), 0)
    score_BxK = _dot(x_BxF, turned_FxK) + (offset_K + prices_K)
    least_B = score_BxK.min(1)
    # The first of the least, as an argmin gives it; that took a CPU longer where clusters are a thousand.
    cluster_B = jnp.where(score_BxK == least_B[:, None], jnp.arange(k, dtype=jnp.int32), k).min(1)
    cluster_B = jnp.minimum(cluster_B, k - 1)
    squared_B = jnp.maximum(least_B - prices_K[cluster_B] + jax.lax.dynamic_slice_in_dim(length_N, first, block), 0)
    if k <= _PRODUCTS_UP_TO:
      chosen_BxK = jnp.where(cluster_B[:, None] == jnp.arange(k), weight_B[:, None], 0)
      sums, weights = _dot(chosen_BxK.T, x_BxF), chosen_BxK.sum(0)
    else:
      sums = jax.ops.segment_sum(x_BxF * weight_B[:, None], cluster_B, k)
      weights = jax.ops.segment_sum(weight_B, cluster_B, k)
    return Pass(seen.sums + sums, seen.weights + weights, jax.lax.dynamic_update_slice_in_dim(seen.cluster, cluster_B, first, 0),
                jax.lax.dynamic_update_slice_in_dim(seen.squared, squared_B, first, 0))

  empty = Pass(jnp.zeros_like(centroids_KxF), jnp.zeros(k), jnp.zeros(n, jnp.int32), jnp.zeros(n))
  return jax.lax.fori_loop(0, -(-n // block), step, empty)


def moved(x_NxF: jax.Array, weight_N: jax.Array, centroids_KxF: jax.Array, seen: Pass) -> jax.Array:
  """The means of the clusters; those without points move to the points that are farthest from their centroids."""
  empty_K = seen.weights <= 0
  means_KxF = jnp.where(empty_K[:, None], centroids_KxF, seen.sums / jnp.where(empty_K, 1, seen.weights)[:, None])

  def relocated():
    _, farthest_K = jax.lax.top_k(jnp.where(weight_N > 0, seen.squared, -1), len(means_KxF))
    return jnp.where(empty_K[:, None], x_NxF[farthest_K[jnp.cumsum(empty_K) - 1]], means_KxF)

  return jax.lax.cond(empty_K.any(), relocated, lambda: means_KxF)


@functools.partial(jax.jit, static_argnames="block")
def lloyd(x_NxF: jax.Array, weight_N: jax.Array, centroids_KxF: jax.Array, iterations: int, tolerance: float,
          block: int) -> tuple[jax.Array, jax.Array]:
  """Lloyd's iterations, until centroids have moved by `tolerance` (a sum of squares) or less.

  Returns:
    The centroids [K, F], and how many iterations it took.
  """
  zero_K, length_N = jnp.zeros(len(centroids_KxF)), lengths(x_NxF)

  def step(state):
    i, centroids_KxF, _ = state
    new_KxF = moved(x_NxF, weight_N, centroids_KxF, look(x_NxF, length_N, weight_N, centroids_KxF, zero_K, block))
    return i + 1, new_KxF, ((new_KxF - centroids_KxF)**2).sum()

  i, centroids_KxF, _ = jax.lax.while_loop(
      lambda s: (s[0] < iterations) & (s[2] > tolerance), step, (0, centroids_KxF, jnp.inf))
  return centroids_KxF, i


@functools.partial(jax.jit, static_argnames="batch")
def minibatch(x_NxF: jax.Array, weight_N: jax.Array, centroids_KxF: jax.Array, key: jax.Array, iterations: int,
              batch: int) -> jax.Array:
  """Minibatch k-means (Sculley 2010): centroids are means over all points that were drawn for them.

  Args:
    key: draws the points of every batch, with replacement.

  Returns:
    The centroids [K, F].
  """
  zero_K = jnp.zeros(len(centroids_KxF))

  def step(i, state):
    centroids_KxF, taken_K = state
    rows_B = jax.random.randint(jax.random.fold_in(key, i), (batch,), 0, len(x_NxF))
    x_BxF = x_NxF[rows_B]
    seen = look(x_BxF, lengths(x_BxF), weight_N[rows_B], centroids_KxF, zero_K, block_size(batch, len(centroids_KxF)))
    taken_K += seen.weights
    by_KxF = (seen.sums - seen.weights[:, None] * centroids_KxF) / jnp.where(taken_K > 0, taken_K, 1)[:, None]
    return centroids_KxF + by_KxF, taken_K

  return jax.lax.fori_loop(0, iterations, step, (centroids_KxF, zero_K))[0]


@functools.partial(jax.jit, static_argnames="k")
def plus_plus(x_NxF: jax.Array, weight_N: jax.Array, k: int, key: jax.Array) -> jax.Array:
  """Centroids by greedy k-means++ (Arthur & Vassilvitskii 2007): [K, F], all of them points.

  Each is the best of 2 + ln K points that are drawn with a chance proportional to what they add to the objective.
  """
  n, trials = len(x_NxF), 2 + int(np.log(k))
  length_N = (x_NxF**2).sum(1)
  keys = jax.random.split(key, k)

  def drawn(key, share_N, count):
    total_N = jnp.cumsum(share_N)
    at = jax.random.uniform(key, (count,)) * total_N[-1]
    return jnp.minimum(jnp.searchsorted(total_N, at, side="right"), n - 1)

  def squared(rows_T):
    x_TxF = x_NxF[rows_T]
    return jnp.maximum(length_N + (x_TxF**2).sum(1)[:, None] - 2 * _dot(x_TxF, x_NxF.T), 0)

  def step(i, state):
    rows_K, least_N = state
    candidates_T = drawn(keys[i], weight_N * least_N, trials)
    least_TxN = jnp.minimum(least_N, squared(candidates_T))
    best = _dot(least_TxN, weight_N).argmin()
    return rows_K.at[i].set(candidates_T[best]), least_TxN[best]

  first = drawn(keys[0], weight_N, 1)
  rows_K, _ = jax.lax.fori_loop(1, k, step, (jnp.zeros(k, jnp.int32).at[0].set(first[0]), squared(first)[0]))
  return x_NxF[rows_K]


def seeding_points(x: np.ndarray, weight: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """A sample of the points that is large enough to draw the first centroids from, with their weights."""
  most = max(4096, _SEEDING_POINTS * k)
  if len(x) <= most:
    return x, weight
  rows = np.sort(np.random.default_rng([seed, 1]).choice(len(x), most, replace=False))
  return x[rows], weight[rows]


@jax.jit
def squared_distances(x_NxF: jax.Array, centroids_KxF: jax.Array) -> jax.Array:
  """Squared distances [N, K] of points that are few enough for all of them."""
  centre_F = centroids_KxF.mean(0)
  x_NxF, centroids_KxF = x_NxF - centre_F[None], centroids_KxF - centre_F[None]
  product_NxK = _dot(x_NxF, centroids_KxF.T)
  return jnp.maximum((x_NxF**2).sum(1)[:, None] + (centroids_KxF**2).sum(1)[None] - 2 * product_NxK, 0)


@functools.partial(jax.jit, static_argnames="block")
def look_once(x_NxF: jax.Array, weight_N: jax.Array, centroids_KxF: jax.Array, prices_K: jax.Array, block: int) -> Pass:
  """One look, compiled."""
  return look(x_NxF, lengths(x_NxF), weight_N, centroids_KxF, prices_K, block)
