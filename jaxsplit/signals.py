"""SIGINT and SIGTERM, from an entry point's first import to its end: whenever they come, one line, one exit code, no traceback. The
same of what may go wrong while JAX is imported.

Entry points import this first, so nothing here imports what takes long.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

from jaxsplit.errors import RETRY_EXIT_CODE, InputError, Interrupted, ending

_BOTH = signal.SIGINT, signal.SIGTERM
_AGAIN = 0.05  # Seconds until what was swallowed is raised again.


def end_at_once(module: str) -> None:
  """From now on, either signal ends the process at once, if `module`, the caller's __name__, is the program that is run.

  For the seconds that imports take: there is nothing to tidy up yet, and an exception might not arrive. Python swallows what is
  raised in a callback, such as JAX's of garbage collection. An environment variable of JAX's whose value it does not know, which
  it tells when it is imported, ends the process likewise.
  """
  if module == "__main__":
    for number in _BOTH:
      signal.signal(number, lambda number, frame: _end(Interrupted()))
    sys.excepthook = _unimportable


def _unimportable(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
  """What ended the imports: of JAX's own configuration, a line."""
  *_, (frame, _) = traceback.walk_tb(trace)
  if issubclass(kind, ValueError) and frame.f_globals.get("__name__") == "jax._src.config":
    _end(InputError(f"{error}; unset that environment variable (JAX_...), or give it a value that JAX knows"))
  sys.__excepthook__(kind, error, trace)


def _end(error: Exception) -> None:
  code, line = ending(error)
  os.write(2, f"jaxsplit: {line}\n".encode())
  os._exit(code)


@contextlib.contextmanager
def handled(act: Callable[[], None]) -> Iterator[None]:
  """A block in which the first signal calls `act`, on the main thread, and the next ends the process at once.

  `act` may raise Interrupted. Where Python swallows that, it is called again a moment later.
  """
  handlers, unraisable = {number: signal.getsignal(number) for number in _BOTH}, sys.unraisablehook
  asked = False

  def handle(number: int, frame: FrameType | None) -> None:
    nonlocal asked
    if asked:
      os._exit(RETRY_EXIT_CODE)
    asked = True
    act()

  def swallowed(lost: sys.UnraisableHookArgs) -> None:
    nonlocal asked
    if not isinstance(lost.exc_value, Interrupted):
      return unraisable(lost)
    asked = False
    again = threading.Timer(_AGAIN, signal.pthread_kill, [threading.main_thread().ident, signal.SIGTERM])
    again.daemon = True
    again.start()

  for number in _BOTH:
    signal.signal(number, handle)
  sys.unraisablehook = swallowed
  try:
    yield
  finally:
    sys.unraisablehook = unraisable
    for number, handler in handlers.items():
      signal.signal(number, handler)
