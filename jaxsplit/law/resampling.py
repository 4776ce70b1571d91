"""Resampled tables, to which the same objective is fitted again: how far the constants might have come out elsewhere."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from jaxsplit.law.cells import Cells
from jaxsplit.law.fitted import Fitted

_MOST_LEVERAGE = 0.95  # So that no residual is enlarged more than 20 times ...
_MOST_WEIGHED = 0.6  # ... and no row's weight has a variance of more than 2.5.
_OUTLYING = 3.0  # Standard deviations, by the median, at which residuals are cut off before shared errors are read off them.
# Standard deviations of what cells of one size, and of one snapshot, share, as multiples of a cell's own: those that are tried.
# Both have one cause, that rows come from the same runs, so both are there or none: either is as likely before any residual is
# seen. So snapshots, of which there are more, tell what few sizes cannot.
_RATIOS = (0.25, 0.5, 1.0, 2.0)


KINDS = ("auto", "shared", "rows", "pairs", "trunks")


def resample(fit: Fitted, cells: Cells, kind: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Targets and weights of `count` resampled tables, each [K, M] or [B, K, M].

  rows: rows are independent. Every row is given a random weight of mean 1 (the weighted bootstrap, which is valid for Huber's and
    for absolute losses: Rao & Zhao 1992; Chatterjee & Bose 2005), scattering the more the more the row decides of its own fit
    (MacKinnon & White 1985, HC2).
  shared: targets are drawn: the fit's predictions, errors that all cells of a size, and of a snapshot, share, as large as the
    residuals say that they may be (`shared_errors`), and of every row its own error: its residual with a random sign, which is
    valid for Huber's and for absolute losses where a normal multiplier is not (Feng, He & Hu 2011), and for squares (Liu 1988).
    The residual is the one that a fit without the row would leave (`_left_out`), less what it is likely to share
    (`_left_of_shared`), so that no error counts twice.
  auto: `shared` where rows come from the same runs, or where what sizes share is likely more than what rows have of their own;
    else `rows`. See `chosen`.
  pairs: rows drawn with replacement within each domain (Efron 1979).
  trunks: the wild cluster bootstrap (Cameron, Gelbach & Miller 2008): the residuals of each size, over all domains and
    replicas, are multiplied by one normal draw, after the correction of `_deleted_residuals`. Valid for least squares; where most
    residuals lie beyond Huber's width, its intervals are too narrow.
  """
  random = np.random.default_rng(seed)
  used = fit.row >= 0
  if kind == "pairs":
    weight = np.zeros((count, *fit.row.shape))
    for k, row in enumerate(fit.row):
      size = (row >= 0).sum()
      np.add.at(weight[:, k], (np.arange(count)[:, None], random.integers(0, size, (count, size))), 1)
    return fit.target, weight * fit.weight
  target, centre = np.broadcast_to(fit.target, (count, *fit.row.shape)).copy(), fit.predictions()
  if kind == "trunks":
    _, group = np.unique(cells.params[fit.row[used]], return_inverse=True)
    left = _deleted_residuals(fit, (fit.target - centre)[used], group)
    target[:, used] = centre[used] + random.standard_normal((count, group.max() + 1))[:, group] * left
    return target, fit.weight
  basis = _basis(fit.jacobian())
  if (chosen(fit, cells) if kind == "auto" else kind) == "shared":
    shared = errors_of(fit, cells)
    scales = random.choice(len(shared.weights), count, p=shared.weights)
    own = _left_out(fit, basis) / np.sqrt(1 + _left_of_shared(shared, basis)[scales])
    above = random.random(own.shape) < fit.problem.over / (1 + fit.problem.over)  # As often as an objective leaves rows above it.
    target[:, used] = centre[used] + np.where(above, own, -own) + _drawn(shared, scales, random)
    return target, fit.weight
  weight = np.zeros(target.shape)
  weight[:, used] = _weights(fit.share_within * (basis**2).sum(1), count, random)
  return target, weight * fit.weight


def chosen(fit: Fitted, cells: Cells) -> str:
  """What `auto` is for a table: "shared" or "rows".

  Rows of one table come from the same runs where several have the same seed (its N, D and replica): as experts of it, or as one
  model's losses on several domains. Otherwise each is a run of its own, and only what residuals say can tell that sizes share more
  than rows have of their own.
  """
  rows = cells.take(fit.row[fit.row >= 0])
  seeds = np.unique(np.stack([rows.params, rows.replica, rows.seed_tokens]), axis=1).shape[1]
  if (rows.expert_tokens > 0).any() or (len(fit.layout.domains) > 1 and seeds < len(rows)):
    return "shared"
  return "shared" if _share_of_large(errors_of(fit, cells)) > 0.5 else "rows"


def errors_of(fit: Fitted, cells: Cells) -> SharedErrors:
  """How large the errors that the fitted rows share may be."""
  used = fit.row >= 0
  return shared_errors(fit.jacobian(), (fit.target - fit.predictions())[used], _groups(cells.take(fit.row[used])))


class SharedErrors(NamedTuple):
  """How large the errors that rows share may be.

  Attributes:
    groups: for each kind of error, [n] which of it a row has.
    scales: [S, kinds] standard deviations, in the residuals' units.
    own: [S] a row's own, with each.
    weights: [S] how likely each is; they sum to 1.
  """

  groups: tuple[np.ndarray, ...]
  scales: np.ndarray
  own: np.ndarray
  weights: np.ndarray


