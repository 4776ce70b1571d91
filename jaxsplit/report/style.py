"""How every figure looks: colours, sizes, axes, numbers; and the SVG that follows the light or dark of its page.

Figures are drawn in four named greys and a palette whose colours differ for colour-blind eyes (after Okabe and Ito 2008) and
stand out on white and on black alike. `inline` turns the greys into CSS variables of the page, so that one figure serves
screen, night and print.
"""

from __future__ import annotations

import functools
import io
import math
import re
from collections.abc import Callable
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

INK, MUTED, RULE, PAPER = "#1c2126", "#66707a", "#d9dee3", "#fdfefe"
BLUE, ORANGE, GREEN, PINK, AMBER, SKY = "#2b7bba", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
MARKERS = "osDPXvhp"
LOSS = "loss, nats per token"
WIDTH = 7.2  # Inches. The page is about as wide, so text keeps its size.

_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)", PAPER: "var(--paper)"}
_LOOK = {
    "axes.axisbelow": True, "axes.edgecolor": MUTED, "axes.facecolor": "none", "axes.grid": True, "axes.labelcolor": INK,
    "axes.labelsize": 9, "axes.linewidth": 0.8, "axes.spines.right": False, "axes.spines.top": False,
    "axes.titlelocation": "left", "axes.titlesize": 9, "axes.titlepad": 6, "axes.xmargin": 0.03, "axes.ymargin": 0.06,
    "figure.facecolor": "none", "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9,
    "grid.color": RULE, "grid.linewidth": 0.6, "legend.fontsize": 8.5, "legend.frameon": False, "legend.title_fontsize": 8.5,
    "lines.linewidth": 1.6, "lines.markersize": 4.5, "savefig.facecolor": "none", "svg.fonttype": "none",
    "svg.hashsalt": "jaxsplit", "text.color": INK,
    "text.parse_math": False,  # Names of domains are shown as they are: a $ in them starts no formula.
    "xtick.color": MUTED, "xtick.labelcolor": INK, "xtick.labelsize": 8.5, "ytick.color": MUTED, "ytick.labelcolor": INK,
    "ytick.labelsize": 8.5,
}


def styled(draw: Callable[..., Any]) -> Callable[..., Any]:
  """Draws in this style, and leaves the style outside as it was."""

  @functools.wraps(draw)
  def wrapped(*args: Any, **kwargs: Any) -> Any:
    with matplotlib.rc_context(_LOOK):
      return draw(*args, **kwargs)

  return wrapped


class _Shown(Figure):
  """A figure that notebooks show without pyplot."""

  def _repr_png_(self) -> bytes:
    return to_bytes(self, "png")


def panels(count: int = 1, *, height: float, share: Literal["none", "y", "both"] = "none") -> tuple[Figure, list[Axes]]:
  """A figure of page width with `count` panels in rows of `height` inches; `broadcast` names the scales that all have in common."""
  columns = count if count <= 3 else 2 if count == 4 else 3
  rows = -(-count // columns)
  figure = _Shown(figsize=(WIDTH, height * rows), layout="constrained")
  figure.get_layout_engine().set(w_pad=0.1)  # Inches, so that the tick labels of neighbours keep apart.
  axes = figure.subplots(rows, columns, squeeze=False, sharex=share == "both", sharey=share != "none").ravel()
  for spare in axes[count:]:
    spare.remove()
  # Where the last row is short, the panels above its gaps stand at the bottom and carry the shared axis.
  for above in axes[count - columns:count] if share == "both" else ():
    above.xaxis.set_tick_params(labelbottom=True)
  return figure, list(axes[:count])


def shades(count: int) -> list[Any]:
  """Colours for ordered values, few to many, none of which fades into white or black."""
  return list(matplotlib.colormaps["viridis"](np.linspace(0.25, 0.82, count) if count > 1 else [0.45]))


def number(value: float) -> str:
  """Up to three digits with a suffix: 850, 12k, 3.41M, 1.2e+21."""
  value = float(f"{value:.3g}")
  for unit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
    if unit <= abs(value) < 1e15:
      return f"{value / unit:g}{suffix}"
  return f"{value:.3g}"


def scientific(value: float) -> str:
  """As 3.2 × 10⁹."""
  digits, exponent = f"{value:.1e}".split("e")
  return f"{digits} × {power_of_ten(int(exponent))}"


def power_of_ten(exponent: int) -> str:
  """10 with a raised exponent."""
  return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def log_axis(axes: Axes, which: Literal["x", "y"], low: float, high: float, zero: float | None = None) -> None:
  """A logarithmic axis over [low, high] > 0 with few round ticks, written as plain numbers; `zero` is where 0 is drawn."""
  pad = (high / low) ** 0.04 if high > low else 1.2
  low, high = low / pad, high * pad
  getattr(axes, f"set_{which}scale")("log")
  getattr(axes, f"set_{which}lim")(low, high)
  # Between 0 and the first value, a third of a decade or so to its right, there is nothing to read off.
  ticks = [tick for tick in _round_ticks(low, high) if zero is None or tick > 2.5 * zero]
  axis = getattr(axes, f"{which}axis")
  axis.set_minor_locator(NullLocator())
  axis.set_ticks(([] if zero is None else [zero]) + ticks, ([] if zero is None else ["0"]) + [number(tick) for tick in ticks])


def percent_axis(axes: Axes, which: Literal["x", "y"], signed: bool = False) -> None:
  """Writes shares as percentages."""
  sign = "+" if signed else ""
  text = lambda value, _: f"{100 * round(value, 9):{sign}g}%".replace("+0%", "0%").replace("-", "−")
  getattr(axes, f"{which}axis").set_major_formatter(FuncFormatter(text))


def to_svg(figure: Figure) -> str:
  """The figure as the text of an SVG file; the same figure gives the same bytes."""
  out = io.StringIO()
  with matplotlib.rc_context(_LOOK):
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
  return out.getvalue()


def to_bytes(figure: Figure, kind: Literal["svg", "png", "pdf"]) -> bytes:
  """The figure as a file of that kind; those that no page surrounds stand on white."""
  if kind == "svg":
    return to_svg(figure).encode()
  out = io.BytesIO()
  with matplotlib.rc_context({**_LOOK, "savefig.facecolor": "white", "savefig.dpi": 200}):
    figure.savefig(out, format=kind)
  return out.getvalue()


def standalone(figure: Figure) -> str:
  """The figure as an SVG element for a page that is not ours, in its own greys, as wide as there is room."""
  svg = to_svg(figure)
  return svg[svg.index("<svg"):].replace("<svg", '<svg style="width: 100%; height: auto"', 1)


def inline(svg: str) -> str:
  """An SVG file's element for the body of a page, in the page's greys and scaling with it."""
  svg = svg[svg.index("<svg"):]
  svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
  svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1)
  # The groups' ids are for editing; in a page with other figures they would not be unique.
  svg = re.sub(r'<g id="[^"]*"', "<g", svg)
  for grey, variable in _VARIABLES.items():
    svg = svg.replace(grey, variable)
  return svg


def _round_ticks(low: float, high: float) -> list[float]:
  decades = math.log10(high / low)
  steps = (1,) if decades > 3 else (1, 3) if decades > 1.6 else (1, 2, 5) if decades > 0.7 else (1, 1.5, 2, 3, 5)
  stride = max(1, round(decades / 6))
  powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
  ticks = [step * 10.0**power for power in powers if power % stride == 0 for step in steps if low <= step * 10.0**power <= high]
  return ticks if len(ticks) > 1 else [float(f"{value:.3g}") for value in np.geomspace(low, high, 5)[1::2]]
