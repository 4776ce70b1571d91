"""Figures of how an experiment was trained: loss curves, the learning-rate probe, and the ledger of tokens and FLOPs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxsplit.report import style
from jaxsplit.report.evidence import Evidence, means
from jaxsplit.report.style import AMBER, BLUE, GREEN, MARKERS, MUTED, ORANGE, PAPER, PINK, SKY
from jaxsplit.results.stages import StageRecord, Total

_PHASES = {"trunk": ("trunk", BLUE, 1.8), "full": ("trunk, cooling down", SKY, 1.3), "branch": ("experts", PINK, 1.2),
           "cooldown": ("experts, cooling down", ORANGE, 1.2)}
_PURPOSES = {"probe": AMBER, "grid": BLUE, "proof": GREEN, "retry": ORANGE, "added": PINK, "router": SKY}
_NEAR = 2.0  # Nats above a size's best within which the probe's losses are shown.
_INTERVALS = 100  # Points of a smoothed curve as long as the longest run.


@dataclasses.dataclass(frozen=True)
class Curve:
  """Training loss along the trunk, or along one stage off it for one snapshot that the stage descends from.

  Attributes:
    size: name of the model's shape.
    phase: a key of `_PHASES`.
    tokens: [n] tokens seen in the run's life.
    loss: [n] nats per token, the mean over replicas and domains.
  """

  size: str
  phase: str
  tokens: np.ndarray
  loss: np.ndarray


def read_curves(metrics: Iterable[dict[str, Any]], stages: Iterable[StageRecord], batch_tokens: int) -> list[Curve]:
  """The loss curves of finished stages; probes have their own figure. Waves of one stage are one curve."""
  known = {stage.name: stage for stage in stages if stage.purpose not in ("probe", "retry", "added", "router")}
  losses: dict[str, list[np.ndarray]] = {}
  for line in metrics:
    if line["stage"] in known:
      losses.setdefault(line["stage"], []).append(np.array(line["loss"], float))
  waves: dict[tuple[str, str, str], list[str]] = {}
  for stage in losses:
    waves.setdefault((known[stage].size, known[stage].phase, known[stage].whole), []).append(stage)
  by_stack: dict[tuple, list[tuple[np.ndarray, np.ndarray]]] = {}
  for (size, phase, whole), names in waves.items():
    begins = np.array([run.born for name in names for run in known[name].runs])
    of_waves = [np.concatenate(losses[name]) for name in names]
    loss_SxR = np.ma.masked_invalid(np.concatenate([loss[:min(map(len, of_waves))] for loss in of_waves], axis=1))
    for begin in np.unique(begins):  # Runs that descend from one snapshot.
      loss_S = loss_SxR[:, begins == begin].mean(axis=1).filled(np.nan)
      # The trunk's stages follow one another: they are one curve.
      key = (size, phase) if phase == "trunk" else (size, phase, whole, begin)
      by_stack.setdefault(key, []).append(((begin + 1 + np.arange(len(loss_S))) * batch_tokens, loss_S))
  curves = [Curve(size, phase, *map(np.concatenate, zip(*sorted(parts, key=lambda part: part[0][0]))))
            for (size, phase, *_), parts in by_stack.items()]
  interval = max((curve.tokens[-1] for curve in curves), default=0) / _INTERVALS
  return [_smooth(curve, interval) for curve in curves]


@style.styled
def loss_curves(curves: list[Curve], params: dict[str, int]) -> Figure:
  """Training loss against the tokens of a run's life, one panel a size."""
  sizes = sorted({curve.size for curve in curves}, key=lambda size: params[size])
  figure, panels = style.panels(len(sizes), height=2.6, share="both")
  start = 0.15 * max(curve.tokens[-1] for curve in curves)  # The first steep fall would flatten all the rest.
  late = np.concatenate([curve.loss[curve.tokens > start] for curve in curves])
  for axes, size in zip(panels, sizes):
    for curve in (c for c in curves if c.size == size):
      _, color, width = _PHASES[curve.phase]
      axes.plot(curve.tokens, curve.loss, color=color, lw=width)
    axes.set_title(f"N = {style.number(params[size])}")
    axes.xaxis.set_major_formatter(lambda value, _: style.number(value))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_ylim(late.min() - 0.04 * np.ptp(late), late.max() + 0.04 * np.ptp(late))
  for label, color, width in _PHASES.values():
    panels[0].plot([], [], color=color, lw=width, label=label)
  figure.supxlabel("tokens seen in the run's life, seed and expert", fontsize=9)
  figure.supylabel("training loss, nats per token", fontsize=9)
  figure.legend(loc="outside upper center", ncols=4)
  return figure


