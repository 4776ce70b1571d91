"""Fitting: every candidate form over many starts, scored on held-out cells, the best one kept with its uncertainty."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np

from jaxsplit.errors import InputError, nearest
from jaxsplit.law import holdout
from jaxsplit.law.cells import Cells
from jaxsplit.law.diagnostics import check_design, diagnose, skip_reason
from jaxsplit.law.forms import FORMS, Form, get_form
from jaxsplit.law.law import Law, Member
from jaxsplit.law.problem import Layout, Model, draw_starts, lay_out, pose
from jaxsplit.law.solve import Problem, Solution, predictions, sensitivities, solve
from jaxsplit.law.uncertainty import parameter_intervals, profiles, resample

_HELD_OUT_STARTS = 15  # Besides the full fit's optimum, from which a refit without a few cells is rarely far.
_CONTENDER = 1.5  # A form whose held-out error is within this factor of the best keeps a say in the intervals.
_TINY = 1e-8  # The Huber width that stands for L1: the sums then differ by under 1e-8 a point.
_HUGE = 1e8  # and for least squares


@dataclasses.dataclass(frozen=True)
class FitSettings:
  """How a law is fitted.

  Attributes:
    form: a name of law.forms.FORMS, "auto" (the best held-out error), or the path of a .py file that defines FORM.
    objective: what is summed over residuals.
    delta: Huber's width, in the residuals' unit.
    space: residuals are of log loss, or of the loss.
    share: what several domains have in common: "exponents" (constants per domain), "everything", or "nothing".
    repeats: discount repeated expert tokens (needs unique_tokens).
    holdout: "auto", "none", "leave_one_out" or AXIS:k, the k largest values of params, seed_tokens, expert_tokens,
      tokens or compute.
    starts: starting points per form.
    bootstrap: refits of resampled cells per form in play; 0 for none.
    resample: what a bootstrap draws: "residuals", "pairs" (cells) or "trunks" (all cells of one size and replica).
    profile: values per constant at which the objective is profiled; 0 for none.
    seed: of starts and bootstrap.
  """

  form: str = "auto"
  objective: Literal["huber", "l1", "least_squares"] = "huber"
  delta: float = 1e-3
  space: Literal["log", "raw"] = "log"
  share: Literal["exponents", "everything", "nothing"] = "exponents"
  repeats: bool = False
  holdout: str = "auto"
  starts: int = 64
  bootstrap: int = 1000
  resample: Literal["residuals", "pairs", "trunks"] = "residuals"
  profile: int = 0
  seed: int = 0


@dataclasses.dataclass(frozen=True)
class Fitted:
  """One form at its optimum on all cells."""

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
    return float(self.solution.objective.min()) / (self.problem.delta if self.problem.delta == _TINY else 1)

  def predict(self, theta: np.ndarray, cells: Cells) -> np.ndarray:
    """Loss of every cell at `theta` [P]."""
    member = Member(self.model, self.layout, theta, np.zeros((0, len(theta))), 1.0)
    out = np.zeros(len(cells))
    for k, row in enumerate(self.row):
      i = row[row >= 0]
      out[i] = member.predict(theta[None], cells.params[i], cells.seed_tokens[i], cells.expert_tokens[i], k)[0]
    return out

  def predictions(self) -> np.ndarray:
    """[K, M] predictions in the objective's space at the optimum."""
    return predictions(self.model, self.problem, self.theta)

  def jacobian(self) -> np.ndarray:
    """[n, P] derivatives of the predictions, in the objective's space, at the optimum."""
    return sensitivities(self.model, self.problem, self.theta)[self.row >= 0]


