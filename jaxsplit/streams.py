"""Standard streams that never fail: what a terminal cannot show is escaped, and where nobody reads, work goes on."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, TextIO


def never_fail() -> None:
  """Makes standard output and standard error take any text, wherever they lead; one that is closed leads nowhere."""
  for descriptor in range(3):  # A file that is opened later must not take the place of one that is closed.
    try:
      os.fstat(descriptor)
    except OSError:
      os.open(os.devnull, os.O_RDWR)  # Takes the lowest number that is free.
  sys.stdout, sys.stderr = (
      _Stream(stream, descriptor) if stream else open(os.devnull, "w", encoding="utf-8")
      for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)))


class _Stream:
  """A text stream that drops what cannot be written; all else is the stream's own."""

  def __init__(self, stream: TextIO, descriptor: int):
    self._stream, self._descriptor = stream, descriptor
    if hasattr(stream, "reconfigure"):
      stream.reconfigure(errors="backslashreplace")

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)

  def write(self, text: str) -> int:
    with self._dropping():
      self._stream.write(text)
    return len(text)

  def flush(self) -> None:
    with self._dropping():
      self._stream.flush()

  @contextlib.contextmanager
  def _dropping(self):
    try:
      yield
    except BlockingIOError:  # A reader that is slow, and a pipe that does not wait for it.
      pass
    except OSError as error:
      os.dup2(os.open(os.devnull, os.O_WRONLY), self._descriptor)
      if self._descriptor != 2 and not isinstance(error, BrokenPipeError):  # A reader that closed a pipe has seen enough.
        print(f"jaxsplit: standard output is lost ({error.strerror}); going on without it", file=sys.stderr)
