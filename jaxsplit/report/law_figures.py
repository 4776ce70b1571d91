"""Figures of a law: how well it fits its cells, what it predicts over N, D, D' and their splits, and how certain it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from jaxsplit.law import Cells, Law, Optimum, Plan
from jaxsplit.report import style
from jaxsplit.report.style import BLUE, GREEN, INK, MUTED, ORANGE, PAPER

SHARE = "the seed's share of the budget"
_CHI2 = 3.841  # The 95 % quantile of chi-squared with one degree of freedom.
_AXES = {"params": "parameters N", "seed_tokens": "seed tokens D", "expert_tokens": "expert tokens D′"}

_SERIES = {"fitted": ("o", BLUE, 3.5, 0.55), "held out": ("s", ORANGE, 4.5, 0.8), "proof": ("D", INK, 6.0, 1.0)}


@style.styled
def agreement(series: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
  """Predicted against measured loss, and the relative error.

  Args:
    series: (measured, predicted) losses under a name: "fitted", "held out" (by a fit that did not see them), "proof".
  """
  figure, (left, right) = style.panels(2, height=3.5)
  everything = np.concatenate([np.concatenate(pair) for pair in series.values()])
  ends = [everything.min(), everything.max()]
  left.plot(ends, ends, color=MUTED, lw=1)
  right.axhline(0, color=MUTED, lw=1)
  for name, (measured, predicted) in series.items():
    marker, color, size, alpha = _SERIES[name]
    size *= min(1.0, (300 / len(measured)) ** 0.25)
    look = dict(ls="", marker=marker, color=color, ms=size, alpha=alpha, mec=PAPER, mew=0.4)
    left.plot(measured, predicted, **look, label=f"{name} ({len(measured):,})")
    right.plot(measured, predicted / measured - 1, **look)
  left.set(xlabel="measured loss, nats per token", ylabel="predicted loss, nats per token")
  right.set(xlabel="measured loss, nats per token", ylabel="error of the prediction")
  style.percent_axis(right, "y", signed=True)
  figure.legend(loc="outside upper center", ncols=len(series))
  return figure


@style.styled
def residuals(cells: Cells, predicted: np.ndarray) -> Figure:
  """Relative errors of the fitted cells against each axis that varies, with their mean at each value, or range of values."""
  error = predicted / cells.loss - 1
  varied = [name for name in _AXES if len(np.unique(getattr(cells, name))) > 1]
  figure, panels = style.panels(len(varied), height=2.9, share="y")
  for axes, name in zip(panels, varied):
    values = getattr(cells, name)
    place, zero = _with_zero(values)
    axes.axhline(0, color=MUTED, lw=1)
    axes.plot(place, error, ls="", marker="o", ms=3, color=BLUE, alpha=0.45, mew=0)
    groups = _groups(place)
    axes.plot([np.exp(np.log(place[g]).mean()) for g in groups], [error[g].mean() for g in groups], color=ORANGE, marker="D",
              ms=4, lw=1.2)
    style.log_axis(axes, "x", place.min(), place.max(), zero)
    axes.set(xlabel=_AXES[name], ylabel="error of the prediction" if axes is panels[0] else "")
    style.percent_axis(axes, "y", signed=True)
  return figure


@style.styled
def contours(law: Law, cells: Cells, experts: int) -> Figure:
  """Mean loss over (D, D') at the smallest and the largest size, the cells, and the best split of every budget D + K D'."""
  sizes = np.unique(cells.params)[[0, -1]] if len(np.unique(cells.params)) > 1 else np.unique(cells.params)
  seeds, lengths = (_span(getattr(cells, name), 60) for name in ("seed_tokens", "expert_tokens"))
  surfaces = [law.predict(size, seeds, lengths[:, None]) for size in sizes]
  levels = np.unique(np.quantile(np.concatenate(surfaces), np.linspace(0.03, 0.9, 14)).round(3))
  figure, panels = style.panels(len(sizes), height=3.6, share="both")
  budgets = np.geomspace(seeds[0] + experts * lengths[0], seeds[-1] + experts * lengths[-1], 40)
  shares = np.linspace(0.005, 0.995, 298)
  for axes, size, surface in zip(panels, sizes, surfaces):
    style.log_axis(axes, "x", seeds[0], seeds[-1])
    style.log_axis(axes, "y", lengths[0], lengths[-1])
    lines = axes.contour(seeds, lengths, surface, levels=levels, colors=style.shades(len(levels))[::-1], linewidths=1.2)
    axes.clabel(lines, list(lines.levels)[::2], fontsize=7.5, fmt="%.3f", colors=INK)
    here = (cells.params == size) & (cells.seed_tokens > 0) & (cells.expert_tokens > 0)
    axes.plot(cells.seed_tokens[here], cells.expert_tokens[here], ls="", marker="o", ms=3.5, color=INK, mec=PAPER, mew=0.4, label="cells")
    best = shares[law.expect(size, shares * budgets[:, None], (1 - shares) * budgets[:, None] / experts).argmin(1)]
    axes.plot(best * budgets, (1 - best) * budgets / experts, color=GREEN, lw=2, label=f"best split of {budget_text(experts)}")
    axes.set_title(f"N = {style.number(size)}")
  figure.supxlabel(_AXES["seed_tokens"], fontsize=9)
  figure.supylabel(_AXES["expert_tokens"], fontsize=9)
  named = {line.get_label(): line for axes in panels for line in axes.lines if _within(line, axes)}
  figure.legend(list(named.values()), list(named), loc="outside upper center", ncols=2)
  return figure


@style.styled
def profiles(law: Law) -> Figure:
  """The deviance along each constant that all domains share, the others refitted, with its 95 % interval."""
  kinds = {q.name: q.kind for q in law.members[0].model.parameters}
  shared = [name for name in law.profiles if "[" not in name]
  figure, panels = style.panels(len(shared), height=2.1, share="y")
  for axes, name in zip(panels, shared):
    profile = law.profiles[name]
    axes.axvspan(*profile["interval"], color=GREEN, alpha=0.13, lw=0)
    axes.axhline(_CHI2, color=MUTED, lw=1, ls=(0, (4, 3)))
    value, deviance = np.array(profile["value"]), np.array(profile["deviance"])
    axes.plot(value, deviance, color=BLUE, marker="o", ms=2.5)
    seen = value[deviance < 4 * _CHI2]
    axes.set(xlabel=f"ln {name}" if kinds[name] == "positive" else name, ylim=(-0.4, 3 * _CHI2))
    room = 0.08 * np.ptp(seen)
    if room > 0:
      axes.set_xlim(seen.min() - room, seen.max() + room)
    axes.xaxis.set_major_locator(MaxNLocator(4))
  figure.supylabel("deviance", fontsize=9)
  return figure


@style.styled
def split_curve(plan: Plan) -> Figure:
  """A plan's split curve, with nothing measured on it."""
  figure, (axes,) = style.panels(height=3.9)
  draw_split(axes, plan, [])
  figure.legend(loc="outside upper center", ncols=2)
  return figure


def draw_split(axes: Axes, plan: Plan, measured: Sequence[float]) -> None:
  """The expected loss over all splits of a plan's budget, its band, and the recommended split; the axes also hold `measured`."""
  fraction, loss, lower, upper, inside = map(np.asarray, dataclasses.astuple(plan.curve))
  low, high = plan.fraction_interval
  band = axes.fill_between(fraction, lower, upper, color=BLUE, alpha=0.2, lw=0, label="95 % band of new models")
  axes.plot(fraction, np.where(inside, loss, np.nan), color=BLUE, label="expected: mean loss over domains")
  if not inside.all():
    axes.plot(fraction, loss, color=BLUE, lw=1, ls=(0, (2, 2)), label="beyond the tokens measured")
  axes.axvspan(low, high, color=GREEN, alpha=0.13, lw=0, label=f"95 % interval: {low:.0%} to {high:.0%}")
  axes.axvline(plan.fraction, color=GREEN, lw=1.6, label=f"recommended: {plan.fraction:.0%} seed")
  # The curve may soar at its ends, and a band may be too wide to see it in; what is measured and most of the curve are what matters.
  middle = (fraction >= 0.05) & (fraction <= 0.98)
  bottom, top = min([*measured, loss.min()]), max([*measured, loss.min() + 0.6 * np.ptp(loss[middle])])
  bottom, top = min(bottom, max(lower[middle].min(), 2 * bottom - top)), max(top, min(upper[loss.argmin()], 2 * top - bottom))
  if loss[-1] < bottom + 2.5 * (top - bottom):
    top = max(top, loss[-1])
  room = 0.06 * (top - bottom)
  if (lower[middle] < bottom - room).all():
    band.set_label(f"{band.get_label()}, wider than shown")
  axes.set(xlabel=SHARE, ylabel=style.LOSS, xlim=(-0.02, 1.02), ylim=(bottom - room, top + room))
  style.percent_axis(axes, "x")


@style.styled
def isoflops(law: Law, cells: Cells) -> Figure:
  """Mean loss against N at fixed training FLOPs 6 N (D + D') of one model, each point at its best split among those measured."""
  total = cells.seed_tokens + cells.expert_tokens
  compute = 6 * cells.params * total
  shares = np.linspace(*(f(cells.seed_tokens / total) for f in (np.min, np.max)), 21)
  budgets = np.geomspace(*np.quantile(compute, [0.3, 0.9]), 4)
  sizes = np.geomspace(cells.params.min(), cells.params.max(), 80)
  figure, (axes,) = style.panels(height=3.6)
  for budget, color in zip(budgets, style.shades(len(budgets))):
    tokens = budget / (6 * sizes)
    loss = law.predict(sizes[:, None], shares * tokens[:, None], (1 - shares) * tokens[:, None]).min(1)
    seen = (tokens >= total.min()) & (tokens <= total.max())
    axes.plot(sizes, np.where(seen, loss, np.nan), color=color, label=f"{style.scientific(budget)} FLOPs")
    axes.plot(sizes, loss, color=color, lw=0.9, ls=(0, (2, 2)))
    least = int(loss.argmin())
    if 0 < least < len(sizes) - 1:
      axes.plot(sizes[least], loss[least], ls="", marker="o", ms=6, color=color, mec=PAPER)
  style.log_axis(axes, "x", sizes[0], sizes[-1])
  axes.set(xlabel=_AXES["params"], ylabel=style.LOSS)
  figure.legend(loc="outside upper center", ncols=4)
  return figure


@style.styled
def compute_optimal(optima: Sequence[Optimum]) -> Figure:
  """The best size, tokens and split against compute, with 95 % bands of size and split; dashed beyond what was measured."""
  optima = sorted(optima, key=lambda o: o.budget_flops)
  compute = np.array([o.budget_flops for o in optima])
  splits = optima[0].fraction is not None
  figure, panels = style.panels(3 if splits else 2, height=2.9)
  inside = np.array([max(o.beyond) <= 1 for o in optima])

  def line(axes: Axes, values: Sequence[float], color: str, label: str) -> None:
    axes.plot(compute, values, color=color, lw=0.9, ls=(0, (2, 2)))
    axes.plot(compute, np.where(inside, values, np.nan), color=color)
    axes.plot(compute, values, color=color, ls="", marker="o", mec=PAPER, mew=0.4, label=label)

  sizes, tokens = panels[:2]
  sizes.fill_between(compute, *np.array([o.params_interval for o in optima]).T, color=BLUE, alpha=0.2, lw=0)
  line(sizes, [o.params for o in optima], BLUE, "N")
  line(tokens, [o.seed_tokens for o in optima], ORANGE, "seed tokens D")
  if splits:
    line(tokens, [o.expert_tokens for o in optima], GREEN, "tokens of each expert D′")
    panels[2].fill_between(compute, *np.array([o.fraction_interval for o in optima]).T, color=BLUE, alpha=0.2, lw=0)
    line(panels[2], [o.fraction for o in optima], BLUE, SHARE)
    panels[2].set(ylabel=SHARE, ylim=(-0.02, 1.02))
    style.percent_axis(panels[2], "y")
  everything = [o.seed_tokens for o in optima] + [o.expert_tokens for o in optima]
  bands = [end for o in optima for end in (*o.params_interval, o.params)]
  for axes, label, values in ((sizes, _AXES["params"], bands), (tokens, "tokens", everything)):
    positive = [value for value in values if value > 0]
    style.log_axis(axes, "y", min(positive), max(positive))
    axes.set_ylabel(label)
  for axes in panels:
    style.log_axis(axes, "x", compute.min(), compute.max())
    axes.set_xlabel("training FLOPs")
    powers = {tick: round(np.log10(tick)) for tick in axes.get_xticks() if np.isclose(np.log10(tick) % 1, 0)}
    if len(powers) > 1:
      axes.set_xticks(list(powers), [style.power_of_ten(power) for power in powers.values()])
  if splits:
    figure.legend(*tokens.get_legend_handles_labels(), loc="outside upper center", ncols=2)
  return figure


def budget_text(experts: int) -> str:
  """What a budget for a seed and so many experts counts."""
  return f"D + {experts} D′" if experts > 1 else "D + D′"


def _span(values: np.ndarray, count: int) -> np.ndarray:
  """From the least to the largest positive value, evenly in their logarithm."""
  positive = values[values > 0]
  return np.geomspace(positive.min(), positive.max(), count)


def _within(line: Line2D, axes: Axes) -> bool:
  """Whether any point of a line is within the limits of its axes."""
  (left, right), (bottom, top), (x, y) = axes.get_xlim(), axes.get_ylim(), map(np.asarray, line.get_data())
  return bool(((left <= x) & (x <= right) & (bottom <= y) & (y <= top)).any())


def _groups(values: np.ndarray) -> list[np.ndarray]:
  """Masks of the cells at each value, or of at most ten ranges that hold about as many cells each."""
  distinct = np.unique(values)
  edges = distinct if len(distinct) <= 10 else np.unique(np.quantile(values, np.linspace(0, 1, 11)))[:-1]
  index = np.searchsorted(edges, values, side="right")
  return [index == i for i in np.unique(index)]


def _with_zero(values: np.ndarray) -> tuple[np.ndarray, float | None]:
  """Places on a logarithmic axis, where 0 stands a step left of the rest; and that place, if any value is 0."""
  if (values > 0).all():
    return values, None
  zero = values[values > 0].min() / 3
  return np.where(values > 0, values, zero), zero
