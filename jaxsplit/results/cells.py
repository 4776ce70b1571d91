"""cells.csv: one measured loss a row, each written once. The columns are the fields of `Cell`, and a check sum of the row."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import pathlib
import zlib
from collections.abc import Iterable, Sequence

from jaxsplit.errors import InputError
from jaxsplit.files import write_atomic

BESIDE = ("added", "router")  # Roles of cells that no experiment has asked for.
LAW_DATA = {"status": "ok", "role": "grid"}  # What a cell that a law is fitted to says of itself.


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
    role: grid (the law's data), split (the recommended or a given split), dense (full pretraining at the same compute), uneven
      (experts of unequal budgets), added (an expert on a domain that came later, which its seed has not seen), router (a small
      model to route by), probe (of learning rates; in probe.csv), or base (the model that all runs began with, untrained).
    learning_rate: its constant rate.
    batch_tokens: tokens per step.
    accuracy: share of validation windows whose scored tokens are all right; empty where not asked for.
    status: ok; diverged where the run, or one that it descends from, went wrong to the end: no part of any fit.
    retries: how often stages of its path were trained again, see experiment/divergence.py.
    provenance: what it was measured with, a name in provenance.json.
    replay: share of the expert's stream that was the mixture, not its domain.
    resampled: share of the expert's stream that was other domains' text, resampled to look like its domain's.
    weights: last, at the end of a cooldown; mean, of the last steps at the constant rate, in place of a cooldown.
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
  replay: float = 0.0
  resampled: float = 0.0
  weights: str = "last"

  @property
  def key(self) -> tuple:
    """What makes a cell this cell."""
    return (self.role, self.params_total, self.seed_tokens, self.expert_tokens, self.learning_rate, self.replica, self.domain,
            self.weights)


_COLUMNS = {field.name: field.type for field in dataclasses.fields(Cell)}  # Annotations are kept as text in this file.
_CHECK = "check"  # The last column.
_MAX_BYTES = 256 << 20


def write_cells(path: pathlib.Path, cells: Iterable[Cell]) -> None:
  """Writes a cells.csv."""
  rows = [_row(cell) for cell in cells]
  out = io.StringIO()
  csv.writer(out, lineterminator="\n").writerows([[*_COLUMNS, _CHECK], *([*row, _check(row)] for row in rows)])
  write_atomic(path, out.getvalue())


def as_read(cell: Cell) -> Cell:
  """The cell as it is read from a file: numbers are written with nine digits."""
  return _parsed(_row(cell))


def read_cells(path: pathlib.Path) -> list[Cell]:
  """Reads a cells.csv that this module wrote. Raises InputError with file, row and column where it is not one."""
  cells, damaged = read_whole_rows(path)
  if damaged:
    raise damaged[0]
  return cells


def read_whole_rows(path: pathlib.Path) -> tuple[list[Cell], list[InputError]]:
  """The whole rows of a file, and what is wrong with each of the others. InputError for a file of another version's columns."""
  try:
    if path.stat().st_size > _MAX_BYTES:
      raise InputError(f"{path}: {path.stat().st_size:,} bytes are too many for a table of cells")
    text = path.read_bytes().decode(errors="replace")
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror})") from None
  header, *lines = text.split("\n")
  named = header.split(",")
  if named[-1] == _CHECK and len(named) != len(_COLUMNS) + 1:
    differing = sorted({*_COLUMNS, _CHECK} ^ set(named))
    raise InputError(f"{path}: was written by another version of jaxsplit (columns {', '.join(differing)[:200]}); use that version")
  cells, damaged = [], []
  for number, line in enumerate(lines, start=2):
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
  for (name, kind), text in zip(_COLUMNS.items(), row):
    try:
      values[name] = text if kind == "str" else int(text) if kind == "int" else float(text) if text else None
    except ValueError:
      raise ValueError(f"column {name} is no number") from None
  return Cell(**values)


def _check(row: Sequence[str]) -> str:
  return f"{zlib.crc32(json.dumps(row).encode()):08x}"


def _row(cell: Cell) -> list[str]:
  return [_text(getattr(cell, name)) for name in _COLUMNS]


def _text(value) -> str:
  if value is None:
    return ""
  return f"{value:.9g}" if isinstance(value, float) else str(value)
