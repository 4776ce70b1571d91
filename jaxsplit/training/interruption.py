"""SIGINT and SIGTERM ask a run to save and stop; a second one ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from jaxsplit.errors import RETRY_EXIT_CODE, Interrupted
from jaxsplit.training import hosts


class Interruption:
  """While entered, the first SIGINT or SIGTERM raises Interrupted, and the next ends the process with RETRY_EXIT_CODE.

  Where a state is being trained that must be saved first, inside `deferred`, the first signal only sets `requested`. So it does
  everywhere in one of several processes: they stop together, where all call `agreed` or `check`, whichever of them a signal
  has reached. Only while the lead decides alone does a signal stop it, and the others with it, at once.
  """

  def __init__(self):
    self.requested = False
    self._deferred = False
    self._previous: dict[int, object] = {}

  def __enter__(self) -> Interruption:
    for number in (signal.SIGINT, signal.SIGTERM):
      self._previous[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  @contextlib.contextmanager
  def deferred(self) -> Iterator[None]:
    """A block that asks for `requested` itself; leaving it raises Interrupted if a signal has come."""
    self._deferred = True
    try:
      yield
    finally:
      self._deferred = False
    self.check()

  def agreed(self) -> bool:
    """Whether a signal has come to any process: the same answer in all of them, which all ask at the same point."""
    return hosts.share(lambda: self.requested or hosts.asked_to_stop())

  def check(self) -> None:
    """Raises Interrupted if a signal has come, to any process."""
    if self.agreed():
      raise Interrupted

  def _handle(self, number: int, frame: FrameType | None) -> None:
    if self.requested:
      os._exit(RETRY_EXIT_CODE)
    self.requested = True
    hosts.ask_to_stop()
    if not self._deferred and hosts.acts_alone():
      raise Interrupted
