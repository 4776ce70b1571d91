"""Resampled tables, to which the same objective is fitted again: how far the constants might have come out elsewhere."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxsplit.law.cells import Cells
from jaxsplit.law.fitted import Fitted

_MOST_LEVERAGE = 0.95  # So that no residual is enlarged more than 20 times ...
_MOST_WEIGHED = 0.8  # ... and no row's weight scatters more than 5 times as much as that of a row that decides nothing.
_OUTLYING = 3.0  # Standard deviations, by the median, at which residuals are cut off before shared errors are read off them.
# Standard deviations of what cells of one size, and of one snapshot, share, as multiples of a cell's own: those that are tried.
# Before any residual is seen, none and some are as likely.
_OF_SIZE, _OF_SNAPSHOT = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0), (0.0, 0.5, 1.0, 2.0)


def resample(fit: Fitted, cells: Cells, kind: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Targets and weights of `count` resampled tables, each [K, M] or [B, K, M].

  auto: every row is given a random weight of mean 1 (the weighted bootstrap, which is valid for Huber's and for absolute
    losses: Rao & Zhao 1992; Chatterjee & Bose 2005), scattering the more the more the row decides of its own fit (MacKinnon &
    White 1985, HC2). To the targets are added errors that all cells of a size, and of a snapshot, share: as large as the residuals
    say that they may be (`shared_errors`), none for rows that are independent.
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
  target = np.broadcast_to(fit.target, (count, *fit.row.shape)).copy()
  if kind == "auto":
    jacobian = fit.jacobian()
    known = 1 - np.minimum(_leverage(jacobian), _MOST_WEIGHED)
    weight = np.zeros(target.shape)
    weight[:, used] = random.gamma(known, 1 / known, (count, len(residual)))
    target[:, used] += _drawn(shared_errors(jacobian, residual, _groups(cells.take(fit.row[used]))), count, random)
    return target, weight * fit.weight
  if kind == "residuals":
    drawn = residual[random.integers(0, len(residual), (count, len(residual)))]
    drawn = drawn * np.sqrt(len(residual) / max(len(residual) - fit.layout.size, 1))
  else:
    _, group = np.unique(cells.params[fit.row[used]], return_inverse=True)
    drawn = random.standard_normal((count, group.max() + 1))[:, group] * _deleted_residuals(fit, residual, group)
  target[:, used] = centre[used] + drawn
  return target, fit.weight


class SharedErrors(NamedTuple):
  """How large the errors that rows share may be.

  Attributes:
    groups: for each kind of error, [n] which of it a row has.
    scales: [S, kinds] standard deviations, in the residuals' units.
    weights: [S] how likely each is; they sum to 1.
  """

  groups: tuple[np.ndarray, ...]
  scales: np.ndarray
  weights: np.ndarray


def shared_errors(jacobian: np.ndarray, residual: np.ndarray, groups: tuple[np.ndarray, ...]) -> SharedErrors:
  """How likely shared errors of each size are, by the restricted likelihood of the residuals (Patterson & Thompson 1971), which
  knows that a fit follows what its constants can.

  Args:
    jacobian: [n, P] of the predictions at the fit.
    residual: [n].
    groups: of size and of snapshot, [n] each; a kind of which every row has its own, or all the same, is not asked about.
  """
  told = [(group, tried) for group, tried in zip(groups, (_OF_SIZE, _OF_SNAPSHOT)) if 1 < group.max() + 1 < len(residual)]
  groups = tuple(group for group, _ in told)
  spread = np.median(np.abs(residual - np.median(residual))) / 0.6745
  residual = np.clip(residual, -_OUTLYING * spread, _OUTLYING * spread) if spread else residual
  tried = np.stack(np.meshgrid(*(ratios for _, ratios in told), indexing="ij"), -1).reshape(-1, len(told))
  degrees = max(len(residual) - np.linalg.matrix_rank(jacobian), 1)
  # All sums over rows that the likelihood needs: of the constants' slopes, the residuals and each group's members.
  known = np.column_stack([jacobian / np.maximum(np.linalg.norm(jacobian, axis=0), 1e-300), residual])
  members = np.concatenate([np.eye(group.max() + 1)[group] for group in groups], axis=1) if groups else np.zeros((len(residual), 0))
  own, across, within = known.T @ known, members.T @ known, members.T @ members
  sizes = [group.max() + 1 for group in groups]
  logs, variances = np.array([_restricted(own, across, within, np.repeat(ratio, sizes), degrees) for ratio in tried]).T
  prior = np.prod([np.where(column == 0, 0.5, 0.5 / max((np.unique(tried[:, i]) > 0).sum(), 1)) for i, column in enumerate(tried.T)], 0)
  weights = np.exp(logs - logs.max()) * prior
  return SharedErrors(groups, tried * np.sqrt(variances)[:, None], weights / weights.sum())


def _restricted(own: np.ndarray, across: np.ndarray, within: np.ndarray, ratio: np.ndarray, degrees: int) -> tuple[float, float]:
  """The restricted log likelihood of a covariance I + Z R^2 Z', up to a constant, and the variance that is best with it."""
  inner = np.eye(len(ratio)) + ratio[:, None] * within * ratio
  scaled = ratio[:, None] * across
  table = own - scaled.T @ np.linalg.solve(inner, scaled)
  values, axes = np.linalg.eigh(table[:-1, :-1])
  values = np.maximum(values, 1e-12 * values[-1])  # Combinations of constants that no row tells: the same for all that is tried.
  left = max(table[-1, -1] - ((axes.T @ table[:-1, -1]) ** 2 / values).sum(), 1e-300)
  return -(np.linalg.slogdet(inner)[1] + np.log(values).sum() + degrees * np.log(left)) / 2, left / degrees


def _drawn(shared: SharedErrors, count: int, random: np.random.Generator) -> np.ndarray:
  """[B, n] draws of the errors that rows share."""
  scales = shared.scales[random.choice(len(shared.weights), count, p=shared.weights)]
  total = np.zeros((count, 1))
  for i, group in enumerate(shared.groups):
    total = total + scales[:, i, None] * random.standard_normal((count, group.max() + 1))[:, group]
  return total


def _groups(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
  """[n] the size, and the snapshot, that each row's models come from; replicas have their own."""
  number = lambda *columns: np.unique(np.stack(columns), axis=1, return_inverse=True)[1].ravel()
  return number(cells.params, cells.replica), number(cells.params, cells.replica, cells.seed_tokens)


def _leverage(jacobian: np.ndarray) -> np.ndarray:
  """[n] how much of its own prediction each row decides."""
  basis, values, _ = np.linalg.svd(jacobian / np.maximum(np.linalg.norm(jacobian, axis=0), 1e-300), full_matrices=False)
  return (basis[:, values > 1e-10 * values[0]] ** 2).sum(1)


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