@style.styled
def probe(evidence: Evidence) -> Figure:
  """Mean loss over domains against the learning rate, one line a size; the rates that the cells were trained at are marked."""
  measured = means(evidence.probe, evidence.domains)
  sizes, lengths = sorted({key[0] for key in measured}), sorted({key[1] for key in measured})
  rates = sorted({key[3] for key in measured})
  chosen = {cell.params: cell.learning_rate for cell in (*evidence.grid, *evidence.proof)}
  figure, panels = style.panels(len(lengths), height=3.3, share="both")
  shown = []
  for axes, length in zip(panels, lengths):
    for size, color, marker in zip(sizes, style.shades(len(sizes)), MARKERS * len(sizes)):
      losses = {rate: [m for key, m in measured.items() if key[:2] == (size, length) and key[3] == rate] for rate in rates}
      losses = {rate: values for rate, values in losses.items() if values}
      for rate, values in losses.items():
        axes.plot([rate] * len(values), values, ls="", marker=marker, ms=3, color=color, alpha=0.6)
      line = [np.mean(values) for values in losses.values()]
      axes.plot(list(losses), line, color=color, marker=marker, mec=PAPER, mew=0.5, ms=5.5,
                label=f"N = {style.number(size)}" if axes is panels[0] else None)
      if size in chosen:
        axes.plot(chosen[size], 0, ls="", marker="^", ms=9, color=color, mec=PAPER, mew=0.5, clip_on=False, zorder=4,
                  transform=axes.get_xaxis_transform())
      shown += [loss for loss in line if loss < min(line) + _NEAR]
    marked = [*rates, *chosen.values()]
    style.log_axis(axes, "x", min(marked), max(marked))
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.set_title(f"after {style.number(length)} tokens")
  panels[0].plot([], [], ls="", marker="^", ms=9, color=MUTED, label="rate trained at")
  panels[0].set_ylim(min(shown) - 0.08 * np.ptp(shown), max(shown) + 0.08 * np.ptp(shown))
  figure.supxlabel("learning rate", fontsize=9)
  figure.supylabel(style.LOSS, fontsize=9)
  figure.legend(loc="outside upper center", ncols=4)
  return figure


@style.styled
def spending(totals: Sequence[Total]) -> Figure:
  """Tokens and FLOPs of every purpose and phase, as bars."""
  totals = totals[::-1]
  power = math.floor(math.log10(max(total.flops for total in totals)))
  scales = {"tokens": 1, "flops": 10**power}
  figure, panels = style.panels(2, height=0.8 + 0.27 * len(totals))
  for axes, column, label in zip(panels, scales, ("training tokens", f"training FLOPs, {style.power_of_ten(power)}")):
    values = [getattr(total, column) / scales[column] for total in totals]
    bars = axes.barh(range(len(totals)), values, height=0.62, color=[_PURPOSES[total.purpose] for total in totals])
    share = [f"{value / sum(values):.0%}" for value in values]
    axes.bar_label(bars, share, padding=3, fontsize=8.5)
    axes.set(xlabel=label, xlim=(0, 1.15 * max(values)))
    axes.set_yticks(range(len(totals)), [total.name for total in totals] if axes is panels[0] else [""] * len(totals))
    axes.grid(False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(lambda value, _: style.number(value))
  return figure


def _smooth(curve: Curve, interval: float) -> Curve:
  """Means over intervals of about so many tokens, at least three; what is not finite is left out."""
  count = min(len(curve.loss), max(3, round((curve.tokens[-1] - curve.tokens[0]) / interval)))
  bins = np.array_split(np.arange(len(curve.loss)), count)
  bins = [b for b in bins if np.isfinite(curve.loss[b]).any()]
  return dataclasses.replace(curve, tokens=np.array([curve.tokens[b].mean() for b in bins]),
                             loss=np.array([np.nanmean(curve.loss[b]) for b in bins]))
