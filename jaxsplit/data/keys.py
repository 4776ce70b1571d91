"""Finds equal documents by their hashes, in memory that does not grow with their number.

A key is 16 bytes that equal documents share. Rows with keys lie in a file, of any number; a few million of them at a time, those
of a range of keys, are held and sorted.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

KEY_FIELDS = [("high", ">u8"), ("low", ">u8")]  # Big-endian, so that numbers have the order of the bytes.

_HELD = 1 << 20  # Rows at a time, some 200 bytes each while they are sorted.
_SCANNED = 1 << 20


class Part(NamedTuple):
  """The rows of a range of keys, sorted by key and then by their place.

  Attributes:
    rows: their places in the file [n].
    groups: the number of each row's key, from 0 [n].
  """

  rows: np.ndarray
  groups: np.ndarray


def by_key(rows: np.ndarray, held: int = _HELD) -> Iterator[Part]:
  """Yields all rows of a structured array (KEY_FIELDS among its fields), in parts, by ascending keys; equal keys share a part."""
  count = max(1, -(-len(rows) // held))
  bounds = [(part << 64) // count for part in range(1, count)]
  for part in range(count):
    low, high = ([0, *bounds][part], [*bounds, 1 << 64][part] - 1)
    places, keys = [], []
    for first in range(0, len(rows), _SCANNED):
      scanned = rows[first:first + _SCANNED]
      inside = np.flatnonzero((scanned["high"] >= np.uint64(low)) & (scanned["high"] <= np.uint64(high)))
      places.append(inside + first)
      keys.append(np.stack([scanned["high"][inside], scanned["low"][inside]]).astype(np.uint64))
    if sum(map(len, places)):
      yield _sorted(np.concatenate(places), *np.concatenate(keys, axis=1))


def _sorted(places: np.ndarray, high: np.ndarray, low: np.ndarray) -> Part:
  order = np.lexsort((low, high))
  high, low = high[order], low[order]
  new = np.ones(len(order), bool)
  new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
  return Part(places[order], np.cumsum(new) - 1)


def firsts(*columns: np.ndarray) -> np.ndarray:
  """Which rows are the first of those that are alike in all columns, bool [n]."""
  order = np.lexsort(columns[::-1])
  new = np.ones(len(order), bool)
  new[1:] = np.any([column[order][1:] != column[order][:-1] for column in columns], axis=0)
  first = np.zeros(len(order), bool)
  first[order[new]] = True  # lexsort keeps the order of rows that are alike.
  return first


def shared(domains: np.ndarray, groups: np.ndarray) -> collections.Counter:
  """How many groups each two domains share, of rows given by their domain and group."""
  from scipy import sparse

  once = firsts(groups, domains)
  domains, groups = domains[once], groups[once]
  several = np.bincount(groups)[groups] > 1
  if not several.any():
    return collections.Counter()
  table = sparse.csr_matrix((np.ones(several.sum(), np.int64), (groups[several], domains[several])))
  pairs = sparse.triu(table.T @ table, k=1).tocoo()
  return collections.Counter({(int(a), int(b)): int(n) for a, b, n in zip(pairs.row, pairs.col, pairs.data)})
