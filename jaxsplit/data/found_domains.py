"""Domains found by clustering: assigns the documents of a corpus to clusters of their texts.

What is held out was decided before, by the hashes of documents; so it is the same for every number of clusters.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from jaxsplit.clustering.clusters import Clusters, fit_clusters, fit_vectors, sampled
from jaxsplit.clustering.features import read_vectors
from jaxsplit.clustering.settings import Clustering
from jaxsplit.data.domains import Document, Domain, ReadCorpus
from jaxsplit.data.index import begins
from jaxsplit.data.paths import SPLITS
from jaxsplit.data.reading import NO_DOMAIN
from jaxsplit.errors import InputError
from jaxsplit.passages import PASSAGE_CHARACTERS

_BATCH = 1024  # Documents whose vectors are read at a time.
_TERMS = 4  # Of a cluster, in what is said of it.


def find_domains(read: ReadCorpus, clustering: Clustering, folder: pathlib.Path, log: Callable[[str], None]) -> ReadCorpus:
  """The same corpus with the clusters of its texts as domains: fitted on what is trained on, assigned to all documents.

  Args:
    read: the corpus; its rows get other domains.
    clustering: how many clusters, of which kind.
    folder: a new folder for the clusters.
    log: told what was found.

  Raises:
    InputError: what `fit_clusters` says, or a cluster without documents to train on or to hold out.
  """
  log("finding domains")
  vectors = _Vectors(clustering, read.index.rows) if clustering.of_vectors else None
  trained = read.documents("train")
  clusters = vectors.fit(trained) if vectors else fit_clusters((document.text for document in trained), clustering)
  clusters.save(folder)
  names = [f"cluster_{k:0{len(str(clustering.k - 1))}}" for k in range(clustering.k)]
  rows, there = read.index.rows, np.zeros((clustering.k, len(SPLITS)), bool)
  of_row = np.full(len(rows), NO_DOMAIN, np.uint32)
  for split in SPLITS:
    documents = read.documents(split)
    for document, cluster in (vectors.assigned(clusters, documents) if vectors else
                              clusters.assign_stream(documents, text=lambda document: document.text)):
      of_row[document.row] = cluster
      there[cluster, SPLITS.index(split)] = True
  rows["domain"] = of_row
  splits = {split: tuple(dict.fromkeys(file for domain in read.domains for file in domain.files.get(split, ()))) for split in SPLITS}
  files = {split: found for split, found in splits.items() if found}
  wanted = [split for split in SPLITS if any(split in domain.splits for domain in read.domains)]
  for k, name in enumerate(names):
    for split in wanted:
      if not there[k, SPLITS.index(split)]:
        raise InputError(f"domain {name}: none of the documents of its cluster are in {split}; take fewer clusters than "
                         f"Clustering.k = {clustering.k}, or balanced ones (Clustering.balance)")
  drawn = any(domain.drawn for domain in read.domains)
  domains = tuple(Domain(name, files, tuple(wanted), drawn, k) for k, name in enumerate(names))
  for line in _found(clusters, rows, names):
    log(line)
  return dataclasses.replace(read, domains=domains, clusters=clusters)


class _Vectors:
  """The vectors that the user supplies, of the documents of a corpus.

  Args:
    clustering: names them.
    rows: of the corpus (`Index.rows`).

  Raises:
    InputError: not as many as the corpus has documents.
  """

  def __init__(self, clustering: Clustering, rows: np.ndarray):
    self._settings = clustering
    self._document = np.cumsum(begins(rows)) - 1  # Of each row.
    self._vectors = read_vectors(clustering.features, int(self._document[-1]) + 1 if len(rows) else 0)

  def fit(self, documents: Iterable[Document]) -> Clusters:
    """Clusters of a sample of documents, which weigh what they have of passages."""
    sample = sampled(((document.row, len(document.text)) for document in documents), self._settings.sample, self._settings.seed)
    if self._settings.largest > len(sample):
      raise InputError(f"Clustering.k: {self._settings.largest} clusters of {len(sample)} documents; take at most {len(sample)}, or "
                       "more text")
    rows, sizes = np.array(sample).T
    return fit_vectors(self._vectors[self._document[rows]], self._settings, sizes, -(-sizes // PASSAGE_CHARACTERS))

  def assigned(self, clusters: Clusters, documents: Iterable[Document]) -> Iterator[tuple[Document, int]]:
    """Each document and its cluster."""
    while batch := list(itertools.islice(documents, _BATCH)):
      found = clusters.assign_vectors(self._vectors[self._document[[document.row for document in batch]]])
      yield from zip(batch, found.cluster.tolist())


def _found(clusters: Clusters, rows: np.ndarray, names: list[str]) -> Iterator[str]:
  """What was found, in words: a line for each cluster, and how the clusters agree with the labels."""
  placed = rows["domain"] != NO_DOMAIN
  sizes = np.bincount(rows["domain"][placed], rows["bytes"][placed], minlength=len(names))
  for k, name in enumerate(names):
    terms = clusters.top_terms(k, _TERMS)
    yield f"{name}: {sizes[k] / sizes.sum():.1%} of the bytes{': ' if terms else ''}{', '.join(terms)}"
  balance, off = clusters.settings.balance, np.abs(sizes / sizes.mean() - 1).max()
  if balance is not None and off > balance:
    yield f"clusters are within {off:.1%} of one size, not {balance:.1%} (Clustering.balance): a document cannot be divided"
  labels = rows["label"][placed]
  if (labels != labels[0]).any():
    from sklearn.metrics import adjusted_mutual_info_score  # Slow to import.

    agreement = adjusted_mutual_info_score(labels, rows["domain"][placed])
    yield f"adjusted mutual information of clusters and labels: {agreement:.2f} (1: the same, 0: by chance)"
