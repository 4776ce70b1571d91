"""Streams of training windows and the batches that a run stack takes from them. Nothing here has state that must be saved.

A stream is an endless Grain MapDataset of int32 windows [T + 1]: element i depends on its arguments and i alone. Row b of step s
of a run is element s * B + b of the run's stream, so resuming, or reading with any number of hosts, needs only the step.

The order of an epoch is a permutation that is computed element by element (permutation.py): a stream over 10^9 windows holds
nothing, and starts at once.

Grain reads element by element. With its own shuffle, repeat and mix that costs 30 to 120 microseconds a window on one core: ten
seconds and more of a run of a few minutes. A stream here also reads a whole array of elements at once, `rows`, for 0.5 to 4
microseconds a window. It is still a MapDataset: any transformation of Grain takes it as its parent.
"""

from __future__ import annotations

import abc
import concurrent.futures
import dataclasses
import fractions
import functools
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import grain
import numpy as np

from jaxsplit.data.permutation import Permutation
from jaxsplit.data.store import Store
from jaxsplit.errors import InputError
from jaxsplit.files import content_hash

_MOST_SHARES = 1 << 31  # Of all streams of a mixture together: the product of two still fits 63 bits.


class Windows(NamedTuple):
  """Windows of tokens, and what their targets count.

  Attributes:
    tokens: int32 [..., T + 1]; inputs are [..., :-1], targets [..., 1:].
    weights: float32 [..., T], what each target counts; None where all count the same.
  """

  tokens: np.ndarray
  weights: np.ndarray | None = None


class Stream(grain.MapDataset[np.ndarray]):
  """An endless MapDataset of windows, int32 [T + 1], that can read many at once.

  Attributes:
    window_length: T + 1.
    weighted: whether targets have weights; otherwise all count the same.
  """

  window_length: int
  weighted: bool = False

  @abc.abstractmethod
  def rows(self, indices: np.ndarray) -> np.ndarray:
    """The elements at `indices` (int64 [n], any order, repeats allowed): int32 [n, T + 1]."""

  def weights(self, indices: np.ndarray) -> np.ndarray:
    """Of a weighted stream, what the targets of the elements at `indices` count: float32 [n, T]."""
    raise NotImplementedError

  @abc.abstractmethod
  def origins(self, indices: np.ndarray) -> list[tuple[str, int]]:
    """Where the elements at `indices` come from: domain, and number among the windows of its training split."""

  def __len__(self) -> int:
    return sys.maxsize

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    return self.rows(np.array([index]))[0]


class Epochs:
  """The order of a stream that has `count` things once an epoch, newly shuffled for each: computed, not held."""

  def __init__(self, count: int, key: int):
    self._count = count
    # A block of batches touches one epoch, or two where one ends.
    self._order = functools.lru_cache(maxsize=2)(lambda epoch: Permutation(count, (key, epoch)))

  def __call__(self, indices: np.ndarray) -> np.ndarray:
    """Which things are the elements at `indices`: int64 [n] below `count`."""
    epochs, positions = np.divmod(indices, self._count)
    found = np.empty(len(indices), np.int64)
    for epoch in np.unique(epochs):
      here = epochs == epoch
      found[here] = self._order(int(epoch))(positions[here])
    return found


class _Shuffled(Stream):
  """All windows of an array once an epoch, in another order each epoch."""

  def __init__(self, windows: Windows, key: int, domain: str):
    super().__init__()
    self._domain = domain
    self.window_length, self.weighted = windows.tokens.shape[1], windows.weights is not None
    self._windows, self._numbers = windows, Epochs(len(windows.tokens), key)

  def rows(self, indices: np.ndarray) -> np.ndarray:
    return self._windows.tokens[self._numbers(indices)].astype(np.int32)

  def weights(self, indices: np.ndarray) -> np.ndarray:
    return self._windows.weights[self._numbers(indices)]

  def origins(self, indices: np.ndarray) -> list[tuple[str, int]]:
    return [(self._domain, int(number)) for number in self._numbers(indices)]


