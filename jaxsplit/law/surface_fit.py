"""Reading a surface off a table: pools the domains, and finds each form's constants, scales and evidence (see law.surface)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import minimize

from jaxsplit.law.cells import Cells
from jaxsplit.law.constraints import Constraints
from jaxsplit.law.forms import Form
from jaxsplit.law.kriging import SCALES, Measured, sloped
from jaxsplit.law.member import Member
from jaxsplit.law.problem import suit
from jaxsplit.law.surface import Posterior, Surface

_ROUNDS = 12  # Of scales, then constants, at most.
_CLOSE = 1e-3  # Prior standard deviations of a change of constants that ends the rounds.
MOST_FOR_SCALES = 160  # Cells that scales are read off: the cost grows with their cube.
_MOST = 1_500  # Cells of a surface.
_NEGLIGIBLE = 1e-3  # Of the best form's evidence: what has less is not kept.


def read_surface(cells: Cells, forms: Iterable[Form], constraints: Constraints = Constraints()) -> Surface:
  """The surface of a table whose experts were measured.

  Args:
    cells: the table; all its domains are taken together.
    forms: what is read, each with a discrepancy of its own.
    constraints: constants of the forms that are given.
  """
  pooled = pool(cells)
  read = [_read(form, pooled, constraints) for form in forms]
  evidence = np.array([value for _, value in read])
  weights = np.exp(evidence - evidence.max())
  kept = [(one, weight) for (one, _), weight in zip(read, weights) if weight > _NEGLIGIBLE]
  total = sum(weight for _, weight in kept)
  return Surface(pooled.params, pooled.seed_tokens, pooled.expert_tokens, pooled.replica, pooled.loss, tuple(
      dataclasses.replace(one, member=dataclasses.replace(one.member, weight=float(weight / total))) for one, weight in kept))


def pool(cells: Cells) -> Cells:
  """The mean over domains at every (N, D, D', replica). What a domain lacks there is as its ratio to the others is elsewhere."""
  key = np.stack([cells.params, cells.seed_tokens, cells.expert_tokens, cells.replica], 1)
  points, at = np.unique(key, axis=0, return_inverse=True)
  _, domain = np.unique(cells.domain, return_inverse=True)
  total, count = np.zeros((2, len(points), domain.max() + 1))
  np.add.at(total, (at.ravel(), domain), np.log(cells.loss))
  np.add.at(count, (at.ravel(), domain), 1)
  with np.errstate(invalid="ignore"):
    log = total / count  # NaN where a domain was not measured.
  level = np.zeros(len(points))
  for _ in range(20):  # Two-way means of an incomplete table.
    ratio = np.nanmean(log - level[:, None], axis=0)
    level = np.nanmean(log - ratio, axis=1)
  log = np.where(np.isnan(log), level[:, None] + ratio, log)
  columns = dict(zip(("params", "seed_tokens", "expert_tokens", "replica"), points.T))
  return Cells.from_columns({**columns, "loss": np.exp(log).mean(1)}).take(spread(len(points), _MOST))


def _read(form: Form, pooled: Cells, constraints: Constraints) -> tuple[Posterior, float]:
  """A form's reading and the logarithm of its evidence."""
  model, layout = suit(form, pooled, "everything", log=True, constraints=constraints)
  low, high = np.array([np.log([q.low, q.high]) if q.kind == "positive" else (q.low, q.high) for q in model.parameters]).T
  centre, width = np.array([q.normal for q in model.parameters]).T
  member = Member(model, layout, centre, np.zeros((0, len(centre))), 1.0)
  table, log_loss = (pooled.params, pooled.seed_tokens, pooled.expert_tokens), np.log(pooled.loss)
  at = lambda theta: sloped(dataclasses.replace(member, theta=theta), table)
  measured, some = Measured(*table, pooled.replica), spread(len(log_loss), MOST_FOR_SCALES)
  theta, scales = centre, np.log([typical for typical, _ in SCALES.values()])
  for turn in range(_ROUNDS):
    log, slopes = at(theta)
    off = log_loss - log + slopes @ (theta - centre)  # What is left of ln L where the constants are at their priors' centres.
    prior = (slopes * width**2) @ slopes.T
    surprised = functools.partial(surprise, functools.partial(measured.covariance, of=some), off[some], prior[np.ix_(some, some)])
    scales = minimize(surprised, scales, method="Nelder-Mead", options={
        "maxfev": 250 if turn == 0 else 80, "xatol": 0.03, "fatol": 0.02}).x  # They hardly move once constants are near.
    inverse = np.linalg.inv(measured.covariance(np.exp(scales)))
    covariance = np.linalg.inv(slopes.T @ inverse @ slopes + np.diag(width**-2))
    evidence = -surprise(measured.covariance, off, prior, scales)
    wanted = np.clip(centre + covariance @ slopes.T @ inverse @ off, low, high)
    moved = _towards(theta, wanted, lambda t: _misfit(log_loss - at(t)[0], inverse, (t - centre) / width))
    change, theta = np.abs((moved - theta) / width).max(), moved
    if change < _CLOSE:
      break
  return Posterior(dataclasses.replace(member, theta=theta), covariance, np.exp(scales)), float(evidence)


def surprise(covariance: Callable[[np.ndarray], np.ndarray], off: np.ndarray, prior: np.ndarray, scales: np.ndarray) -> float:
  """Minus the logarithm of the probability of the cells and the scales, but for a constant that all forms share.

  Args:
    covariance: of what a form does not say, at scales.
    off: [n] what is left of ln L where the constants are at their priors' centres.
    prior: [n, n] covariance that the priors on constants give it.
    scales: [5] logarithms, as SCALES.
  """
  typical, width = np.array(list(SCALES.values())).T
  try:
    factor = np.linalg.cholesky(covariance(np.exp(scales)) + prior)
  except np.linalg.LinAlgError:
    return np.inf
  white = solve_triangular(factor, off, lower=True)
  return white @ white / 2 + np.log(np.diag(factor)).sum() + (((scales - np.log(typical)) / width) ** 2).sum() / 2


def ratios(cells: Cells, pooled: Cells) -> np.ndarray:
  """[K, n] ln of each domain's loss over the mean at every pooled point; NaN where the domain was not measured."""
  names = ("params", "seed_tokens", "expert_tokens", "replica")
  place = {key: i for i, key in enumerate(zip(*(getattr(pooled, name).tolist() for name in names)))}
  at = np.array([place.get(key, -1) for key in zip(*(getattr(cells, name).tolist() for name in names))])
  _, domain = np.unique(cells.domain, return_inverse=True)
  total, count = np.zeros((2, domain.max() + 1, len(pooled)))
  np.add.at(total, (domain[at >= 0], at[at >= 0]), np.log(cells.loss[at >= 0]))
  np.add.at(count, (domain[at >= 0], at[at >= 0]), 1)
  with np.errstate(invalid="ignore"):
    return total / count - np.log(pooled.loss)


def _misfit(residual: np.ndarray, inverse: np.ndarray, from_prior: np.ndarray) -> float:
  return residual @ inverse @ residual + from_prior @ from_prior


def _towards(theta: np.ndarray, wanted: np.ndarray, misfit: Callable[[np.ndarray], float]) -> np.ndarray:
  """As far from `theta` to `wanted` as lessens the misfit, by halves."""
  before = misfit(theta)
  for share in 0.5 ** np.arange(10):
    there = theta + share * (wanted - theta)
    if misfit(there) <= before:
      return there
  return theta


def spread(count: int, most: int) -> np.ndarray:
  """Indices of at most so many of `count` rows, evenly over them."""
  return np.arange(count) if count <= most else np.unique(np.linspace(0, count - 1, most).astype(int))
