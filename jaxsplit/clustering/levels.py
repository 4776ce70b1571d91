"""Fine clusters merged into coarser ones, so that one fit gives several numbers of clusters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment


def merge(centroids_MxF: np.ndarray, weights_M: np.ndarray, levels: Sequence[int]) -> dict[int, np.ndarray]:
  """For each number of clusters the coarse cluster of each of M fine ones, int32 [M], by Ward's criterion.

  The two clusters are merged whose union adds least to the weighted squared distances from the centroids, again and again; so
  coarser levels are unions of finer ones. Clusters are numbered in the order of the first fine one in each.
  """
  centroids, weights = np.array(centroids_MxF, np.float64), np.array(weights_M, np.float64)
  m = len(centroids)
  of = np.arange(m)
  cost = _cost(centroids, weights, centroids, weights)
  np.fill_diagonal(cost, np.inf)
  out = {}
  for count in range(m, 0, -1):
    if count in levels:
      out[count] = _numbered(of)
    if count == 1:
      break
    a, b = sorted(np.unravel_index(np.argmin(cost), cost.shape))
    total = weights[a] + weights[b]
    centroids[a] = (weights[a] * centroids[a] + weights[b] * centroids[b]) / total if total else centroids[a]
    weights[a] = total
    of[of == b] = a
    gone = ~np.isin(np.arange(m), of)
    cost[a] = cost[:, a] = np.where(gone, np.inf, _cost(centroids, weights, centroids[a:a + 1], weights[a:a + 1])[:, 0])
    cost[a, a] = np.inf
    cost[b] = cost[:, b] = np.inf
  return {level: out[level] for level in levels}


def group(centroids_MxF: np.ndarray, levels: Sequence[int]) -> dict[int, np.ndarray]:
  """The same for fine clusters of one size: each coarse one takes equally many, by an exact assignment. Levels divide M."""
  m = len(centroids_MxF)
  out = {m: np.arange(m, dtype=np.int32)}
  for level in sorted(set(levels) - {m}, reverse=True):
    finer = min(found for found in out if found % level == 0)
    points = np.stack([centroids_MxF[out[finer] == c].mean(0) for c in range(finer)])
    out[level] = _numbered(_equal(points, level))[out[finer]]
  return {level: out[level] for level in levels}


def _equal(points: np.ndarray, k: int) -> np.ndarray:
  """The group of each point, of k groups of one size: k-means from Ward's clusters, each assignment the best there is."""
  group = merge(points, np.ones(len(points)), [k])[k]
  centroids = np.stack([points[group == c].mean(0) for c in range(k)])
  previous = None
  while previous is None or (group != previous).any():
    previous = group
    squared = ((points[:, None] - centroids)**2).sum(2)
    _, slot = linear_sum_assignment(np.repeat(squared, len(points) // k, axis=1))
    group = slot // (len(points) // k)
    centroids = np.stack([points[group == c].mean(0) for c in range(k)])
  return group


def _cost(x: np.ndarray, x_weight: np.ndarray, y: np.ndarray, y_weight: np.ndarray) -> np.ndarray:
  """What the union of two clusters adds to the objective [len(x), len(y)]."""
  total = x_weight[:, None] + y_weight
  squared = np.maximum((x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T, 0)
  return np.divide(x_weight[:, None] * y_weight, total, out=np.zeros_like(total), where=total > 0) * squared


def _numbered(of: np.ndarray) -> np.ndarray:
  """Numbers from 0 in the order of first appearance."""
  _, first, place = np.unique(of, return_index=True, return_inverse=True)
  return np.argsort(np.argsort(first)).astype(np.int32)[place]
