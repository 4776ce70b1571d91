"""The expected regret and interval of the best split from given cells, before any of them is measured.

The loss of one size, in ln L, against the seeds' share x and the experts' share y of the budget, at u = ln(N / target's N):

    b (x^-beta - 1)/beta e^(-p u) + g ((y + o)^-gamma - 1)/gamma e^(-q u)

an additive law whose amplitudes depend on N; its constants are drawn such that the best split may lie anywhere. Around each draw the
cells' information on the constants is that of a linear model: besides the constants it has a smooth discrepancy, an offset of the
models without experts (y = 0), an offset and a tilt common to the cells of each size, and the noise of snapshots and cells.
The variance of the best split follows, and with the curvature of the loss there the regret (docs/sweep.md; a Bayesian optimal design,
Chaloner & Verdinelli 1995, doi 10.1214/ss/1177009939).

The standard deviations of sizes, snapshots and cells, and of the best split's drift with N, were read off tables of experiments on
real text whose whole split curve was measured at the target (docs/sweep.md); they were not fitted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

# Standard deviations. Of ln L where it is not said otherwise.
_OFFSET = 0.05  # Of the error common to all cells of a size.
_TILT = 0.03  # Of the error of a size's best split, whatever cells it has.
_SNAPSHOT = 0.002  # Of the error common to all cells of one snapshot.
_CELL = 0.003  # Of a cell of one domain; a mean over domains has less.
_DENSE = 0.02  # Of the offset of models without experts from the law.
_SMOOTH = 0.006  # Coefficients of the quadratic discrepancy in ln x and ln(y + o).
# How far the best split moves with the square of u, and with the logarithm of the budget in tokens, beyond the form's prediction.
_DRIFTS = 0.004, 0.2
# Of the constants: ln b, ln g, beta, gamma, ln o, p, q.
_CONSTANTS = np.array([0.7, 0.7, 0.25, 0.25, 1.0, 0.1, 0.1])
_CURVATURE = 0.55  # Of ln L in the seeds' share at the best split, about; it is drawn within a factor of 2.
# The best split, before any cell of it is seen: its mean and standard deviation. On real text those of nine measured curves lie between
# .33 and .55 (docs/law.md).
USUAL = 0.5, 0.18
_DRAWS = 12
_CAP = 0.06  # Of the variance of the best split: of a uniform one between .08 and .92.


@dataclasses.dataclass(frozen=True)
class Outlook:
  """Prior of a law before its cells are measured: draws [S] of its constants.

  Attributes:
    best: the best split.
    curvature: of ln L there, in the seeds' share.
    beta, gamma, offset: constants.
  """

  best: np.ndarray
  curvature: np.ndarray
  beta: np.ndarray
  gamma: np.ndarray
  offset: np.ndarray

  @property
  def amplitudes(self) -> tuple[np.ndarray, np.ndarray]:
    """b and g [S], for which the loss is least at `best` and has its curvature."""
    f, rest = self.best, 1 - self.best + self.offset
    b = self.curvature / ((self.beta + 1) * f ** (-self.beta - 2) + (self.gamma + 1) * f ** (-self.beta - 1) / rest)
    return b, b * f ** (-self.beta - 1) * rest ** (self.gamma + 1)


def outlook(best: tuple[float, float] = USUAL) -> Outlook:
  """Draws of what may be: of a best split known by its mean and standard deviation."""
  random = np.random.default_rng(0)
  normal = lambda mean, deviation: mean + deviation * random.standard_normal(_DRAWS)
  return Outlook(np.clip(normal(*best), 0.08, 0.92), _CURVATURE * np.exp(normal(0, 0.35)), np.clip(normal(0.35, 0.15), 0.1, None),
                 np.clip(normal(0.35, 0.15), 0.1, None), 0.03 * np.exp(normal(0, 0.5)))


def information(known: Outlook, size: float, seed: Sequence[float], expert: Sequence[float], num_domains: int) -> np.ndarray:
  """[S, p, p] what the cells of one size tell of the constants, by draw; informations of several sizes add up.

  Args:
    size: N over the target's.
    seed, expert: [n] of each cell, the seeds' and the experts' share of the budget.
    num_domains: K, over which cells are means.
  """
  x, y = np.asarray(seed, float), np.asarray(expert, float)
  jacobian = _jacobian(known, np.log(size), x, y)
  tilt = _TILT * _leaning(known, x)
  covariance = (_OFFSET**2 + _SNAPSHOT**2 * (x[:, None] == x) + _CELL**2 / num_domains * np.eye(len(x))
                + tilt[:, :, None] * tilt[:, None, :])
  return np.swapaxes(jacobian, 1, 2) @ np.linalg.solve(covariance, jacobian)


def prior(known: Outlook) -> np.ndarray:
  """[S, p, p] information that is there without any cells."""
  deviations = np.broadcast_to(np.concatenate([_CONSTANTS, [_SMOOTH] * 3, [_DENSE, *_DRIFTS]]), (_DRAWS, len(_CONSTANTS) + 6))
  return np.eye(deviations.shape[1]) / deviations[:, None] ** 2


def regret(known: Outlook, informed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Expected regret, as a share of the loss, and the standard deviation of the best split; means over draws.

  Args:
    known: the draws.
    informed: [..., S, p, p] all information, the prior's included.
  """
  step = 1e-4
  around = lambda f: _jacobian(known, 0.0, f[:, None], 1 - f[:, None])[:, 0]
  slope = (around(known.best + step) - around(known.best - step)) / (2 * step)  # [S, p]: of the loss's derivative in the share.
  variance = (slope * np.linalg.solve(informed, np.broadcast_to(slope, informed.shape[:-1])[..., None])[..., 0]).sum(-1)
  variance = np.minimum(variance / known.curvature**2, _CAP)
  return (known.curvature * variance / 2).mean(-1), np.sqrt(variance.mean(-1))


def _jacobian(known: Outlook, u: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """[S, n, p] derivatives of ln L in the constants and in the coefficients of what no form contains.

  Args:
    u: ln of N over the target's.
    x, y: [n], or [S, n], the seeds' and the experts' shares.
  """
  column = lambda values: values[:, None]
  beta, gamma, o = column(known.beta), column(known.gamma), column(known.offset)
  b, g = map(column, known.amplitudes)
  x, y = (np.broadcast_to(values, (_DRAWS, values.shape[-1])) for values in (x, y))
  a, c = np.log(x), np.log(y + o)
  seed, expert = np.exp(-beta * a), np.exp(-gamma * c)
  of_seed, of_expert = b * (seed - 1) / beta, g * (expert - 1) / gamma
  leaning = _leaning(known, x)
  # Amplitudes b and g enter as logarithms. A lean on N turns what a term still has to fall, so that it moves the best split.
  parts = [
      of_seed, of_expert, b * (-a * seed * beta - seed + 1) / beta**2, g * (-c * expert * gamma - expert + 1) / gamma**2,
      -g * expert / (y + o) * o, -u * of_seed, -u * of_expert, a * a, a * c, c * c, 1.0 * (y == 0),
      leaning * u * u, leaning * np.log((x + y).max(1, keepdims=True))]
  return np.stack([np.broadcast_to(part, x.shape) for part in parts], -1)


def _leaning(known: Outlook, x: np.ndarray) -> np.ndarray:
  """[S, n] by how much ln L changes where the seed's term has grown so that the best split is one more."""
  column = lambda values: values[:, None]
  b, beta = column(known.amplitudes[0]), column(known.beta)
  moved = b * column(known.best) ** (-beta - 1) / column(known.curvature)  # The best split, by ln b.
  return b * (x ** -beta - 1) / beta / moved
