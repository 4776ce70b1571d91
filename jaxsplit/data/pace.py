"""Progress of a long step of a preparation: a line every few seconds, with the estimated time left."""

from __future__ import annotations

import time
from collections.abc import Callable

_SECONDS_BETWEEN_LINES = 3.0


class Pace:
  """Passes on one line every few seconds and drops the others.

  Args:
    log: takes a line.
    total: of what is to be done, in any unit.
  """

  def __init__(self, log: Callable[[str], None], total: float):
    self._log, self._total, self._done = log, total, 0.0
    self._began = self._last = time.monotonic()

  def __call__(self, amount: float, line: str) -> None:
    """Notes that `amount` more is done."""
    self._done += amount
    now = time.monotonic()
    if now - self._last >= _SECONDS_BETWEEN_LINES:
      self._last = now
      left = (now - self._began) * (self._total / self._done - 1) if self._done else 0.0
      self._log(f"{line}, {self._done / max(self._total, 1):.0%}, {int(left) // 60}:{int(left) % 60:02d} left")
