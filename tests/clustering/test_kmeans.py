"""k-means: the clusters that scikit-learn finds, from the same centroids, whatever the block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans

from jaxsplit.clustering import kmeans
from jaxsplit.clustering.fitting import find_clusters
from jaxsplit.errors import InputError


def blobs(n=600, dimensions=5, k=7, seed=0):
  """Points around `k` centres, and which centre each is of."""
  random = np.random.default_rng(seed)
  label = random.integers(0, k, n)
  return (8 * random.normal(size=(k, dimensions))[label] + random.normal(size=(n, dimensions))).astype(np.float32), label


def same_partition(a, b):
  return len(set(zip(a.tolist(), b.tolist()))) == len(set(a.tolist())) == len(set(b.tolist()))


@pytest.mark.parametrize("dimensions", [1, 5])
@pytest.mark.parametrize("k", [3, 70])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_centroids_of_scikit_learn(dimensions, k, weighted):
  x, _ = blobs(dimensions=dimensions)
  x -= x.mean(0)
  weight = np.random.default_rng(1).uniform(0.1, 9, len(x)).astype(np.float32) if weighted else np.ones(len(x), np.float32)
  start = x[np.random.default_rng(2).choice(len(x), k, replace=False)]
  expected = KMeans(k, init=start, n_init=1, max_iter=12, tol=0, algorithm="lloyd").fit(x, sample_weight=weight)
  found, took = kmeans.lloyd(jnp.asarray(x), jnp.asarray(weight), jnp.asarray(start), 12, 0.0, 600)
  np.testing.assert_allclose(found, expected.cluster_centers_, rtol=0, atol=1e-5 * np.abs(x).max())
  assert took <= expected.n_iter_ + 1


def test_an_iteration_without_movement_is_the_last():
  x, _ = blobs()
  _, took = kmeans.lloyd(jnp.asarray(x), jnp.ones(len(x)), jnp.asarray(x[:7]), 1000, 0.0, 600)
  assert took < 100


def test_the_same_clusters_whatever_the_block():
  x, _ = blobs()
  ones = jnp.ones(len(x))
  whole, *parts = (find_clusters(x, None, 7, seed=3, iterations=4, block=block) for block in (600, 599, 50))
  labels = lambda found: np.asarray(kmeans.look_once(jnp.asarray(x), ones, found.centroids, found.prices, 600).cluster)
  for part in parts:
    np.testing.assert_array_equal(labels(part), labels(whole))
    np.testing.assert_allclose(part.weights, whole.weights, rtol=1e-6)
    np.testing.assert_allclose(part.objective, whole.objective, rtol=1e-5)


def test_the_same_clusters_by_seed():
  x, _ = blobs(k=30)
  first, again, other = (find_clusters(x, None, 7, seed=seed, iterations=1) for seed in (1, 1, 2))
  np.testing.assert_array_equal(first.centroids, again.centroids)
  assert (first.centroids != other.centroids).any()


@pytest.mark.parametrize("seed", range(3))
def test_separate_blobs_are_found(seed):
  x, label = blobs(seed=seed)
  found = find_clusters(x, None, 7, seed=seed)
  assert same_partition(kmeans.squared_distances(x, found.centroids).argmin(1), label)


def test_a_point_of_weight_three_is_three_points():
  x, _ = blobs()
  few, weight = x[:200], np.zeros(600, np.float32)
  weight[:200] = 3
  once, _ = kmeans.lloyd(jnp.asarray(x), jnp.asarray(weight), jnp.asarray(x[:7]), 20, 0.0, 600)
  thrice, _ = kmeans.lloyd(jnp.asarray(np.tile(few, (3, 1))), jnp.ones(600), jnp.asarray(x[:7]), 20, 0.0, 600)
  np.testing.assert_allclose(once, thrice, rtol=0, atol=1e-5 * np.abs(x).max())


def test_points_without_weight_decide_nothing():
  x, _ = blobs()
  far = x.copy()
  far[::10] = 1e3
  weight = np.ones(600)
  weight[::10] = 0
  assert np.abs(find_clusters(far, weight, 7).centroids).max() <= np.abs(x).max()


def test_points_far_from_zero():
  x, label = blobs()
  found = find_clusters(x + 1e4, None, 7)
  assert same_partition(kmeans.squared_distances(x, found.centroids - 1e4).argmin(1), label)


def test_an_empty_cluster_moves_to_a_far_point():
  x, _ = blobs(k=4)
  start = np.concatenate([x[:5], np.full((2, 5), 1e6, np.float32)])
  found, _ = kmeans.lloyd(jnp.asarray(x), jnp.ones(len(x)), jnp.asarray(start), 50, 0.0, 600)
  weights = kmeans.look_once(jnp.asarray(x), jnp.ones(len(x)), found, jnp.zeros(7), 600).weights
  assert (weights > 0).all()


def test_duplicates():
  x = np.repeat(np.eye(5, dtype=np.float32), 120, axis=0)
  found = find_clusters(x, None, 7, least=5)
  np.testing.assert_allclose(found.weights, 120)
  assert found.objective < 1e-4
  with pytest.raises(InputError, match="5 of 7 clusters have points: 5 of 600 points differ"):
    find_clusters(x, None, 7)


def test_as_many_clusters_as_points():
  x, _ = blobs(n=7)
  assert find_clusters(x, None, 7).objective < 1e-4 * (x**2).sum()


@pytest.mark.parametrize("x, weight, says", [
    (np.zeros((3, 2)), None, "4 clusters of 3 points"),
    (np.array([[0.0, np.nan]] * 9), None, "row 0 holds a number that is not finite"),
    (np.array([[0.0]] * 5 + [[1e300]]), None, "row 5"),
    (np.zeros(9), None, r"\[points, dimensions\]"),
    (np.zeros((9, 0)), None, r"\[points, dimensions\]"),
    (np.array([["a"]] * 9), None, r"\[points, dimensions\]"),
    (np.zeros((9, 2)), np.zeros(9), "weights"),
    (np.zeros((9, 2)), -np.ones(9), "weights"),
    (np.zeros((9, 2)), np.ones(8), "weights"),
    (np.zeros((9, 2)), np.full(9, np.inf), "weights"),
])
def test_points_that_cannot_be_clustered(x, weight, says):
  with pytest.raises(InputError, match=says) as error:
    find_clusters(x, weight, 4)
  assert "\n" not in str(error.value)


def test_minibatches_come_near_the_objective():
  x, _ = blobs()
  whole = find_clusters(x, None, 7)
  assert find_clusters(x, None, 7, iterations=200, batch=100).objective < 1.05 * whole.objective


def test_seeds_are_points_and_differ():
  x, _ = blobs()
  start = np.asarray(kmeans.plus_plus(jnp.asarray(x), jnp.ones(len(x)), 7, jax.random.key(0)))
  assert len(np.unique(start, axis=0)) == 7
  assert {row.tobytes() for row in start} <= {row.tobytes() for row in x}
