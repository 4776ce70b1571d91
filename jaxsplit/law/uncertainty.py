"""How sure a fit is: resampled tables that the same objective is fitted to again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxsplit.law.cells import Cells

if TYPE_CHECKING:
  from jaxsplit.law.fit import Fitted


def resample(fit: Fitted, cells: Cells, kind: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Targets and weights of `count` resampled tables, each [K, M] or [B, K, M].

  pairs: cells drawn with replacement within each domain. trunks: groups of one size and replica, drawn whole.
  residuals: the fit's predictions plus residuals drawn from all cells, widened for the constants already spent.
  """
  random = np.random.default_rng(seed)
  used = fit.row >= 0
  if kind == "residuals":
    predicted = fit.predict(fit.theta, cells)
    centre = np.log(predicted) if fit.model.log else predicted
    residual = (np.log(cells.loss) if fit.model.log else cells.loss) - centre
    spent = max(len(cells) - fit.layout.size, 1)
    residual = residual * np.sqrt(len(cells) / spent)
    return centre[fit.row] + residual[random.integers(0, len(cells), (count, *fit.row.shape))], used.astype(float)
  weight = np.zeros((count, *fit.row.shape))
  if kind == "pairs":
    for k, row in enumerate(fit.row):
      size = (row >= 0).sum()
      draws = random.integers(0, size, (count, size))
      np.add.at(weight[:, k], (np.arange(count)[:, None], draws), 1)
    return fit.target, weight
  _, trunk = np.unique(np.stack([cells.params, cells.replica]), axis=1, return_inverse=True)
  # Every trunk keeps some weight: few enough are measured that leaving one out altogether can leave no law to fit.
  share = random.exponential(size=(count, trunk.max() + 1))
  return fit.target, np.where(used, share[:, trunk[fit.row]], 0.0)


def parameter_intervals(fit: Fitted, samples: np.ndarray) -> dict[str, tuple[float, float]]:
  """95 % percentile intervals of the constants in plain units; empty without samples."""
  if not len(samples):
    return {}
  named = fit.layout.named(fit.model, samples)
  return {name: tuple(float(v) for v in np.quantile(values, [0.025, 0.975])) for name, values in named.items()}
