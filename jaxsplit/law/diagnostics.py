"""What can be told from a table before fitting it, and how far to trust a fit afterwards, in plain language."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.law.cells import Cells
from jaxsplit.law.fitted import Fitted
from jaxsplit.law.forms import Form
from jaxsplit.law.repeats import passes

_SAME = 1e-8  # Starts whose objective is this close (relative) to the best have found the same optimum.
_FLAT = 1e10  # Condition of J'J beyond which some direction of the constants is not measured.


def check_design(cells: Cells, repeats: bool) -> None:
  """Refuses tables from which no form can be told, saying what to measure next.

  Raises:
    InputError: too few rows or sizes, or axes that move together.
  """
  where = cells.source.get("file", "cells")
  if repeats and not np.isfinite(cells.unique_tokens).any():
    raise InputError(f"{where}: --repeats needs a column unique_tokens")
  sizes = len(np.unique(cells.params))
  tokens = np.log(cells.seed_tokens + cells.expert_tokens)
  if sizes > 2 and np.ptp(tokens) > 0 and abs(np.corrcoef(np.log(cells.params), tokens)[0, 1]) > 0.99999:
    raise InputError(f"{where}: params and tokens rise together in every row, so their effects cannot be told apart; "
                     "measure one size at two more numbers of tokens")


def skip_reason(form: Form, cells: Cells) -> str:
  """Why the form's constants cannot be told from the cells, with what to measure next; empty where they can."""
  axes = {"params": cells.params, "seed_tokens": cells.seed_tokens, "expert_tokens": cells.expert_tokens,
          "total_tokens": cells.seed_tokens + cells.expert_tokens}
  for name in form.needs:
    distinct = len(np.unique(axes[name]))
    if distinct < 3:
      what = "sizes N" if name == "params" else f"values of {name}"
      found = ", ".join(f"{v:g}" for v in np.unique(axes[name]))
      return (f"{name} has {distinct} distinct value{'s' * (distinct > 1)} ({found}), "
              f"and a power law needs 3; measure {3 - distinct} more {what}, well apart")
  if len(cells) <= len(form.parameters):
    return f"{len(cells)} rows for {len(form.parameters)} constants; measure at least {5 * len(form.parameters)} cells"
  return ""


def diagnose(fit: Fitted, cells: Cells, skipped: dict[str, str], repeats: bool) -> dict[str, Any]:
  """Numbers about the optimum, and "warnings": sentences for whoever will use the law."""
  objective = fit.solution.objective
  least = np.nanmin(objective)
  reached = float((objective <= least * (1 + _SAME) + 1e-300).mean())
  best = int(np.nanargmin(objective))
  problem, names = fit.problem, fit.layout.labels(fit.model)
  at_bounds = [names[i] for i in range(len(fit.theta)) if fit.theta[i] <= problem.low[i] or fit.theta[i] >= problem.high[i]]
  curvature = np.linalg.svd(fit.jacobian(), compute_uv=False)
  condition = float((curvature[0] / max(curvature[-1], 1e-300)) ** 2)
  per_constant = len(cells) / len(fit.theta)
  warnings = []
  floors = [name for name in at_bounds if name.startswith("E")]
  if floors:
    warnings.append(f"{', '.join(floors)} reached 0: the cells show no floor of the loss, so do not extrapolate far; "
                    "measure larger models or more tokens")
  others = [name for name in at_bounds if name not in floors]
  if others:
    warnings.append(f"{', '.join(others)} lies on its bound: the form does not suit the cells, or they do not determine it")
  if condition > _FLAT:
    warnings.append(f"some combination of constants is hardly measured (condition {condition:.0e}): predictions inside the "
                    "table stand, single constants do not")
  if per_constant < 5:
    warnings.append(f"{len(cells)} cells for {len(fit.theta)} constants is fewer than 5 each: measure more")
  if reached < 0.5:
    warnings.append(f"only {reached:.0%} of the starts reached the optimum: raise --starts and see that it stays the same")
  warnings += _repeated(fit, cells, repeats)
  return {"starts": len(objective), "starts_at_optimum": reached, "gradient": float(fit.solution.gradient[best]),
          "condition": condition, "at_bounds": at_bounds, "points_per_constant": per_constant, "skipped_forms": skipped,
          "warnings": warnings}


def _repeated(fit: Fitted, cells: Cells, asked: bool) -> list[str]:
  """What to know about tokens that were seen again."""
  most = float(passes(cells).max())
  if not asked:
    return [f"some models saw their data up to {most:.3g} times: --repeats discounts repeated tokens"] if most > 4 else []
  if not fit.model.repeats:
    return ["no model saw any of its data twice: there is nothing for --repeats to discount, and no R* to fit"]
  if np.isfinite(cells.epochs).any():
    return []
  domains = len(cells.domains)
  each = f"each of the {domains} domains is taken for an even share" if domains > 1 else "the domain is taken for the whole"
  return [f"no column epochs tells how much of each domain the seeds saw, so {each} of their mixture: map one "
          "(passes over unique_tokens in seed and expert together) where it was not"]
