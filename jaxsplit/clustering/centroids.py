"""Centroids of labelled domains, so that text can be routed to them as to found clusters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxsplit.clustering.features import FeatureMap, vectors_in_batches
from jaxsplit.clustering.tfidf import Tfidf

_SEED = 0


@dataclasses.dataclass(frozen=True)
class Centroids:
  """The mean vectors of domains.

  Attributes:
    domains: K names.
    vectors: float32 [K, F].
    features: what turns text into vectors.
  """

  domains: tuple[str, ...]
  vectors: np.ndarray
  features: FeatureMap

  def distances(self, texts: Sequence[str]) -> np.ndarray:
    """Squared distances of texts, each of which is one vector, from every domain's centroid: float32 [n, K]."""
    x_NxF = _vectors(self.features, texts)
    return np.square(x_NxF[:, None, :] - self.vectors).sum(2)


def fit_centroids(texts: Mapping[str, Sequence[str]], features: FeatureMap | None = None) -> Centroids:
  """The centroids of domains by passages of each.

  Args:
    texts: of each domain, passages; every passage counts the same.
    features: a map; None to fit TF-IDF and its SVD on the passages of all domains.

  Raises:
    InputError: texts without a word.
  """
  features = features or Tfidf().fit([text for passages in texts.values() for text in passages], _SEED)
  vectors = np.stack([_vectors(features, passages).mean(0) for passages in texts.values()])
  return Centroids(tuple(texts), vectors, features)


def _vectors(features: FeatureMap, texts: Sequence[str]) -> np.ndarray:
  return np.concatenate([vectors for _, vectors in vectors_in_batches(features, texts)]) if len(texts) else np.zeros((0, 1), np.float32)
