"""Fits clusters to points: initial centroids, iterations, and the outcome."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplit.clustering import balance, kmeans
from jaxsplit.errors import InputError

_CENTROIDS_STAND = 1e-6  # Of the variance: what centroids move by, as a sum of squares, when Lloyd's iterations have ended.


def find_clusters(x_NxF: np.ndarray, weight_N: np.ndarray | None, k: int, seed: int = 0, iterations: int = 100, batch: int = 0,
                  tolerance: float | None = None, size_N: np.ndarray | None = None, least: int | None = None,
                  block: int | None = None) -> kmeans.KMeans:
  """k-means on the default device.

  Args:
    x_NxF, weight_N: points and their weights; the same for all where None.
    k: the number of clusters to look for.
    seed: of the first centroids and of minibatches.
    iterations: at most.
    batch: points of a minibatch; 0: all points in each iteration.
    tolerance: how far the size of a cluster may be from the mean over clusters, as a share of it, where prices exist that do it;
      None: as it falls.
    size_N: what sizes are sums of; the weights where None.
    least: the fewest clusters that will do where fewer than `k` points differ; `k` where None.
    block: points whose distances are computed at a time; the result is the same but for rounding.

  Raises:
    InputError: points that are not finite, or too few that differ.
  """
  x, weight = kmeans.check_points(x_NxF, weight_N)
  size = weight if size_N is None else kmeans.check_points(x, size_N)[1]
  least = least or k
  if least > len(x):
    raise InputError(f"Clustering.k: {least} clusters of {len(x)} points; take at most {len(x)}, or more text")
  k = min(k, len(x))
  centre = np.average(x, axis=0, weights=weight).astype(np.float32)
  x = x - centre  # Squared distances are differences of squares, which are exact near zero alone.
  # What goes to the devices comes from NumPy and returns to it; JAX's debug switches are for training.
  with jax.transfer_guard("allow"), jax.numpy_rank_promotion("allow"):
    key = jax.random.key(seed)
    start = kmeans.plus_plus(*kmeans.seeding_points(x, weight, k, seed), k, jax.random.fold_in(key, 0))
    x_NxF, weight_N, size_N, block = jnp.asarray(x), jnp.asarray(weight), jnp.asarray(size), block or kmeans.block_size(len(x), k)
    prices_K = jnp.zeros(k)
    took: int | jax.Array = iterations
    if batch:
      centroids_KxF = kmeans.minibatch(x_NxF, weight_N, start, jax.random.fold_in(key, 1), iterations, min(batch, len(x)))
    else:
      stands = _CENTROIDS_STAND * float(np.average((x**2).sum(1), weights=weight))
      centroids_KxF, took = kmeans.lloyd(x_NxF, weight_N, start, iterations, stands, block)
    if tolerance is not None:
      centroids_KxF, prices_K = balance.balanced(x_NxF, weight_N, size_N, centroids_KxF, tolerance, block)
    seen = kmeans.look_once(x_NxF, weight_N, centroids_KxF, prices_K, block)
    centroids_KxF, prices_K, seen, took = jax.device_get((centroids_KxF, prices_K, seen, took))
  weights_K, sizes_K = (np.bincount(seen.cluster, of, minlength=k) for of in (weight, size))
  held_K = weights_K > 0
  if held_K.sum() < least:
    distinct = len(np.unique(x, axis=0))
    raise InputError(f"Clustering.k: only {held_K.sum()} of {least} clusters have points: {distinct} of {len(x)} points differ; "
                     "take fewer clusters, or more text")
  of_K = [np.asarray(of)[held_K] for of in (centroids_KxF + centre, prices_K, weights_K, sizes_K)]
  return kmeans.KMeans(*of_K, objective=float(weight @ np.asarray(seen.squared)), iterations=int(took))
