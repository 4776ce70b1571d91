"""A profile of what devices and host do while a stage is trained, on request."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import jax

_BLOCKS = 4


class Trace:
  """Profiles the first blocks of the first stage whose name contains a text, once per process.

  Args:
    folder: where JAX writes it, for Perfetto (https://ui.perfetto.dev) and XProf.
    wanted: the text; empty for no trace.
    log: gets a line on where the trace is, or that there is none.
  """

  def __init__(self, folder: pathlib.Path, wanted: str, log: Callable[[str], None] = print):
    self._folder, self._wanted, self._log = folder, wanted, log
    self._stage: str | None = None
    self._left = 0

  def begin(self, stage: str) -> None:
    """A stage starts, or resumes."""
    if self._wanted and self._wanted in stage and self._stage is None:
      jax.profiler.start_trace(str(self._folder))
      self._stage, self._left = stage, _BLOCKS

  def block(self) -> None:
    """A block of the stage is trained."""
    if self._left:
      self._left -= 1
      if not self._left:
        self._stop()

  def end(self) -> None:
    """The stage ends, or is interrupted."""
    if self._left:
      self._left = 0
      self._stop()

  def close(self) -> None:
    """Nothing more is trained."""
    if self._wanted and self._stage is None:
      self._log(f"Training.trace = {self._wanted!r}: no stage with that in its name was trained, so there is no trace")

  def _stop(self) -> None:
    jax.profiler.stop_trace()
    self._log(f"  trace of {self._stage}: {self._folder}; open its *.trace.json.gz at https://ui.perfetto.dev")
