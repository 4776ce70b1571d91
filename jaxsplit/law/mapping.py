"""Maps a table's columns to ours, with their units and number formats.

A column is named as it is in the file; `NAME[UNIT]` gives its unit, and `NAME.KEY` the entry of that key where the column holds
mappings (nested JSON, or the dictionaries that experiment trackers write into a cell).
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxsplit.errors import InputError, nearest

_COUNTS = {"k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18, "PF-days": 8.64e19}
_LOSSES = {"nats": lambda loss: loss, "bits": lambda loss: loss * math.log(2),
           "ppl": lambda loss: math.log(loss) if loss > 0 else math.nan}
_SUFFIXES = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
_NUMPY = re.compile(r"\bnp\.\w+\(([^()]*)\)")  # As Python writes NumPy's numbers, within a dictionary.
_NO_NUMBER = re.compile(r"(?<=[:,\[(\s])[-+]?(?:nan|inf)(?=\s*[,\])}])")
_MISSING = ("", "nan", "na", "n/a", "none", "null", "-", "\u2013", "\u2014")
_PAIR = re.compile(r"\s*(\w+)\s*=\s*(.*?)\s*", re.DOTALL)
_SPACES = " \u00a0\u202f_'"
QUOTED = r'"(?:[^"]|"")*"'  # A name in double quotes; those within it are doubled, as in a table's own text.


class Source(NamedTuple):
  """Where a quantity is read from: the file's column, a key within it or "", and the unit as it was given or ""."""

  column: str
  key: str = ""
  unit: str = ""

  @property
  def name(self) -> str:
    """As a user would write it."""
    unit = f"[{self.unit}]" if self.unit and not self.column.endswith(f"[{self.unit}]") else ""
    return f"{self.column}{f'.{self.key}' if self.key else ''}{unit}"


def parse_columns(text: str | None) -> dict[str, str]:
  """`params=N[M],loss=L` as a mapping. A name with commas may be written as it is, or in double quotes.

  Raises:
    InputError: a part that is not NAME=COLUMN, or a name that stands twice.
  """
  pairs: list[tuple[str, str]] = []
  for part in split_list(text or ""):
    match = _PAIR.fullmatch(part)
    if match and match[2]:
      pairs.append((match[1], match[2]))
    elif pairs and not match:  # The rest of a name with a comma.
      pairs[-1] = (pairs[-1][0], f"{pairs[-1][1]},{part.rstrip()}")
    else:
      raise InputError(f"--columns: {part.strip()!r} is not NAME=COLUMN, as in params=N")
  for i, (name, theirs) in enumerate(pairs):
    if name in dict(pairs[:i]):
      raise InputError(f"--columns: {name} is given twice, {name}={dict(pairs[:i])[name]} and {name}={theirs}; keep one")
  return {name: unquoted(theirs) for name, theirs in pairs}


def split_list(text: str) -> list[str]:
  """The parts between commas that stand outside double quotes; empty ones are none."""
  return [part for part in re.findall(rf'(?:{QUOTED}|[^,"]|")+', text) if part.strip()]


def unquoted(name: str) -> str:
  """A name without the double quotes around it, those within it written once; a unit may follow them."""
  match = re.fullmatch(rf'({QUOTED})(\[[^\]]*\])?', name.strip())
  return match[1][1:-1].replace('""', '"') + (match[2] or "") if match else name


def find(name: str, header: Sequence[str]) -> Source | None:
  """Where the column that a user names is; None if it is nowhere. One whose own name ends in a unit that we know is in it."""
  unit = re.fullmatch(r"(.*?)\s*\[([^\[\]]*)\]", name, re.DOTALL)
  if name in header:
    return Source(name)._replace(unit=unit[2].strip() if unit and unit[2].strip() in (*_COUNTS, *_LOSSES) else "")
  if unit and (source := find(unit[1], header)):
    return source._replace(unit=unit[2].strip())
  for dot in (i for i, letter in enumerate(name) if letter == "."):
    if name[:dot] in header:
      return Source(name[:dot], name[dot + 1:])
  return None


def get(where: str, name: str, theirs: str, header: Sequence[str]) -> Source:
  """`find`, or one line on what there is instead. `name` is what the column stands for."""
  source = find(theirs, header)
  if source is None:
    raise InputError(f"{where}: no column {theirs[:80]!r} (for {name}){nearest(theirs, [known[:40] for known in header])}")
  return source


