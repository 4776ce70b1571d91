"""metrics.jsonl: the record of every training step, one line per dispatched block of steps."""

from __future__ import annotations

import json
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np

from jaxsplit.files import write_atomic
from jaxsplit.parallel import hosts

_CHECK = ',"check":"'


class Metrics:
  """Appends blocks of steps and, on resuming a stage, drops what was written after its last snapshot.

  A line: `stage`, `first_step`, `steps` (how many the block has), per-step lists, `loss` and the rest, each [steps][R], and a
  checksum of all that. Every step of every stage is in exactly one line. With several processes, only the lead writes it, and
  broadcasts its contents to the others. Call `close`.

  Args:
    path: the file.
    log: gets a line on damaged lines, which are dropped.
  """

  def __init__(self, path: pathlib.Path, log: Callable[[str], None] = print):
    self._path = path
    self._log = log
    self._file: IO[str] | None = None
    self._blocks: dict[str, dict[int, int]] | None = None  # Stage -> first step -> steps, of every line in the file.
    self._latest: tuple[str, dict[int, list]] = ("", {})  # The stage that is being trained: first step -> losses.

  def recorded(self, stage: str) -> int:
    """How many steps of the stage are in the file without a gap, from its first."""
    return hosts.broadcast(lambda: self._recorded(stage))

  def rewind(self, stage: str, step: int) -> None:
    """Drops the stage's steps from `step` on: they are about to be trained again."""
    hosts.broadcast(lambda: self._rewind(stage, step))

  def trained(self) -> dict[str, int]:
    """Of each stage, how many steps are in the file without a gap, from its first. For the lead."""
    return {stage: self._recorded(stage) for stage in self._known()}

  def _recorded(self, stage: str) -> int:
    blocks, step = self._known().get(stage, {}), 0
    while step in blocks:
      step += blocks[step]
    return step

  def _rewind(self, stage: str, step: int) -> None:
    if all(first + steps <= step for first, steps in self._known().get(stage, {}).items()):
      return
    self.close()
    kept = [line for line, record in _whole_lines(self._path)
            if record["stage"] != stage or record["first_step"] + record["steps"] <= step]
    write_atomic(self._path, "".join(kept))
    self._blocks, self._latest = None, ("", {})

  def losses(self, stage: str, steps: int) -> np.ndarray:
    """The losses of the stage's first steps as they are in the file, [steps, R]; NaN where they were not finite. For the lead."""
    name, blocks = self._latest
    if name != stage or 0 not in blocks:
      blocks = {r["first_step"]: r["loss"] for _, r in _whole_lines(self._path) if r["stage"] == stage}
    return np.concatenate([np.array(blocks[first], float) for first in sorted(blocks)])[:steps]

  def append(self, stage: str, first_step: int, values: Mapping[str, np.ndarray]) -> None:
    """Writes one block; `values` are arrays [steps, R]."""
    if not hosts.is_lead():
      return
    blocks = self._known()
    if self._file is None:
      self._file = self._path.open("a", buffering=1)
    steps = len(next(iter(values.values())))
    line = {"stage": stage, "first_step": first_step, "steps": steps, **{name: _rounded(v) for name, v in values.items()}}
    try:
      self._file.write(_checked(json.dumps(line, separators=(",", ":"))) + "\n")
    except OSError as error:
      raise OSError(error.errno, error.strerror, str(self._path)) from None
    blocks.setdefault(stage, {})[first_step] = steps
    if self._latest[0] != stage:
      self._latest = (stage, {})
    self._latest[1][first_step] = line["loss"]

  def sync(self) -> None:
    """Returns when everything appended is durable. May be called from another thread than the one that appends.

    Raises:
      OSError: the disk is full, or what was appended is no longer where it was.
    """
    if hosts.is_lead() and (self._blocks or self._path.exists()):
      with self._path.open("rb") as f:
        os.fsync(f.fileno())

  def close(self) -> None:
    if self._file is not None:
      file, self._file = self._file, None
      file.close()
      self.sync()

  def _known(self) -> dict[str, dict[int, int]]:
    """The blocks in the file. The first call drops what is damaged, such as a last line that a crash cut short."""
    if self._blocks is None:
      lines = _whole_lines(self._path)
      kept = "".join(line for line, _ in lines)
      if self._path.exists() and self._path.stat().st_size != len(kept.encode()):
        # A last line cut short by a crash is not logged: its steps come after the last snapshot.
        lost = sum(line.endswith(b"\n") for line in self._path.open("rb")) - len(lines)
        if lost:
          self._log(f"{self._path}: {lost} damaged or repeated lines are dropped; stages that need them are trained again, "
                    "finished ones stay without them")
        write_atomic(self._path, kept)
      self._blocks = {}
      for _, record in lines:
        self._blocks.setdefault(record["stage"], {})[record["first_step"]] = record["steps"]
    return self._blocks


def read_metrics(path: pathlib.Path) -> Iterator[dict[str, Any]]:
  """The lines of a metrics file; damaged lines, such as a last one cut short by a crash, are left out."""
  for _, record in _whole_lines(path):
    yield record


def _whole_lines(path: pathlib.Path) -> list[tuple[str, dict[str, Any]]]:
  """Text and content of the lines whose checksum is right, each block once."""
  if not path.exists():
    return []
  lines, seen = [], set()
  with path.open("rb") as f:
    for line in f:
      record = _read(line)
      if record is not None and (record["stage"], record["first_step"]) not in seen:
        seen.add((record["stage"], record["first_step"]))
        lines.append((line.decode(), record))
  return lines


def _checked(line: str) -> str:
  return f'{line[:-1]}{_CHECK}{zlib.crc32(line.encode()):08x}"}}'


def _read(line: bytes) -> dict[str, Any] | None:
  """The content of a line without its checksum; None if that does not match. Earlier versions wrote lines without one."""
  body, mark, check = line.rpartition(_CHECK.encode())
  if mark and check != b'%08x"}\n' % zlib.crc32(body + b"}"):
    return None
  try:
    record = json.loads(body + b"}" if mark else line)
    return record if {"stage", "first_step", "steps", "loss"} <= record.keys() and line.endswith(b"\n") else None
  except (ValueError, AttributeError, RecursionError):
    return None


def _rounded(values: np.ndarray) -> Sequence[Sequence[float | None]]:
  """Seven significant digits: all that float32 has. What is not finite is null, as JSON has no word for it."""
  return [[float(f"{v:.7g}") if np.isfinite(v) else None for v in row] for row in values]
