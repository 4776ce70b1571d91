"""A law against its cells, and against those that its rule holds out: there the same form is fitted again without them."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxsplit.law import Cells, FitSettings, Law
from jaxsplit.law.fit import fit_form
from jaxsplit.law.forms import get_form
from jaxsplit.law.holdout import folds
from jaxsplit.law.law import Member
from jaxsplit.report.law_text import rule_text

_STARTS = 32


def comparison(law: Law, cells: Cells) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], str]:
  """(measured, predicted) losses of the fitted cells and, by a refit, of those held out; and a sentence on each."""
  series = {"fitted": (cells.loss, predictions(law, cells))}
  words = f"Circles: the {len(cells):,} cells that the law is fitted to. "
  held_out = held_out_predictions(law, cells)
  if held_out is not None:
    series["held out"] = held_out
    words += f"Squares: {rule_text(law.held_out['rule'])}, as predicted by a fit without them. "
  return series, words


def held_out_predictions(law: Law, cells: Cells) -> tuple[np.ndarray, np.ndarray] | None:
  """(measured, predicted) losses of the cells that the law's rule holds out.

  None where nothing was held out, or one cell at a time, where every refit sees nearly everything.
  """
  if law.held_out is None or law.held_out["rule"] == "leave_one_out":
    return None
  (mask,) = folds(cells, law.held_out["rule"])
  settings = dataclasses.replace(FitSettings(**law.settings), starts=_STARTS)
  fit = fit_form(get_form(law.form), cells.take(~mask), settings, ())
  member = Member(fit.model, fit.layout, fit.theta, np.zeros((0, len(fit.theta))), 1.0)
  unseen = cells.take(mask & np.isin(cells.domain, cells.domain[~mask]))
  return unseen.loss, predictions(dataclasses.replace(law, members=(member,)), unseen)


def predictions(law: Law, cells: Cells) -> np.ndarray:
  """[n] losses that the law gives the cells, each in its own domain."""
  out = np.empty(len(cells))
  for domain in cells.domains:
    mask = cells.domain == domain
    out[mask] = law.predict(cells.params[mask], cells.seed_tokens[mask], cells.expert_tokens[mask], domain)
  return out
