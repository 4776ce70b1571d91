"""Texts of any lengths in batches of a few shapes, so that a handful of programs serves them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

_SHORTEST = 16  # Lengths that batches have: this, half as much more, twice as much, and so on.
_FEWEST = 2  # Targets that the sequences of a batch have room for: this, four times as many, and so on.
_BRIEFEST = 4  # Lengths of what follows a shared beginning: this, twice as many, and so on.


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


class Group(NamedTuple):
  """Spans of one question, by their numbers, whose first `shared` tokens are the same and are context alone."""

  spans: tuple[int, ...]
  shared: int


class GroupBatch(NamedTuple):
  """Groups of C spans each, [Q] of them, and the arrays of a batch.

  Attributes:
    groups: the groups, Q at most.
    shared_QxT, first_Q: what their spans share, padded in front, and where it begins.
    rest_QxCxP, targets_QxCxP: the tokens behind it, padded behind, and the token that follows each of them.
  """

  groups: list[Group]
  shared_QxT: np.ndarray
  first_Q: np.ndarray
  rest_QxCxP: np.ndarray
  targets_QxCxP: np.ndarray


def batches(spans: Sequence[Span], numbers: np.ndarray, most: int, batch_tokens: int, divisor: int) -> Iterator[Batch]:
  """Batches of the spans with these numbers.

  What is left when the spans of one length have filled whole batches is padded to the next length, or, where that is less, filled up to
  a batch.

  Args:
    spans, numbers: all spans, and which of them are read.
    most: the longest span's tokens less one, at most.
    batch_tokens: tokens of a batch, padding included, about.
    divisor: V is a multiple of it.
  """
  lengths, rooms = _ladder(_SHORTEST, (1.5, 4 / 3), most), _ladder(_FEWEST, (4,), most)
  length_of = np.searchsorted(lengths, [len(spans[i].tokens) - 1 for i in numbers])
  waiting = np.zeros(0, np.int64)
  for step, length in enumerate(lengths[:length_of.max() + 1]):
    waiting = np.concatenate([waiting, numbers[length_of == step]])
    waiting = waiting[np.argsort([spans[i].targets for i in waiting], kind="stable")]
    size = _rows(batch_tokens // length, divisor)
    left, last = len(waiting) % size, step == length_of.max()
    carried = 0 if last or 0 < left < len(waiting) and left * (lengths[step + 1] - length) > (size - left) * length else left
    now, waiting = waiting[:len(waiting) - carried], waiting[len(waiting) - carried:]
    for at in range(0, len(now), size):
      of = now[at:at + size]
      # A batch that is the only one of its shape need not be a full one.
      rows = size if len(now) > size else min(size, _rows_for(len(of), divisor))
      room = rooms[np.searchsorted(rooms, max(spans[i].targets for i in of))]
      yield _filled(spans, of, length, min(length, room), rows)


def groups_of(spans: Sequence[Span], questions: Sequence[Sequence[int]]) -> list[Group]:
  """Of each question, given by its spans' numbers, what they share; those that share too little to gain by it are left out."""
  found = []
  for question in questions:
    own = [spans[i] for i in question]
    shared = min(min(span.first for span in own) - 1, min(len(span.tokens) for span in own) - 2)
    for span in own[1:]:
      differs = np.flatnonzero(span.tokens[:shared] != own[0].tokens[:shared])
      shared = int(differs[0]) if len(differs) else shared
    if len(own) > 1 and shared > 0:
      longest = max(len(span.tokens) for span in own) - 1
      together = _step(shared, _SHORTEST) + len(own) * _step(longest - shared, _BRIEFEST)
      if together < len(own) * longest:
        found.append(Group(tuple(question), shared))
  return found


def group_batches(spans: Sequence[Span], groups: Sequence[Group], batch_tokens: int, divisor: int) -> Iterator[GroupBatch]:
  """Batches of groups of as many spans each. Arguments as for `batches`; Q is a multiple of `divisor`."""
  length = lambda group: _step(group.shared, _SHORTEST)
  rest = lambda group: max(len(spans[i].tokens) for i in group.spans) - 1 - group.shared
  shape = lambda group: (len(group.spans), length(group))
  ordered = sorted(groups, key=lambda group: (*shape(group), rest(group)))
  while ordered:
    # The last group of a shape has the longest rests; those that are nearest to it in length share its batch.
    last = ordered[-1]
    (count, shared), behind = shape(last), _step(rest(last), _BRIEFEST)
    size = _rows(batch_tokens // (shared + count * behind), divisor)
    now = [group for group in ordered[-size:] if shape(group) == (count, shared)]
    ordered = ordered[:len(ordered) - len(now)]
    tokens, first = np.zeros((size, shared), np.int32), np.full(size, shared, np.int32)
    after, targets = np.zeros((size, count, behind), np.int32), np.zeros((size, count, behind), np.int32)
    for row, group in enumerate(now):
      first[row] = shared - group.shared
      tokens[row, first[row]:] = spans[group.spans[0]].tokens[:group.shared]
      for choice, i in enumerate(group.spans):
        own = spans[i].tokens[group.shared:]
        after[row, choice, :len(own) - 1], targets[row, choice, :len(own) - 1] = own[:-1], own[1:]
    yield GroupBatch(now, tokens, first, after, targets)


def _filled(spans: Sequence[Span], numbers: np.ndarray, length: int, room: int, rows: int) -> Batch:
  tokens, at, targets = np.zeros((rows, length), np.int32), np.zeros((rows, room), np.int32), np.zeros((rows, room), np.int32)
  for row, (ids, first) in enumerate(spans[i] for i in numbers):
    tokens[row, :len(ids) - 1], targets[row, :len(ids) - first] = ids[:-1], ids[first:]
    at[row, :len(ids) - first] = np.arange(first - 1, len(ids) - 1)
  return Batch(numbers, tokens, at, targets)


def _rows(fit: int, divisor: int) -> int:
  """Rows of a batch, of which `fit` are wanted: a power of two for each of the devices that share it."""
  return divisor * (1 << (max(fit // divisor, 1).bit_length() - 1))


def _rows_for(needed: int, divisor: int) -> int:
  """The least number of rows that `_rows` gives and `needed` fit in."""
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
