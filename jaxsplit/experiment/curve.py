"""The losses of the splits measured at one size, by seed fraction, and how the recommended split compares with the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jaxsplit.law import Plan
from jaxsplit.results.budget import Budget
from jaxsplit.results.cells import Cell

_OUTSIDE = 0.2  # Of the measured splits: of 20, 19 should lie within the band, so that more outside than this share is no chance.

Curve = dict[float, list[float]]  # Seed fraction -> the mean over domains of each replica.


def measured_curve(cells: Iterable[Cell], domains: Sequence[str], budget: Budget, value: str = "loss") -> Curve:
  """What was measured at each seed fraction, in rising order.

  Args:
    cells: of one size.
    domains: all of them; a split of which one is missing has no mean.
    budget: what the cells are splits of.
    value: the column to take means of.
  """
  groups: dict[tuple, list[Cell]] = {}
  for cell in cells:
    groups.setdefault((cell.seed_tokens, cell.expert_tokens, cell.learning_rate, cell.replica), []).append(cell)
  curve: Curve = {}
  for _, group in sorted(groups.items()):
    if len(group) == len(domains):
      share = budget.fraction(group[0].seed_tokens, group[0].expert_tokens)
      curve.setdefault(share, []).append(sum(getattr(cell, value) for cell in group) / len(group))
  return dict(sorted(curve.items()))


def better_split(curve: Mapping[float, Sequence[float]], plan: Plan) -> tuple[float, float] | None:
  """The measured split that is better than the recommended one, and by how much of the loss; None if none is."""
  loss = _means(curve)
  best = min(loss, key=loss.get) if plan.point.fraction in loss else plan.point.fraction
  return None if best == plan.point.fraction else (best, loss[plan.point.fraction] / loss[best] - 1)


def curve_text(curve: Mapping[float, Sequence[float]], plan: Plan | None = None, scatter: float = 0.0) -> str:
  """The measured curve on one line, and, if the recommended split and others were measured, whether another one was better, and whether
  the law's band holds them.

  Args:
    curve: what was measured.
    plan: an experiment's.
    scatter: standard deviation of the relative difference between two runs of the same split.
  """
  if not curve:
    return ""
  recommended = plan.point.fraction if plan else None
  loss = _means(curve)
  percent = "{:.0%}".format if len({f"{share:.0%}" for share in loss}) == len(loss) else "{:.1%}".format
  marks = {1.0: " (dense)"}
  if recommended is not None:
    rounded = f"{recommended:.0%}" != f"{plan.fraction:.0%}"
    marks[recommended] = f" (recommended{', in whole steps' * rounded})"
  text = "measured, mean over domains: " + ", ".join(
      f"{percent(share)} seed{marks.get(share, '')} {value:.4f}" for share, value in loss.items())
  if recommended not in loss or len(loss) < 2:
    return text
  found, beyond = better_split(curve, plan), _beyond(loss, plan)
  if not found:
    return f"{text}\nno other measured split is better than the recommended one{beyond}"
  low, high = plan.fraction_interval
  (best, better), inside = found, "within" if low <= found[0] <= high else "outside"
  chance = f", which may be noise: two runs of the same split differ by about {scatter:.2%}" if better < 2 * scatter else ""
  return (f"{text}\nanother split was better: {percent(best)} seed, by {better:.2%} of the loss{chance}; it is {inside} the 95 % "
          f"interval of the recommendation, {low:.0%} to {high:.0%}{beyond}")


def _beyond(loss: Mapping[float, float], plan: Plan) -> str:
  """A line where more measured means lie outside the law's band than chance would have there; otherwise empty."""
  share, measured = np.array(list(loss)), np.array(list(loss.values()))
  at = lambda values: np.interp(share, plan.curve.fraction, values)
  outside = (measured < at(plan.curve.low)) | (measured > at(plan.curve.high))
  if outside.sum() < 2 or outside.mean() <= _OUTSIDE:
    return ""
  off = float(np.mean(at(plan.curve.loss) / measured - 1))
  return (f"\n{outside.sum()} of {len(loss)} measured losses lie outside the law's 95 % band: at N = {plan.params:,.0f} it predicts losses "
          f"that are {abs(off):.1%} too {'high' if off > 0 else 'low'} on average; go by what was measured, and by the law only for splits")


def _means(curve: Mapping[float, Sequence[float]]) -> dict[float, float]:
  return {share: sum(losses) / len(losses) for share, losses in curve.items()}
