"""Reads cells from tables of any source.

law.tables reads the file, law.mapping says which column is what and in which unit, law.rows which rows count, and law.values
remarks what looks like a mistake.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from jaxsplit.errors import InputError, nearest
from jaxsplit.files import file_hash
from jaxsplit.law import mapping, values
from jaxsplit.law.cells import OPTIONAL, REQUIRED, Cells
from jaxsplit.law.mapping import Source
from jaxsplit.law.rows import Condition, commonest, merged, parse_where, shown
from jaxsplit.law.tables import Table, read_table
from jaxsplit.results.cells import LAW_DATA
from jaxsplit.results.stages import Role

_ROLES = get_args(Role)
_FLOP_FACTOR = 6.0  # Training FLOPs for each parameter and token: forward 2, backward 4.

_NAMED = 8  # Columns that a line names.
_NAMED_ONLY = (*LAW_DATA, "weight", "epochs")  # Names that mean other things in other people's tables.
_MAY_LACK = ("unique_tokens", "epochs")
_COUNTS = ("params", "seed_tokens", "expert_tokens", "unique_tokens", "flops")
_NAMES = (*REQUIRED, *OPTIONAL, "flops", *LAW_DATA)


def read_cells(path: str | os.PathLike, columns: Mapping[str, str] | None = None, *, where: str | None = None,
               rows: Literal["all", "best", "mean"] = "all", drop_missing: bool = False,
               flop_factor: float | None = None) -> Cells:
  """Reads a table of measured models: text with commas, semicolons or tabs, JSON, JSON lines or parquet.

  In a work directory's cells.csv, rows whose `status` is not "ok" or whose `role` is not "grid" are left out: those are the
  proof of a plan, not the law's data. In other tables such columns, and `weight` and `epochs`, count only where they are mapped.
  `source["dropped"]` counts what is left out. Rows that repeat another in every number are kept, with a line in
  `source["notes"]`; what looks like a mistake is in `source["remarks"]`.

  Args:
    path: the file.
    columns: our name -> the file's name, such as {"params": "N[M]", "seed_tokens": "D", "loss": "eval.loss"}; see law.mapping.
      Names not given are looked for as they are. Given names must exist. "flops" gives the tokens that are not given.
    where: conditions on the file's columns that must all hold, as in "status=finished,step>1000".
    rows: "best" or "mean" of those at the same N, D, D' and domain, or "all".
    drop_missing: leave out rows in which a value is missing or the loss is not finite, instead of refusing them.
    flop_factor: training FLOPs for each parameter and token, where "flops" gives tokens; None takes 6.

  Raises:
    InputError: naming file, row and column.
  """
  path, columns, conditions = pathlib.Path(path), columns or {}, parse_where(where)
  if rows not in ("all", "best", "mean"):
    raise InputError(f"--rows={rows}: must be all, best or mean")
  if flop_factor is not None and not (np.isfinite(flop_factor) and flop_factor > 0):
    raise InputError(f"--flop_factor={flop_factor:g}: must be a positive number")
  for name in columns:
    if name not in _NAMES:
      raise InputError(f"--columns: unknown name {name!r}{nearest(name, _NAMES)}")
  reading = _Reading(path, columns, conditions)
  if flop_factor is not None and "flops" not in reading.found:
    raise InputError(f"--flop_factor={flop_factor:g} says nothing where no column gives FLOPs; map one with "
                     "--columns=flops=YOUR_COLUMN, or leave it out")
  reading.take_marks()
  reading.take_conditions()
  if drop_missing:
    reading.take_whole()
  lines, arrays = reading.converted(flop_factor or _FLOP_FACTOR)
  source = {"file": str(path), "file_hash": file_hash(path), "rows": len(reading.table.lines), "dropped": reading.dropped,
            "columns": {name: at.name for name, at in reading.found.items()}}
  cells = Cells.from_columns(arrays, source, lines)
  if rows != "all":
    kept, index = merged({name: getattr(cells, name) for name in (*REQUIRED, *OPTIONAL)}, rows)
    source["merged"] = {"rows": len(cells), "points": len(index), "by": rows}
    cells = Cells.from_columns(kept, source, [lines[i] for i in index])
  remarks = reading.remarks
  if not reading.ours:
    remarks = remarks + values.doubts(cells.params, cells.seed_tokens, cells.loss, source["columns"])
  return dataclasses.replace(cells, source={**cells.source, "remarks": remarks}) if remarks else cells


class _Reading:
  """A file's columns as they stand there, and the rows that are still in.

  Attributes:
    table: what was read of the file.
    found: where each of our quantities is.
    ours: whether the file is a work directory's cells.csv.
    dropped: how many rows were left out, by the reason.
    remarks: what looks like a mistake.
  """

  def __init__(self, path: pathlib.Path, columns: Mapping[str, str], conditions: Sequence[Condition]):
    self._path, self._conditions = path, conditions
    self._tested: list[Source] = []
    self.found: dict[str, Source] = {}
    self.dropped: dict[str, int] = {}
    self.remarks: list[str] = []

    def choose(header: list[str]) -> set[str]:
      self.found = {name: Source(name) for name in (*REQUIRED, *OPTIONAL, *LAW_DATA) if name in header}
      self.found |= {name: mapping.get(str(path), name, theirs, header) for name, theirs in columns.items()}
      if "flops" in header and "seed_tokens" not in self.found:
        self.found.setdefault("flops", Source("flops"))
      if "loss" not in self.found:
        raise InputError(f"{path}: no column 'loss'; {_remedy(set(header).difference(source.column for source in self.found.values()))}")
      self._tested = [mapping.get(str(path), f"--where={condition}", condition.column, header) for condition in conditions]
      return {source.column for source in (*self.found.values(), *self._tested)}

    self.table: Table = read_table(path, choose)
    self._keep = np.ones(len(self.table.lines), bool)
    self.ours = all(good in map(str, self.table.columns.get(name, ())) for name, good in LAW_DATA.items())
    if not self.ours:
      for name in _NAMED_ONLY:
        if name in self.found and name not in columns:
          self._set_aside(name)

  def take_marks(self) -> None:
    """Leaves out the rows that say of themselves that they are no data for a law."""
    for name, good in LAW_DATA.items():
      if name in self.found:
        seen = [str(value).strip() for value in self._values(name)]
        odd = [value for value in seen if name == "role" and value not in _ROLES]
        of_odd = f"column {self.found[name].name} has {shown(odd)}, no role of ours ({', '.join(_ROLES)})"
        remedy = f"rows of role {good} are fitted, so leave role unmapped, and choose rows with --where"
        bad = np.array([value != good for value in seen])
        if odd and not bad.all():
          self.remarks.append(f"{of_odd}: {remedy}")
        self._leave_out(bad, f"{name} is not {good}", f": {of_odd}; {remedy}" if odd else "")
        del self.found[name]

  def take_conditions(self) -> None:
    """Leaves out the rows that do not meet all conditions."""
    for condition, source in zip(self._conditions, self._tested):
      seen = mapping.values(source, self.table.columns)
      meets = np.array([condition.holds(value, self.table.decimal_comma) for value in seen])
      self._leave_out(~meets, f"not {condition}", f": none of them is {condition} (column {source.name} has {shown(seen)})")

  def take_whole(self) -> None:
    """Leaves out the rows in which a value is missing."""
    for name in self.found:
      if name not in _MAY_LACK:
        self._leave_out(np.array([_lacks(name, value) for value in self._values(name)]), f"{name} is missing")

  def converted(self, flop_factor: float) -> tuple[list[int], dict[str, list]]:
    """The lines of the rows that are in, and their values by our names and in our units."""
    picked = np.flatnonzero(self._keep)
    lines = [self.table.lines[i] for i in picked]
    read = {name: [column[i] for i in picked] for name in self.found for column in [self._values(name)]}
    numeric = [read[name] for name in read if name != "domain"]
    commas = self.table.decimal_comma and mapping.has_decimal_commas(numeric, read.get("loss", ()))
    arrays = {name: self._domains(read[name]) if name == "domain" else self._numbers(name, read[name], lines, commas)
              for name in read}
    return lines, _with_tokens(arrays, lines, str(self._path), flop_factor)

  def _values(self, name: str) -> list:
    return mapping.values(self.found[name], self.table.columns)

  def _set_aside(self, name: str) -> None:
    """Takes a column that only has one of our names for none of ours."""
    seen = self._values(name)
    del self.found[name]
    if name == "epochs" or any(source.column == name for source in self._tested):
      return
    use = ("map it where it weighs rows, --columns=weight=weight" if name == "weight" else
           f"where only some rows are measurements, keep those, as in --where={name}={commonest(seen)[0][0]}")
    self.remarks.append(f"column {name} is not used ({shown(seen)}): {use}")

  def _leave_out(self, bad: np.ndarray, why: str, all_of_them: str = "") -> None:
    count = int((bad & self._keep).sum())
    if count:
      self.dropped[why] = count
      self._keep &= ~bad
    if not self._keep.any():
      reasons = ", ".join(f"{n} ({why})" for why, n in self.dropped.items())
      raise InputError(f"{self._path}: no rows to fit{all_of_them}; left out: {reasons}")

  def _domains(self, column: list) -> list[str]:
    return ["" if mapping.is_missing(value) else str(value) for value in column]

  def _numbers(self, name: str, column: list, lines: list[int], commas: bool) -> list[float]:
    source, out = self.found[name], []
    convert = mapping.reader(name, source.unit)
    for value, line in zip(column, lines):
      if mapping.is_missing(value) and name in _MAY_LACK:
        out.append(OPTIONAL[name])
      elif mapping.is_missing(value):
        written = "" if value is None else str(value).strip()
        found = written if written.lower() == "nan" else f"missing, written as {written!r}" if written else "missing"
        raise InputError(f"{self._path}:{line}: {name} is {found} (column {source.name}); mend or remove the row, or leave out "
                         "all such rows with --drop_missing")
      else:
        try:
          out.append(convert(mapping.number(value, commas, name in _COUNTS)))
        except (TypeError, ValueError, OverflowError):
          raise InputError(f"{self._path}:{line}: {name} is {repr(value)[:40]}, not a number (column {source.name}); mend or remove "
                           f"the row, or leave such rows out, as with --where=\"{source.name}!={str(value)[:40]}\"") from None
    return out


def _remedy(others: set[str]) -> str:
  """What to do about a table without losses, by the names of its columns that are none of ours."""
  there = ", ".join(sorted(name[:40] for name in others)[:_NAMED]) + ", ..." * (len(others) > _NAMED)
  named = f"name it with --columns=loss=YOUR_COLUMN{f', one of {there}' if others else ''}"
  wide = "; where several hold losses, one of each domain, make a row of each: columns domain and loss (pandas: frame.melt)"
  return named + wide * (len(others) > 1)


def _lacks(name: str, value: Any) -> bool:
  """Whether a row has no value of a quantity; a loss that is not finite is none."""
  if mapping.is_missing(value):
    return True
  try:
    return name == "loss" and not np.isfinite(float(value))
  except (TypeError, ValueError, OverflowError):
    return False


def _with_tokens(arrays: dict[str, list], lines: Sequence[int], path: str, factor: float) -> dict[str, list]:
  """Tokens from FLOPs, where those were given: C / (factor N), less the tokens that are known."""
  if "flops" not in arrays or "params" not in arrays:
    return arrays
  if "seed_tokens" in arrays and "expert_tokens" in arrays:
    raise InputError(f"{path}: flops, seed_tokens and expert_tokens are too many; map two of them")
  flops, params = np.array(arrays.pop("flops")), np.array(arrays["params"])
  bad = np.flatnonzero(~(np.isfinite(flops) & (flops > 0) & (params > 0)))
  if len(bad):
    raise InputError(f"{path}:{lines[bad[0]]}: flops is {flops[bad[0]]:g} and params {params[bad[0]]:g}; both must be positive")
  tokens = flops / (factor * params)
  known, other = ("expert_tokens", "seed_tokens") if "expert_tokens" in arrays else ("seed_tokens", "expert_tokens")
  if known not in arrays:
    return {**arrays, "seed_tokens": tokens.tolist()}
  rest = tokens - np.array(arrays[known])
  bad = np.flatnonzero(rest < -0.01 * tokens)
  if len(bad):
    raise InputError(f"{path}:{lines[bad[0]]}: {flops[bad[0]]:g} FLOPs at {factor:g} for each parameter and token pay for "
                     f"{tokens[bad[0]]:g} tokens, fewer than {known} ({arrays[known][bad[0]]:g}); see --flop_factor and units")
  return {**arrays, other: np.where(rest < 1e-3 * tokens, 0.0, rest).tolist()}  # A rest this small is rounding.
