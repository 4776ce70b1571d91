"""Figures on their way into a page, and into files of their own beside it."""

from __future__ import annotations

import dataclasses
import pathlib

from matplotlib.figure import Figure

from jaxsplit.files import write_atomic
from jaxsplit.report import html, style


@dataclasses.dataclass(frozen=True)
class Album:
  """Where figures are kept as SVG files besides standing in the page; None keeps none."""

  folder: pathlib.Path | None

  def show(self, name: str, figure: Figure, caption: str) -> str:
    """The HTML of a figure, after writing it to NAME.svg."""
    svg = style.to_svg(figure)
    if self.folder is not None:
      self.folder.mkdir(exist_ok=True)
      write_atomic(self.folder / f"{name}.svg", svg)
    return html.figure(style.inline(svg), caption)
