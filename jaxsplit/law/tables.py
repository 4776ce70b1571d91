"""Reads table files (delimited text, Markdown, JSON, JSON lines, parquet) into columns of unconverted values."""

from __future__ import annotations

import collections
import csv
import itertools
import json
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from jaxsplit.errors import InputError

# A law's table has a row per trained model: anything larger is some other file.
_MAX_BYTES = 64 << 20
_MAX_ROWS = 200_000
_MAX_COLUMNS = 1000
_ONE_ROW = "give one row per trained model"
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_TEXT = {".csv": ",;\t|", ".tsv": "\t", ".txt": ",;\t| ", ".md": "|"}  # By ending: the separators that there may be, likelier first.
_IN_QUOTES = "; a value with a separator in it stands in double quotes"
_RULE = re.compile(r":?-*:?")  # Of a table in Markdown, each value of the line under its header ...
_RULE_LINE = re.compile(r"\s*\|?(\s*:?-+:?\s*\|)+(\s*:?-+:?)?\s*")  # ... and that whole line.
_KINDS = ".csv, .tsv, .txt, .md, .jsonl, .json or .parquet file"


class Table(NamedTuple):
  """Part of a file.

  Attributes:
    header: the names of all columns.
    columns: those that were asked for, by name; equal lengths.
    lines: the line of each row (parquet and JSON: its number from 1).
    decimal_comma: whether a semicolon separates values, so that a comma may stand before decimals.
  """

  header: list[str]
  columns: dict[str, list]
  lines: list[int]
  decimal_comma: bool = False


def read_table(path: pathlib.Path, choose: Callable[[list[str]], Iterable[str]]) -> Table:
  """Reads the columns that `choose` picks from the header.

  Raises:
    InputError: no such file, not a table, or one too large to be of trained models.
  """
  try:
    size = path.stat().st_size
  except OSError as error:
    raise InputError(f"{path}: {'no such file' if isinstance(error, FileNotFoundError) else error.strerror}") from None
  if path.is_dir():
    tables = sorted(one.name for one in path.iterdir() if one.suffix.lower() == ".csv")
    raise InputError(f"{path}: is a folder; give a {_KINDS}{f', as in {path / tables[0]}' if tables else ''}")
  if size > _MAX_BYTES:
    raise InputError(f"{path}: {size / 2**20:.0f} MiB is too large for a table of measured models "
                     f"(limit {_MAX_BYTES >> 20} MiB); {_ONE_ROW}")
  kind = path.suffix.lower()
  readers = {".parquet": _read_parquet, ".jsonl": _read_json_lines, ".ndjson": _read_json_lines, ".json": _read_json,
             **dict.fromkeys(_TEXT, _read_text)}
  if kind not in readers:
    raise InputError(f"{path}: give a {_KINDS}{'; unpack it first' * (kind in _PACKED)}")
  try:
    table = readers[kind](path, choose)
  except UnicodeDecodeError:
    raise InputError(f"{path}: not UTF-8 text; save it as that") from None
  if not table.lines:
    raise InputError(f"{path}: no rows{' below the header' * (kind in _TEXT)}")
  return table


def _read_text(path: pathlib.Path, choose: Callable[[list[str]], Iterable[str]]) -> Table:
  with open(path, newline="", encoding="utf-8-sig") as f:
    text = f.readlines()
  comments, text = _of_markdown(path, text) or _without_comments(text)
  separator = _separator(path, text)
  if separator == " ":
    text = [line.strip() for line in text]
  rows = lambda: _checked_rows(path, text, separator, comments)
  lines = [line for line, _ in rows()][1:]  # All of them before `choose`: in a damaged table, what it misses is no fault of its own.
  _, header = next(rows())
  places = _places(path, header, choose)
  columns = zip(*([row[i] for i in places] for _, row in itertools.islice(rows(), 1, None)))
  return Table(header, dict(zip([header[i] for i in places], map(list, columns))), lines, separator == ";")


def _checked_rows(path: pathlib.Path, text: list[str], separator: str, comments: int) -> Iterator[tuple[int, list[str]]]:
  """The line and the values of the header and each row behind it, which have as many."""
  reader = csv.reader(text, strict=True, skipinitialspace=separator != "\t", delimiter=separator)
  count = 0
  try:
    header = [name.strip() for name in next(reader, [])]
    yield comments + reader.line_num, header
    for row in reader:
      if not row or separator == "|" and not count and all(_RULE.fullmatch(value.strip()) for value in row):
        continue
      line, count = comments + reader.line_num, count + 1
      if len(row) != len(header):
        raise InputError(f"{path}:{line}: {len(row)} values under {len(header)} columns"
                         f"{_IN_QUOTES * (len(row) > len(header))}")
      if count > _MAX_ROWS:
        raise InputError(f"{path}: more than {_MAX_ROWS:,} rows; {_ONE_ROW}")
      yield line, row
  except csv.Error as error:
    raise InputError(f"{path}:{comments + reader.line_num}: not CSV ({error})") from None


def _of_markdown(path: pathlib.Path, text: list[str]) -> tuple[int, list[str]] | None:
  """A text's table in Markdown, without the prose around it, and how many lines stand above it; None where there is no such table."""
  rules = [i for i, line in enumerate(text) if _RULE_LINE.fullmatch(line)] if "|" in _TEXT[path.suffix.lower()] else []
  first = rules[0] - 1 if rules else -1
  if first < 0 or "|" not in text[first]:
    return None
  end = next((i for i in range(first, len(text)) if "|" not in text[i]), len(text))
  if another := next((i for i in rules if i > end), None):
    raise InputError(f"{path}:{another}: a second table begins here; give one a file")
  return first, text[first:end]


