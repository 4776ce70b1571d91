"""One form fitted with priors and partial pooling: the mean over domains, and each domain's deviations.

The mean over domains is read as law.surface says, with a smooth discrepancy and with errors of sizes, snapshots and cells, whose
scales are estimated (law.surface_fit). Then the logarithm of a domain's ratio to that mean, from which all errors that its cells
share with the others' are gone, is

    ln L_k - ln L = ln f(theta + delta_k) - ln f(theta) + cell_k,    delta_k normal of mean 0

the same form with constants of its own, drawn towards those of the mean: how strongly is estimated from all domains together, as is
what cells of single domains err by (partial pooling; Gelman & Hill 2007, chapter 12; empirical Bayes).

Draws of the mean's constants are optima for data and prior means that are drawn anew (randomize-then-optimize, Bardsley et al.
2014), at scales drawn around the likeliest, so that they follow a form's bends as far as they go.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import minimize

from jaxsplit.law.cells import Cells
from jaxsplit.law.constraints import Constraints
from jaxsplit.law.damped import EACH, ROOTS, Points, minimise, place
from jaxsplit.law.forms import Form
from jaxsplit.law.kriging import SCALES, Measured, sloped
from jaxsplit.law.member import Member
from jaxsplit.law.priors import Priors
from jaxsplit.law.problem import Layout, Model, suit
from jaxsplit.law.surface_fit import MOST_FOR_SCALES, spread, surprise

_ROUNDS = 4  # Of scales, then constants, at most.
_CLOSE = 1e-2  # Prior standard deviations of a change of constants that ends the rounds.
_STEP = 0.1  # Of ln scales, over which the likelihood's curvature is taken.
_FARTHEST = 2.0  # Standard deviations from the likeliest scales, that draws of them go at most.
# Of domains: what their constants' deviations are as a share of the priors' widths, and a cell's own error, with the standard
# deviations of both logarithms before any cell is seen.
_DOMAIN_SCALES = {"apart": (0.3, 0.7), "cell": (0.004, 0.7)}


class Table(NamedTuple):
  """What all forms are read off: the mean over domains, and the points that it was measured at.

  Attributes:
    pooled: [n] the mean.
    ratio: [K, n] ln of each domain's loss over it; NaN where a domain was not measured.
  """

  pooled: Cells
  ratio: np.ndarray

  @property
  def counts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """N, D and D' [n] each."""
    return self.pooled.params, self.pooled.seed_tokens, self.pooled.expert_tokens