class _Mixed(Stream):
  """Streams interleaved in fixed proportions, as evenly as integers allow, by the rule of Grain's MapDataset.mix."""

  def __init__(self, streams: Sequence[Stream], proportions: Sequence[int]):
    super().__init__(streams)
    self.window_length, self.weighted = streams[0].window_length, streams[0].weighted
    self._proportions = proportions

  def rows(self, indices: np.ndarray) -> np.ndarray:
    out = np.empty((len(indices), self.window_length), np.int32)
    for stream, own, taken in self._divided(indices):
      out[own] = stream.rows(taken)
    return out

  def weights(self, indices: np.ndarray) -> np.ndarray:
    out = np.empty((len(indices), self.window_length - 1), np.float32)
    for stream, own, taken in self._divided(indices):
      out[own] = stream.weights(taken)
    return out

  def origins(self, indices: np.ndarray) -> list[tuple[str, int]]:
    out = np.empty(len(indices), object)
    for stream, own, taken in self._divided(indices):
      out[own] = np.fromiter(stream.origins(taken), object, len(taken))
    return out.tolist()

  def _divided(self, indices: np.ndarray) -> Iterator[tuple[Stream, np.ndarray, np.ndarray]]:
    """Each stream, a mask of the elements that are its own, and their numbers in it."""
    # Of the elements before number n that no earlier stream has taken, a stream of share p / left takes all but
    # floor(n * (left - p) / left). An element is its own when that count grows from n to n + 1. Whole rounds of `left` are
    # counted apart: the product of n and a share could be more than 64 bits hold.
    before, after, left = indices, indices + 1, sum(self._proportions)
    for stream, proportion in zip(self.parents, self._proportions):
      rounds = (np.divmod(n, left) for n in (before, after))
      others_before, others_after = (q * (left - proportion) + r * (left - proportion) // left for q, r in rounds)
      taken = before - others_before
      own = after - others_after > taken
      yield stream, own, taken[own]
      before, after, left = others_before, others_after, left - proportion


def windows(store: Store, domain: str, seed: int, sequence_length: int) -> Stream:
  """The endless stream of a domain's training windows: each once an epoch, newly shuffled for each epoch.

  Args:
    store: where the tokens are.
    domain: one of `store.domains`.
    seed: streams of other seeds, and of other domains, are shuffled independently. A mixture of the same seed reads this
      domain's windows in this order too, so an expert that should not begin with what its trunk began with takes another seed.
    sequence_length: T; a window has T + 1 tokens.
  """
  read = Windows(store.windows(domain, "train", sequence_length), store.weights(domain, "train", sequence_length))
  return _Shuffled(read, int(content_hash(str(seed), domain), 16), domain)


def mixture(store: Store, weights: Mapping[str, float], seed: int, sequence_length: int) -> Stream:
  """Several domains' streams, interleaved in exact proportion to their weights. A domain of weight 0 is left out.

  Raises:
    InputError: an unknown domain, a weight that is negative or not finite, no positive weight, or weights further apart than
      1 : 10,000.
  """
  for domain, weight in weights.items():
    store.counts(domain, "train")
    if not (math.isfinite(weight) and weight >= 0):
      raise InputError(f"mixture weight of domain {domain} = {weight}: must be 0 or a positive number")
  positive = {domain: weights[domain] for domain in sorted(weights) if weights[domain] > 0}
  if not positive:
    raise InputError("mixture weights: at least one must be positive")
  least, most = min(positive.values()), max(positive.values())
  if most / least > 1e4:
    raise InputError(f"mixture weights from {least:g} to {most:g} lie further apart than 1 : 10,000; leave the smallest out")
  return interleaved([windows(store, domain, seed, sequence_length) for domain in positive], list(positive.values()))


def interleaved(streams: Sequence[Stream], weights: Sequence[float]) -> Stream:
  """Streams of windows of one length, interleaved in exact proportion to their positive weights."""
  return streams[0] if len(streams) == 1 else _Mixed(streams, _proportions(weights))


@dataclasses.dataclass(frozen=True)
class Batches:
  """The batches of a run stack of R runs: one stream and B rows a step for each.

  Attributes:
    streams: the run's stream, for each run, [R].
    batch_size: B, rows of a run's batch.
  """

  streams: Sequence[Stream]
  batch_size: int

  def block(self, first_step: Sequence[int], num_steps: int, rows: slice | np.ndarray = slice(None),
            runs: slice | np.ndarray = slice(None)) -> Windows:
    """Consecutive batches of every run: tokens int32 [num_steps, R, B, T + 1], weights float32 [num_steps, R, B, T] or None.

    Args:
      first_step: the step at which each run's batches begin, [R]; runs of a stack may have different histories.
      num_steps: how many steps.
      rows, runs: the rows of each batch and the runs to read; a host that holds a part of them reads only its own.
    """
    row, taken = np.arange(self.batch_size)[rows], np.arange(len(self.streams))[runs]
    of_run = list(zip(self.streams, first_step, strict=True))
    steps = np.arange(num_steps, dtype=np.int64)
    elements = [(stream, ((first + steps[:, None]) * self.batch_size + row).ravel())
                for stream, first in (of_run[run] for run in taken)]
    stacked = lambda read: np.stack([part.reshape(num_steps, len(row), -1) for part in read], axis=1)
    tokens = stacked(stream.rows(indices) for stream, indices in elements)
    weighted = self.streams[0].weighted
    return Windows(tokens, stacked(stream.weights(indices) for stream, indices in elements) if weighted else None)

  def blocks(self, requests: Iterable[tuple[Sequence[int], int]], rows: slice | np.ndarray = slice(None),
             runs: slice | np.ndarray = slice(None)) -> Iterator[Windows]:
    """Yields `block(first_step, num_steps, rows, runs)` of each request, in order; a thread reads the next one meanwhile.

    Requests are taken one ahead of the blocks.
    """
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="batches") as reader:
      ahead = None
      for first_step, num_steps in requests:
        following = reader.submit(self.block, first_step, num_steps, rows, runs)
        if ahead is not None:
          yield ahead.result()
        ahead = following
      if ahead is not None:
        yield ahead.result()