def shared_errors(jacobian: np.ndarray, residual: np.ndarray, groups: tuple[np.ndarray, ...]) -> SharedErrors:
  """How likely shared errors of each size are, by the restricted likelihood of the residuals (Patterson & Thompson 1971), which
  knows that a fit follows what its constants can.

  Args:
    jacobian: [n, P] of the predictions at the fit.
    residual: [n].
    groups: of size and of snapshot, [n] each; a kind of which every row has its own, or all the same, is not asked about.
  """
  groups = tuple(group for group in groups if 1 < group.max() + 1 < len(residual))
  spread = np.median(np.abs(residual - np.median(residual))) / 0.6745
  residual = np.clip(residual, -_OUTLYING * spread, _OUTLYING * spread) if spread else residual
  tried = np.array([(0.0,) * len(groups), *itertools.product(_RATIOS, repeat=len(groups))] if groups else [()])
  degrees = max(len(residual) - np.linalg.matrix_rank(jacobian), 1)
  # All sums over rows that the likelihood needs: of the constants' slopes, the residuals and each group's members.
  known = np.column_stack([jacobian / np.maximum(np.linalg.norm(jacobian, axis=0), 1e-300), residual])
  members = np.concatenate([np.eye(group.max() + 1)[group] for group in groups], axis=1) if groups else np.zeros((len(residual), 0))
  alone, across, within = known.T @ known, members.T @ known, members.T @ members
  sizes = [group.max() + 1 for group in groups]
  logs, variances = np.array([_restricted(alone, across, within, np.repeat(ratio, sizes), degrees) for ratio in tried]).T
  weights = np.exp(logs - logs.max()) * np.append(1.0, np.full(len(tried) - 1, 1 / max(len(tried) - 1, 1)))
  own = np.sqrt(variances)
  return SharedErrors(groups, tried * own[:, None], own, weights / weights.sum())


def _restricted(alone: np.ndarray, across: np.ndarray, within: np.ndarray, ratio: np.ndarray, degrees: int) -> tuple[float, float]:
  """The restricted log likelihood of a covariance I + Z R^2 Z', up to a constant, and the variance that is best with it."""
  inner = np.eye(len(ratio)) + ratio[:, None] * within * ratio
  scaled = ratio[:, None] * across
  table = alone - scaled.T @ np.linalg.solve(inner, scaled)
  values, axes = np.linalg.eigh(table[:-1, :-1])
  values = np.maximum(values, 1e-12 * values[-1])  # Combinations of constants that no row tells: the same for all that is tried.
  left = max(table[-1, -1] - ((axes.T @ table[:-1, -1]) ** 2 / values).sum(), 1e-300)
  return -(np.linalg.slogdet(inner)[1] + np.log(values).sum() + degrees * np.log(left)) / 2, left / degrees


def _weights(leverage: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
  """[B, n] of mean 1 and variance 1 / (1 - leverage), from 0 to 4: beta distributed, which for a variance of 1 makes them as skewed
  as the counts of rows that are drawn with replacement."""
  total = 3 * (1 - np.minimum(leverage, _MOST_WEIGHED)) - 1
  return 4 * random.beta(total / 4, 3 * total / 4, (count, len(total)))


def _share_of_large(shared: SharedErrors) -> float:
  """How likely it is that what rows share is as large as what each has of its own."""
  return float(shared.weights[(shared.scales >= shared.own[:, None]).any(1)].sum())


def _drawn(shared: SharedErrors, scales: np.ndarray, random: np.random.Generator) -> np.ndarray:
  """[B, n] draws of the errors that rows share, each at one of the scales [B]."""
  total = np.zeros((len(scales), 1))
  for i, group in enumerate(shared.groups):
    total = total + shared.scales[scales, i, None] * random.standard_normal((len(scales), group.max() + 1))[:, group]
  return total


def _left_out(fit: Fitted, basis: np.ndarray) -> np.ndarray:
  """[n] how far each row would lie from a fit without it, to first order (Feng, He & Hu 2011): a fit that bends to follow a row leaves
  it a small residual, with absolute losses none at all for as many rows as there are constants."""
  residual = (fit.target - fit.predictions())[fit.row >= 0]
  pull = np.where(residual < 0, fit.problem.over, 1.0) * np.minimum(np.abs(residual), fit.problem.delta)
  return np.abs(residual) + (basis**2).sum(1) * pull / fit.bend


def _left_of_shared(shared: SharedErrors, basis: np.ndarray) -> np.ndarray:
  """[S, n] variance of shared errors that is left in each row's residual, at each scale, over the variance of its own: a fit
  follows some of what rows share, (I - H) S (I - H)' remains."""
  total = np.zeros((len(shared.weights), len(basis)))
  for ratio, group in zip((shared.scales / shared.own[:, None]).T, shared.groups):
    members = np.eye(group.max() + 1)[group]
    total += ratio[:, None] ** 2 * ((members - basis @ (basis.T @ members)) ** 2).sum(1)
  return total


def _groups(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
  """[n] the size, and the snapshot, that each row's models come from; replicas have their own."""
  number = lambda *columns: np.unique(np.stack(columns), axis=1, return_inverse=True)[1].ravel()
  return number(cells.params, cells.replica), number(cells.params, cells.replica, cells.seed_tokens)


def _basis(jacobian: np.ndarray) -> np.ndarray:
  """[n, r] orthonormal, of all changes of the predictions that the constants can make. H is it times its transpose; the sum of its
  squares is how much of its own prediction a row decides (its leverage)."""
  basis, values, _ = np.linalg.svd(jacobian / np.maximum(np.linalg.norm(jacobian, axis=0), 1e-300), full_matrices=False)
  return basis[:, values > 1e-10 * values[0]]


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
