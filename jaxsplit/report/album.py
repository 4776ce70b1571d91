"""The figures of a page, which are also written to separate files."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from matplotlib.figure import Figure

from jaxsplit.errors import in_the_way
from jaxsplit.files import write_atomic
from jaxsplit.report import html, style


class Album:
  """The figures of a page, as SVG."""

  def __init__(self):
    self._figures: dict[str, str] = {}

  def show(self, name: str, figure: Figure, caption: str) -> str:
    """The HTML of a figure."""
    self._figures[name] = style.to_svg(figure)
    return html.figure(style.inline(self._figures[name]), caption)

  def keep(self, folder: pathlib.Path, log: Callable[[str], None]) -> None:
    """Writes all figures to FOLDER/NAME.svg. One that cannot be written is in the page only, which is logged.

    Raises:
      OSError: the disk is full or lost.
    """
    try:
      folder.mkdir(exist_ok=True)
      for name, svg in self._figures.items():
        write_atomic(folder / f"{name}.svg", svg)
    except OSError as error:
      if not in_the_way(error):
        raise
      log(f"report: {error.filename} cannot be written ({error.strerror}); the figures are in the page only")
