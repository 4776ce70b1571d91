"""Where a table of progress is updated in place: a terminal, or a notebook's cell."""

from __future__ import annotations

import html
import sys
from collections.abc import Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table


class Display(Protocol):
  """One table that changes."""

  def start(self) -> None: ...

  def show(self, title: str, fields: Mapping[str, str]) -> None:
    """Draws it."""

  def stop(self) -> None:
    """Takes it away."""


def display_of(console: Console) -> Display | None:
  """The display of standard output; None if a table cannot be updated in place."""
  if _in_notebook():
    return _Notebook()
  return _Terminal(console) if console.is_terminal else None


class _Terminal:

  def __init__(self, console: Console):
    self._live = Live(console=console, refresh_per_second=4, transient=True)

  def start(self) -> None:
    self._live.start()

  def show(self, title: str, fields: Mapping[str, str]) -> None:
    table = Table(*fields, title=title)
    table.add_row(*fields.values())
    self._live.update(table)

  def stop(self) -> None:
    self._live.stop()


class _Notebook:
  """A cell's output, through IPython, which every notebook has."""

  def __init__(self) -> None:
    self._handle: Any = None

  def start(self) -> None:
    from IPython.display import DisplayHandle
    self._handle = DisplayHandle()
    self._handle.display({"text/html": "", "text/plain": ""}, raw=True)

  def show(self, title: str, fields: Mapping[str, str]) -> None:
    head, row = ("".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)
                 for tag, texts in (("th", fields), ("td", fields.values())))
    table = f"<table><caption>{html.escape(title)}</caption><tr>{head}</tr><tr>{row}</tr></table>"
    plain = "  ".join(f"{name} {value}" for name, value in fields.items())
    self._handle.update({"text/html": table, "text/plain": plain}, raw=True)

  def stop(self) -> None:
    self._handle.update({"text/html": "", "text/plain": ""}, raw=True)


def _in_notebook() -> bool:
  ipython = sys.modules.get("IPython")
  shell = ipython.get_ipython() if ipython else None
  return hasattr(shell, "kernel")  # A shell of IPython's in a terminal has none.