def validation(
    store: Store, domain: str, sequence_length: int, max_tokens: int | None = None, split: str = "valid") -> Windows:
  """Windows to evaluate on, [num_windows, T + 1], not overlapping in their targets, in the order of the text.

  Where `max_tokens` targets are fewer than the split has, the windows taken are spread evenly over it.

  Raises:
    InputError: a split smaller than one window.
  """
  available = store.windows(domain, split, sequence_length)
  wanted = len(available) if max_tokens is None else min(len(available), max(1, max_tokens // sequence_length))
  taken, weights = np.arange(wanted) * len(available) // wanted, store.weights(domain, split, sequence_length)
  return Windows(available[taken].astype(np.int32), None if weights is None else weights[taken])


def bytes_per_token(store: Store, domain: str, split: str = "valid") -> float:
  """UTF-8 bytes of text for each token, separators included: bits per byte = nats per token / ln 2 / this. NaN where there is no
  text, of tokens without a tokenizer."""
  return store.bytes(domain, split) / store.count(domain, split) or math.nan


def _proportions(weights: Iterable[float]) -> list[int]:
  """Whole numbers in the proportion of the weights, read as the decimals that they are written as: 0.1 and 0.7 are 1 and 7.

  Where their sum is more than _MOST_SHARES, they are those nearest to that proportion whose sum is _MOST_SHARES.
  """
  exact = [fractions.Fraction(repr(float(weight))) for weight in weights]
  total = sum(exact)
  whole = math.lcm(*((weight / total).denominator for weight in exact))
  scaled = [weight / total * min(whole, _MOST_SHARES) for weight in exact]
  shares = [int(share) for share in scaled]
  by_remainder = sorted(range(len(shares)), key=lambda i: (shares[i] - scaled[i], i))
  for i in by_remainder[:min(whole, _MOST_SHARES) - sum(shares)]:
    shares[i] += 1
  return shares
