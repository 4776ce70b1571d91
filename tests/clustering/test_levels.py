"""Coarse clusters: unions of fine ones, Ward's where sizes are free, of one size where they are balanced."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment

from jaxsplit.clustering.levels import group, merge


def points(m=40, seed=0):
  return np.random.default_rng(seed).normal(size=(m, 3)).astype(np.float32)


def same(a, b):
  return len(set(zip(a.tolist(), b.tolist()))) == len(set(a.tolist())) == len(set(b.tolist()))


def test_wards_clusters():
  x = points()
  tree = linkage(x, "ward")
  levels = (1, 4, 10, 39, 40)
  found = merge(x, np.ones(len(x)), levels)
  assert set(found) == set(levels)
  for level in levels:
    assert same(found[level], fcluster(tree, level, "maxclust"))


def test_a_cluster_of_weight_three_is_three():
  x = points(12)
  repeated = np.repeat(x, 3, axis=0)
  assert same(merge(x, np.full(12, 3.0), [4])[4], merge(repeated, np.ones(36), [4])[4][::3])


def test_levels_are_unions_of_finer_ones():
  found = merge(points(), np.random.default_rng(1).uniform(0, 5, 40), (3, 9, 27))
  for coarse, fine in ((3, 9), (9, 27)):
    assert len(set(zip(found[fine].tolist(), found[coarse].tolist()))) == fine
    assert sorted(set(found[coarse].tolist())) == list(range(coarse))


@pytest.mark.parametrize("levels", [(4, 16), (1, 64), (8,), (2, 64)])
def test_groups_of_one_size(levels):
  found = group(points(64), levels)
  assert set(found) == set(levels)
  for level in levels:
    assert set(np.bincount(found[level], minlength=level)) == {64 // level}
  if levels == (4, 16):
    assert len(set(zip(found[16].tolist(), found[4].tolist()))) == 16


def test_no_exchange_improves_groups():
  x = points(24)
  found = group(x, [4])[4]
  centroids = np.stack([x[found == c].mean(0) for c in range(4)])
  squared = ((x[:, None] - centroids)**2).sum(2)
  rows, slots = linear_sum_assignment(np.repeat(squared, 6, axis=1))
  assert squared[np.arange(24), found].sum() <= squared[rows, slots // 6].sum() * (1 + 1e-6)
