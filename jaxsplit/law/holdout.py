"""Which cells are held out to choose between forms, and how a prediction of them is scored."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsplit.errors import InputError, nearest
from jaxsplit.law.cells import Cells

# What a rule can hold out the largest values of. Compute is 6 N (D + D').
AXES = {
    "params": lambda c: c.params,
    "seed_tokens": lambda c: c.seed_tokens,
    "expert_tokens": lambda c: c.expert_tokens,
    "tokens": lambda c: c.seed_tokens + c.expert_tokens,
    "compute": lambda c: 6 * c.params * (c.seed_tokens + c.expert_tokens),
}
_SMALL = 24  # Tables up to this many rows are scored by leaving out one row at a time.


def folds(cells: Cells, rule: str) -> list[np.ndarray]:
  """Masks [n] of the cells held out, one a refit.

  Args:
    cells: the table.
    rule: "leave_one_out", "none", or "AXIS:k" for the k largest distinct values of an axis.

  Raises:
    InputError: an unknown rule, or one that leaves nothing to fit.
  """
  if rule == "none":
    return []
  if rule == "leave_one_out":
    return list(np.eye(len(cells), dtype=bool))
  axis, _, count = rule.partition(":")
  if axis not in AXES or not count.isdigit() or int(count) < 1:
    raise InputError(f"--holdout={rule}: give auto, none, leave_one_out or AXIS:k such as params:1{nearest(axis, AXES)}")
  values = AXES[axis](cells)
  distinct = np.unique(values)
  if int(count) >= len(distinct):
    raise InputError(f"--holdout={rule}: the table has only {len(distinct)} values of {axis}; hold out fewer")
  return [values >= distinct[-int(count)]]


def default_rules(cells: Cells) -> tuple[str, ...]:
  """The rule that candidates are ranked by, then further ones that are reported."""
  if len(cells) <= _SMALL:
    return ("leave_one_out",)
  rules = []
  if len(np.unique(cells.params)) >= 4:
    rules.append("params:1")
  for axis in ("seed_tokens", "tokens"):
    if len(np.unique(AXES[axis](cells))) >= 4:
      rules.append(f"{axis}:1")
  distinct = len(np.unique(AXES["compute"](cells)))
  if distinct >= 5:
    rules.append(f"compute:{max(1, distinct // 5)}")
  return tuple(rules) or ("leave_one_out",)


def score(cells: Cells, masks: list[np.ndarray], predicted: list[np.ndarray], rule: str) -> dict[str, Any]:
  """Relative errors over all held-out cells; `predicted` holds the refit's predictions of each mask's cells."""
  error = np.concatenate([p / cells.loss[m] - 1 for m, p in zip(masks, predicted)])
  axis = AXES.get(rule.partition(":")[0])
  distance = 0.0 if axis is None else float(np.log(axis(cells)[masks[0]].max() / axis(cells)[~masks[0]].max()))
  return {"mre": float(np.abs(error).mean()), "max": float(np.abs(error).max()), "bias": float(error.mean()),
          "num_points": len(error), "rule": rule, "distance": distance}
