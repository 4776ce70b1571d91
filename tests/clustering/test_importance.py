"""Weights of clusters for a scarce domain."""

import numpy as np
import pytest

from jaxsplit.clustering.importance import importance_weights
from jaxsplit.errors import InputError


def test_the_ratio_of_shares():
  found = importance_weights(np.array([0, 0, 1, 0]), np.array([0, 1, 1, 1, 2, 2, 2, 2]))
  np.testing.assert_allclose(found, [0.75 * 8, 0.25 * 8 / 3, 0])


def test_the_same_corpus_weighs_one():
  clusters = np.random.default_rng(0).integers(0, 9, 500)
  sizes = np.random.default_rng(1).uniform(1, 9, 500)
  np.testing.assert_allclose(importance_weights(clusters, clusters, sizes, sizes), 1)


def test_resampled_by_the_weights_the_general_corpus_has_the_shares_of_the_specialist():
  random = np.random.default_rng(0)
  specialist, general, sizes = random.integers(0, 4, 50), random.integers(0, 6, 900), random.uniform(1, 9, 900)
  weights = importance_weights(specialist, general, general_sizes=sizes)
  resampled = np.bincount(general, sizes * weights[general], minlength=6)
  np.testing.assert_allclose(resampled / sizes.sum(), np.bincount(specialist, minlength=6) / 50)


def test_clusters_without_general_documents_weigh_nothing():
  np.testing.assert_allclose(importance_weights(np.array([0, 3]), np.array([0, 1]), k=5), [1, 0, 0, 0, 0])


@pytest.mark.parametrize("specialist, general, says", [
    ([], [1], "no specialist"), ([1], [], "no general"), ([0, 0], [1, 1], "no general document")])
def test_sets_that_cannot_be_compared(specialist, general, says):
  with pytest.raises(InputError, match=says):
    importance_weights(np.array(specialist, int), np.array(general, int))
