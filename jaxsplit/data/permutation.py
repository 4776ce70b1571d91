"""A pseudo-random permutation of n elements, each of which is computed on its own: nothing is sorted or stored.

A Feistel network (Luby and Rackoff 1988) over pairs (l, r), where l < a and r < b with a b just above n: l += F(r) mod a and
r += F(l) mod b in turns, with another keyed F each time. Numbers from n on are sent through again until one below n comes out
(cycle walking; Black and Rogaway 2002), which keeps it a permutation.
"""

from __future__ import annotations

import math

import numpy as np

# With fewer, permutations of a dozen things are visibly less than random; more change nothing that a test sees.
_ROUNDS = 12
_MOST = 1 << 62
_SHIFTS = 30, 27, 31
_FACTORS = np.array([0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)  # Of splitmix64's finalizer (Steele et al. 2014).


class Permutation:
  """A permutation of 0 ... n - 1; the same arguments give the same one on every machine and in every version.

  Args:
    n: how many, up to 2^62.
    key: two whole numbers of 64 bits that say which.
  """

  def __init__(self, n: int, key: tuple[int, int]):
    if not 0 < n <= _MOST:
      raise ValueError(f"a permutation of {n} things")
    self._n, self._a = np.uint64(n), math.isqrt(n - 1) + 1
    self._sides = np.array([self._a, -(-n // self._a)], np.uint64)
    # NumPy promises that a bit generator's raw words never change between versions.
    self._keys = np.random.Philox(key=list(key)).random_raw(_ROUNDS)

  def __call__(self, positions: np.ndarray) -> np.ndarray:
    """What stands at some positions, int64 [n], each from 0 to n - 1."""
    out = np.asarray(positions).astype(np.uint64)
    outside = np.arange(len(out))
    while len(outside):
      out[outside] = self._sent(out[outside])
      outside = outside[out[outside] >= self._n]
    return out.astype(np.int64)

  def _sent(self, x: np.ndarray) -> np.ndarray:
    halves = list(np.divmod(x, self._sides[1]))
    for i, key in enumerate(self._keys):
      own, side = i % 2, self._sides[i % 2]
      halves[own] = (halves[own] + _mixed(halves[1 - own] ^ key) % side) % side
    return halves[0] * self._sides[1] + halves[1]


def _mixed(x: np.ndarray) -> np.ndarray:
  for shift, factor in zip(_SHIFTS, _FACTORS):
    x = (x ^ (x >> np.uint64(shift))) * factor
  return x ^ (x >> np.uint64(_SHIFTS[2]))
