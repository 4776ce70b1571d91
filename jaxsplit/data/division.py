"""Divides documents into training, validation and test sets by hashes of their text, whatever their order.

A domain without validation documents has some held out: the first in the order of their keys, up to a share of its bytes; after
these, where that is asked for, others for testing. Keys are hashes of the text, so it is the same ones on every machine and for
every number of models; a larger share holds out the same ones and more. Whatever any domain holds out, no domain is trained on.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxsplit.data.index import Index
from jaxsplit.data.keys import Part, by_key, firsts
from jaxsplit.data.reading import HELD_OUT, KEPT, NO_DOMAIN, PART, REPEATED, TEST, TRAIN, VALID
from jaxsplit.errors import InputError


@dataclasses.dataclass(frozen=True)
class Division:
  """How documents are divided.

  Attributes:
    names: the domains.
    draw_valid, draw_test: of each, whether documents are held out of its training documents.
    valid_fraction, test_fraction: shares of its bytes.
    drop: whether equal documents are trained on, and evaluated on, once only.
  """

  names: tuple[str, ...]
  draw_valid: np.ndarray  # bool [K]
  draw_test: np.ndarray
  valid_fraction: float
  test_fraction: float
  drop: bool

  def apply(self, index: Index) -> None:
    """Sets the split of rows that are held out, and the reason of those that are left out.

    Raises:
      InputError: a domain that has too few different documents.
    """
    rows = index.rows
    drawn = self._drawn(rows) if self.draw_valid.any() or self.draw_test.any() else None
    for part in by_key(rows):
      view = _View(rows, part)
      if drawn is not None:
        held = view.trained & ~view.known
        for split, bounds in ((TEST, drawn[1]), (VALID, drawn[0])):  # What lies below both bounds is for validation.
          mine = held & view.up_to(bounds)
          view.split[mine] = split
      held_out = view.any_of_group((view.split != TRAIN) & view.used)
      left_out = (view.split == TRAIN) & view.kept & held_out
      view.reason[left_out] = HELD_OUT
      if self.drop:
        kept = np.flatnonzero(view.reason == KEPT)
        again = ~firsts(view.groups[kept], view.split[kept])
        view.reason[kept[again]] = REPEATED
      rows["split"][part.rows] = view.split
      rows["reason"][part.rows] = view.reason
      index.release()

  def _drawn(self, rows: np.ndarray) -> tuple[_Bounds, _Bounds]:
    """The last keys that are held out for validation, and for testing."""
    total, distinct = np.zeros(len(self.names), np.int64), np.zeros(len(self.names), np.int64)
    for part in by_key(rows):
      domains, sizes, _ = _View(rows, part).different()
      np.add.at(total, domains, sizes)
      np.add.at(distinct, domains, 1)
    if len(small := np.flatnonzero(self.draw_valid & (distinct < 2))):
      k, others = small[0], len(small) - 1
      also = f", nor can {others:,} other {'domain' if others == 1 else 'domains'}"
      above = "; each file and folder in Corpus.path is a domain: if these are one domain's, name the folder above"
      raise InputError(f"domain {self.names[k]}: {total[k]} bytes in {distinct[k]} distinct passages cannot be divided into train and "
                       f"validation{also * (others > 0)}; add text or a valid file{above * (others > 0)}")
    valid = _Bounds(len(self.names))
    test = _Bounds(len(self.names))
    room = self.valid_fraction * total
    more = np.where(self.draw_valid, self.valid_fraction, 0) * total + self.test_fraction * total
    passed, count = np.zeros(len(self.names), np.int64), np.zeros(len(self.names), np.int64)
    for part in by_key(rows):
      domains, sizes, keys = _View(rows, part).different()
      order = np.argsort(domains, kind="stable")  # Within a domain by key.
      domains, sizes, keys = domains[order], sizes[order], keys[:, order]
      first = np.flatnonzero(np.diff(domains, prepend=-1))
      here = np.diff(np.append(first, len(domains)))
      number = np.arange(len(domains)) - np.repeat(first, here) + count[domains]
      sums = np.cumsum(sizes)
      sums = sums - np.repeat((sums - sizes)[first], here) + passed[domains]
      inner = number < distinct[domains] - 1  # The last one stays for training, whatever the shares.
      chosen = inner & self.draw_valid[domains] & ((sums <= room[domains]) | (number == 0))
      valid.raise_to(domains[chosen], keys[:, chosen])
      if self.test_fraction:
        begins = np.where(self.draw_valid, np.maximum(valid.count, 1), 0)[domains]
        tested = inner & self.draw_test[domains] & ((sums <= more[domains]) | (number == begins))
        test.raise_to(domains[tested], keys[:, tested])
      np.add.at(passed, domains, sizes)
      np.add.at(count, domains, 1)
    return valid, test


class _Bounds:
  """Of each domain the last key of those that were chosen, in ascending order, and their number."""

  def __init__(self, domains: int):
    self.keys, self.count = np.zeros((2, domains), np.uint64), np.zeros(domains, np.int64)

  def raise_to(self, domains: np.ndarray, keys: np.ndarray) -> None:
    self.keys[:, domains] = keys  # The last assignment of each domain stays.
    np.add.at(self.count, domains, 1)


class _View:
  """A part's columns, in its order, and what they say of the domains and groups."""

  def __init__(self, rows: np.ndarray, part: Part):
    self.groups = part.groups
    self.keys = np.stack([rows[name][part.rows] for name in ("high", "low")]).astype(np.uint64)
    self.split, self.reason = rows["split"][part.rows], rows["reason"][part.rows]
    self.bytes, self.domain = (rows[name][part.rows].astype(np.int64) for name in ("bytes", "domain"))
    self.kept = self.reason == KEPT
    self.used = self.kept | (self.reason == PART)
    self.trained = self.kept & (self.split == TRAIN)
    self.known = self._in_own_domain(self.used & (self.split != TRAIN))

  def any_of_group(self, mask: np.ndarray) -> np.ndarray:
    """Whether any row of a row's group has it, bool [n]."""
    return (np.bincount(self.groups[mask], minlength=self.groups[-1] + 1) > 0)[self.groups]

  def different(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of documents that may be drawn, each different one of a domain once: domains, bytes and keys, by key."""
    free = np.flatnonzero(self.trained & ~self.known)
    once = free[firsts(self.groups[free], self.domain[free])]
    return self.domain[once], self.bytes[once], self.keys[:, once]

  def up_to(self, bounds: _Bounds) -> np.ndarray:
    """Which rows have a key of at most the bound of their domain, where that has one, bool [n]."""
    domain = np.where(self.domain == NO_DOMAIN, 0, self.domain)
    high, low = bounds.keys[:, domain]
    below = (self.keys[0] < high) | ((self.keys[0] == high) & (self.keys[1] <= low))
    return below & (bounds.count[domain] > 0)

  def _in_own_domain(self, mask: np.ndarray) -> np.ndarray:
    """Whether any row of the same group and domain has it, bool [n]."""
    if not mask.any():
      return mask
    pairs = self.groups * (int(self.domain.max()) + 1) + self.domain
    return np.isin(pairs, pairs[mask])