def values(source: Source, columns: Mapping[str, list]) -> list:
  """A source's values as they stand in the file, None where a mapping has no such key."""
  column = columns[source.column]
  return [_entry(value, source.key) for value in column] if source.key else column


def is_missing(value: Any) -> bool:
  """Whether a value says that there is none."""
  return value is None or (isinstance(value, float) and math.isnan(value)) or (
      isinstance(value, str) and value.strip().lower() in _MISSING)


def reader(name: str, unit: str) -> Any:
  """The function from a number in the column's unit to ours.

  Raises:
    InputError: a unit that is none of this quantity's.
  """
  try:
    factor = float(unit) if unit else 1.0
  except ValueError:
    factor = math.nan
  if factor > 0 and math.isfinite(factor):
    return lambda number: number * factor
  if name == "loss" and unit in _LOSSES:
    return _LOSSES[unit]
  if name != "loss" and unit in _COUNTS:
    return lambda number: number * _COUNTS[unit]
  known = ", ".join(_LOSSES if name == "loss" else _COUNTS)
  raise InputError(f"--columns: {name} in [{unit[:40]}]: give a unit of {known}, or a number such as [1e9]")


def number(value: Any, decimal_comma: bool = False, suffixes: bool = False) -> float:
  """The number that a cell of a table holds, with or without separators of thousands.

  Args:
    value: a number or text.
    decimal_comma: a comma may stand before decimals.
    suffixes: K, M, B, G and T may stand behind.

  Raises:
    ValueError, TypeError, OverflowError: it holds none.
  """
  if not isinstance(value, str):
    return float(value)
  text, factor = value.strip(), 1.0
  if suffixes and text[-1:].lower() in _SUFFIXES:
    text, factor = text[:-1].rstrip(), _SUFFIXES[text[-1].lower()]
  dot, comma = (",", ".") if decimal_comma else (".", ",")
  body, exponent = re.fullmatch(r"(.*?)([eE][+-]?\d+)?", text, re.DOTALL).groups()
  thousands = rf"[+-]?\d{{1,3}}([{comma}{_SPACES}]\d{{3}})+({re.escape(dot)}\d*)?"
  if re.fullmatch(thousands, body):
    body = re.sub(rf"[{comma}{_SPACES}]", "", body)
  if decimal_comma:
    body = body.replace(",", ".")
  return float(body + (exponent or "")) * factor


def flag_number(name: str, text: str) -> float:
  """The number that a flag was given, as in 3e6 or 1.2B.

  Raises:
    InputError: it is none.
  """
  try:
    return number(text, suffixes=True)
  except ValueError:
    raise InputError(f"--{name}={text[:80]}: must be a number, as in 3e6 or 1.2B") from None


def has_decimal_commas(columns: Sequence[Sequence[Any]], losses: Sequence[Any]) -> bool:
  """Whether commas in numbers of a file with semicolons stand before decimals, and not between thousands."""
  texts = [value.strip() for column in columns for value in column if isinstance(value, str)]
  if any(re.fullmatch(r"[+-]?\d+\.\d+(e.*)?", text, re.IGNORECASE) for text in texts):
    return False
  sure = re.compile(r"[+-]?(\d*,(\d{1,2}|\d{4,})|0,\d+|\d{4,},\d+)(e[+-]?\d+)?", re.IGNORECASE)
  return any(sure.fullmatch(text) for text in texts) or any("," in str(value) for value in losses)


def _entry(value: Any, key: str) -> Any:
  """What a mapping, or the text of one, holds under a key, which may lead through mappings in it."""
  if isinstance(value, str):
    value = _NUMPY.sub(r"\1", value)
    for read in (json.loads, lambda text: ast.literal_eval(_NO_NUMBER.sub("None", text))):
      try:
        value = read(value)
        break
      except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        continue
  if not isinstance(value, dict):
    return None
  if key in value:
    found = value[key]
    return found["value"] if isinstance(found, dict) and "value" in found else found  # As Weights & Biases writes settings.
  for dot in (i for i, letter in enumerate(key) if letter == "."):
    if key[:dot] in value:
      return _entry(value[key[:dot]], key[dot + 1:])
  return None