def fit_law(cells: Cells, settings: FitSettings = FitSettings(), **overrides: Any) -> Law:
  """Fits a law to measured cells.

  Args:
    cells: at least as many rows as the form has constants.
    settings: see FitSettings; `overrides` replace its fields, as in fit_law(cells, form="effective_data").

  Raises:
    InputError: unknown settings, a design from which no law can be told, or cells that do not suit the form.
  """
  settings = _settings(settings, overrides)
  forms, skipped = _candidates(cells, settings)
  rules = _rules(cells, settings, len(forms))
  # Compilation dominates small tables and does not hold the interpreter, so forms are fitted side by side.
  with ThreadPoolExecutor(min(len(forms), os.cpu_count() or 1)) as pool:
    fits = list(pool.map(lambda form: fit_form(form, cells, settings, rules), forms))
    key = lambda fit: fit.held_out["mre"] if fit.held_out else fit.objective_value
    fits.sort(key=key)
    best = fits[0]
    contenders = [fit for fit in fits if fit.held_out and key(fit) <= _CONTENDER * key(best)] or [best]
    draws = list(pool.map(lambda fit: bootstrap(fit, cells, settings), contenders))
  members = tuple(Member(fit.model, fit.layout, fit.theta, draw, _weight(key(fit), key(best))) for fit, draw in
                  zip(contenders, draws))
  return _law(cells, settings, fits, skipped, members)


def fit_form(form: Form, cells: Cells, settings: FitSettings, rules: Sequence[str]) -> Fitted:
  """One form at its optimum, and its errors on what each rule holds out."""
  zeros = {"seed_offset": "seed_tokens", "expert_offset": "expert_tokens"}
  offsets = tuple(name for name, column in zeros.items() if column in form.diverges and (getattr(cells, column) == 0).any())
  model = Model(form, settings.space == "log", settings.repeats, offsets)
  layout = lay_out(model, cells, settings.share)
  delta = {"huber": settings.delta, "l1": _TINY, "least_squares": _HUGE}[settings.objective]
  problem, target, row = pose(model, layout, cells, delta)
  weight = np.where(row >= 0, cells.weight[row], 0.0)
  starts = draw_starts(model, layout, settings.starts, settings.seed)
  solution = solve(model, problem, starts, target, weight)
  if not np.isfinite(solution.objective).any():
    raise InputError(f"{cells.source.get('file', 'cells')}: no start of form {form.name} gave a finite loss; the values may overflow")
  theta = solution.theta[np.nanargmin(solution.objective)]
  fit = Fitted(model, layout, problem, target, row, weight, theta, starts, solution, None)
  masks = [holdout.folds(cells, rule) for rule in rules]
  predicted = iter(_predict_held_out(fit, cells, sum(masks, [])))
  scores = [holdout.score(cells, folds, [next(predicted) for _ in folds], rule) for rule, folds in zip(rules, masks) if folds]
  held_out = {**scores[0], "others": scores[1:]} if scores else None
  return dataclasses.replace(fit, held_out=held_out)


def bootstrap(fit: Fitted, cells: Cells, settings: FitSettings) -> np.ndarray:
  """[B, P] minimisers of the same objective on resampled cells, each started at the optimum."""
  if not settings.bootstrap:
    return np.zeros((0, len(fit.theta)))
  target, weight = resample(fit, cells, settings.resample, settings.bootstrap, settings.seed)
  return solve(fit.model, fit.problem, np.broadcast_to(fit.theta, (settings.bootstrap, len(fit.theta))), target, weight,
               near=True).theta


def _predict_held_out(fit: Fitted, cells: Cells, masks: list[np.ndarray]) -> list[np.ndarray]:
  """Predictions of each mask's cells by a refit without them."""
  if not masks:
    return []
  starts = np.concatenate([fit.theta[None], fit.starts[:_HELD_OUT_STARTS]])
  each = len(starts)
  weight = np.stack([np.where(mask[fit.row], 0.0, fit.weight) for mask in masks])
  solution = solve(fit.model, fit.problem, np.tile(starts, (len(masks), 1)), fit.target, np.repeat(weight, each, 0))
  best = np.nan_to_num(solution.objective.reshape(len(masks), each), nan=np.inf).argmin(1)
  return [fit.predict(solution.theta[i * each + j], cells)[mask] for i, (mask, j) in enumerate(zip(masks, best))]


