"""Cells: the measured table that a law is fitted to, read from CSV or parquet and checked row by row.

A cell is one trained model: N parameters, D seed tokens, D' expert tokens, a domain, and the loss it reached.
Tables come with any column names; `columns` maps the names here to the names there.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsplit.errors import InputError, nearest
from jaxsplit.files import file_hash

REQUIRED = ("params", "loss")
OPTIONAL = {"seed_tokens": 0.0, "expert_tokens": 0.0, "domain": "all", "replica": 0, "unique_tokens": np.inf, "epochs": np.nan,
            "weight": 1.0}
# A law's table has a row per trained model: anything larger is some other file.
_MAX_BYTES = 64 << 20
_MAX_ROWS = 200_000
_MAX_COLUMNS = 1000
_ONE_ROW = "give one row per trained model"
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")


_MARKS = {"status": "ok", "role": "grid"}  # What a row must say in these columns, where they are there, to be fitted.


@dataclasses.dataclass(frozen=True)
class Cells:
  """Equal-length arrays, one entry a measured model.

  Attributes:
    params: [n] model size N.
    seed_tokens: [n] D, tokens of the shared mixture.
    expert_tokens: [n] D', tokens of the domain alone.
    loss: [n] nats per token (or any positive unit, kept throughout).
    domain: [n] strings.
    replica: [n] integers: which repetition of the trunk.
    unique_tokens: [n] distinct tokens of the domain, infinite where unknown.
    epochs: [n] passes over them in the seed and the expert together, NaN where unknown.
    weight: [n] how much the row counts in the objective.
    row: [n] the line that each has in its file.
    source: what the rows came from: file, hash, dropped rows and the column names used.
  """

  params: np.ndarray
  seed_tokens: np.ndarray
  expert_tokens: np.ndarray
  loss: np.ndarray
  domain: np.ndarray
  replica: np.ndarray
  unique_tokens: np.ndarray
  epochs: np.ndarray
  weight: np.ndarray
  row: np.ndarray
  source: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @classmethod
  def from_columns(cls, columns: Mapping[str, Any], source: Mapping[str, Any] | None = None,
                   rows: Sequence[int] | None = None) -> Cells:
    """Cells from arrays by name; columns left out take their neutral value (0 tokens, one domain, replica 0).

    Args:
      columns: `params` and `loss`, at least one of `seed_tokens` and `expert_tokens`, and any of the others.
      source: recorded in law.json.
      rows: the line each entry has in its file, for error messages; counted from 1 where left out.

    Raises:
      InputError: a column is missing or unknown, lengths differ, or a value cannot be a measurement.
    """
    known = (*REQUIRED, *OPTIONAL)
    where = dict(source or {}).get("file", "cells")
    for name in columns:
      if name not in known:
        raise InputError(f"{where}: unknown column {name!r}{nearest(name, known)}")
    for name in REQUIRED:
      if name not in columns:
        raise InputError(f"{where}: no column {name!r}; name it with --columns={name}=YOUR_COLUMN")
    if "seed_tokens" not in columns and "expert_tokens" not in columns:
      raise InputError(f"{where}: no tokens; name seed_tokens, expert_tokens or both with --columns=seed_tokens=YOUR_COLUMN")
    size = len(np.atleast_1d(columns["loss"]))
    arrays = {}
    for name in known:
      value = columns.get(name, OPTIONAL.get(name))
      array = np.full(size, value, object) if name not in columns else np.atleast_1d(np.asarray(value, object))
      if len(array) != size:
        raise InputError(f"{where}: column {name!r} has {len(array)} values, column 'loss' has {size}")
      arrays[name] = _typed(array, name, where, rows)
    _check_values(arrays, where, rows)
    notes = _repeated(arrays, where, rows)
    return cls(**arrays, row=np.arange(1, size + 1) if rows is None else np.asarray(rows, int), source={**(source or {}), "notes": notes} if notes else dict(source or {}))

  def __len__(self) -> int:
    return len(self.loss)

  def take(self, index: np.ndarray) -> Cells:
    """The rows at `index` (integers or a mask)."""
    return Cells(*(getattr(self, name)[index] for name in (f.name for f in dataclasses.fields(self)) if name != "source"),
                 source=self.source)

  @property
  def domains(self) -> tuple[str, ...]:
    """The distinct domains, sorted."""
    return tuple(sorted(set(self.domain.tolist())))


def read_cells(path: str | os.PathLike, columns: Mapping[str, str] | None = None) -> Cells:
  """Reads a table of measured models from a .csv or .parquet file.

  Rows whose `status` column is there and not "ok" are left out, and so are rows whose `role` column is there and not
  "grid": those are the proof of a plan, not the law's data. `source["dropped"]` counts them. Every other row must be a
  measurement. Rows that repeat another in every number are kept, with a line in `source["notes"]`.

  Args:
    path: the file.
    columns: our name -> the file's name, such as {"params": "N", "seed_tokens": "D", "loss": "loss"}. Names not
      given are looked for as they are. Given names must exist.

  Raises:
    InputError: naming file, row and column.
  """
  path = pathlib.Path(path)
  header, rows, lines = _read_table(path, (*REQUIRED, *OPTIONAL, *_MARKS, *(columns or {}).values()))
  wanted = {name: name for name in (*REQUIRED, *OPTIONAL) if name in header}
  for name, theirs in (columns or {}).items():
    if name not in (*REQUIRED, *OPTIONAL):
      raise InputError(f"--columns: unknown name {name!r}{nearest(name, (*REQUIRED, *OPTIONAL))}")
    if theirs not in header:
      raise InputError(f"{path}: no column {theirs!r} (for {name}){nearest(theirs, [known[:40] for known in header])}")
    wanted[name] = theirs
  keep = np.ones(len(lines), bool)
  dropped = {}
  for name, good in _MARKS.items():
    if name in header:
      bad = keep & (np.array([str(v) for v in rows[name]]) != good)
      if bad.any():
        dropped[f"{name} is not {good}"] = int(bad.sum())
        keep &= ~bad
  if not keep.any():
    reason = f"; left out: {', '.join(f'{n} whose {k}' for k, n in dropped.items())}" if dropped else ""
    raise InputError(f"{path}: no rows to fit{reason}")
  source = {"file": str(path), "file_hash": file_hash(path), "rows": len(lines), "dropped": dropped, "columns": wanted}
  picked = np.flatnonzero(keep)
  return Cells.from_columns({name: [rows[theirs][i] for i in picked] for name, theirs in wanted.items()}, source,
                            [lines[i] for i in picked])


def _read_table(path: pathlib.Path, wanted: Sequence[str]) -> tuple[list[str], dict[str, list], list[int]]:
  """Header, those of the `wanted` columns that are there, and each row's line number (parquet: its row number from 1)."""
  try:
    size = path.stat().st_size
  except OSError as error:
    raise InputError(f"{path}: {'no such file' if isinstance(error, FileNotFoundError) else error.strerror}") from None
  if path.is_dir():
    raise InputError(f"{path}: is a folder; give a .csv or .parquet file")
  if size > _MAX_BYTES:
    raise InputError(f"{path}: {size / 2**20:.0f} MiB is too large for a table of measured models "
                     f"(limit {_MAX_BYTES >> 20} MiB); {_ONE_ROW}")
  if path.suffix.lower() == ".parquet":
    return _read_parquet(path, wanted)
  if path.suffix.lower() != ".csv":
    raise InputError(f"{path}: give a .csv or .parquet file{'; unpack it first' * (path.suffix.lower() in _PACKED)}")
  try:
    with open(path, newline="", encoding="utf-8-sig") as f:
      reader = csv.reader(f, strict=True, skipinitialspace=True)
      header = [name.strip() for name in next(reader, [])]
      _check_header(path, header)
      places = [i for i, name in enumerate(header) if name in wanted]
      rows, lines = [], []
      for row in reader:
        if not row:
          continue
        if len(row) != len(header):
          raise InputError(f"{path}:{reader.line_num}: {len(row)} values under {len(header)} columns")
        if len(rows) == _MAX_ROWS:
          raise InputError(f"{path}: more than {_MAX_ROWS:,} rows; {_ONE_ROW}")
        rows.append([row[i] for i in places])
        lines.append(reader.line_num)
  except UnicodeDecodeError:
    raise InputError(f"{path}: not UTF-8 text") from None
  except csv.Error as error:
    raise InputError(f"{path}:{reader.line_num}: not CSV ({error})") from None
  if not rows:
    raise InputError(f"{path}: no rows below the header")
  return header, dict(zip([header[i] for i in places], map(list, zip(*rows)))), lines


