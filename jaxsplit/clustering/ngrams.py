"""A byte-level n-gram model: a first idea of how far apart two texts are, in bits per byte, before any network is trained."""

from __future__ import annotations

import numpy as np

_ORDER = 5  # Bytes of an n-gram: with some hundred thousand bytes to learn from, longer ones tell no more.


class NGrams:
  """A model of the bytes of a text, interpolated over the lengths of contexts by Witten and Bell's rule (1991, method C).

  The chance of a byte behind a context is (c + t p) / (n + t): c times it followed there, n is how often anything did, t how many
  different bytes did, and p is its chance behind the context that is one byte shorter; behind none, 1/256.

  Args:
    text: what it learns from.
  """

  def __init__(self, text: bytes):
    codes = _codes(text)
    self._grams = [np.unique(code, return_counts=True) for code in codes]
    self._contexts = []
    for code, (grams, _) in zip(codes, self._grams):
      contexts, total = np.unique(code >> np.uint64(8), return_counts=True)
      self._contexts.append((contexts, total, np.unique(grams >> np.uint64(8), return_counts=True)[1]))

  def bits_per_byte(self, text: bytes) -> float:
    """What a text costs; NaN for one without a byte."""
    if not text:
      return np.nan
    chance = np.full(len(text), 1 / 256)
    for code, (grams, counts), (contexts, total, different) in zip(_codes(text), self._grams, self._contexts):
      place, known = _found(contexts, code >> np.uint64(8))
      at, seen = _found(grams, code)
      n, t = total[place], different[place]
      chance = np.where(known, (np.where(seen, counts[at], 0) + t * chance) / (n + t), chance)
    return float(-np.log2(chance).mean())


def _codes(text: bytes) -> list[np.ndarray]:
  """Of each byte, itself with the 0, 1, 2 ... before it as one number, [n] for each; zeros stand before the text."""
  data = np.frombuffer(text, np.uint8).astype(np.uint64)
  codes, before = [data], data
  for length in range(1, _ORDER):
    before = np.concatenate([np.zeros(1, np.uint64), before[:-1]])
    codes.append(codes[-1] + (before << np.uint64(8 * length)))
  return codes


def _found(known: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Where in a sorted array each number is, and whether it is there."""
  place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
  return place, known[place] == wanted