def _settings(settings: FitSettings, overrides: dict[str, Any]) -> FitSettings:
  known = [f.name for f in dataclasses.fields(FitSettings)]
  for name in overrides:
    if name not in known:
      raise InputError(f"fit_law: no setting {name!r}{nearest(name, known)}")
  settings = dataclasses.replace(settings, **overrides)
  if not (settings.delta > 0 and np.isfinite(settings.delta)):
    raise InputError(f"--delta={settings.delta}: must be a positive number")
  if settings.starts < 1 or settings.bootstrap < 0:
    raise InputError(f"--starts={settings.starts} must be at least 1 and --bootstrap={settings.bootstrap} at least 0")
  for name, known in (("objective", ("huber", "l1", "least_squares")), ("space", ("log", "raw")),
                      ("share", ("exponents", "everything", "nothing")), ("resample", ("residuals", "pairs", "trunks"))):
    if getattr(settings, name) not in known:
      raise InputError(f"--{name}={getattr(settings, name)}: must be one of {', '.join(known)}")
  return settings


def _candidates(cells: Cells, settings: FitSettings) -> tuple[list[Form], dict[str, str]]:
  """The forms to fit, and why others of "auto" were left out."""
  check_design(cells, settings.repeats)
  if settings.form != "auto":
    form = get_form(settings.form)
    reason = skip_reason(form, cells)
    if reason:
      raise InputError(f"{cells.source.get('file', 'cells')}: form {form.name} cannot be told from these cells: {reason}")
    return [form], {}
  reasons = {form.name: skip_reason(form, cells) for form in FORMS.values()}
  forms = [form for form in FORMS.values() if not reasons[form.name]]
  if not forms:
    raise InputError(f"{cells.source.get('file', 'cells')}: no law can be told from these cells: {reasons['chinchilla']}")
  return forms, {name: reason for name, reason in reasons.items() if reason}


def _rules(cells: Cells, settings: FitSettings, candidates: int) -> tuple[str, ...]:
  if settings.holdout == "auto":
    return holdout.default_rules(cells)
  if settings.holdout == "none" and candidates > 1:
    raise InputError("--holdout=none leaves --form=auto nothing to choose by; name a form, or a rule such as params:1")
  holdout.folds(cells, settings.holdout)
  return (settings.holdout,)


def _weight(error: float, least: float) -> float:
  return float((least / error) ** 2) if error > 0 else 1.0


def _law(cells: Cells, settings: FitSettings, fits: list[Fitted], skipped: dict[str, str], members: tuple[Member, ...]) -> Law:
  best = fits[0]
  predicted = best.predict(best.theta, cells)
  residuals = np.log(cells.loss / predicted)
  centred = np.log(cells.loss)
  for row in best.row:
    i = row[row >= 0]
    centred[i] -= centred[i].mean()
  spread = (centred**2).sum()
  candidates = tuple({"form": fit.model.form.name, "parameters": _plain(fit.layout.named(fit.model, fit.theta)),
                      "objective_value": fit.objective_value, "held_out": fit.held_out} for fit in fits)
  ranges = {name: [float(getattr(cells, name).min()), float(getattr(cells, name).max())]
            for name in ("params", "seed_tokens", "expert_tokens", "loss")}
  return Law(
      form=best.model.form.name,
      objective={"name": settings.objective, "delta": settings.delta if settings.objective == "huber" else None,
                 "space": settings.space},
      parameters=candidates[0]["parameters"], objective_value=best.objective_value, num_points=len(cells),
      r2=float(1 - (residuals**2).sum() / spread) if spread > 0 else 0.0, held_out=best.held_out,
      intervals=parameter_intervals(best, members[0].samples),
      profiles=profiles(best, cells, settings.profile) if settings.profile else {}, candidates=candidates,
      diagnostics=diagnose(best, cells, skipped), data={**cells.source, "ranges": ranges},
      settings=dataclasses.asdict(settings), members=members, residuals=residuals)


def _plain(named: dict[str, Any]) -> dict[str, float]:
  return {name: float(value) for name, value in named.items()}
