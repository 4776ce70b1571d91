"""Compiles programs in a thread of its own while others train, so that devices rarely wait for the compiler."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor


class BackgroundCompiler:
  """Compilations by key, each done once, in the order in which they were asked for. To be closed."""

  def __init__(self):
    self._compiler = ThreadPoolExecutor(1, thread_name_prefix="compiler")
    self._asked: dict[Hashable, Future] = {}

  def ask(self, key: Hashable, compile: Callable[[], None]) -> None:
    """`compile` will be called, if it was not asked for before."""
    if key not in self._asked:
      self._asked[key] = self._compiler.submit(compile)

  def wait(self, key: Hashable) -> None:
    """Returns when that compilation is done, or at once where it has not begun: then the caller compiles sooner itself.

    Raises:
      Exception: what the compilation raised.
    """
    asked = self._asked.get(key)
    if asked is not None and not asked.cancel():
      asked.result()

  def close(self, wait: bool = True) -> None:
    """Drops what has not begun. Returns when the compilation under way is done, or at once."""
    self._compiler.shutdown(wait=wait, cancel_futures=True)
