"""cells.csv: one measured loss a row, each written once."""

from __future__ import annotations

import csv
import dataclasses
import io
import pathlib
from collections.abc import Iterable

from jaxsplit.errors import InputError
from jaxsplit.files import write_atomic


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
    status: ok, or diverged where the loss is not finite.
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

  @property
  def key(self) -> tuple:
    """What makes a cell this cell."""
    return (self.role, self.params_total, self.seed_tokens, self.expert_tokens, self.learning_rate, self.replica, self.domain)


_COLUMNS = [f.name for f in dataclasses.fields(Cell)]
_INTEGERS = {"params", "params_total", "seed_tokens", "expert_tokens", "unique_tokens", "replica", "batch_tokens"}
_TEXTS = {"domain", "role", "status"}


class CellTable:
  """The cells measured so far, kept in their file in the order of their keys, so that no history shows in it."""

  def __init__(self, path: pathlib.Path):
    self.path = path
    self._cells: dict[tuple, Cell] = {cell.key: cell for cell in read_cells(path)} if path.exists() else {}

  def __contains__(self, key: tuple) -> bool:
    return key in self._cells

  def __iter__(self):
    return iter(self._cells[key] for key in sorted(self._cells))

  def __len__(self) -> int:
    return len(self._cells)

  def add(self, cells: Iterable[Cell]) -> None:
    """Records cells and writes the file."""
    self._cells |= {cell.key: cell for cell in cells}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([_text(getattr(cell, name)) for name in _COLUMNS] for cell in self)
    write_atomic(self.path, out.getvalue())


def read_cells(path: pathlib.Path) -> list[Cell]:
  """Reads a cells.csv that this module wrote. Raises InputError with file, row and column where it is not one."""
  with path.open(newline="") as f:
    rows = list(csv.DictReader(f))
  cells = []
  for number, row in enumerate(rows, start=2):
    values = {}
    for name in _COLUMNS:
      try:
        values[name] = _value(name, row[name])
      except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}:{number}: column {name} is missing or no number; delete the file to measure again") from None
    cells.append(Cell(**values))
  return cells


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
