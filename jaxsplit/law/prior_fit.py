"""The fit with priors: all forms' constants, scales and domains, weighted by evidence, with posterior draws.

Where the plain fit asks which constants suit the cells best, this asks what the cells leave open: so it reads tables that are too
small for constants of their own, and what is planned by it takes all that is left open into account. See law.pooled_fit.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from threadpoolctl import threadpool_limits

from jaxsplit.law import holdout
from jaxsplit.law.assemble import assemble, without_losses
from jaxsplit.law.cells import Cells
from jaxsplit.law.constraints import Constraints, parse_constraints
from jaxsplit.law.fitted import Fitted
from jaxsplit.law.forms import Form
from jaxsplit.law.kriging import Measured
from jaxsplit.law.law import Law
from jaxsplit.law.mapping import split_list
from jaxsplit.law.member import Member
from jaxsplit.law.outliers import drawn_in
from jaxsplit.law.pooled_fit import Domains, Reading, Table, draw, draw_domains, read_domains, read_form, whitening
from jaxsplit.law.priors import Priors, read_priors
from jaxsplit.law.problem import Layout, lay_out, pose
from jaxsplit.law.settings import FitSettings
from jaxsplit.law.solve import Solution
from jaxsplit.law.surface import Posterior, Surface
from jaxsplit.law.surface_fit import pool, ratios

_LEAST_SQUARES = 1e8  # The Huber width that stands for them.
_NEGLIGIBLE = 0.01  # Of the best form's evidence: what has less is not kept.


def fit_with_priors(cells: Cells, forms: list[Form], skipped: dict[str, str], rules: tuple[str, ...], settings: FitSettings) -> Law:
  """The law of cells that count, by forms that suit them; see law.fit.fit_law.

  Args:
    cells: the table.
    forms: those to be read.
    skipped: forms that are not, and why.
    rules: what is held out; the forms' weights do not depend on it.
    settings: as fit_law takes.
  """
  domains = ("all",) if settings.share == "everything" else cells.domains
  one = dataclasses.replace(cells, domain=np.full(len(cells), "all")) if settings.share == "everything" else cells
  table, priors = _table(one), read_priors(split_list(settings.prior))
  constraints = parse_constraints(settings.fix, settings.tie)
  # One after the other: programs that solve small systems side by side have waited for each other's threads for ever.
  with threadpool_limits(1, "blas"):
    readings = _read(forms, table, priors, constraints, settings.seed)
    steady = drawn_in(table, readings[0])
    if steady is not table:
      table, readings = steady, _read(forms, steady, priors, constraints, settings.seed)
    weights = np.exp([reading.evidence - readings[0].evidence for reading in readings])
    fits = [_fitted(reading, table, cells, domains, settings, rules) for reading in readings]
    kept = [each for each in zip(readings, fits, weights) if each[2] > _NEGLIGIBLE]
    drawn = [draw(reading, table, settings.seed) for reading, *_ in kept]
    own = [draw_domains(reading, read_domains(reading, table, reading.theta), draws, settings.seed)
           for (reading, *_), draws in zip(kept, drawn)]
  total = sum(weight for *_, weight in kept)
  members = tuple(Member(fit.model, fit.layout, fit.theta, constants.reshape(len(constants), -1), float(weight / total))
                  for (_, fit, weight), constants in zip(kept, own))
  forms_kept = tuple(Posterior(Member(r.model, r.layout, r.theta, np.zeros((0, len(r.theta))), float(weight / total)), r.covariance,
                               r.scales, r.drawn_scales, draws) for (r, _, weight), draws in zip(kept, drawn))
  surface = Surface(*table.counts, table.pooled.replica, table.pooled.loss, forms_kept)
  return assemble(cells, settings, fits, skipped, members, surface)


def _read(forms: list[Form], table: Table, priors: Priors, constraints: Constraints, seed: int) -> list[Reading]:
  """Every form, the likeliest first."""
  return sorted((read_form(form, table, priors, constraints, seed) for form in forms), key=lambda reading: -reading.evidence)


def _table(cells: Cells) -> Table:
  pooled = pool(cells)
  return Table(pooled, ratios(cells, pooled))


def _fitted(reading: Reading, table: Table, cells: Cells, domains: tuple[str, ...], settings: FitSettings,
            rules: tuple[str, ...]) -> Fitted:
  """The reading as a fit of all domains' constants, with its errors on what the rules hold out."""
  layout = _layout(reading, cells, domains, settings)
  problem, target, row = pose(reading.model, layout, cells, _LEAST_SQUARES)
  weight = np.where(row >= 0, cells.weight[row], 0.0)
  found = read_domains(reading, table, reading.theta)
  theta = found.theta.ravel()
  apart = found.theta - np.where(_linear(reading), np.exp(found.level)[:, None], 1.0) * reading.theta
  starts = np.where(_linear(reading), np.exp(found.level)[:, None], 1.0) * reading.starts[:, None] + apart
  solution = Solution(starts.reshape(len(starts), -1), reading.values / 2, np.zeros(len(starts)))
  scores = []
  for rule in rules:
    folds = holdout.folds(cells, rule)
    predicted = [_without(reading, layout, cells, mask, settings) for mask in folds]
    scores.append(holdout.score(cells, folds, predicted, rule)) if folds else None
  held_out = {**scores[0], "others": [without_losses(score) for score in scores[1:]]} if scores else None
  return Fitted(reading.model, layout, problem, target, row, weight, theta, reading.starts, solution, held_out)


def _linear(reading: Reading) -> np.ndarray:
  return np.array([q.kind == "coefficient" for q in reading.model.parameters])


def _layout(reading: Reading, cells: Cells, domains: tuple[str, ...], settings: FitSettings) -> Layout:
  """The places of every domain's constants, in the units of the mean's."""
  full, constants = lay_out(reading.model, cells, settings.share), len(reading.model.parameters)
  index = np.arange(len(domains) * constants).reshape(len(domains), constants)
  return dataclasses.replace(reading.layout, domains=domains, index=tuple(map(tuple, index.tolist())),
                             unique_tokens=full.unique_tokens, shares=full.shares, rest_tokens=full.rest_tokens)


def _without(reading: Reading, layout: Layout, cells: Cells, mask: np.ndarray, settings: FitSettings) -> np.ndarray:
  """[m] losses that the masked cells are given by the form without them, at the scales of all."""
  left = cells.take(~mask)
  one = dataclasses.replace(left, domain=np.full(len(left), "all")) if settings.share == "everything" else left
  table = _table(one)
  measured = Measured(*table.counts, table.pooled.replica)
  part = reading.at(table)
  theta, _ = part.fit(whitening(measured.covariance(reading.scales)), np.log(table.pooled.loss), reading.centre, reading.width,
                      reading.theta)
  own: Domains = read_domains(part, table, theta[0])
  known = {name: own.theta[k] for k, name in enumerate(one.domains)}
  # A domain that nothing is left of is not scored: any constants do.
  whole = np.concatenate([known.get(name, theta[0]) for name in layout.domains])
  member = Member(reading.model, layout, whole, np.zeros((0, len(whole))), 1.0)
  held, out = cells.take(mask), np.zeros(int(mask.sum()))
  for k, name in enumerate(layout.domains):
    mine = (held.domain == name) | (layout.domains == ("all",))
    out[mine] = member.predict(whole[None], *(v[mine] for v in (held.params, held.seed_tokens, held.expert_tokens)), k)[0]
  return out
