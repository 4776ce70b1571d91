"""The progress of a whole experiment: what is done, speed, loss, and the estimated time left."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable

import numpy as np
from rich.console import Console

from jaxsplit.experiment.displays import display_of
from jaxsplit.experiment.pace import pace_of
from jaxsplit.experiment.tree import Stage
from jaxsplit.parallel import hosts

_LINE_EVERY = 10.0  # Seconds between plain lines.
_NOTHING = np.zeros(2)  # Steps, FLOPs.
_MEMORY = 10.0  # Seconds over which speeds are averaged: what lies further back counts for less than 1/e.


class Progress:
  """A live table on a terminal or in a notebook, elsewhere a plain line every ten seconds. What is left is estimated from the steps and
  the FLOPs of what was trained so far, so that the estimate holds across model sizes."""

  def __init__(self, batch_tokens: int):
    self._batch_tokens = batch_tokens
    self._console = Console(file=sys.stdout, quiet=not hosts.is_lead(), force_jupyter=False)  # Lines are plain in notebooks too.
    self._display = display_of(self._console) if hosts.is_lead() else None
    self._title, self._stage, self._loss = "", "", float("nan")
    self._tokens, self._flops = _Speed(), _Speed()
    self._peak: float | None = None
    self._planned = self._done = self._later = _NOTHING
    self._timed: dict[float, np.ndarray] = {}  # By the FLOPs of a step: steps, FLOPs and seconds so far.
    self._within: float | None = None  # The one that is being trained.
    self._cells = self._cells_done = 0
    self._began = self._printed = time.monotonic()
    self._busy_since: float | None = None

  def __enter__(self) -> Progress:
    if self._display:
      self._display.start()
    return self

  def __exit__(self, *_) -> None:
    if self._display:
      self._display.stop()

  def log(self, text: str) -> None:
    """A line that stays."""
    self._console.print(text, highlight=False, markup=False, soft_wrap=True)

  def begin(self, name: str) -> None:
    """A new part of the experiment begins."""
    self._title = name
    self.log(f"[{_clock(time.monotonic() - self._began)}] {name}")

  def plan(self, missing: Iterable[Stage], later: Iterable[Stage], cells: int, cells_done: int) -> None:
    """Adds to the work: stages to train, cells to measure, and the number of cells already measured. `later`: stages of later calls."""
    whole = lambda stages: sum((self._work(stage, stage.steps) for stage in stages), _NOTHING)
    self._planned = self._planned + whole(missing)
    self._later = whole(later)
    self._cells += cells
    self._cells_done += cells_done

  def start(self, stage: Stage, done: int, peak: float | None) -> None:
    """A stage starts, or resumes from a snapshot, on devices with a peak of `peak` FLOP/s, if that is known."""
    self._stage, self._busy_since, self._peak = stage.name, time.monotonic(), peak
    self._within = self._work(stage, 1)[1]
    self._done = self._done + self._work(stage, done)

  def advance(self, stage: Stage, steps: int, loss: float) -> None:
    """Steps of a stage are trained."""
    work = self._work(stage, steps)
    self._done = self._done + work
    self._loss = loss
    now = time.monotonic()
    elapsed, self._busy_since = now - (self._busy_since or now), now
    self._spent(work, elapsed)
    self._tokens.add(steps * self._batch_tokens * len(stage.runs), elapsed)
    self._flops.add(work[1], elapsed)
    self._show(now)

  def finish(self, cells: int) -> None:
    """A stage's cells are measured."""
    self._cells_done += cells
    now = time.monotonic()
    self._spent(_NOTHING, now - (self._busy_since or now))
    self._show(now)

  def _spent(self, work: np.ndarray, seconds: float) -> None:
    self._timed[self._within] = self._timed.get(self._within, np.zeros(3)) + (*work, seconds)

  def _seconds_left(self) -> float | None:
    """None before anything was trained."""
    timed = np.array([one for one in self._timed.values() if one.min() > 0])
    return pace_of(*timed.T).seconds(*np.maximum(self._planned + self._later - self._done, 0)) if len(timed) else None

  def _work(self, stage: Stage, steps: int) -> np.ndarray:
    """Steps, and their FLOPs."""
    return np.array([steps, stage.model.flops_per_token * steps * self._batch_tokens * len(stage.runs)], float)

  def _show(self, now: float) -> None:
    seconds = self._seconds_left()
    left = "?" if seconds is None else _clock(seconds)
    mfu = {"MFU": f"{self._flops.rate / self._peak:.1%}"} if self._peak else {}
    fields = {"cells": f"{self._cells_done}/{self._cells}", "stage": self._stage, "tokens/s": f"{self._tokens.rate:,.0f}", **mfu,
              "loss": f"{self._loss:.3f}", "time": _clock(now - self._began), "left": left}
    if self._display:
      self._display.show(self._title, fields)
    elif now - self._printed >= _LINE_EVERY:
      self._printed = now
      self.log("  " + "  ".join(f"{name} {value}" for name, value in fields.items()))


class _Speed:
  """Work a second, recently. Work and seconds are averaged each by itself: blocks of steps may end late and then several at once, so
  that single quotients are far from the speed, and their mean far above it."""

  def __init__(self):
    self._work = self._seconds = 0.0

  def add(self, work: float, seconds: float) -> None:
    kept = math.exp(-seconds / _MEMORY)
    self._work, self._seconds = kept * self._work + work, kept * self._seconds + seconds

  @property
  def rate(self) -> float:
    return self._work / max(self._seconds, 1e-9)


def _clock(seconds: float) -> str:
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
