"""SIGINT and SIGTERM make an experiment save and stop; a second signal ends the process at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from jaxsplit import signals
from jaxsplit.errors import Interrupted
from jaxsplit.parallel import hosts


class Interruption:
  """While entered, the first SIGINT or SIGTERM raises Interrupted, and the next ends the process with RETRY_EXIT_CODE.

  Where a state is being trained that must be saved first, inside `deferred`, the first signal only sets `requested`. So it does
  everywhere in one of several processes: they stop together, where all call `agreed` or `check`, whichever of them a signal
  has reached. Only while the lead decides alone does a signal stop it, and the others with it, at once.
  """

  def __init__(self):
    self.requested = False
    self._deferred = False
    self._handled = signals.handled(self._act)

  def __enter__(self) -> Interruption:
    self._handled.__enter__()
    return self

  def __exit__(self, *raised) -> None:
    self._handled.__exit__(*raised)

  @contextlib.contextmanager
  def deferred(self) -> Iterator[None]:
    """A block that checks `requested` itself; leaving it raises Interrupted if a signal has come."""
    self._deferred = True
    try:
      yield
    finally:
      self._deferred = False
    self.check()

  def agreed(self) -> bool:
    """Whether a signal has come to any process: the same in all of them, which call this at the same point."""
    return hosts.broadcast(lambda: self.requested or hosts.asked_to_stop())

  def check(self) -> None:
    """Raises Interrupted if a signal has come, to any process."""
    if self.agreed():
      raise Interrupted

  def _act(self) -> None:
    self.requested = True
    hosts.ask_to_stop()
    if not self._deferred and hosts.acts_alone():
      raise Interrupted
