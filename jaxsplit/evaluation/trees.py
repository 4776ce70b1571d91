"""Spans of a question as one prefix tree: what they have in common at their beginnings is read once.

The tokens of a tree lie in a row depth first, and trees lie side by side in rows of a few lengths, so that a handful of programs
serves spans of any lengths and hardly any of what is computed is padding. What a token sees is its path (`models.cache.Tree`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxsplit.evaluation.batching import Span, rows_of

PARTS = 8  # Of the targets of a batch, whose logits are computed one part after the other, as many parts as there are targets for.
_SHORTEST = 64  # Lengths of rows: this, twice as much, and so on.
_SHAPE_COSTS = 1024  # Compiling a program for one more length of rows takes about as long as reading so many tokens.


class Tree(NamedTuple):
  """Spans as a prefix tree of n tokens, with the m targets of all of them.

  Attributes:
    spans: their numbers, in the order of the targets.
    tokens, depth, first, end: int [n], as in `models.cache.Tree`, columns counted from the tree's own first.
    at, targets: int [m], the columns that foretell the targets, and the targets, span after span.
    counts: of targets of each span.
  """

  spans: tuple[int, ...]
  tokens: np.ndarray
  depth: np.ndarray
  first: np.ndarray
  end: np.ndarray
  at: np.ndarray
  targets: np.ndarray
  counts: tuple[int, ...]

  @property
  def size(self) -> int:
    """Columns that it needs in a row, for tokens and for targets."""
    return max(len(self.tokens), len(self.at))


class TreeRows(NamedTuple):
  """Rows of trees, padded behind, of which `likelihood.score_trees` takes B with P = T targets each.

  Attributes:
    tokens_BxT, depth_BxT, first_BxT, end_BxT: as in `models.cache.Tree`.
    at_BxP, targets_BxP: the columns that foretell the targets, and the targets.
    parts: how many of the `PARTS` of P have a target.
  """

  tokens_BxT: np.ndarray
  depth_BxT: np.ndarray
  first_BxT: np.ndarray
  end_BxT: np.ndarray
  at_BxP: np.ndarray
  targets_BxP: np.ndarray
  parts: np.ndarray


class TreeBatch(NamedTuple):
  """Rows that are read together, and where in them each span's targets are: (its number, the row, the first of its targets)."""

  rows: TreeRows
  places: list[tuple[int, int, int]]


def tree_of(spans: Sequence[Span], numbers: Sequence[int], restart: int | None) -> Tree:
  """The tree of the spans with these numbers; `restart` is the token behind which attention begins anew, if there is one."""
  order = tuple(sorted(numbers, key=lambda i: spans[i].tokens.tolist()))  # Neighbours have the longest beginnings in common.
  room = sum(len(spans[i].tokens) - 1 for i in order)
  end, path, before = np.zeros(room, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int32)
  tokens, depth, first, at, count = [], [], [], [], 0
  for i in order:
    own = spans[i].tokens[:-1]
    differs = np.flatnonzero(own[:len(before)] != before[:len(own)])
    shared = int(differs[0]) if len(differs) else min(len(own), len(before))
    end[path[shared:]] = count
    path = np.concatenate([path[:shared], np.arange(count, count + len(own) - shared, dtype=np.int32)])
    starts = np.zeros(len(own), np.int32)
    if restart is not None:
      starts[1:] = np.maximum.accumulate(np.where(own[:-1] == restart, np.arange(1, len(own)), 0))
    tokens.append(own[shared:])
    depth.append(np.arange(shared, len(own)))
    first.append(path[starts[shared:]])
    at.append(path[spans[i].first - 1:])
    count, before = count + len(own) - shared, own
  end[path] = count
  targets = np.concatenate([spans[i].tokens[spans[i].first:] for i in order])
  return Tree(order, *map(np.concatenate, (tokens, depth, first)), end[:count], np.concatenate(at), targets,
              tuple(spans[i].targets for i in order))


def tree_batches(trees: Sequence[Tree], batch_tokens: int, divisor: int, width: int | None) -> Iterator[TreeBatch]:
  """Batches of all trees.

  Args:
    trees: which.
    batch_tokens: tokens of a batch, padding included, about.
    divisor: B is a multiple of it.
    width: of the models, by which the lengths of rows are chosen: whole scores take T / (6 width) of what all else does; None where
      attention takes only what the trees themselves need.
  """
  if not trees:
    return
  least = _SHORTEST
  while least < max(tree.size for tree in trees):
    least *= 2
  cost = lambda plan: sum(_SHAPE_COSTS + len(rows) * length * (1 + (length / (6 * width) if width else 0)) for length, rows in plan)
  for length, rows in min((_plan(trees, length, cost) for length in (least, 2 * least)), key=cost):
    rows = sorted(rows, key=lambda row: sum(len(tree.at) for tree in row))
    most = rows_of(batch_tokens // length, divisor)
    each = -(-len(rows) // -(-len(rows) // most))
    each = -(-each // divisor) * divisor
    for start in range(0, len(rows), each):
      yield _batch(rows[start:start + each], each, length)


def _plan(trees: Sequence[Tree], length: int, cost) -> list[tuple[int, list[list[Tree]]]]:
  """The trees in rows of this length, or those that are much shorter in rows of half of it, and so on: whatever costs least."""
  plan = [(length, _rows(trees, length))]
  small = [tree for tree in trees if tree.size <= length // 4]
  if length == _SHORTEST or not small:
    return plan
  large = [tree for tree in trees if tree.size > length // 4]
  other = [*([(length, _rows(large, length))] if large else []), *_plan(small, length // 2, cost)]
  return min(plan, other, key=cost)


def _rows(trees: Sequence[Tree], length: int) -> list[list[Tree]]:
  """The trees in as few rows as may be: the largest first, each to where it leaves the least."""
  rows: list[list[Tree]] = []
  left = np.zeros((len(trees), 2), np.int64)  # Columns, and places for targets.
  for tree in sorted(trees, key=lambda tree: -tree.size):
    after = left[:len(rows)] - (len(tree.tokens), len(tree.at))
    room = np.where(after.min(1) < 0, 2 * length, after[:, 0])
    row = int(room.argmin()) if len(rows) and room.min() < 2 * length else len(rows)
    if row == len(rows):
      rows.append([])
      left[row] = length
    rows[row].append(tree)
    left[row] -= (len(tree.tokens), len(tree.at))
  return rows


def _batch(rows: Sequence[Sequence[Tree]], each: int, length: int) -> TreeBatch:
  empty = lambda: np.zeros((each, length), np.int32)
  own = np.tile(np.arange(length, dtype=np.int32), (each, 1))  # What pads a row sees itself, and nothing else sees it.
  out, places = TreeRows(empty(), empty(), own, own + 1, empty(), empty(), np.int32(0)), []
  most = 1
  for row, trees in enumerate(rows):
    column = target = 0
    for tree in trees:
      for span, first in zip(tree.spans, np.cumsum((0, *tree.counts))):
        places.append((span, row, target + int(first)))
      of, to = slice(column, column + len(tree.tokens)), slice(target, target + len(tree.at))
      out.tokens_BxT[row, of], out.depth_BxT[row, of] = tree.tokens, tree.depth
      out.first_BxT[row, of], out.end_BxT[row, of] = column + tree.first, column + tree.end
      out.at_BxP[row, to], out.targets_BxP[row, to] = column + tree.at, tree.targets
      column, target = of.stop, to.stop
    most = max(most, target)
  return TreeBatch(out._replace(parts=np.int32(-(-most // (length // PARTS)))), places)
