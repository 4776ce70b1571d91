"""Figures of what an experiment found: the split curve, the cells and the law, predictions against measurements, the gains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from jaxsplit.experiment.closing import Line
from jaxsplit.law import Law, Plan
from jaxsplit.report import style
from jaxsplit.report.evidence import Evidence, means
from jaxsplit.report.law_figures import SHARE, draw_split
from jaxsplit.report.style import BLUE, GREEN, INK, MARKERS, MUTED, ORANGE, PAPER, SKY


@style.styled
def split_curve(evidence: Evidence, plan: Plan) -> Figure:
  """Loss against the seed's share of the compute: the law with its band, the recommended split, and what was measured."""
  figure, (axes,) = style.panels(height=4.3)
  points = evidence.by_fraction("loss")
  draw_split(axes, plan, [loss for losses in points.values() for loss in losses])
  for kind, color, label in (("dense", ORANGE, "measured: dense"), ("split", INK, "measured: split")):
    shown = {share: losses for share, losses in points.items() if (share == 1) == (kind == "dense")}
    for share, losses in shown.items():
      axes.plot([share] * len(losses), losses, ls="", marker="o", ms=3, color=color, alpha=0.7, zorder=3)
    if shown:
      axes.plot(list(shown), [np.mean(losses) for losses in shown.values()], ls="", marker="D", ms=7, color=color, mec=PAPER,
                zorder=4, label=label)
  if 1.0 in points:
    axes.axhline(np.mean(points[1.0]), color=ORANGE, lw=1, ls=(0, (4, 3)))
  figure.legend(loc="outside upper center", ncols=3)
  return figure


@style.styled
def measured_curve(evidence: Evidence, value: str, label: str) -> Figure:
  """A measured column against the seed's share of the compute: every replica thin, their mean thick."""
  figure, (axes,) = style.panels(height=3.1)
  points = evidence.by_fraction(value)
  for replica in range(max(map(len, points.values()))):
    line = [(share, values[replica]) for share, values in points.items() if replica < len(values)]
    axes.plot(*zip(*line), color=SKY, lw=0.9, marker="o", ms=3, label="_" if replica else "each replica")
  axes.plot(list(points), [np.mean(values) for values in points.values()], color=BLUE, lw=2.4, marker="o", ms=5.5, label="mean")
  axes.set(xlabel=SHARE, ylabel=label, xlim=(-0.03, 1.03))
  style.percent_axis(axes, "x")
  if value == "accuracy":
    style.percent_axis(axes, "y")
    axes.set_ylim(-0.03, 1.03)
  axes.legend()
  return figure


@style.styled
def cells_with_law(evidence: Evidence, law: Law | None) -> Figure:
  """Mean loss over domains against expert tokens, one panel a size, one line a number of seed tokens."""
  measured = means(evidence.grid, evidence.domains)
  sizes, seeds = sorted({key[0] for key in measured}), sorted({key[1] for key in measured})
  lengths = sorted({key[2] for key in measured if key[2]})
  zero = lengths[0] / 3  # Where D' = 0 stands on the logarithmic axis, apart from the rest.
  figure, panels = style.panels(len(sizes), height=2.9, share="both")
  smooth = np.geomspace(lengths[0], lengths[-1], 50)
  for axes, size in zip(panels, sizes):
    style.log_axis(axes, "x", zero, lengths[-1], zero)
    for seed, color, marker in zip(seeds, style.shades(len(seeds)), MARKERS * len(seeds)):
      points = [(key[2] or zero, loss) for key, loss in measured.items() if key[:2] == (size, seed)]
      axes.plot(*zip(*points), ls="", marker=marker, color=color, mec=PAPER, mew=0.5, ms=5.5, zorder=3,
                label=style.number(seed) if axes is panels[0] else None)
      if law is not None:
        axes.plot(smooth, law.predict(size, seed, smooth), color=color, lw=1.3)
        axes.plot([zero / 1.25, zero * 1.25], [float(law.predict(size, seed, 0))] * 2, color=color, lw=1.3)
    axes.axvline(np.sqrt(zero * lengths[0]), color=MUTED, lw=0.8, ls=(0, (1, 3)))
    axes.set_title(f"N = {style.number(size)}")
  figure.supxlabel("expert tokens D′", fontsize=9)
  figure.supylabel(style.LOSS, fontsize=9)
  figure.legend(loc="outside upper center", ncols=min(len(seeds), 6), title="seed tokens D")
  return figure


@style.styled
def gains(lines: Sequence[Line]) -> Figure:
  """Change of perplexity against the dense model, one bar a domain, their mean marked."""
  *domains, mean = lines
  domains = sorted(domains, key=lambda line: line.perplexity_change, reverse=True)
  figure, (axes,) = style.panels(height=1.0 + 0.3 * len(domains))
  changes = [line.perplexity_change for line in domains]
  axes.barh([line.domain for line in domains], changes, height=0.62, color=[BLUE if c < 0 else ORANGE for c in changes])
  for row, change in enumerate(changes):
    axes.text(1.015, row, _signed(change), va="center", fontsize=8.5, transform=axes.get_yaxis_transform())
  axes.axvline(0, color=INK, lw=0.9)
  if np.isfinite(mean.perplexity_change):
    axes.axvline(mean.perplexity_change, color=GREEN, lw=1.6, ls=(0, (5, 2)))
    axes.text(mean.perplexity_change, 1.01, f"mean {_signed(mean.perplexity_change)}", color=GREEN, ha="center", va="bottom",
              transform=axes.get_xaxis_transform())
  axes.set_xlabel("change of perplexity against the dense model (lower is better)")
  axes.grid(False, axis="y")
  style.percent_axis(axes, "x", signed=True)
  return figure


def _signed(change: float) -> str:
  return f"{100 * change:+.1f}%".replace("-", "−")
