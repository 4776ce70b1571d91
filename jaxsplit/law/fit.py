"""Fitting: every candidate form over many starts, scored on held-out cells, the best one kept with its uncertainty."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from jaxsplit.errors import InputError
from jaxsplit.law import holdout
from jaxsplit.law.assemble import assemble, ranges, without_losses
from jaxsplit.law.cells import Cells
from jaxsplit.law.constraints import Constraints, parse_constraints
from jaxsplit.law.design import check_design, check_domains, measured_levels, no_split, skip_reason
from jaxsplit.law.diagnostics import far_rows
from jaxsplit.law.fitted import TINY, Fitted
from jaxsplit.law.forms import FORMS, Form
from jaxsplit.law.law import Law
from jaxsplit.law.member import Member
from jaxsplit.law.prior_fit import fit_with_priors
from jaxsplit.law.problem import draw_starts, pose, suit
from jaxsplit.law.repeats import passes
from jaxsplit.law.resampling import resample
from jaxsplit.law.settings import FitSettings, changed
from jaxsplit.law.solve import solve
from jaxsplit.law.surface import Surface
from jaxsplit.law.surface_fit import read_surface

_HELD_OUT_STARTS = 15  # Besides the full fit's optimum, from which a refit without a few cells is rarely far.
_HUGE = 1e8  # The Huber width that stands for least squares.


def fit_law(cells: Cells, settings: FitSettings = FitSettings(), **overrides: Any) -> Law:
  """Fits a law to measured cells.

  Args:
    cells: at least as many rows as the form has constants.
    settings: see FitSettings; `overrides` replace its fields, as in fit_law(cells, form="effective_data").

  Raises:
    InputError: unknown settings, a design from which no law can be told, or cells that do not suit the form.
  """
  settings, cells = changed(settings, overrides), _counted(cells)
  forms, skipped = _candidates(cells, settings)
  rules = _rules(cells, settings, len(forms))
  if settings.reading == "prior":
    return fit_with_priors(cells, forms, skipped, rules, settings)
  # Neither compilation nor much of what is computed holds the interpreter, so forms are fitted side by side. Systems are small:
  # BLAS's own threads would spend their time waiting for each other.
  with threadpool_limits(1, "blas"), ThreadPoolExecutor(min(len(forms), os.cpu_count() or 1)) as pool:
    fits = list(pool.map(lambda form: fit_form(form, cells, settings, rules), forms))
    in_play = holdout.contenders(fits, cells)
    draws = list(pool.map(lambda pair: bootstrap(pair[0], cells, settings), in_play))
    best = max(in_play, key=lambda pair: pair[1])[0]
    near = np.setdiff1d(np.arange(len(cells)), far_rows(best, cells))  # A surface counts squares: a few wrong rows would bend it.
    surface = _surface(cells.take(near), fits, parse_constraints(settings.fix, settings.tie))
  members = tuple(Member(fit.model, fit.layout, fit.theta, draw, weight) for (fit, weight), draw in zip(in_play, draws))
  return assemble(cells, settings, fits, skipped, members, surface)


def check_fit(cells: Cells, settings: FitSettings = FitSettings()) -> None:
  """Refuses what `fit_law` would refuse of these cells whatever their losses are: for cells that are still to be measured.

  Raises:
    InputError: a design from which no law can be told, or a rule that holds out too much of it.
  """
  cells = _counted(cells)
  forms, _ = _candidates(cells, settings)
  for rule in _rules(cells, settings, len(forms)):
    holdout.folds(cells, rule)


def fit_form(form: Form, cells: Cells, settings: FitSettings, rules: Sequence[str]) -> Fitted:
  """One form at its optimum, and its errors on what each rule holds out."""
  model, layout = suit(form, cells, settings.share, log=settings.space == "log",
                       repeats=settings.repeats and bool((passes(cells) > 1).any()),
                       constraints=parse_constraints(settings.fix, settings.tie))
  delta = {"huber": settings.delta, "l1": TINY, "least_squares": _HUGE}[settings.objective]
  problem, target, row = pose(model, layout, cells, delta)
  problem = problem._replace(over=settings.overestimate_penalty)
  weight = np.where(row >= 0, cells.weight[row], 0.0)
  starts = draw_starts(model, layout, settings.starts, settings.seed)
  solution = solve(model, problem, starts, target, weight)
  if not np.isfinite(solution.objective).any():
    raise InputError(f"{cells.source.get('file', 'cells')}: no start of form {form.name} gave a finite loss; "
                     "the values may overflow")
  theta = solution.theta[np.nanargmin(solution.objective)]
  fit = Fitted(model, layout, problem, target, row, weight, theta, starts, solution, None)
  masks = [holdout.folds(cells, rule) for rule in rules]
  predicted = iter(_predict_held_out(fit, sum(masks, [])))
  scores = [holdout.score(cells, folds, [next(predicted) for _ in folds], rule) for rule, folds in zip(rules, masks) if folds]
  held_out = {**scores[0], "others": [without_losses(score) for score in scores[1:]]} if scores else None
  return dataclasses.replace(fit, held_out=held_out)


def bootstrap(fit: Fitted, cells: Cells, settings: FitSettings) -> np.ndarray:
  """[B, P] minimisers of the same objective on resampled cells, each started at the optimum."""
  if not settings.bootstrap:
    return np.zeros((0, len(fit.theta)))
  target, weight = resample(fit, cells, settings.resample, settings.bootstrap, settings.seed)
  return solve(fit.model, fit.problem, np.broadcast_to(fit.theta, (settings.bootstrap, len(fit.theta))), target, weight,
               near=True).theta


def _predict_held_out(fit: Fitted, masks: list[np.ndarray]) -> list[np.ndarray]:
  """Losses that each mask's cells are given by a refit without them."""
  if not masks:
    return []
  starts = np.concatenate([fit.theta[None], fit.starts[:_HELD_OUT_STARTS]])
  each = len(starts)
  weight = np.stack([np.where(mask[fit.row], 0.0, fit.weight) for mask in masks])
  solution = solve(fit.model, fit.problem, np.tile(starts, (len(masks), 1)), fit.target, np.repeat(weight, each, 0))
  best = np.nan_to_num(solution.objective.reshape(len(masks), each), nan=np.inf).argmin(1)
  return [losses[mask] for losses, mask in zip(fit.losses(solution.theta[np.arange(len(masks)) * each + best]), masks)]


