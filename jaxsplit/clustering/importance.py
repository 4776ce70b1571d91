"""Importance weights of clusters: how much more frequent each is in a scarce domain than in general text."""

from __future__ import annotations

import numpy as np

from jaxsplit.errors import InputError


def importance_weights(specialist: np.ndarray, general: np.ndarray, specialist_sizes: np.ndarray | None = None,
                       general_sizes: np.ndarray | None = None, k: int | None = None) -> np.ndarray:
  """w(c) = P(c | specialist) / P(c | general) (Grangier et al. 2024, arXiv 2410.03735): how to resample the general corpus.

  Args:
    specialist, general: the clusters of the documents of each, whole numbers [n].
    specialist_sizes, general_sizes: their tokens [n]; documents count the same where None.
    k: K; without it, as many as the largest number of a cluster says.

  Returns:
    float64 [K]. Weighted by the sizes, their mean over the general documents is the share of the specialist set that lies in
    clusters with general documents. A cluster without any, of which nothing can be resampled, has weight 0.

  Raises:
    InputError: a set is empty, or the two share no cluster.
  """
  for name, clusters in (("specialist", specialist), ("general", general)):
    if not len(clusters):
      raise InputError(f"importance weights: no {name} documents; give at least one")
  k = max(int(np.max(specialist)), int(np.max(general))) + 1 if k is None else k
  of_specialist, of_general = (np.bincount(clusters, sizes, minlength=k).astype(np.float64) for clusters, sizes in (
      (specialist, specialist_sizes), (general, general_sizes)))
  shared = (of_specialist > 0) & (of_general > 0)
  if not shared.any():
    raise InputError("importance weights: the specialist documents lie in clusters that hold no general document; take fewer "
                     "clusters, or more general text")
  share_s, share_g = of_specialist / of_specialist.sum(), of_general / of_general.sum()
  return np.divide(share_s, share_g, out=np.zeros(k), where=shared)
