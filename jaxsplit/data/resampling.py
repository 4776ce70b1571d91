"""Scarce domains: an endless stream of other domains' training windows that is resampled to look like a scarce domain's text.

The training text of all domains is divided into clusters c. Windows of other domains are drawn with the importance weights
w(c) = P(c | scarce domain) / P(c | other domains) (Grangier et al. 2024, arXiv 2410.03735): of the stream, cluster c makes up
w(c) P(c | other domains), in exact proportion, and within a cluster each window is read once before any is read again.
"""

from __future__ import annotations

import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from jaxsplit.clustering.importance import importance_weights
from jaxsplit.data.store import Store
from jaxsplit.data.stream import Epochs, Stream, interleaved
from jaxsplit.errors import InputError
from jaxsplit.files import content_hash

WINDOWS, COUNTS = "windows.npy", "counts.npy"  # The files of a `WindowClusters`.
_SPAN_TOKENS = 512  # Windows in a row that are fewer tokens than this have one cluster: too few words say little.
_SAMPLE = 50_000  # Spans that clusters are fitted to, at most.


class WindowClusters:
  """The training windows of a store's domains, by cluster: read from the folder that `find` wrote; memory-mapped.

  Args:
    folder: the files.
    store: the store whose windows these are.
    domains: those of its domains that have clusters.
    sequence_length: T of the windows.
  """

  def __init__(self, folder: str | os.PathLike, store: Store, domains: Sequence[str], sequence_length: int):
    self._store, self._domains, self._length = store, tuple(domains), sequence_length
    self._windows = np.load(pathlib.Path(folder) / WINDOWS, mmap_mode="r").view(np.ndarray)  # [windows], by domain and cluster.
    self._counts_DxK = np.load(pathlib.Path(folder) / COUNTS)
    self._ends_DxK = self._counts_DxK.cumsum().reshape(self._counts_DxK.shape)

  def covered(self, domain: str) -> float:
    """The share of a domain's training windows that are in clusters with windows of other domains."""
    counts_K = self._counts_DxK[self._domains.index(domain)]
    return float(counts_K[self._others(domain) > 0].sum() / counts_K.sum())

  def origin(self, domain: str) -> dict[str, float]:
    """The share of each other domain in the resampled stream of `domain`, the largest first.

    Raises:
      InputError: no cluster holds text of `domain` and of another one.
    """
    shares_K = self._shares(domain)
    general_K = np.maximum(self._others(domain), 1)
    shares = {name: float(shares_K @ (counts_K / general_K)) for name, counts_K in zip(self._domains, self._counts_DxK) if name != domain}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))

  def stream(self, domain: str, seed: int) -> Stream:
    """The endless resampled stream for a scarce domain; streams of other seeds are shuffled independently."""
    shares_K = self._shares(domain)
    chosen = np.flatnonzero(shares_K)
    return interleaved([self._cluster(domain, cluster, seed) for cluster in chosen], shares_K[chosen].tolist())

  def _cluster(self, domain: str, cluster: int, seed: int) -> Stream:
    """The windows of a cluster that are not of `domain`."""
    parts = []
    for d, name in enumerate(self._domains):
      if name != domain and (count := self._counts_DxK[d, cluster]):
        end = self._ends_DxK[d, cluster]
        parts.append((name, self._store.windows(name, "train", self._length), self._windows[end - count:end]))
    return _Chosen(parts, int(content_hash(str(seed), domain, str(cluster)), 16))

  def _shares(self, domain: str) -> np.ndarray:
    """w(c) P(c | other domains): the share of each cluster in the stream for `domain`, [K], before they are scaled to a sum of 1."""
    clusters, general_K = np.arange(self._counts_DxK.shape[1]), self._others(domain)
    try:
      weights_K = importance_weights(clusters, clusters, self._counts_DxK[self._domains.index(domain)], general_K)
    except InputError as error:
      raise InputError(f"domain {domain}: cannot be resampled from other domains: {error}") from None
    shares_K = weights_K * general_K
    return shares_K / shares_K.sum()

  def _others(self, domain: str) -> np.ndarray:
    return self._counts_DxK.sum(0) - self._counts_DxK[self._domains.index(domain)]


