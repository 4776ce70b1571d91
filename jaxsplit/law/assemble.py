"""Assembles a law from what was fitted: constants, intervals, errors and warnings."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np

from jaxsplit.law.cells import Cells
from jaxsplit.law.design import measured_levels
from jaxsplit.law.diagnostics import diagnose
from jaxsplit.law.fitted import Fitted
from jaxsplit.law.law import Law
from jaxsplit.law.member import Member
from jaxsplit.law.settings import FitSettings
from jaxsplit.law.surface import Surface
from jaxsplit.law.uncertainty import parameter_intervals, profiles


def ranges(cells: Cells) -> dict[str, list[float]]:
  """Least and largest of what the rows measure."""
  found = {name: [float(getattr(cells, name).min()), float(getattr(cells, name).max())]
           for name in ("params", "seed_tokens", "expert_tokens", "loss")}
  tokens = cells.seed_tokens + cells.expert_tokens
  return {**found, "tokens": [float(tokens.min()), float(tokens.max())]}


def assemble(cells: Cells, settings: FitSettings, fits: list[Fitted], skipped: dict[str, str], members: tuple[Member, ...],
             surface: Surface | None) -> Law:
  """The law that fits make.

  Args:
    cells: the rows that count.
    settings: as they were fitted by.
    fits: every form tried, best first.
    skipped: forms that were not tried, and why.
    members: the forms in play, the best first.
    surface: what plans are read off, if anything.
  """
  best = fits[0]
  residuals = np.log(cells.loss / best.losses(best.theta[None])[0])
  _, domain = np.unique(cells.domain, return_inverse=True)
  candidates = tuple({"form": fit.model.form.name, "parameters": _plain(fit.layout.named(fit.model, fit.theta)),
                      "objective_value": fit.objective_value, "held_out": fit.held_out and without_losses(fit.held_out)}
                     for fit in fits)
  # A law may be handed on: its table's name and hash say which it was, not where it lay.
  source = {**cells.source, "file": pathlib.Path(cells.source["file"]).name} if "file" in cells.source else cells.source
  levels, r2 = measured_levels(cells, best.layout.domains), _explained(residuals, cells.loss, np.zeros_like(domain))
  return Law(
      form=best.model.form.name,
      objective={"name": settings.objective if settings.reading == "plain" else "posterior",
                 "delta": settings.delta if settings.objective == "huber" and settings.reading == "plain" else None,
                 "space": settings.space, "overestimate_penalty": settings.overestimate_penalty},
      parameters=candidates[0]["parameters"], objective_value=best.objective_value, num_points=len(cells),
      r2=r2, r2_within_domains=_explained(residuals, cells.loss, domain),
      held_out=best.held_out,
      intervals=parameter_intervals(best, members[0].samples),
      profiles=profiles(best, cells, settings.profile) if settings.profile else {}, candidates=candidates,
      diagnostics=diagnose(best, cells, settings, skipped, members[0].samples, r2),
      data={**source, "ranges": ranges(cells), "levels": levels},
      settings=dataclasses.asdict(settings),
      members=members, residuals=residuals, surface=surface)


def _explained(residuals: np.ndarray, loss: np.ndarray, group: np.ndarray) -> float:
  """R2 of log loss around each group's mean."""
  value = np.log(loss)
  centred = value - (np.bincount(group, value) / np.bincount(group))[group]
  spread = (centred**2).sum()
  return float(1 - (residuals**2).sum() / spread) if spread > 1e-24 * len(loss) else 0.0  # Less is rounding: nothing varies.


def without_losses(score: dict[str, Any]) -> dict[str, Any]:
  """A score without single cells: they are kept once a law, for the chosen form."""
  return {name: value for name, value in score.items() if name not in ("measured", "predicted")}


def _plain(named: dict[str, Any]) -> dict[str, float]:
  return {name: float(value) for name, value in named.items()}
