"""A description of domains: characteristic words, most and least typical passages, and distances between domains.

Everything is of a sample of passages: features, centroids and n-grams of those for training, measures of those that are held out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from jaxsplit.clustering.ngrams import NGrams
from jaxsplit.clustering.tfidf import Tfidf

_TERMS = 10
_DIMENSIONS = 64
_PICTURED, _PICTURE_STEPS = 600, 500  # Passages in the picture, and what it takes: a second.
_LEARNED, _MEASURED = 300_000, 20_000  # Bytes of a domain for and against its n-grams.


@dataclasses.dataclass(frozen=True)
class Distances:
  """How far apart K domains are.

  Attributes:
    nearest: of the held-out passages of each, the share whose nearest centroid is that of each, [K, K].
    bits: bits per byte of held-out text of each by the n-grams of each, [K, K].
  """

  nearest: np.ndarray
  bits: np.ndarray

  @property
  def own(self) -> float:
    """The share of passages that are nearest to their own domain's centroid, mean over domains."""
    return float(np.diag(self.nearest).mean())

  @property
  def gain(self) -> float:
    """By how many bits per byte a domain's own n-grams are better than another's, mean over domains."""
    k = len(self.bits)
    others = (self.bits.sum(1) - np.diag(self.bits)) / max(k - 1, 1)
    return float((others - np.diag(self.bits)).mean()) if k > 1 else 0.0


@dataclasses.dataclass(frozen=True)
class Portrait:
  """What was found.

  Attributes:
    terms: of each domain, the words that tell it best.
    typical, untypical: its passages nearest to and farthest from its centroid.
    picture: passages in two dimensions [n, 2], and the domain of each [n]: neighbours in features are neighbours there.
    distances: between domains, and `control`: between groups of the same passages, drawn.
  """

  terms: list[list[str]]
  typical: list[list[str]]
  untypical: list[list[str]]
  picture: tuple[np.ndarray, np.ndarray]
  distances: Distances
  control: Distances


def portray(train: Mapping[str, Sequence[str]], valid: Mapping[str, Sequence[str]], examples: int = 2) -> Portrait:
  """Looks at the passages of each domain. The same passages give the same portrait.

  Raises:
    InputError: passages without words.
  """
  with threadpool_limits(1):  # Sums over several threads differ from time to time; and these matrices are too small for them.
    return _portray(train, valid, examples)


def _portray(train: Mapping[str, Sequence[str]], valid: Mapping[str, Sequence[str]], examples: int) -> Portrait:
  domains = list(train)
  texts, label = _joined([train[domain] for domain in domains])
  held_texts, held_label = _joined([valid[domain] for domain in domains])
  map = Tfidf(_DIMENSIONS).fit(texts, 0)
  x_NxF, held_NxF = map.apply(texts), map.apply(held_texts)
  random = np.random.default_rng(0)
  distances = _distances(texts, x_NxF, label, held_texts, held_NxF, held_label, len(domains))
  control = _distances(texts, x_NxF, random.permutation(label), held_texts, held_NxF, random.permutation(held_label), len(domains))
  centroids_KxF, mean_F = _centroids(x_NxF, label, len(domains)), x_NxF.mean(0)
  typical, untypical = [], []
  for k in range(len(domains)):
    own = np.flatnonzero(label == k)
    order = own[np.argsort(-(x_NxF[own] @ centroids_KxF[k]), kind="stable")]
    typical.append([texts[i] for i in order[:examples]])
    untypical.append([texts[i] for i in order[::-1][:examples]])
  chosen = np.sort(random.permutation(len(texts))[:_PICTURED])
  terms = [map.top_terms(centroid_F - mean_F, _TERMS) for centroid_F in centroids_KxF]
  return Portrait(terms, typical, untypical, (_flat(x_NxF[chosen]), label[chosen]), distances, control)


def _joined(groups: Sequence[Sequence[str]]) -> tuple[list[str], np.ndarray]:
  return [text for group in groups for text in group], np.repeat(np.arange(len(groups)), [len(group) for group in groups])


def _centroids(x_NxF: np.ndarray, label_N: np.ndarray, k: int) -> np.ndarray:
  sums_KxF = np.zeros((k, x_NxF.shape[1]))
  np.add.at(sums_KxF, label_N, x_NxF)
  return sums_KxF / np.maximum(np.bincount(label_N, minlength=k), 1)[:, None]


def _distances(texts, x_NxF, label, held_texts, held_NxF, held_label, k: int) -> Distances:
  centroids_KxF = _centroids(x_NxF, label, k)
  nearest = ((centroids_KxF**2).sum(1) - 2 * held_NxF @ centroids_KxF.T).argmin(1)
  table = np.zeros((k, k))
  np.add.at(table, (held_label, nearest), 1)
  joined = lambda texts, label, domain, most: "\n".join(texts[i] for i in np.flatnonzero(label == domain)).encode()[:most]
  held = [joined(held_texts, held_label, domain, _MEASURED) for domain in range(k)]
  bits = np.empty((k, k))
  for domain in range(k):
    model = NGrams(joined(texts, label, domain, _LEARNED))
    bits[:, domain] = [model.bits_per_byte(text) for text in held]
  return Distances(table / np.maximum(table.sum(1, keepdims=True), 1), bits)


def _flat(x_NxF: np.ndarray) -> np.ndarray:
  """Points in two dimensions, by t-SNE (van der Maaten and Hinton 2008)."""
  if len(x_NxF) < 5:
    return np.zeros((len(x_NxF), 2))
  from sklearn.manifold import TSNE  # Slow to import.

  centred = x_NxF - x_NxF.mean(0)
  axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
  start = np.zeros((len(x_NxF), 2), np.float32)
  start[:, :len(axes)] = 1e-4 * centred @ axes.T / max(float((centred @ axes[0]).std()), 1e-12)
  neighbours = min(30.0, (len(x_NxF) - 1) / 4)
  return TSNE(perplexity=neighbours, init=start, random_state=0, n_jobs=1, max_iter=_PICTURE_STEPS).fit_transform(x_NxF)
