"""Clusters of documents: fitted to a sample, saved to a folder, and applied to assign documents."""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import io
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from jaxsplit.clustering import levels
from jaxsplit.clustering.features import FEATURES, FeatureMap, cut, document_vectors, vectors_in_batches
from jaxsplit.clustering.fitting import find_clusters
from jaxsplit.clustering.kmeans import squared_distances
from jaxsplit.clustering.settings import Clustering
from jaxsplit.clustering.tfidf import TfidfMap
from jaxsplit.errors import InputError
from jaxsplit.files import read_json, write_atomic, write_json

T = TypeVar("T")
VERSION = 2
RECORD, _ARRAYS, _FEATURES = "clusters.json", "clusters.npz", "features"
_BATCH = 1024  # Documents whose distances from all centroids are computed at a time.


class Assignment(NamedTuple):
  """Where documents belong.

  Attributes:
    cluster: int32 [n].
    distance: the squared distance from each cluster, float32 [n, K], plus its price where clusters are balanced; the least is
      that of `cluster`. softmax(-distance / T) routes a question to experts, as c-BTM does.
  """

  cluster: np.ndarray
  distance: np.ndarray


@dataclasses.dataclass(frozen=True)
class Clusters:
  """What was fitted.

  Attributes:
    settings: how.
    centroids: of the fine clusters, float32 [M, F]; none for the random control.
    prices: added to squared distances, float32 [M]; all 0 unless balanced.
    sizes: the share of the sample's tokens in each, [M].
    unions: for each number of clusters, which one each fine one is a part of, int32 [M].
    features: the map; None where the user supplies vectors, and for the random control.
  """

  settings: Clustering
  centroids: np.ndarray
  prices: np.ndarray
  sizes: np.ndarray
  unions: Mapping[int, np.ndarray]
  features: FeatureMap | None

  def assign(self, documents: Sequence[str], level: int | None = None) -> Assignment:
    """Where each document belongs, among `level` clusters (`Clustering.k`). Documents may be any, of the sample or not."""
    if self.settings.by == "random":
      return self._drawn(documents, self._level(level))
    if self.features is None:
      raise InputError("these clusters were fitted on supplied vectors, and do not know how text becomes one; assign vectors")
    return self.assign_vectors(document_vectors(self.features, documents), level)

  def assign_vectors(self, vectors_NxF: np.ndarray, level: int | None = None) -> Assignment:
    """The same for documents by their vectors [n, F].

    Raises:
      InputError: vectors of another dimension than the clusters', or that are not finite.
    """
    level = self._level(level)
    if vectors_NxF.ndim != 2 or vectors_NxF.shape[1] != self.centroids.shape[1]:
      raise InputError(f"vectors {list(vectors_NxF.shape)} where the clusters have {self.centroids.shape[1]} dimensions")
    union, out = self.unions[level], np.empty((len(vectors_NxF), level), np.float32)
    for first in range(0, len(out), _BATCH):
      x_BxF = np.asarray(vectors_NxF[first:first + _BATCH], np.float32)
      if not np.isfinite(x_BxF).all():
        raise InputError(f"vectors: row {first + int(np.argmin(np.isfinite(x_BxF).all(1)))} holds a number that is not finite")
      padded = np.zeros((_BATCH, x_BxF.shape[1]), np.float32)  # One shape, so one program.
      padded[:len(x_BxF)] = x_BxF
      squared_BxM = jax.device_get(squared_distances(*jax.device_put((padded, self.centroids))))[:len(x_BxF)] + self.prices
      for cluster in range(level):
        out[first:first + _BATCH, cluster] = squared_BxM[:, union == cluster].min(1)
    return Assignment(out.argmin(1).astype(np.int32), out)

  def assign_stream(self, documents: Iterable[T], level: int | None = None,
                    text: Callable[[T], str] = str) -> Iterator[tuple[T, int]]:
    """Yields each document and its cluster, with some hundreds of documents in memory; `text` says what each one's text is."""
    for batch in _batches(documents):
      yield from zip(batch, self.assign([text(document) for document in batch], level).cluster.tolist(), strict=True)

  def top_terms(self, cluster: int, count: int, level: int | None = None) -> list[str]:
    """The words that tell a cluster best; none where features are no words."""
    if not isinstance(self.features, TfidfMap):
      return []
    member_M = self.unions[self._level(level)] == cluster
    return self.features.top_terms(self.sizes[member_M] @ self.centroids[member_M], count)

  def shares(self, level: int | None = None) -> np.ndarray:
    """The share of the sample's tokens in each cluster [K]."""
    level = self._level(level)
    if self.settings.by == "random":
      return np.full(level, 1 / level)
    return np.bincount(self.unions[level], self.sizes, minlength=level)

  def save(self, folder: str | os.PathLike) -> None:
    """Writes everything into a folder, which is made."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if self.features is not None:
      (folder / _FEATURES).mkdir(exist_ok=True)
      self.features.save(folder / _FEATURES)
    data = io.BytesIO()
    np.savez(data, centroids=self.centroids, prices=self.prices, sizes=self.sizes,
             **{f"union_{level}": union for level, union in self.unions.items()})
    write_atomic(folder / _ARRAYS, data.getvalue())
    write_json(folder / RECORD, {
        "version": VERSION, "settings": dataclasses.asdict(self.settings),
        "features": [self.settings.features, FEATURES.origins.get(self.settings.features)] if self.features else None,
        "levels": {level: self.shares(level).tolist() for level in self.unions}})

  def _level(self, level: int | None) -> int:
    level = self.settings.k if level is None else level
    if level not in self.unions:
      raise InputError(f"no {level} clusters here, but {', '.join(map(str, self.unions))}; give Clustering.levels before the fit")
    return level

  def _drawn(self, documents: Sequence[str], level: int) -> Assignment:
    salt = self.settings.seed.to_bytes(8, "little")
    words = [hashlib.blake2b(text.encode(), digest_size=4, key=salt).digest() for text in documents]
    cluster = np.array([int.from_bytes(word, "little") * level >> 32 for word in words], np.int32)
    return Assignment(cluster, np.zeros((len(cluster), level), np.float32))


def fit_clusters(documents: Iterable[str], settings: Clustering, sizes: Iterable[float] | None = None) -> Clusters:
  """Fits clusters on passages of documents.

  Each passage weighs the same, so that a book weighs what it is long, and a thousand notes do not weigh what a thousand books do.
  Sizes are in tokens.

  Args:
    documents: read once, and not kept but for the sample.
    settings: how many clusters, of which kind.
    sizes: tokens of each document; its bytes where None.

  Raises:
    InputError: fewer passages, or passages that differ, than clusters; features that are unknown, or fail.
  """
  if settings.by == "random":
    return _random(settings)
  if settings.of_vectors:
    raise InputError(f"Clustering.features = {settings.features!r} are vectors: fit them with fit_vectors")
  features = FEATURES[settings.features](settings)
  texts, tokens = _sample(documents, sizes, settings)
  if settings.largest > len(texts):
    raise InputError(f"Clustering.k: {settings.largest} clusters of {len(texts)} passages; take at most {len(texts)}, or more "
                     "text")
  map = features.fit(texts, settings.seed)
  vectors = np.concatenate([vectors for _, vectors in vectors_in_batches(map, texts)])
  return dataclasses.replace(fit_vectors(vectors, settings, tokens), features=map)


def fit_vectors(vectors_NxF: np.ndarray, settings: Clustering, sizes: np.ndarray | None = None,
                weights: np.ndarray | None = None) -> Clusters:
  """Fits clusters on vectors [N, F], of passages or documents of `sizes` tokens [N] that weigh `weights` (the same where None);
  raises as `find_clusters`."""
  if settings.by == "random":
    return _random(settings)
  found = find_clusters(vectors_NxF, weights, settings.fine, settings.seed, settings.iterations, settings.batch, settings.balance,
                        sizes, settings.largest)
  if settings.balance is None:
    unions = levels.merge(found.centroids, found.weights, settings.all_levels)
  else:
    unions = levels.group(found.centroids, settings.all_levels)
  return Clusters(settings, found.centroids, found.prices, found.sizes / found.sizes.sum(), unions, None)


def load_clusters(folder: str | os.PathLike) -> Clusters:
  """The clusters that were saved in a folder.

  Raises:
    InputError: no clusters there, of another version, or damaged; or their features are of an extension that was not given, or
      has changed since.
  """
  folder = pathlib.Path(folder)
  record = read_json(folder / RECORD)
  again = "fit the clusters again"
  if not isinstance(record, dict) or record.get("version") != VERSION:
    raise InputError(f"{folder / RECORD}: not clusters of version {VERSION}; {again}")
  try:
    settings = Clustering(**{**record["settings"], "levels": tuple(record["settings"]["levels"])})
    with np.load(folder / _ARRAYS, allow_pickle=False) as arrays:
      unions = {level: arrays[f"union_{level}"] for level in settings.all_levels}
      parts = {name: arrays[name] for name in ("centroids", "prices", "sizes")}
  except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
    raise InputError(f"{folder}: damaged clusters ({error}); {again}") from None
  features = None
  if record["features"] is not None:
    name, origin = record["features"]
    way = FEATURES[name](settings)
    if FEATURES.origins.get(name) != origin:
      raise InputError(f"{folder}: its features {name!r} are of an extension whose content has changed; give the one that they were "
                       "fitted with, or fit the clusters again")
    features = way.load(folder / _FEATURES)
  return Clusters(settings, **parts, unions=unions, features=features)


def _random(settings: Clustering) -> Clusters:
  none = np.zeros(0, np.float32)
  unions = dict.fromkeys(settings.all_levels, np.zeros(0, np.int32))
  return Clusters(settings, none[:, None], none, none, unions, None)


def _sample(documents: Iterable[str], sizes: Iterable[float] | None, settings: Clustering) -> tuple[list[str], np.ndarray]:
  """Passages drawn from those of all documents, each with the same chance, in their order; and their sizes."""

  def pieces() -> Iterator[tuple[str, float]]:
    given = iter(sizes) if sizes is not None else None
    for text in documents:
      size = len(text.encode()) if given is None else next(given)
      cuts = cut([text])
      yield from ((piece, size * share) for piece, share in zip(cuts.texts, cuts.share))

  taken = sampled(pieces(), settings.sample, settings.seed)
  return [piece for piece, _ in taken], np.array([size for _, size in taken], np.float64)


def sampled(things: Iterable[T], count: int, seed: int) -> list[T]:
  """At most `count` of some things, each with the same chance, in their order. Memory holds `count`."""
  random = np.random.default_rng([seed, 0])
  taken: list[tuple[float, int, T]] = []  # A heap of which the first is the next to go.
  for number, thing in enumerate(things):
    entry = -random.random(), number, thing
    if len(taken) < count:
      heapq.heappush(taken, entry)
    else:
      heapq.heappushpop(taken, entry)
  return [thing for _, _, thing in sorted(taken, key=lambda entry: entry[1])]


def _batches(documents: Iterable[T]) -> Iterator[list[T]]:
  batch: list[T] = []
  for text in documents:
    batch.append(text)
    if len(batch) == _BATCH // 4:
      yield batch
      batch = []
  if batch:
    yield batch
