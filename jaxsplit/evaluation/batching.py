"""Texts of any lengths in batches of a few shapes, so that a handful of programs serves them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

_SHORTEST = 16  # Lengths that batches have: this, half as much more, twice as much, and so on.
_FEWEST = 2  # Targets that the sequences of a batch have room for: this, four times as many, and so on.


class Span(NamedTuple):
  """A stretch of text. `tokens`, int [n]; those from number `first` (1 or more) on are targets, the others their context."""

  tokens: np.ndarray
  first: int = 1

  @property
  def targets(self) -> int:
    """How many targets there are."""
    return len(self.tokens) - self.first


class Batch(NamedTuple):
  """Spans that are read together, [V] of them, by their numbers, and its arrays.

  Attributes:
    spans: int [n], n at most V.
    tokens_VxT, at_VxP, targets_VxP: as `likelihood.score` takes them; what fills them up is zeros.
  """

  spans: np.ndarray
  tokens_VxT: np.ndarray
  at_VxP: np.ndarray
  targets_VxP: np.ndarray


def batches(spans: Sequence[Span], most: int, batch_tokens: int, divisor: int) -> Iterator[Batch]:
  """Batches of all spans.

  What is left when the spans of one length have filled whole batches is padded to the next length, or, where that is less, filled up to
  a batch.

  Args:
    spans: which.
    most: the longest span's tokens less one, at most.
    batch_tokens: tokens of a batch, padding included, about.
    divisor: V is a multiple of it.
  """
  lengths, rooms = _ladder(_SHORTEST, (1.5, 4 / 3), most), _ladder(_FEWEST, (4,), most)
  length_of = np.searchsorted(lengths, [len(span.tokens) - 1 for span in spans])
  waiting = np.zeros(0, np.int64)
  for step, length in enumerate(lengths[:length_of.max() + 1]):
    waiting = np.concatenate([waiting, np.flatnonzero(length_of == step)])
    waiting = waiting[np.argsort([spans[i].targets for i in waiting], kind="stable")]
    size = rows_of(batch_tokens // length, divisor)
    left, last = len(waiting) % size, step == length_of.max()
    carried = 0 if last or 0 < left < len(waiting) and left * (lengths[step + 1] - length) > (size - left) * length else left
    now, waiting = waiting[:len(waiting) - carried], waiting[len(waiting) - carried:]
    for at in range(0, len(now), size):
      of = now[at:at + size]
      # A batch that is the only one of its shape need not be a full one.
      rows = size if len(now) > size else min(size, _rows_for(len(of), divisor))
      room = rooms[np.searchsorted(rooms, max(spans[i].targets for i in of))]
      yield _filled(spans, of, length, min(length, room), rows)


def _filled(spans: Sequence[Span], numbers: np.ndarray, length: int, room: int, rows: int) -> Batch:
  tokens, at, targets = np.zeros((rows, length), np.int32), np.zeros((rows, room), np.int32), np.zeros((rows, room), np.int32)
  for row, (ids, first) in enumerate(spans[i] for i in numbers):
    tokens[row, :len(ids) - 1], targets[row, :len(ids) - first] = ids[:-1], ids[first:]
    at[row, :len(ids) - first] = np.arange(first - 1, len(ids) - 1)
  return Batch(numbers, tokens, at, targets)


def rows_of(fit: int, divisor: int) -> int:
  """Rows of a batch, of which `fit` are wanted: a power of two for each of the devices that share it."""
  return divisor * (1 << (max(fit // divisor, 1).bit_length() - 1))


def _rows_for(needed: int, divisor: int) -> int:
  """The least number of rows that `rows_of` gives and `needed` fit in."""
  return divisor * _step(-(-needed // divisor), 1)


def _ladder(first: int, factors: Sequence[float], last: int) -> list[int]:
  """Whole numbers from `first` to `last`, each as many times the one before as the factors say in turn."""
  steps = [first]
  while steps[-1] < last:
    steps.append(round(steps[-1] * factors[(len(steps) - 1) % len(factors)]))
  return [*(step for step in steps if step < last), last]


def _step(count: int, first: int) -> int:
  """The least of `first`, twice that, four times that and so on which is `count` or more."""
  return first << max(-(-count // first) - 1, 0).bit_length()
