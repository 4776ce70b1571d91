"""Progress of a long measurement: a line now and then, with the estimated time left."""

from __future__ import annotations

import time
from collections.abc import Callable

Advance = Callable[[int, int], None]  # Told how many tokens are read, and of how many.
_LINE_EVERY = 10.0  # Seconds.


def ignore(done: int, whole: int) -> None:
  """Says nothing."""


def countdown(what: str, log: Callable[[str], None]) -> Advance:
  """Tells `log` every ten seconds how far `what` is."""
  began = last = time.monotonic()

  def advance(done: int, whole: int) -> None:
    nonlocal last
    now = time.monotonic()
    if now - last < _LINE_EVERY:
      return
    last, rate = now, done / (now - began)
    log(f"  {what}: {done / whole:.0%} of {whole:,} tokens, {rate:,.0f} tokens/s, {(whole - done) / rate:,.0f} s left")

  return advance
