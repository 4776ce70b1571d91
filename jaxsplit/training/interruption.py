"""SIGINT and SIGTERM ask a run to save and stop; a second one ends it at once."""

from __future__ import annotations

import os
import signal
from types import FrameType

# EX_TEMPFAIL: the same command, given again, goes on where this one stopped.
RETRY_EXIT_CODE = 75


class Interrupted(Exception):
  """Raised where a run has stopped and saved because it was asked to."""


class Interruption:
  """While entered, the first SIGINT or SIGTERM sets `requested`; the next exits the process with RETRY_EXIT_CODE."""

  def __init__(self):
    self.requested = False
    self._previous: dict[int, object] = {}

  def __enter__(self) -> Interruption:
    for number in (signal.SIGINT, signal.SIGTERM):
      self._previous[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def check(self) -> None:
    """Raises Interrupted if a signal has come."""
    if self.requested:
      raise Interrupted

  def _handle(self, number: int, frame: FrameType | None) -> None:
    if self.requested:
      os._exit(RETRY_EXIT_CODE)
    self.requested = True