def _counted(cells: Cells) -> Cells:
  """The rows that count: those of weight zero are as if they were not there, for units, scores and intervals too."""
  counts = cells.weight > 0
  if counts.all():
    return cells
  if not counts.any():
    raise InputError(f"{cells.source.get('file', 'cells')}: every row has weight 0; give some rows weight")
  dropped = {**cells.source.get("dropped", {}), "weight is 0": int((~counts).sum())}
  return dataclasses.replace(cells.take(counts), source={**cells.source, "dropped": dropped})


def _candidates(cells: Cells, settings: FitSettings) -> tuple[list[Form], dict[str, str]]:
  """The forms to fit, and why others of "auto" were left out."""
  check_design(cells, settings.repeats)
  constraints = parse_constraints(settings.fix, settings.tie)
  priors = settings.reading == "prior"
  if settings.form != "auto":
    form = FORMS[settings.form]
    reason = skip_reason(form, cells, constraints, priors)
    if reason:
      raise InputError(f"{cells.source.get('file', 'cells')}: form {form.name} cannot be told from these cells: {reason}")
    if not priors:
      check_domains([form], cells, settings.share, constraints)
    return [form], {}
  known = [form for form in FORMS.values() if not form.one_size]
  reasons = {form.name: skip_reason(form, cells, constraints, priors) for form in known}
  forms = [form for form in known if not reasons[form.name]]
  if not forms:
    raise InputError(f"{cells.source.get('file', 'cells')}: no law can be told from these cells: {reasons['chinchilla']}"
                     + ("" if priors or skip_reason(FORMS["additive"], cells, constraints, True) else
                        "; or read them with priors, as sweeps are (FitSettings.reading = 'prior')"))
  if priors:
    # A form that takes all tokens for the same fits a table of seeds alone; beside one of experts it would only be outweighed.
    split = [form for form in forms if "expert_tokens" in form.needs]
    return split or forms, {name: reason for name, reason in reasons.items() if reason}
  check_domains(forms, cells, settings.share, constraints)
  return forms, {name: reason for name, reason in reasons.items() if reason}


def _rules(cells: Cells, settings: FitSettings, candidates: int) -> tuple[str, ...]:
  if settings.holdout == "auto":
    return holdout.default_rules(cells)
  if settings.holdout == "none" and candidates > 1 and settings.reading == "plain":  # Evidence needs no cells held out.
    raise InputError("--holdout=none leaves --form=auto nothing to choose by; name a form, or a rule such as params:1")
  holdout.folds(cells, settings.holdout)
  return (settings.holdout,)


def _surface(cells: Cells, fits: list[Fitted], constraints: Constraints) -> Surface | None:
  """What plans are read off, by the forms that tell seed and expert tokens apart; None where a split cannot be read off the
  cells, or tokens are discounted, which the mean over domains does not show."""
  if any(fit.model.repeats for fit in fits) or no_split(measured_levels(cells, fits[0].layout.domains), ranges(cells)):
    return None
  forms = [fits[0].model.form]
  if len(fits) > 1:
    forms = [form for form in FORMS.values() if not skip_reason(form, cells, constraints, priors=True)]
  forms = [form for form in forms if {"seed_tokens", "expert_tokens"} <= set(form.needs)]
  return read_surface(cells, forms, constraints) if forms else None
