"""Compiles programs in a background thread while others train, so that devices rarely wait for the compiler."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor


class BackgroundCompiler:
  """Compilations by key, each done once, in the order of requests. Call `close`."""

  def __init__(self):
    self._compiler = ThreadPoolExecutor(1, thread_name_prefix="compiler")
    self._asked: dict[Hashable, Future] = {}

  def ask(self, key: Hashable, compile: Callable[[], None]) -> None:
    """Requests a call of `compile`, unless it was requested before."""
    if key not in self._asked:
      self._asked[key] = self._compiler.submit(compile)

  def wait(self, key: Hashable) -> None:
    """Returns when that compilation is done, or at once if it has not begun, when the caller compiles faster itself.

    Raises:
      Exception: what the compilation raised.
    """
    asked = self._asked.get(key)
    if asked is not None and not asked.cancel():
      asked.result()

  def close(self, wait: bool = True) -> None:
    """Cancels what has not begun. Returns when the current compilation is done, or at once."""
    self._compiler.shutdown(wait=wait, cancel_futures=True)
