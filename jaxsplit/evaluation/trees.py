"""Spans that begin alike as prefix trees: what they have in common at their beginnings is read once.

The tokens of a tree lie in a row depth first, and trees lie side by side in rows of one length, or of a few where attention takes whole
scores, which are chosen so that little of what is computed is padding. What a token sees is its path (`models.cache.Tree`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxsplit.evaluation.batching import Span

PARTS = 32  # Of the targets of a batch, whose logits are computed one part after the other, as many parts as there are targets for.
_STEP = 64  # Lengths of rows are multiples of it, as attention by blocks needs (`models.kernels.blocks`).
_LONGEST = 1024  # Rows are no longer, if all trees fit.
_LARGEST = 384  # Tokens of a tree, where its spans allow that: small trees pack better.
_WORTH = 32  # For the same reason a tree ends where one more span would share with it less than 1 / 32 of its tokens.
_SHAPE_COSTS = 1024  # Compiling a program for one more length of rows takes about as long as reading so many tokens,
_BATCH_COSTS = 128  # and one more batch, beside its tokens, as so many on a CPU.


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
  """B rows of trees, padded behind. G devices share them, each with P = B T / G columns, and places for as many targets.

  Attributes:
    tokens_BxT, depth_BxT, first_BxT, end_BxT: as in `models.cache.Tree`.
    at_GxP, targets_GxP: the columns that foretell the targets, counted through a device's rows, and the targets.
    parts: how many of the `PARTS` of P have a target.
  """

  tokens_BxT: np.ndarray
  depth_BxT: np.ndarray
  first_BxT: np.ndarray
  end_BxT: np.ndarray
  at_GxP: np.ndarray
  targets_GxP: np.ndarray
  parts: np.ndarray


class TreeBatch(NamedTuple):
  """Rows that are read together, and where each span's targets are: (its number, the device, the first of its targets there)."""

  rows: TreeRows
  places: list[tuple[int, int, int]]


def trees_of(spans: Sequence[Span], restart: int | None) -> list[Tree]:
  """Spans as trees; `restart` is the token behind which attention begins anew, if there is one."""
  together: list[list[int]] = []
  # Neighbours in the order of their tokens, which is that of their bytes, have the longest beginnings in common.
  order = sorted(range(len(spans)), key=lambda i: spans[i].tokens.astype(">i4").tobytes())
  size, before = 0, np.zeros(0, np.int32)
  for i in order:
    own = spans[i].tokens[:-1]
    shared = _shared(before, own)
    if _WORTH * shared <= size or 2 * shared <= size and size + len(own) - shared > _LARGEST:
      together.append([])
      size = shared = 0
    together[-1].append(i)
    size, before = size + len(own) - shared, own
  return [_tree(spans, one, restart) for one in together]


def tree_batches(trees: Sequence[Tree], batch_tokens: int, divisor: int, width: int | None) -> Iterator[TreeBatch]:
  """Batches of all trees.

  Args:
    trees: which.
    batch_tokens: tokens of a batch, padding included, about.
    divisor: G, the devices that share a batch.
    width: of the models, by which the lengths of rows are chosen: whole scores take T / (6 width) of what all else does; None where
      attention takes only what the trees themselves need.
  """
  if not trees:
    return

  def each(rows: list, length: int) -> int:
    """Rows of a batch, in as few batches as may be, which are of one shape."""
    most = max(batch_tokens // (length * divisor), 1) * divisor
    return -(-len(rows) // (-(-len(rows) // most) * divisor)) * divisor

  def cost(plan: list) -> float:
    shapes = ((length, each(rows, length), len(rows)) for length, rows in plan)
    return sum(_SHAPE_COSTS + -(-count // size) * (_BATCH_COSTS + size * length * (1 + (length / (6 * width) if width else 0)))
               for length, size, count in shapes)

  least = -(-max(tree.size for tree in trees) // _STEP) * _STEP
  lengths = range(least, max(least, min(_LONGEST, batch_tokens // divisor)) + 1, _STEP)
  for length, rows in min((_plan(trees, length, cost) for length in lengths), key=cost):
    rows = sorted(rows, key=lambda row: sum(len(tree.at) for tree in row))
    size = each(rows, length)
    for start in range(0, len(rows), size):
      yield _batch(rows[start:start + size], size, length, divisor)


def _shared(a: np.ndarray, b: np.ndarray) -> int:
  """How many tokens two texts have in common at their beginnings."""
  least = min(len(a), len(b))
  differs = np.flatnonzero(a[:least] != b[:least])
  return int(differs[0]) if len(differs) else least


def _tree(spans: Sequence[Span], order: Sequence[int], restart: int | None) -> Tree:
  room = sum(len(spans[i].tokens) - 1 for i in order)
  end, path, before = np.zeros(room, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int32)
  tokens, depth, first, at, count = [], [], [], [], 0
  for i in order:
    own = spans[i].tokens[:-1]
    shared = _shared(before, own)
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
  return Tree(tuple(order), *map(np.concatenate, (tokens, depth, first)), end[:count], np.concatenate(at), targets,
              tuple(spans[i].targets for i in order))


def _plan(trees: Sequence[Tree], length: int, cost) -> list[tuple[int, list[list[Tree]]]]:
  """The trees in rows of this length, or those that are much shorter in rows of half of it, and so on: whatever costs least."""
  plan, half = [(length, _rows(trees, length))], -(-length // (2 * _STEP)) * _STEP
  small = [tree for tree in trees if tree.size <= length // 4]
  if length == _STEP or not small:
    return plan
  large = [tree for tree in trees if tree.size > length // 4]
  other = [*([(length, _rows(large, length))] if large else []), *_plan(small, half, cost)]
  return min(plan, other, key=cost)


def _rows(trees: Sequence[Tree], length: int) -> list[list[Tree]]:
  """The trees in as few rows as may be: the largest first, each to where it leaves the least."""
  rows: list[list[Tree]] = []
  left = np.zeros(len(trees), np.int64)
  for tree in sorted(trees, key=lambda tree: -tree.size):
    after = left[:len(rows)] - tree.size
    room = np.where(after < 0, 2 * length, after)
    row = int(room.argmin()) if len(rows) and room.min() < 2 * length else len(rows)
    if row == len(rows):
      rows.append([])
      left[row] = length
    rows[row].append(tree)
    left[row] -= tree.size
  return rows


def _batch(rows: Sequence[Sequence[Tree]], size: int, length: int, devices: int) -> TreeBatch:
  own = np.tile(np.arange(length, dtype=np.int32), (size, 1))  # What pads a row sees itself, and nothing else sees it.
  tokens, depth, first, end = np.zeros_like(own), np.zeros_like(own), own.copy(), own + 1
  share = size // devices
  at, targets = np.zeros((2, devices, share * length), np.int32)
  places, counts = [], [0] * devices
  for row, trees in enumerate(rows):
    (device, own_row), column = divmod(row, share), 0
    for tree in trees:
      for span, before in zip(tree.spans, np.cumsum((0, *tree.counts))):
        places.append((span, device, counts[device] + int(before)))
      to = slice(column, column + len(tree.tokens))
      tokens[row, to], depth[row, to], first[row, to], end[row, to] = tree.tokens, tree.depth, column + tree.first, column + tree.end
      to = slice(counts[device], counts[device] + len(tree.at))
      at[device, to], targets[device, to] = own_row * length + column + tree.at, tree.targets
      counts[device], column = to.stop, column + tree.size
  parts = -(-max(counts) // (share * length // PARTS))
  return TreeBatch(TreeRows(tokens, depth, first, end, at, targets, np.int32(parts)), places)
