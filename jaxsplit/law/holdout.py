"""Which cells are held out to choose between forms, how a prediction of them is scored, and which forms that leaves in play."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsplit.errors import InputError, nearest
from jaxsplit.law.cells import Cells
from jaxsplit.law.fitted import Fitted

# What a rule can hold out the largest values of. Compute is 6 N (D + D').
AXES = {
    "params": lambda c: c.params,
    "seed_tokens": lambda c: c.seed_tokens,
    "expert_tokens": lambda c: c.expert_tokens,
    "tokens": lambda c: c.seed_tokens + c.expert_tokens,
    "compute": lambda c: 6 * c.params * (c.seed_tokens + c.expert_tokens),
}
_BOTH = "params:1+tokens:1"  # A sweep that costs little is smaller than its target, and has fewer tokens.
RULES = "give auto, none, leave_one_out or AXIS:k such as params:1, or two such as params:1+tokens:1"
_CONTENDER = 1.5  # A form whose held-out error is within this factor of the best stays in play, ...
_NO_SAY = 1e-3  # ... unless it weighs less than this.
_SMALL = 24  # Tables up to this many rows are scored by leaving out one row at a time.


def folds(cells: Cells, rule: str) -> list[np.ndarray]:
  """Masks [n] of the cells held out, one a refit.

  Args:
    cells: the table.
    rule: "leave_one_out", "none", or "AXIS:k" for the k largest distinct values of an axis; "AXIS:k+AXIS:k" for those of either, of
      which the cells that are among the largest of both are scored: how far a law reaches along both at once.

  Raises:
    InputError: an unknown rule, or one that leaves nothing to fit.
  """
  if rule == "none":
    return []
  if rule == "leave_one_out":
    return list(np.eye(len(cells), dtype=bool))
  if not is_rule(rule):
    raise InputError(f"--holdout={rule}: {RULES}{nearest(rule.partition(':')[0], AXES)}")
  each = _largest(cells, rule)
  if not np.logical_and.reduce(each).any():
    raise InputError(f"--holdout={rule}: no cell is among the largest of both; hold out more, or along one axis")
  mask = np.logical_or.reduce(each)
  if not np.isin(cells.domain[mask], cells.domain[~mask]).any():
    raise InputError(f"--holdout={rule}: it holds out every cell of its domains; hold out fewer")
  return [mask]


def is_rule(rule: str) -> bool:
  """Whether it is AXIS:k, or two of them with a plus between."""
  parts = [part.partition(":") for part in rule.split("+")]
  return len(parts) <= 2 and len({axis for axis, *_ in parts}) == len(parts) and all(
      axis in AXES and count.isascii() and count.isdigit() and int(count) > 0 for axis, _, count in parts)


def _largest(cells: Cells, rule: str) -> list[np.ndarray]:
  """For each axis of a rule, which cells [n] have its k largest values.

  Raises:
    InputError: the table has no more values than that.
  """
  found = []
  for axis, _, count in (part.partition(":") for part in rule.split("+")):
    values = AXES[axis](cells)
    distinct = np.unique(values)
    if int(count) >= len(distinct):
      raise InputError(f"--holdout={rule}: the table has only {len(distinct)} values of {axis}; hold out fewer")
    found.append(values >= distinct[-int(count)])
  return found


def default_rules(cells: Cells) -> tuple[str, ...]:
  """The rule that candidates are ranked by, then further ones that are reported.

  The largest size is what a law is for, but two sizes leave E, A and alpha open: with only three sizes measured, the
  largest one is reported and the ranking goes by compute or tokens.
  """
  if len(cells) <= _SMALL:
    return ("leave_one_out",)
  distinct = {axis: len(np.unique(value(cells))) for axis, value in AXES.items()}
  rules = ["params:1"] if distinct["params"] > 3 else []
  if distinct["compute"] >= 5:
    rules.append(f"compute:{max(1, distinct['compute'] // 5)}")
  rules += [f"{axis}:1" for axis in ("tokens", "seed_tokens") if distinct[axis] >= 4]
  rules += ["params:1"] if distinct["params"] == 3 else []
  if distinct["params"] >= 3 and distinct["tokens"] >= 4:
    each = _largest(cells, _BOTH)
    if np.logical_and.reduce(each).any() and np.logical_or.reduce(each).mean() <= 0.5:
      rules.append(_BOTH)
  return tuple(rules) or ("leave_one_out",)


def score(cells: Cells, masks: list[np.ndarray], predicted: list[np.ndarray], rule: str) -> dict[str, Any]:
  """Relative errors over all held-out cells, and the losses; `predicted` holds the refit's losses of each mask's cells.

  Cells of domains that nothing but held-out cells measured are not counted: no refit knows their constants. Nor are, where a rule
  has two axes, cells that are the largest of one alone.
  """
  asked = np.logical_and.reduce(_largest(cells, rule)) if is_rule(rule) else np.ones(len(cells), bool)
  known = [np.isin(cells.domain[m], cells.domain[~m]) & asked[m] for m in masks]
  measured = np.concatenate([cells.loss[m][k] for m, k in zip(masks, known)])
  told = np.concatenate([p[k] for p, k in zip(predicted, known)])
  error = told / measured - 1
  chosen = np.concatenate([np.flatnonzero(m)[k] for m, k in zip(masks, known)])
  axes = [AXES[part.partition(":")[0]](cells) for part in rule.split("+")] if is_rule(rule) else []
  distance = sum(float(np.log(values[masks[0]].max() / values[~masks[0]].max())) for values in axes)
  return {"mre": float(np.abs(error).mean()), "max": float(np.abs(error).max()), "bias": float(error.mean()),
          "differences": _differences(cells.take(chosen), error), "num_points": len(error), "rule": rule, "distance": distance,
          "measured": measured.tolist(), "predicted": told.tolist()}


def contenders(fits: list[Fitted], cells: Cells) -> list[tuple[Fitted, float]]:
  """Sorts `fits` by held-out error and returns those that the best does not rule out, with their weights in means and intervals.

  A form's weight falls with the square of its held-out error, and is less where the cells speak for the best form by Schwarz's
  criterion (1978): the likelihood of as many independent residuals as there are snapshots, since the rows of one share errors, and
  what the form's constants would gain by chance. That they speak against the best counts for nothing: of forms that bend as they
  like, the one that fits best may extrapolate worst.
  """
  if any(fit.held_out is None for fit in fits):
    return [(fits[0], 1.0)]
  fits.sort(key=lambda fit: fit.held_out["mre"])
  best = fits[0]
  snapshots = np.unique(np.stack([cells.params, cells.replica, cells.seed_tokens]), axis=1).shape[1]
  # An objective counts residuals within Huber's width by their squares, as a normal distribution does, others as an exponential.
  power = snapshots * (1 - best.share_within / 2)

  def weight(fit: Fitted) -> float:
    least, error = (one.held_out["mre"] for one in (best, fit))
    fitted = best.objective_value / fit.objective_value if fit.objective_value else 1.0
    said = fitted**power * snapshots ** ((len(best.theta) - len(fit.theta)) / 2)
    return ((least / error) ** 2 if least else 1.0) * min(1.0, said)

  weights = [(fit, weight(fit)) for fit in fits if fit.held_out["mre"] <= _CONTENDER * best.held_out["mre"]]
  return [(fit, weight) for fit, weight in weights if weight > _NO_SAY]


def _differences(cells: Cells, error: np.ndarray) -> float | None:
  """The mean error of differences between splits of one size: what is left of the errors of cells with experts, once each size's
  mean error is taken off. That is all that a split depends on. None where no size has two such cells.
  """
  split = (cells.expert_tokens > 0) & (cells.seed_tokens > 0)
  if not split.any():
    return None
  _, size = np.unique(np.stack([cells.params[split], cells.replica[split]]), axis=1, return_inverse=True)
  size, error = size.ravel(), error[split]
  left = error - (np.bincount(size, error) / np.bincount(size))[size]
  several = np.bincount(size)[size] > 1
  return float(np.abs(left[several]).mean()) if several.any() else None
