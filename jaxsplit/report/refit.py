"""What a law predicts for cells that it has not seen: the same form fitted again without the cells that its rule holds out."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxsplit.law import Cells, FitSettings, Law, fit_law
from jaxsplit.law.holdout import folds

_STARTS = 16  # As many as the law's own refits take.


def held_out_predictions(law: Law, cells: Cells) -> tuple[np.ndarray, np.ndarray] | None:
  """(measured, predicted) losses of the cells that the law's rule holds out.

  None where nothing was held out, or one cell at a time, where every refit sees nearly everything.
  """
  if law.held_out is None or law.held_out["rule"] == "leave_one_out":
    return None
  (mask,) = folds(cells, law.held_out["rule"])
  rest, unseen = cells.take(~mask), cells.take(mask)
  settings = FitSettings(**law.settings)
  refit = fit_law(rest, dataclasses.replace(settings, form=law.form, holdout="none", bootstrap=0, starts=_STARTS))
  return unseen.loss, predictions(refit, unseen)


def predictions(law: Law, cells: Cells) -> np.ndarray:
  """[n] losses that the law gives the cells, each in its own domain."""
  out = np.empty(len(cells))
  for domain in cells.domains:
    mask = cells.domain == domain
    out[mask] = law.predict(cells.params[mask], cells.seed_tokens[mask], cells.expert_tokens[mask], domain)
  return out