def _read_parquet(path: pathlib.Path, wanted: Sequence[str]) -> tuple[list[str], dict[str, list], list[int]]:
  # Imported here: a law from CSV or from arrays needs no Arrow.
  import pyarrow
  from pyarrow import parquet
  try:
    with parquet.ParquetFile(path) as file:
      header, count = file.schema_arrow.names, file.metadata.num_rows
      _check_header(path, header)
      if not 0 < count <= _MAX_ROWS:
        raise InputError(f"{path}: {f'{count:,} rows are more than {_MAX_ROWS:,}; {_ONE_ROW}' if count else 'no rows'}")
      table = file.read([name for name in header if name in wanted])
  except InputError:
    raise
  except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
    raise InputError(f"{path}: not a whole parquet file ({str(error).split(chr(10))[0][:120]})") from None
  return header, table.to_pydict(), list(range(1, table.num_rows + 1))


def _check_header(path: pathlib.Path, header: list[str]) -> None:
  if len(header) > _MAX_COLUMNS:
    raise InputError(f"{path}:1: {len(header):,} columns are more than {_MAX_COLUMNS:,}; {_ONE_ROW}, with a column a quantity")
  for name, count in collections.Counter(header).items():
    if count > 1:
      raise InputError(f"{path}:1: column {name[:40]!r} appears {count} times")