def _without_comments(text: list[str]) -> tuple[int, list[str]]:
  """A text's lines without those above its header that begin with #, and how many these are. The last of them is the header itself
  where what follows are numbers, as NumPy writes them."""
  count = next((i for i, line in enumerate(text) if not line.startswith("#")), 0)
  if count and re.fullmatch(r"[\d\s.,;|eE+-]+", "".join(text[count:count + 1])):
    return count - 1, [text[count - 1].lstrip("#"), *text[count:]]
  return count, text[count:]


def _separator(path: pathlib.Path, text: list[str]) -> str:
  """The character that separates values: the one that splits the header in most parts, and the next row in as many; blanks only
  where no other does."""
  head = list(itertools.islice((line.strip(" \r\n") for line in text if line.strip()), 2))
  best, most = _TEXT[path.suffix.lower()][0], 1
  for separator in _TEXT[path.suffix.lower()]:
    if separator == " " and most > 1:
      break
    try:
      header, *row = csv.reader(head, skipinitialspace=separator != "\t", delimiter=separator)
    except (csv.Error, ValueError):
      continue
    if len(header) > most and all(len(values) == len(header) for values in row[:1]):
      best, most = separator, len(header)
  return best


def _read_json_lines(path: pathlib.Path, choose: Callable[[list[str]], Iterable[str]]) -> Table:
  records, lines = [], []
  with open(path, encoding="utf-8-sig") as f:
    for number, line in enumerate(f, start=1):
      if line.strip():
        records.append(_parsed(line, f"{path}:{number}"))
        lines.append(number)
        if not isinstance(records[-1], dict):
          raise InputError(f"{path}:{number}: not a JSON object; give one for each trained model")
        if len(records) > _MAX_ROWS:
          raise InputError(f"{path}: more than {_MAX_ROWS:,} rows; {_ONE_ROW}")
  return _of_records(path, records, lines, choose)


def _read_json(path: pathlib.Path, choose: Callable[[list[str]], Iterable[str]]) -> Table:
  """A list of objects, alone or as an entry among others, or an object of columns: each a list or an object of values by row, or
  their names and all rows, as pandas writes them."""
  value = _parsed(path.read_text(encoding="utf-8-sig"), str(path))
  if isinstance(value, dict) and isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
    names, rows = value["columns"], value["data"]
    if any(not isinstance(row, list) or len(row) != len(names) for row in rows) or not all(isinstance(name, str) for name in names):
      raise InputError(f"{path}: its rows are not lists of {len(names)} values, one for each name in columns")
    value = [dict(zip(names, row)) for row in rows]
  elif isinstance(value, dict):
    records = [entry for entry in value.values() if isinstance(entry, list) and entry and all(isinstance(one, dict) for one in entry)]
    value = records[0] if len(records) == 1 else value
  if isinstance(value, dict) and value and all(isinstance(column, (list, dict)) for column in value.values()):
    columns = {name: list(column.values()) if isinstance(column, dict) else column for name, column in value.items()}
    if len(set(map(len, columns.values()))) > 1:
      raise InputError(f"{path}: its columns have {', '.join(str(len(column)) for column in columns.values())[:80]} values")
    value = [dict(zip(columns, row)) for row in zip(*columns.values())]
  if not isinstance(value, list) or not all(isinstance(record, dict) for record in value):
    raise InputError(f"{path}: give a list of JSON objects, one for each trained model, or an object of columns")
  if len(value) > _MAX_ROWS:
    raise InputError(f"{path}: more than {_MAX_ROWS:,} rows; {_ONE_ROW}")
  return _of_records(path, value, list(range(1, len(value) + 1)), choose)


def _parsed(text: str, where: str) -> Any:
  try:
    return json.loads(text)
  except json.JSONDecodeError as error:
    raise InputError(f"{where}: not JSON ({error.msg})") from None
  except (RecursionError, ValueError):
    raise InputError(f"{where}: not JSON (nested too deep, or a number too long)") from None


def _of_records(path: pathlib.Path, records: list[dict], lines: list[int], choose: Callable[[list[str]], Iterable[str]]) -> Table:
  header = list(dict.fromkeys(name for record in records for name in record))
  places = _places(path, header, choose)
  return Table(header, {header[i]: [record.get(header[i]) for record in records] for i in places}, lines)


def _read_parquet(path: pathlib.Path, choose: Callable[[list[str]], Iterable[str]]) -> Table:
  # Imported here: a law from text or from arrays needs no Arrow.
  import pyarrow
  from pyarrow import parquet
  try:
    with parquet.ParquetFile(path) as file:
      header, count = file.schema_arrow.names, file.metadata.num_rows
      if count > _MAX_ROWS:
        raise InputError(f"{path}: {count:,} rows are more than {_MAX_ROWS:,}; {_ONE_ROW}")
      chosen = [header[i] for i in _places(path, header, choose)]
      table = file.read(chosen).select(chosen)
  except InputError:
    raise
  except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
    raise InputError(f"{path}: not a whole parquet file ({str(error).split(chr(10))[0][:120]})") from None
  return Table(header, table.to_pydict(), list(range(1, table.num_rows + 1)))


def _places(path: pathlib.Path, header: Sequence[str], choose: Callable[[list[str]], Iterable[str]]) -> list[int]:
  """Where the chosen columns are in the header, in which none may be twice."""
  if not header:
    raise InputError(f"{path}: no rows")
  if len(header) > _MAX_COLUMNS:
    raise InputError(f"{path}:1: {len(header):,} columns are more than {_MAX_COLUMNS:,}; {_ONE_ROW}, with a column a quantity")
  for name, count in collections.Counter(header).items():
    if count > 1 and name:
      raise InputError(f"{path}:1: column {name[:40]!r} appears {count} times")
  chosen = set(choose(list(header)))
  return [i for i, name in enumerate(header) if name in chosen]
