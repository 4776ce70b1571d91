"""Features that turn documents into vectors: the interface and its registry, vectors from a .npy file, long documents."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from jaxsplit.clustering.settings import Clustering
from jaxsplit.errors import InputError
from jaxsplit.passages import passages
from jaxsplit.registry import Registry

_BATCH = 4096  # Passages that are turned into vectors at a time.


class FeatureMap(Protocol):
  """A fitted map from texts to vectors."""

  def apply(self, documents: Sequence[str]) -> np.ndarray:
    """Their vectors, finite, float32 [n, F]."""

  def save(self, folder: pathlib.Path) -> None:
    """Writes what `Features.load` needs into a folder that is there."""


class Features(Protocol):
  """A way to fit maps."""

  def fit(self, documents: Sequence[str], seed: int) -> FeatureMap:
    """The map for texts like these. The same documents and seed give the same map."""

  def load(self, folder: pathlib.Path) -> FeatureMap:
    """The map that was saved there."""


# Ways to make vectors of text, by their name in Clustering.features: from the settings to features (docs/extending.md).
FEATURES: Registry[Callable[[Clustering], Features]] = Registry("Clustering.features", "the path of a .npy file")


def _tfidf(settings: Clustering) -> Features:
  from jaxsplit.clustering.tfidf import Tfidf  # Imports scikit-learn, which takes a second.

  return Tfidf(settings.dimensions, settings.terms)


FEATURES.add("tfidf", _tfidf)


class Passages(NamedTuple):
  """Documents cut into passages: the texts, the document that each is of [P], and its share of that [P]."""

  texts: list[str]
  document: np.ndarray
  share: np.ndarray


def cut(documents: Sequence[str]) -> Passages:
  """Cuts documents into passages, so that a book weighs what it is long and not what one line of a chat does."""
  texts, document, share = [], [], []
  for i, text in enumerate(documents):
    pieces = list(passages(text))
    texts += pieces
    document += [i] * len(pieces)
    share += [len(piece) / max(len(text), 1) if text else 1.0 for piece in pieces]
  return Passages(texts, np.array(document, np.int64), np.array(share, np.float64))


def document_vectors(features: FeatureMap, documents: Sequence[str]) -> np.ndarray:
  """The mean of each document's passages, by their length: float32 [n, F].

  The centroid that is nearest to it is the one whose squared distance from the passages is least on average.
  """
  pieces = cut(documents)
  out = None
  for rows, vectors_BxF in vectors_in_batches(features, pieces.texts):
    out = np.zeros((len(documents), vectors_BxF.shape[1]), np.float32) if out is None else out
    np.add.at(out, pieces.document[rows], pieces.share[rows, None].astype(np.float32) * vectors_BxF)
  return np.zeros((0, 1), np.float32) if out is None else out


def vectors_in_batches(features: FeatureMap, texts: Sequence[str]) -> Iterator[tuple[slice, np.ndarray]]:
  """Yields which texts, and their vectors.

  Raises:
    InputError: the map gives anything but one finite vector for each text.
  """
  for first in range(0, len(texts), _BATCH):
    batch = texts[first:first + _BATCH]
    vectors = np.asarray(features.apply(batch), np.float32)
    if vectors.ndim != 2 or len(vectors) != len(batch) or not np.isfinite(vectors).all():
      raise InputError(f"features: {type(features).__name__}.apply gave {list(vectors.shape)} numbers for {len(batch)} documents, "
                       f"{np.count_nonzero(~np.isfinite(vectors))} of them not finite; it must give one finite vector for each")
    yield slice(first, first + len(batch)), vectors


def read_vectors(path: str | os.PathLike, documents: int | None = None) -> np.ndarray:
  """The vectors in a .npy file, memory-mapped: [documents, F].

  Raises:
    InputError: no such file, no array of numbers with two axes, or not a vector for each document.
  """
  try:
    vectors = np.load(path, mmap_mode="r", allow_pickle=False)
  except FileNotFoundError:
    raise InputError(f"Clustering.features: {path}: no such file") from None
  except (OSError, ValueError) as error:
    raise InputError(f"Clustering.features: {path}: not an array that np.load reads ({error})") from None
  if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
    raise InputError(f"Clustering.features: {path}: an array of numbers [documents, dimensions] is needed, as np.save writes it")
  if documents is not None and len(vectors) != documents:
    raise InputError(f"Clustering.features: {path}: {len(vectors):,} vectors for {documents:,} documents; it must hold one for "
                     "each, in their order")
  return vectors