def find(store: Store, domains: Sequence[str], sequence_length: int, clusters: int, seed: int, folder: pathlib.Path) -> None:
  """Finds clusters of the training text of some domains by TF-IDF, and writes which windows are in each into `folder`.

  Args:
    store: where the tokens are.
    domains: of the store.
    sequence_length: T of the windows.
    clusters: K.
    seed: of the sample that clusters are fitted to, and of the fit.
    folder: for `WindowClusters`; made.

  Raises:
    InputError: too little text for so many clusters.
  """
  from jaxsplit.clustering.clusters import fit_clusters  # Imports scikit-learn, which takes a second.
  from jaxsplit.clustering.settings import Clustering

  span = -(-_SPAN_TOKENS // sequence_length)  # Windows.
  windows = {domain: len(store.windows(domain, "train", sequence_length)) for domain in domains}
  spans = {domain: -(-count // span) for domain, count in windows.items()}
  ends = np.cumsum(list(spans.values()))

  def texts(domain: str, numbers: Iterable[int]) -> Iterator[str]:
    tokens = store.tokens(domain, "train").view(np.ndarray)
    for number in numbers:
      piece = tokens[number * span * sequence_length:(number + 1) * span * sequence_length]
      yield store.tokenizer.decode(piece[piece != store.end_of_document].tolist())

  drawn = np.sort(np.random.default_rng([seed, 2]).choice(ends[-1], min(ends[-1], _SAMPLE), replace=False))
  of_domain = np.split(drawn, np.searchsorted(drawn, ends[:-1]))
  sample = itertools.chain.from_iterable(
      texts(domain, (numbers - (end - spans[domain])).tolist()) for domain, numbers, end in zip(domains, of_domain, ends))
  try:
    fitted = fit_clusters(sample, Clustering(k=clusters, seed=seed, sample=max(_SAMPLE, clusters)))
  except InputError as error:
    raise InputError(f"Experiment.resample_clusters = {clusters}: {error}") from None
  folder.mkdir(parents=True, exist_ok=True)
  by_cluster = np.lib.format.open_memmap(folder / WINDOWS, "w+", np.int64, (sum(windows.values()),))
  counts_DxK, done = np.zeros((len(domains), clusters), np.int64), 0
  for d, domain in enumerate(domains):
    of_span = np.fromiter((cluster for _, cluster in fitted.assign_stream(texts(domain, range(spans[domain])))), np.int32, spans[domain])
    of_window = np.repeat(of_span, span)[:windows[domain]]
    by_cluster[done:done + windows[domain]] = np.argsort(of_window, kind="stable")
    counts_DxK[d] = np.bincount(of_window, minlength=clusters)
    done += windows[domain]
  by_cluster.flush()
  np.save(folder / COUNTS, counts_DxK)


class _Chosen(Stream):
  """Chosen windows of several domains, all of them once an epoch, in another order each epoch.

  Args:
    parts: of each domain its name, its windows [n, T + 1], and the numbers of those that are chosen [m].
    key: of the order.
  """

  def __init__(self, parts: Sequence[tuple[str, np.ndarray, np.ndarray]], key: int):
    super().__init__()
    self._parts = parts
    self._ends = np.cumsum([len(numbers) for _, _, numbers in parts])
    self._order = Epochs(int(self._ends[-1]), key)
    self.window_length = parts[0][1].shape[1]

  def rows(self, indices: np.ndarray) -> np.ndarray:
    out = np.empty((len(indices), self.window_length), np.int32)
    for mine, _, windows, numbers in self._found(indices):
      out[mine] = windows[numbers]
    return out

  def origins(self, indices: np.ndarray) -> list[tuple[str, int]]:
    out = np.empty(len(indices), object)
    for mine, domain, _, numbers in self._found(indices):
      out[mine] = np.fromiter(((domain, int(number)) for number in numbers), object, len(numbers))
    return out.tolist()

  def _found(self, indices: np.ndarray) -> Iterator[tuple[np.ndarray, str, np.ndarray, np.ndarray]]:
    """For each domain that has some of the elements: a mask of these, its name, its windows, and the elements' numbers among them."""
    positions = self._order(indices)
    part_of = np.searchsorted(self._ends, positions, side="right")
    for part in np.unique(part_of):
      mine = part_of == part
      domain, windows, numbers = self._parts[part]
      yield mine, domain, windows, numbers[positions[mine] - (self._ends[part] - len(numbers))]
