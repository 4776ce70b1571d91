"""metrics.jsonl: the record of every training step, one line per dispatched block of steps."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxsplit.files import write_atomic


class Metrics:
  """Appends blocks of steps and, on resuming a leg, drops what was written after its last snapshot.

  A line: `leg`, `first_step`, `steps` (how many the block has), and per-step lists, `loss` and the rest, each [steps][R].
  Every step of every leg is in exactly one line.
  """

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._file = None

  def rewind(self, leg: str, step: int) -> None:
    """Drops the leg's steps from `step` on: they are about to be trained again."""
    self.close()
    if not self._path.exists():
      return
    lines = self._path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and not _is_after(line, leg, step)]
    if len(kept) != len(lines):
      write_atomic(self._path, "".join(kept))

  def append(self, leg: str, first_step: int, values: Mapping[str, np.ndarray]) -> None:
    """Writes one block; `values` are arrays [steps, R]."""
    if self._file is None:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      self._file = self._path.open("a", buffering=1)
    steps = len(next(iter(values.values())))
    line = {"leg": leg, "first_step": first_step, "steps": steps, **{name: _rounded(v) for name, v in values.items()}}
    self._file.write(json.dumps(line, separators=(",", ":")) + "\n")

  def flush(self) -> None:
    """Returns when everything appended is durable."""
    if self._file is not None:
      self._file.flush()
      os.fsync(self._file.fileno())

  def close(self) -> None:
    if self._file is not None:
      self.flush()
      self._file.close()
      self._file = None


def read_metrics(path: pathlib.Path) -> Iterator[dict[str, Any]]:
  """The lines of a metrics file; a last line cut short by a crash is left out."""
  if not path.exists():
    return
  with path.open() as f:
    for line in f:
      if line.endswith("\n"):
        yield json.loads(line)


def _is_after(line: str, leg: str, step: int) -> bool:
  record = json.loads(line)
  return record["leg"] == leg and record["first_step"] >= step


def _rounded(values: np.ndarray) -> Sequence[Sequence[float | None]]:
  """Seven significant digits: all that float32 has. What is not finite is null, as JSON has no word for it."""
  return [[float(f"{v:.7g}") if np.isfinite(v) else None for v in row] for row in values]
