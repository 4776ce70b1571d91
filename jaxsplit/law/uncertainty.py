"""How sure a fit is: resampled tables that the same objective is fitted to again, and profiles of that objective."""

from __future__ import annotations

import numpy as np

from jaxsplit.law.cells import Cells
from jaxsplit.law.fitted import Fitted
from jaxsplit.law.solve import solve

_MOST_LEVERAGE = 0.95  # So that no residual is enlarged more than 20 times.
_HOPELESS = 1e6  # A deviance that rules a value out.


def resample(fit: Fitted, cells: Cells, kind: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Targets and weights of `count` resampled tables, each [K, M] or [B, K, M].

  trunks: the wild cluster bootstrap (Cameron, Gelbach & Miller 2008). Cells of one size share their trunks and learning
    rate, so their errors are no more independent than the sizes are few. The residuals of each size, over all domains and
    replicas, are multiplied by one normal draw, after the correction of `_deleted_residuals`.
  residuals: residuals drawn from all cells, widened for the constants already spent.
  pairs: cells drawn with replacement within each domain.
  """
  random = np.random.default_rng(seed)
  if kind == "pairs":
    weight = np.zeros((count, *fit.row.shape))
    for k, row in enumerate(fit.row):
      size = (row >= 0).sum()
      np.add.at(weight[:, k], (np.arange(count)[:, None], random.integers(0, size, (count, size))), 1)
    return fit.target, weight * fit.weight
  used = fit.row >= 0
  centre = fit.predictions()
  residual = (fit.target - centre)[used]
  if kind == "residuals":
    drawn = residual[random.integers(0, len(residual), (count, len(residual)))]
    drawn = drawn * np.sqrt(len(residual) / max(len(residual) - fit.layout.size, 1))
  else:
    _, group = np.unique(cells.params[fit.row[used]], return_inverse=True)
    drawn = random.standard_normal((count, group.max() + 1))[:, group] * _deleted_residuals(fit, residual, group)
  target = np.broadcast_to(fit.target, (count, *fit.row.shape)).copy()
  target[:, used] = centre[used] + drawn
  return target, fit.weight


def _deleted_residuals(fit: Fitted, residual: np.ndarray, group: np.ndarray) -> np.ndarray:
  """[n] what each group's residuals would be were the group not fitted: (I - H_gg)^-1 r_g, H the hat matrix.

  This is the cluster jackknife (CR3) of Bell & McCaffrey 2002. A fit that bends to follow one size leaves it small
  residuals just where it matters; the correction gives them their size back. It is capped where a group alone determines
  a combination of constants.
  """
  jacobian = fit.jacobian()
  inverse = np.linalg.pinv(jacobian.T @ jacobian)
  out = np.zeros_like(residual)
  for g in range(group.max() + 1):
    mine = group == g
    leverage, axes = np.linalg.eigh(jacobian[mine] @ inverse @ jacobian[mine].T)
    out[mine] = axes @ ((axes.T @ residual[mine]) / (1 - np.minimum(leverage, _MOST_LEVERAGE)))
  return out


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
  width = fit.problem.delta
  spread = np.median(size) / 0.6745 * fit.weight.sum() / max(fit.weight.sum() - len(fit.theta), 1)
  # Few residuals lie inside a narrow width: their share is read off a wider window.
  window = max(min(width, 3 * spread), spread * used.sum() ** -0.2)
  bend = np.mean(weight * (size <= window)) * min(width / window, 1.0)
  pull = np.mean((weight * np.minimum(size, width)) ** 2) * used.sum() / max(used.sum() - len(fit.theta), 1)
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
