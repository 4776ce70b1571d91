"""How sure a fit is: intervals from its refits, and profiles of its objective."""

from __future__ import annotations

import numpy as np

from jaxsplit.law.cells import Cells
from jaxsplit.law.fitted import Fitted
from jaxsplit.law.solve import solve

_HOPELESS = 1e6  # A deviance that rules a value out.


def parameter_intervals(fit: Fitted, samples: np.ndarray) -> dict[str, tuple[float, float]]:
  """95 % percentile intervals of the constants in plain units; empty without samples."""
  if not len(samples):
    return {}
  named = fit.layout.named(fit.model, samples)
  return {name: tuple(float(v) for v in np.quantile(values, [0.025, 0.975])) for name, values in named.items()}


def profiles(fit: Fitted, cells: Cells, count: int) -> dict[str, dict[str, list[float]]]:
  """The objective along each constant, all others refitted.

  The deviance 2 (F - F_min) mean(rho'') / mean(rho'^2) is chi-squared with one degree of freedom at the true constant
  (Heritier & Ronchetti 1994, for M-estimators; for least squares it is the usual likelihood ratio), so the 95 % interval
  is where it stays below 3.84.

  Args:
    count: values per constant.

  Returns:
    By name: "value" [count] in table units (see Layout; a coefficient is a multiple of the typical loss at the table's
    centre), "deviance" [count] and "interval" [2].
  """
  residual = fit.target - fit.predictions()
  used = fit.weight > 0
  size, weight = np.abs(residual[used]), np.where(residual[used] < 0, fit.problem.over, 1.0)
  width, bend = fit.problem.delta, fit.bend
  pull = np.mean((weight * np.minimum(size, width)) ** 2) * used.sum() / max(used.sum() - len(fit.theta), 1)
  pull = max(pull, np.finfo(float).tiny)  # Cells may follow the form exactly.
  # Steps that span the interval: three standard errors of the usual sandwich to either side.
  jacobian = fit.jacobian()
  covariance = np.linalg.pinv(jacobian.T @ jacobian * bend) * pull / bend
  reach = 3.5 * np.sqrt(np.maximum(np.diag(covariance), 1e-300))
  reach = np.minimum(reach, 0.5 * (np.abs(fit.theta) + 1))
  values = fit.theta[:, None] + reach[:, None] * np.linspace(-1, 1, count)
  low, high = (np.tile(bound, (values.size, 1)) for bound in (fit.problem.low, fit.problem.high))
  values = np.clip(values, fit.problem.low[:, None], fit.problem.high[:, None])
  at = np.arange(values.size), np.repeat(np.arange(len(fit.theta)), count)
  low[at] = high[at] = values.ravel()
  starts = np.tile(fit.theta, (values.size, 1))
  solution = solve(fit.model, fit.problem._replace(low=low, high=high), starts, fit.target, fit.weight, near=True)
  deviance = 2 * (solution.objective.reshape(values.shape) - fit.solution.objective.min()) * bend / pull
  deviance = np.clip(np.nan_to_num(deviance, nan=_HOPELESS), 0, _HOPELESS)  # a refit may fail far from the optimum
  return {name: {"value": v.tolist(), "deviance": d.tolist(), "interval": _below(v, d, 3.841)}
          for name, v, d in zip(fit.layout.labels(fit.model), values, deviance)}


def _below(value: np.ndarray, deviance: np.ndarray, limit: float) -> list[float]:
  """Where the deviance crosses the limit on either side of its least, interpolated; the grid's end where it does not."""
  least = int(deviance.argmin())
  ends = []
  for side in (range(least, -1, -1), range(least, len(value))):
    end = value[side[-1]]
    for i, j in zip(side, side[1:]):
      if deviance[j] > limit:
        share = (limit - deviance[i]) / (deviance[j] - deviance[i])
        end = value[i] + share * (value[j] - value[i])
        break
    ends.append(float(end))
  return ends
