"""A fitted form with its optimization problem, from which diagnostics, resampling and profiles start."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxsplit.law.points import Problem, predictions, sensitivities
from jaxsplit.law.problem import Layout, Model
from jaxsplit.law.solve import Solution

TINY = 1e-8  # The Huber width that stands for L1: the sums then differ by under 1e-8 a point.


@dataclasses.dataclass(frozen=True)
class Fitted:
  """One form at its optimum.

  Attributes:
    model, layout: the form with its options, and where each domain's constants are.
    problem, target, weight: what was minimised; targets and weights are [K, M].
    row: [K, M] which cell each entry is, -1 for none.
    theta: [P] the optimum.
    starts, solution: [S, P] where the search began, and where it ended.
    held_out: errors on held-out cells, as in Law.
  """

  model: Model
  layout: Layout
  problem: Problem
  target: np.ndarray
  row: np.ndarray
  weight: np.ndarray
  theta: np.ndarray
  starts: np.ndarray
  solution: Solution
  held_out: dict[str, Any] | None

  @property
  def objective_value(self) -> float:
    """The minimum: summed Huber losses, absolute residuals (L1) or half squares."""
    return float(self.solution.objective.min()) / (self.problem.delta if self.problem.delta == TINY else 1)

  @property
  def share_within(self) -> float:
    """The share of the fitted rows whose residuals lie within Huber's width."""
    return float(np.mean(np.abs(self.target - self.predictions())[self.row >= 0] <= self.problem.delta))

  @property
  def bend(self) -> float:
    """The mean of the objective's second derivative over errors: for absolute losses twice their density at zero times the width.

    Few residuals lie inside a narrow width: their share is read off a wider window, which a tenth of them lie in at least.
    """
    residual, used = self.target - self.predictions(), self.weight > 0
    size, weight = np.abs(residual[used]), np.where(residual[used] < 0, self.problem.over, 1.0)
    width, total = self.problem.delta, self.weight.sum()
    spread = np.median(size) / 0.6745 * total / max(total - len(self.theta), 1)
    window = max(min(width, 3 * spread), spread * used.sum() ** -0.2, float(np.quantile(size, 0.1)), 1e-300)
    return float(np.mean(weight * (size <= window)) * min(width / window, 1.0))

  def losses(self, theta: np.ndarray) -> np.ndarray:
    """[S, n] losses of the fitted cells at theta [S, P]."""
    used = self.row >= 0
    predicted = predictions(self.model, self.problem, theta)[:, used]
    out = np.zeros_like(predicted)
    out[:, self.row[used]] = np.exp(predicted) if self.model.log else predicted
    return out

  def predictions(self) -> np.ndarray:
    """[K, M] predictions in the objective's space at the optimum."""
    return predictions(self.model, self.problem, self.theta[None])[0]

  def jacobian(self) -> np.ndarray:
    """[n, P] derivatives of the predictions, in the objective's space, at the optimum."""
    return sensitivities(self.model, self.problem, self.theta)[self.row >= 0]
