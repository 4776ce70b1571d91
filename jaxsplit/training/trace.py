"""A profile of what devices and host do while a leg is trained, on request."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import jax

_BLOCKS = 4


class Trace:
  """Profiles the first blocks of the first leg whose name contains a text, once a process.

  Args:
    folder: where JAX writes it, for Perfetto (https://ui.perfetto.dev) and XProf.
    wanted: the text; empty for no trace.
    say: told where the trace is, or that there is none.
  """

  def __init__(self, folder: pathlib.Path, wanted: str, say: Callable[[str], None] = print):
    self._folder, self._wanted, self._say = folder, wanted, say
    self._leg: str | None = None
    self._left = 0

  def begin(self, leg: str) -> None:
    """A leg begins, or goes on."""
    if self._wanted and self._wanted in leg and self._leg is None:
      jax.profiler.start_trace(str(self._folder))
      self._leg, self._left = leg, _BLOCKS

  def block(self) -> None:
    """A block of the leg is trained."""
    if self._left:
      self._left -= 1
      if not self._left:
        self._stop()

  def end(self) -> None:
    """The leg ends, or is interrupted."""
    if self._left:
      self._left = 0
      self._stop()

  def close(self) -> None:
    """Nothing more is trained."""
    if self._wanted and self._leg is None:
      self._say(f"Training.trace = {self._wanted!r}: no leg with that in its name was trained, so there is no trace")

  def _stop(self) -> None:
    jax.profiler.stop_trace()
    self._say(f"  trace of {self._leg}: {self._folder}; open its *.trace.json.gz at https://ui.perfetto.dev")
