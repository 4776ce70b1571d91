"""The settings of clustering."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxsplit.errors import InputError

_FINER = 6  # Fine clusters for each that is asked for. On ten corpora fewer do worse, and more no better.
_MOST_FINE = 1024  # Merging takes seconds up to here.


@dataclasses.dataclass(frozen=True)
class Clustering:
  """How documents are divided into K clusters.

  Attributes:
    k: K, the number of clusters.
    levels: further numbers of clusters from the same fit: all are unions of the same fine clusters.
    by: kmeans, or random: a control that assigns documents to clusters by their hash, without features.
    features: tfidf; hidden_states of a seed model; a name that an extension adds; or the path of a .npy file with a vector for each
      document, in the order of documents.parquet.
    model: for hidden_states, the work directory of the experiment whose seed computes them.
    dimensions: F, the dimension of tfidf's vectors.
    terms: maximum vocabulary of tfidf.
    balance: maximum deviation of a cluster's tokens from the mean over clusters, as a fraction of it; None: not balanced.
    sample: maximum number of passages that features and clusters are fitted to.
    iterations: maximum number of k-means iterations.
    batch: passages per iteration of minibatch k-means; 0: each iteration takes the whole sample.
    seed: random seed.
  """

  k: int = 16
  levels: tuple[int, ...] = ()
  by: Literal["kmeans", "random"] = "kmeans"
  features: str = "tfidf"
  model: str = ""
  dimensions: int = 128
  terms: int = 32_768
  balance: float | None = None
  sample: int = 50_000
  iterations: int = 100
  batch: int = 0
  seed: int = 0

  def __post_init__(self):
    for name, least in (("k", 1), ("dimensions", 1), ("terms", 1), ("sample", 1), ("iterations", 1), ("batch", 0), ("seed", 0)):
      if getattr(self, name) < least:
        raise InputError(f"Clustering.{name} = {getattr(self, name)}: must be {least} or more")
    if any(level < 1 for level in self.levels):
      raise InputError(f"Clustering.levels = {self.levels}: each is a number of clusters, 1 or more")
    if self.by not in ("kmeans", "random"):
      raise InputError(f"Clustering.by = {self.by!r}: must be kmeans or random")
    if not self.features.strip():
      raise InputError("Clustering.features is empty; give tfidf, or the path of a .npy file with a vector for each document")
    if bool(self.model) != (self.features == "hidden_states"):
      raise InputError(f"Clustering.model = {self.model!r} with Clustering.features = {self.features!r}: hidden_states need the work "
                       "directory of the model that makes them, and other features none")
    if self.largest > self.sample:
      raise InputError(f"Clustering.sample = {self.sample}: fewer passages than the {self.largest} clusters to be found in them")
    if self.balance is not None:
      if not 0 < self.balance < 1:
        raise InputError(f"Clustering.balance = {self.balance}: must lie between 0 and 1, as .05 for clusters within 5 % of the "
                         "mean; None leaves them as they fall")
      if self.batch:
        raise InputError(f"Clustering.batch = {self.batch}: minibatches cannot be balanced; leave out batch or balance")
      for level in self.all_levels:
        if self.largest % level:
          raise InputError(f"Clustering.levels: {self.largest} balanced clusters do not make {level} of one size; take a divisor")

  @property
  def of_vectors(self) -> bool:
    """Whether the user supplies a vector for each document."""
    return self.by == "kmeans" and self.features.endswith(".npy")

  @property
  def all_levels(self) -> tuple[int, ...]:
    """Every number of clusters that the fit gives, ascending."""
    return tuple(sorted({self.k, *self.levels}))

  @property
  def largest(self) -> int:
    """The largest number of clusters that is asked for."""
    return self.all_levels[-1]

  @property
  def fine(self) -> int:
    """How many clusters are looked for in the features, before they are merged.

    They are more than the largest number: unions of fine clusters follow domains of any shape, where k-means alone draws straight
    borders halfway between means. Balanced ones are no more, as they are chosen for their sizes.
    """
    return self.largest if self.balance is not None else max(self.largest, min(_FINER * self.k, _MOST_FINE))
