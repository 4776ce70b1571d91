"""Figures of a law: how well it fits, what it says over (D, D') and over N, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from jaxsplit.report import style
from jaxsplit.report.style import BLUE, INK, MUTED, ORANGE, PAPER

_SERIES = {"fitted": ("o", BLUE, 3.5, 0.55), "held out": ("s", ORANGE, 4.5, 0.8), "proof": ("D", INK, 6.0, 1.0)}


@style.styled
def agreement(series: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
  """Predicted against measured loss, and the relative error.

  Args:
    series: (measured, predicted) losses under a name: "fitted", "held out" (by a refit that did not see them), "proof".
  """
  figure, (left, right) = style.panels(2, columns=2, height=3.5)
  everything = np.concatenate([np.concatenate(pair) for pair in series.values()])
  ends = [everything.min(), everything.max()]
  left.plot(ends, ends, color=MUTED, lw=1)
  right.axhline(0, color=MUTED, lw=1)
  for name, (measured, predicted) in series.items():
    marker, color, size, alpha = _SERIES[name]
    look = dict(ls="", marker=marker, color=color, ms=size, alpha=alpha, mec=PAPER, mew=0.4)
    left.plot(measured, predicted, **look, label=f"{name} ({len(measured)})")
    right.plot(measured, predicted / measured - 1, **look)
  left.set(xlabel="measured loss, nats per token", ylabel="predicted loss, nats per token")
  right.set(xlabel="measured loss, nats per token", ylabel="error of the prediction")
  style.percent_axis(right, "y", signed=True)
  figure.legend(loc="outside upper center", ncols=len(series))
  return figure