def _typed(array: np.ndarray, name: str, where: str, rows: Sequence[int] | None) -> np.ndarray:
  if name == "domain":
    return np.array([str(v) for v in array])
  out = np.empty(len(array))
  for i, value in enumerate(array):
    try:
      out[i] = float(value)
    except (TypeError, ValueError, OverflowError):
      raise InputError(f"{where}:{_line(rows, i)}: {name} is {repr(value)[:40]}, not a number") from None
  return out


def _check_values(arrays: dict[str, np.ndarray], where: str, rows: Sequence[int] | None) -> None:
  def refuse(bad: np.ndarray, name: str, need: str) -> None:
    if bad.any():
      i = int(np.flatnonzero(bad)[0])
      more = f" (and {int(bad.sum()) - 1} more)" if bad.sum() > 1 else ""
      raise InputError(f"{where}:{_line(rows, i)}: {name} is {arrays[name][i]:g}{more}; {need}")

  if not len(arrays["loss"]):
    raise InputError(f"{where}: no rows")
  for name in ("params", "loss"):
    refuse(~(np.isfinite(arrays[name]) & (arrays[name] > 0)), name, "it must be a positive number: mend or remove the row")
  for name in ("seed_tokens", "expert_tokens"):
    refuse(~(np.isfinite(arrays[name]) & (arrays[name] >= 0)), name, "it must be a number, zero or more")
  refuse(~(arrays["unique_tokens"] > 0), "unique_tokens", "it must be positive")
  refuse(arrays["epochs"] < 0, "epochs", "it must be zero or more")
  refuse(~(np.isfinite(arrays["weight"]) & (arrays["weight"] >= 0)), "weight", "it must be a number, zero or more")
  refuse(~np.isfinite(arrays["replica"]), "replica", "it must be a number")
  refuse(arrays["seed_tokens"] + arrays["expert_tokens"] <= 0, "seed_tokens",
         "with no expert_tokens either the model is untrained: remove the row")


def _repeated(arrays: dict[str, np.ndarray], where: str, rows: Sequence[int] | None) -> list[str]:
  """One line on rows that repeat an earlier one in every number, or none."""
  seen: dict[tuple, int] = {}
  found = []
  compared = [name for name in (*REQUIRED, *OPTIONAL) if name != "epochs"]  # They follow from the others, or nobody knows them.
  for i, key in enumerate(zip(*(arrays[name].tolist() for name in compared))):
    if key in seen:
      found.append((i, seen[key]))
    seen.setdefault(key, i)
  if not found:
    return []
  (i, first), more = found[0], len(found) - 1
  return [f"{where}:{_line(rows, i)}: repeats row {_line(rows, first)} in every column, loss {arrays['loss'][i]:g} included"
          f"{f' ({more} more rows repeat others)' if more else ''}; all are kept, so remove them if they are copies"]


def _line(rows: Sequence[int] | None, i: int) -> int:
  return rows[i] if rows is not None else i + 1
