"""Balanced clusters: within the tolerance, nearly as good as the best assignment there is, and for points that come later too."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from jaxsplit.clustering import balance, kmeans
from jaxsplit.clustering.fitting import find_clusters


def skewed(n, seed=0):
  """Points of which most lie around one of five centres, and weights of which a few are large."""
  random = np.random.default_rng(seed)
  label = random.choice(5, n, p=(0.7, 0.15, 0.1, 0.04, 0.01))
  centres = np.random.default_rng(9).normal(size=(5, 6)) * 4
  return (centres[label] + random.normal(size=(n, 6))).astype(np.float32), random.lognormal(0, 1, n)


@pytest.mark.parametrize("k, tolerance", [(5, 0.1), (5, 0.02), (16, 0.05)])
def test_weights_are_within_the_tolerance(k, tolerance):
  x, weight = skewed(4000)
  found = find_clusters(x, weight, k, tolerance=tolerance)
  assert np.abs(found.sizes / found.sizes.mean() - 1).max() <= tolerance * (1 + 1e-4)
  assert np.isfinite(found.prices).all() and (found.prices != 0).any()


def test_balance_costs_little():
  x, _ = skewed(4000)
  free, balanced = (find_clusters(x, None, 16, tolerance=tolerance) for tolerance in (None, 0.05))
  assert balanced.objective < 3 * free.objective


def test_sizes_are_balanced_where_points_weigh_the_same():
  x, size = skewed(4000)
  found = find_clusters(x, None, 5, tolerance=0.02, size_N=size)
  assert np.abs(found.sizes / found.sizes.mean() - 1).max() <= 0.02 * (1 + 1e-4)
  assert np.abs(found.weights / found.weights.mean() - 1).max() > 0.02


def test_points_that_come_later_are_balanced_by_the_same_prices():
  x, weight = skewed(4000)
  found = find_clusters(x, weight, 5, tolerance=0.02)
  later, weight = skewed(4000, seed=1)
  cluster = np.asarray(kmeans.squared_distances(later, found.centroids) + found.prices).argmin(1)
  shares = np.bincount(cluster, weight, minlength=5) / weight.sum()
  assert np.abs(shares * 5 - 1).max() < 0.2


def test_as_good_as_the_best_balanced_assignment():
  x, _ = skewed(300)
  centroids = x[np.random.default_rng(0).choice(300, 6, replace=False)]
  squared = np.asarray(kmeans.squared_distances(x, centroids))
  rows, slots = linear_sum_assignment(np.repeat(squared, 50, axis=1))
  best = squared[rows, slots // 50].sum()
  ones = jnp.ones(300)
  prices = balance.settle(jnp.asarray(x), ones, ones, jnp.asarray(centroids), jnp.zeros(6), 0.021, 400, 300)[1]
  seen = kmeans.look_once(jnp.asarray(x), ones, jnp.asarray(centroids), prices, 300)
  assert np.abs(np.asarray(seen.weights) - 50).max() <= 1
  assert seen.squared.sum() <= 1.01 * best


def test_what_is_balanced_already_stays():
  x = np.repeat(np.eye(6, dtype=np.float32)[:5], 800, axis=0)
  np.testing.assert_allclose(find_clusters(x, None, 5, tolerance=0.01).sizes, 800)