@dataclasses.dataclass(frozen=True)
class Reading:
  """A form, read.

  Attributes:
    model, layout: the form in log space; of one domain.
    points: where it was measured, for damped.minimise.
    centre, width, low, high: [q] the priors, and bounds.
    scales: [5] the likeliest, as SCALES.
    drawn_scales: [ROOTS, 5] draws of them.
    theta: [q] the optimum.
    starts, values: [S, q] and [S] where the search ended from each start.
    covariance: [q, q] of the constants, by their slopes.
    evidence: logarithm of the probability of the cells, but for a constant that all forms share.
  """

  model: Model
  layout: Layout
  points: Points
  centre: np.ndarray
  width: np.ndarray
  low: np.ndarray
  high: np.ndarray
  scales: np.ndarray
  drawn_scales: np.ndarray
  theta: np.ndarray
  starts: np.ndarray
  values: np.ndarray
  covariance: np.ndarray
  evidence: float

  def fit(self, root: np.ndarray, target: np.ndarray, centre: np.ndarray, width: np.ndarray,
          start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`damped.minimise` of this form."""
    return minimise(self.model, self.points, root, target, centre, width, self.low, self.high, start)

  def at(self, table: Table) -> Reading:
    """The same for another table, in the same units."""
    return dataclasses.replace(self, points=place(self.layout, *table.counts))

  def sloped(self, theta: np.ndarray, table: Table) -> tuple[np.ndarray, np.ndarray]:
    """ln f [n] at the table's points, and its slopes [n, q]."""
    return sloped(Member(self.model, self.layout, theta, np.zeros((0, len(theta))), 1.0), table.counts)


class Domains(NamedTuple):
  """What domains have of their own.

  Attributes:
    theta: [K, q] their constants; a coefficient is a multiple of the mean's typical loss.
    level: [K] ln of their typical loss over the mean's, which `theta` contains.
    spread: [K, q, q] roots of the constants' covariances.
    cell: standard deviation of what a domain's cells are off by.
  """

  theta: np.ndarray
  level: np.ndarray
  spread: np.ndarray
  cell: float


def read_form(form: Form, table: Table, priors: Priors, constraints: Constraints, seed: int) -> Reading:
  """A form's optimum, scales and evidence."""
  pooled, log_loss = table.pooled, np.log(table.pooled.loss)
  model, layout = suit(form, pooled, "everything", log=True, constraints=constraints)
  low, high = np.array([np.log([q.low, q.high]) if q.kind == "positive" else (q.low, q.high) for q in model.parameters]).T
  points = place(layout, *table.counts)
  centre, width = priors.of(model, layout, pooled)
  random = np.random.default_rng(seed)
  starts = np.clip(centre + width * random.standard_normal((ROOTS * EACH, len(centre))), low, high)
  measured, some = Measured(*table.counts, pooled.replica), spread(len(log_loss), MOST_FOR_SCALES)
  scales, theta = np.log([typical for typical, _ in SCALES.values()]), centre
  member = Member(model, layout, centre, np.zeros((0, len(centre))), 1.0)
  for turn in range(_ROUNDS):
    before, root = theta, whitening(measured.covariance(np.exp(scales)))
    found, values = minimise(model, points, root, log_loss, centre, width, low, high, starts if turn == 0 else theta)
    if turn == 0:
      ends, first_values = found, values
    theta = found[np.nanargmin(values)]
    if turn and np.abs((theta - before) / width).max() < _CLOSE:
      break
    log, slopes = sloped(dataclasses.replace(member, theta=theta), table.counts)
    off = log_loss - log + slopes @ (theta - centre)  # What is left of ln L where the constants are at their priors' centres.
    prior = (slopes * width**2) @ slopes.T
    surprised = lambda s: surprise(lambda v: measured.covariance(v, some), off[some], prior[np.ix_(some, some)], s)
    scales = minimize(surprised, scales, method="Nelder-Mead", options={
        "maxfev": 250 if turn == 0 else 80, "xatol": 0.03, "fatol": 0.02}).x  # They hardly move once constants are near.
  inverse = np.linalg.inv(measured.covariance(np.exp(scales)))
  covariance = np.linalg.inv(slopes.T @ inverse @ slopes + np.diag(width**-2))
  curvature = _curvature(surprised, scales)
  evidence = -surprise(measured.covariance, off, prior, scales) - np.linalg.slogdet(curvature)[1] / 2
  drawn = _near(scales, curvature, random)
  return Reading(model, layout, points, centre, width, low, high, np.exp(scales), np.exp(drawn), theta, ends, first_values,
                 covariance, float(evidence))


def draw(reading: Reading, table: Table, seed: int) -> np.ndarray:
  """[ROOTS * EACH, q] constants that the cells allow; each EACH in turn belong to one of `drawn_scales`."""
  random, log_loss = np.random.default_rng(seed), np.log(table.pooled.loss)
  measured = Measured(*table.counts, table.pooled.replica)
  roots, targets = [], []
  for scales in reading.drawn_scales:
    covariance = measured.covariance(scales)
    factor = np.linalg.cholesky(covariance)
    roots.append(solve_triangular(factor, np.eye(len(factor)), lower=True))
    targets.append(log_loss + random.standard_normal((EACH, len(factor))) @ factor.T)
  centre = reading.centre + reading.width * random.standard_normal((ROOTS * EACH, len(reading.centre)))
  theta, value = reading.fit(np.stack(roots), np.concatenate(targets), np.clip(centre, reading.low, reading.high), reading.width,
                             reading.theta)
  return np.where(np.isfinite(value)[:, None], theta, reading.theta)


def read_domains(reading: Reading, table: Table, theta: np.ndarray) -> Domains:
  """The domains' constants where the mean's are `theta` [q]."""
  known = np.isfinite(table.ratio)
  level = np.array([row[mine].mean() for row, mine in zip(table.ratio, known)])
  off = np.where(known, table.ratio - level[:, None], 0.0)
  if len(off) == 1:
    return Domains(_raised(theta[None], level, reading.model), level, np.zeros((1, len(theta), len(theta))), 1.0)
  log, slopes = reading.sloped(theta, table)
  groups = [(mine, np.flatnonzero((known == mine).all(1))) for mine in np.unique(known, axis=0)]
  apart, cell = _domain_scales(off, groups, slopes * reading.width)
  out, spreads = np.zeros((len(off), len(theta))), np.zeros((len(off), len(theta), len(theta)))
  for mine, group in groups:  # Domains that were measured at the same points are fitted together.
    for some in np.array_split(group, -(-len(group) // (ROOTS * EACH))):
      out[some], _ = reading.fit(np.diag(mine / cell), log + off[some], theta, apart * reading.width, theta)
    for k in group:
      own = reading.sloped(out[k], table)[1][mine]
      precision = own.T @ own / cell**2 + np.diag((apart * reading.width) ** -2)
      spreads[k] = solve_triangular(np.linalg.cholesky(precision), np.eye(len(theta)), lower=True).T
  return Domains(_raised(out, level, reading.model), level, spreads, cell)


def ratios_of(reading: Reading, domains: Domains, table: Table) -> tuple[np.ndarray, float]:
  """[K, n] ln of the domains' losses over the mean, as their constants have them, and how many numbers that took."""
  own = _raised(domains.theta, -domains.level, reading.model)
  log, _ = reading.sloped(reading.theta, table)
  each = [reading.sloped(theta, table) for theta in own]
  known = np.isfinite(table.ratio)
  fitted = np.stack([level + mine - log for level, (mine, _) in zip(domains.level, each)])
  centred = fitted - np.where(known, fitted - table.ratio, 0.0).sum(1, keepdims=True) / known.sum(1, keepdims=True)
  used = sum(((slopes @ spread)[mine] ** 2).sum() for (_, slopes), spread, mine in zip(each, domains.spread, known))
  return centred, len(own) + float(used) / domains.cell**2


def draw_domains(reading: Reading, domains: Domains, drawn: np.ndarray, seed: int) -> np.ndarray:
  """[S, K, q] constants of the domains beside draws [S, q] of the mean's."""
  random, count = np.random.default_rng(seed), len(domains.level)
  own = _raised(domains.theta, -domains.level, reading.model) - reading.theta
  noise = random.standard_normal((len(drawn), count, drawn.shape[1]))
  theta = drawn[:, None] + own + np.einsum("kij,skj->ski", domains.spread, noise)
  return _raised(np.clip(theta, reading.low, reading.high), domains.level, reading.model)


def _raised(theta: np.ndarray, level: np.ndarray, model: Model) -> np.ndarray:
  """Constants [..., K, q] with coefficients times exp(level [K])."""
  linear = np.array([q.kind == "coefficient" for q in model.parameters])
  return theta * np.where(linear, np.exp(level)[:, None], 1.0)


def _domain_scales(off: np.ndarray, groups: list[tuple[np.ndarray, np.ndarray]], slopes: np.ndarray) -> tuple[float, float]:
  """The likeliest share of the priors' widths that domains lie apart by, and error of a domain's cells.

  Args:
    off: [K, n] ln of the ratios, less their means.
    groups: which points were measured, and in which domains.
    slopes: [n, q] in widths of the priors.
  """
  typical, width = np.array(list(_DOMAIN_SCALES.values())).T
  known = [(len(group), mine.sum(), slopes[mine].T @ slopes[mine], slopes[mine].T @ off[group][:, mine].T,
            (off[group][:, mine] ** 2).sum()) for mine, group in groups]

  def surprised(scales: np.ndarray) -> float:
    apart, cell = np.exp(scales)
    total = (((scales - np.log(typical)) / width) ** 2).sum() / 2
    for count, points, curvature, pull, squares in known:
      factor = np.linalg.cholesky(np.eye(len(curvature)) + curvature * (apart / cell) ** 2)
      seen = np.linalg.solve(factor, pull * apart / cell**2)
      total += (squares / cell**2 - (seen**2).sum()) / 2 + count * (np.log(np.diag(factor)).sum() + points * scales[1])
    return total

  return tuple(np.exp(minimize(surprised, np.log(typical), method="Nelder-Mead", options={"maxfev": 120, "xatol": 0.03}).x))


def whitening(covariance: np.ndarray) -> np.ndarray:
  """R with R'R the inverse of a covariance."""
  return solve_triangular(np.linalg.cholesky(covariance), np.eye(len(covariance)), lower=True)


def _curvature(function, at: np.ndarray) -> np.ndarray:
  """[d, d] second derivatives by differences, no smaller than those of the scales' priors where cells say nothing."""
  steps = _STEP * np.eye(len(at))
  here, up, down = function(at), [function(at + s) for s in steps], [function(at - s) for s in steps]
  out = np.diag([(u - 2 * here + d) / _STEP**2 for u, d in zip(up, down)])
  for i in range(len(at)):
    for j in range(i):
      out[i, j] = out[j, i] = (function(at + steps[i] + steps[j]) - up[i] - up[j] + here) / _STEP**2
  values, axes = np.linalg.eigh(out)
  return (axes * np.maximum(values, 0.5)) @ axes.T


def _near(scales: np.ndarray, curvature: np.ndarray, random: np.random.Generator) -> np.ndarray:
  """[ROOTS, d] draws of scales, the likeliest first."""
  values, axes = np.linalg.eigh(curvature)
  normal = np.clip(random.standard_normal((ROOTS, len(scales))), -_FARTHEST, _FARTHEST)
  normal[0] = 0
  return scales + (normal / np.sqrt(values)) @ axes.T
