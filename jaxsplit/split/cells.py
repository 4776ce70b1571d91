"""cells.csv: one measured loss a row, each written once."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import pathlib
import zlib
from collections.abc import Callable, Iterable, Sequence

from jaxsplit.errors import InputError
from jaxsplit.files import write_atomic
from jaxsplit.training import hosts


@dataclasses.dataclass(frozen=True)
class Cell:
  """One measured (N, D, D', domain) -> loss.

  Attributes:
    params, params_total: N without and with embeddings.
    domain: what the loss was measured on.
    seed_tokens, expert_tokens: D and D'.
    unique_tokens: distinct training tokens of the domain that there are; how often they were seen is in `epochs`.
    epochs: passes over the domain's training tokens in the seed and the expert together.
    loss: nats per token on held-out text.
    bits_per_byte: the same per byte of that text.
    flops: training FLOPs along this model's own path, seed and expert.
    replica: repetition.
    role: grid (the law's data), split (the recommended or a given split), dense (full pretraining at the same compute), or
      probe (of learning rates; in probe.csv).
    learning_rate: its constant rate.
    batch_tokens: tokens per step.
    accuracy: share of validation windows whose scored tokens are all right; empty where not asked for.
    status: ok; diverged where the run, or one that it descends from, went wrong to the end: no part of any fit.
    retries: how often stretches of its path were trained again, see split.divergence.
    provenance: what it was measured with, a name in provenance.json.
  """

  params: int
  params_total: int
  domain: str
  seed_tokens: int
  expert_tokens: int
  unique_tokens: int
  epochs: float
  loss: float
  bits_per_byte: float
  flops: float
  replica: int
  role: str
  learning_rate: float
  batch_tokens: int
  accuracy: float | None
  status: str
  retries: int = 0
  provenance: str = ""

  @property
  def key(self) -> tuple:
    """What makes a cell this cell."""
    return (self.role, self.params_total, self.seed_tokens, self.expert_tokens, self.learning_rate, self.replica, self.domain)


_COLUMNS = [f.name for f in dataclasses.fields(Cell)]
_CHECK = "check"  # The last column: a check sum of the row.
_MAX_BYTES = 256 << 20
_INTEGERS = {"params", "params_total", "seed_tokens", "expert_tokens", "unique_tokens", "replica", "batch_tokens", "retries"}
_TEXTS = {"domain", "role", "status", "provenance"}


class CellTable:
  """The cells measured so far, kept in their file in the order of their keys, so that no history shows in it.

  Of several processes, the lead's holds them all and is asked; the others' begin empty and write nothing.

  Args:
    path: the file.
    say: told of damaged rows; they are measured again.
  """

  def __init__(self, path: pathlib.Path, say: Callable[[str], None] = print):
    self.path = path
    self._cells: dict[tuple, Cell] = {}
    hosts.share(lambda: self._load(say))

  def _load(self, say: Callable[[str], None]) -> None:
    cells, damaged = _read(self.path) if self.path.exists() else ([], [])
    self._cells = {cell.key: cell for cell in cells}
    if damaged:
      if not cells:
        raise damaged[0]
      say(f"{damaged[0]}: {len(damaged)} damaged rows are measured again")
      self._write()

  def __contains__(self, key: tuple) -> bool:
    return key in self._cells

  def __iter__(self):
    return iter(self._cells[key] for key in sorted(self._cells))

  def __len__(self) -> int:
    return len(self._cells)

  def add(self, cells: Iterable[Cell]) -> None:
    """Records cells and writes the file."""
    # As they will be read from the file: a process that goes on must see the same numbers as one that never stopped.
    cells = [_parsed([_text(getattr(cell, name)) for name in _COLUMNS]) for cell in cells]
    self._cells |= {cell.key: cell for cell in cells}
    if hosts.is_lead():
      self._write()

  def _write(self) -> None:
    rows = [[_text(getattr(cell, name)) for name in _COLUMNS] for cell in self]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([[*_COLUMNS, _CHECK], *([*row, _check(row)] for row in rows)])
    write_atomic(self.path, out.getvalue())


def read_cells(path: pathlib.Path) -> list[Cell]:
  """Reads a cells.csv that this module wrote. Raises InputError with file, row and column where it is not one."""
  cells, damaged = _read(path)
  if damaged:
    raise damaged[0]
  return cells


def _read(path: pathlib.Path) -> tuple[list[Cell], list[InputError]]:
  """The whole rows of a file, and what is wrong with each of the others."""
  try:
    if path.stat().st_size > _MAX_BYTES:
      raise InputError(f"{path}: {path.stat().st_size:,} bytes are too many for a table of cells")
    text = path.read_bytes().decode(errors="replace")
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror})") from None
  cells, damaged = [], []
  for number, line in enumerate(text.split("\n")[1:], start=2):
    if line:
      try:
        cells.append(_cell(line))
      except (ValueError, csv.Error) as error:
        damaged.append(InputError(f"{path}:{number}: {error}; delete the row to measure it again"))
  return cells, damaged


def _cell(line: str) -> Cell:
  """A row's cell. Raises ValueError saying what is wrong."""
  row = next(csv.reader([line]))
  if len(row) != len(_COLUMNS) + 1:
    raise ValueError(f"has {len(row)} columns instead of {len(_COLUMNS) + 1}")
  if row[-1] != _check(row[:-1]):
    raise ValueError("has other numbers than were measured (its check sum does not fit)")
  return _parsed(row)


def _parsed(row: Sequence[str]) -> Cell:
  values = {}
  for name, text in zip(_COLUMNS, row):
    try:
      values[name] = _value(name, text)
    except ValueError:
      raise ValueError(f"column {name} is no number") from None
  return Cell(**values)


def _check(row: Sequence[str]) -> str:
  return f"{zlib.crc32(json.dumps(row).encode()):08x}"


def _value(name: str, text: str):
  if name in _TEXTS:
    return text
  if name in _INTEGERS:
    return int(text)
  return float(text) if text else None


def _text(value) -> str:
  if value is None:
    return ""
  return f"{value:.9g}" if isinstance(value, float) else str(value)
