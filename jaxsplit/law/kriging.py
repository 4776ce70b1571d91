"""Inputs of kriging at measured points: coordinates, error covariances, and a form's values and slopes."""

from __future__ import annotations

import jax
import numpy as np

from jaxsplit.law.member import Member, block
from jaxsplit.law.points import float64

# Scales, as logarithms: what each is before any cell is seen, and how surely (standard deviations of the logarithm). Relative
# errors of the loss: three replicas each of models of 14, 27 and 40 thousand parameters scatter by .4 to .8 % around their mean,
# as one, through their initial weights and the order of their data. `reach` is in units of ln N, ln D and ln D'.
SCALES = {"cell": (0.003, 0.7), "size": (0.006, 0.4), "snapshot": (0.003, 0.7), "discrepancy": (0.02, 0.8), "reach": (1.5, 0.35)}
_NO_EXPERTS = 0.05  # Of the typical D', added to it before its logarithm is taken: where D' = 0 lies for g.
_NO_SEED = 0.02  # The same of D.
_BLOCK, _VECTORS = 256, 32  # Points and vectors of constants that are evaluated together, so that shapes are always the same.
_NUDGE = 1e-6  # Of constants, which are of order one.

Counted = tuple[np.ndarray, np.ndarray, np.ndarray]  # N, D and D' of m points, [m] each.


class Measured:
  """Points that were measured: where they lie, and the errors that they have in common.

  Args:
    params, seed, expert, replica: [n].
  """

  def __init__(self, params: np.ndarray, seed: np.ndarray, expert: np.ndarray, replica: np.ndarray):
    same = lambda *columns: np.logical_and.reduce([c[:, None] == c for c in columns]).astype(float)
    self._size, self._snapshot = same(params, replica), same(params, replica, seed)
    self._units = [np.exp(np.log(v[v > 0]).mean()) if (v > 0).any() else 1.0 for v in (params, seed, expert)]
    self.places = self.place(params, seed, expert)
    self._apart = _apart(self.places, self.places)

  def place(self, *counts: np.ndarray) -> np.ndarray:
    """[m, 3] where points lie for the discrepancy."""
    params, seed, expert = (v / unit for v, unit in zip(counts, self._units))
    return np.stack([np.log(params), np.log(seed + _NO_SEED), np.log(expert + _NO_EXPERTS)], 1)

  def covariance(self, scales: np.ndarray, of: np.ndarray | slice = slice(None)) -> np.ndarray:
    """[n, n] of what the form does not say about the measured ln L, or about some of them."""
    cell, size, snapshot, *_ = scales
    part = lambda shared: shared[of][:, of]
    own = cell**2 * np.eye(len(self.places[of]))
    return own + size**2 * part(self._size) + snapshot**2 * part(self._snapshot) + _covary(part(self._apart), scales)


def smooth(a: np.ndarray, b: np.ndarray, scales: np.ndarray) -> np.ndarray:
  """[n, m] covariance of the discrepancy between places."""
  return _covary(_apart(a, b), scales)


def _apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """[n, m] squared distances."""
  return ((a[:, None] - b) ** 2).sum(-1)


def _covary(apart: np.ndarray, scales: np.ndarray) -> np.ndarray:
  *_, discrepancy, reach = scales
  return discrepancy**2 * np.exp(apart / (-2 * reach**2))


def sloped(member: Member, counts: Counted) -> tuple[np.ndarray, np.ndarray]:
  """ln f [m] at points, and its derivatives [m, P] by the constants, as differences."""
  count, size, layout = len(counts[0]), len(member.theta), member.layout
  nudged = member.theta + _NUDGE * np.concatenate([np.zeros((1, size)), np.eye(size), -np.eye(size)])
  nudged = np.resize(nudged, (_VECTORS, size)) if size <= _VECTORS // 2 - 1 else nudged
  facts = (layout.unique_tokens[0], layout.shares[0], layout.rest_tokens[0])
  blocks = [np.zeros((len(nudged), 0))]
  with float64():  # Not compiled as one: that takes longer than all that is asked of it.
    for first in range(0, count, _BLOCK):
      part = tuple(v[block(first, _BLOCK, count)] for v in counts)
      x = layout.points(*part, *(np.full(_BLOCK, fact) for fact in facts))
      blocks.append(np.asarray(member.model(nudged.T[:, :, None], jax.tree.map(lambda v: v[None], x))))
  log = np.concatenate(blocks, axis=1)[:, :count]
  return log[0], (log[1:size + 1] - log[size + 1:2 * size + 1]).T / (2 * _NUDGE)
