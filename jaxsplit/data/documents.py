"""Reads documents out of files, in constant memory but for a .txt without a separator, with errors that name the line or row.

A document is the field `Corpus.text_key` of a JSON object (a line of .jsonl, .ndjson and .json, or an element of a .json that is
one array), of a row of a table (.parquet, .arrow) or of a tf.Example (.array_record, .tfrecord). A .txt file is one document, or
several between separators. formats.py has the suffixes.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxsplit.data.formats import READERS, format_of
from jaxsplit.data.records import Row, array_record_rows, arrow_rows, parquet_rows, tfrecord_rows
from jaxsplit.data.parsing import Located, decoded, lines, objects, texts
from jaxsplit.data.remote import AnyPath
from jaxsplit.data.token_files import Ids, passages_of, token_documents
from jaxsplit.data.unpacking import BrokenFile, check_no_pointer, unpacked
from jaxsplit.errors import InputError
from jaxsplit.passages import passages

_SKIP = "leave such documents out with Corpus.on_bad_document='skip'"
_TEXT_REMEDY = f"name it as Corpus.text_key, or {_SKIP}"
_LABEL_REMEDY = ("name a field that every document has as Corpus.domains_from, or leave the others out with "
                 "Corpus.on_bad_document='skip'")
_STREAMS = ("text", "lines", "json", "tfrecord")
_MISSING = object()


@dataclasses.dataclass(frozen=True)
class Fields:
  """Where a document lies in a record.

  Attributes:
    text: the field of its text; a dot leads into a field of fields.
    label: the field of its label, where that is wanted.
    separator: what stands between the documents of a .txt; "" where a file is one.
    ids: what the ids are, where documents are tokens already.
  """

  text: str = "text"
  label: str | None = None
  separator: str = ""
  ids: Ids | None = None


class Record(NamedTuple):
  """A document as it was read.

  Attributes:
    position: of its line, row or place in its file, from 0.
    text: the document, or its ids [n]; "" where it is bad.
    label: its label, where one is wanted.
    bad: why it cannot be read, in one line that says where; "" where it can.
  """

  position: int
  text: str | np.ndarray = ""
  label: str | None = None
  bad: str = ""

  @property
  def data(self) -> bytes:
    """The document as bytes: UTF-8, or ids as uint32."""
    return self.text.encode() if isinstance(self.text, str) else self.text.tobytes()

  @property
  def empty(self) -> bool:
    return not (self.text.strip() if isinstance(self.text, str) else len(self.text))

  def passages(self) -> list[bytes]:
    """The document as bytes, in pieces where it is long."""
    return [piece.encode() for piece in passages(self.text)] if isinstance(self.text, str) else [
        piece.tobytes() for piece in passages_of(self.text)]


def read_documents(path: AnyPath, digest: Any = None, fields: Fields = Fields()) -> Iterator[str]:
  """Yields the documents of one file, in order; documents of nothing but whitespace are left out. Raises as `read_records`, and
  InputError for whatever that yields as bad."""
  for record in read_records(path, digest, fields):
    if record.bad:
      raise InputError(record.bad)
    if not record.empty:
      yield record.text


def read_records(path: AnyPath, digest: Any = None, fields: Fields = Fields()) -> Iterator[Record]:
  """Yields the records of one file, in order, also those that have no text.

  Bad are: bytes that are not UTF-8, a line that is no JSON object, one without a string in its text field or without a label
  where that is wanted, and as the last one of a file what is lost where it is broken or truncated.

  Args:
    path: the file.
    digest: a hash of hashlib, given the file's bytes as they lie on disk; complete when the last record is read.
    fields: where documents lie in records.

  Raises:
    InputError: a file that cannot be read, or the pointer of a file that is kept elsewhere.
  """
  kind, packing = (format_of(path.name) or ("", "lines", ""))[1:]
  check_no_pointer(path)
  if fields.ids is None and kind == "tokens":
    raise InputError(f"{path}: holds tokens, not text; give Tokenization.kind='tokens', its vocab_size and its "
                     "end_of_document, or leave the file out with Corpus.exclude")
  if fields.ids is not None and kind == "text":
    raise InputError(f"{path}: holds text, where Tokenization.kind='tokens' needs ids; leave the file out with Corpus.exclude")
  position = 0
  try:
    if kind in _STREAMS:
      chunks = unpacked(path, packing, digest)
      if kind == "text":
        records = (Record(at, bad=str(text)) if isinstance(text, InputError) else Record(at, text)
                   for at, text in enumerate(texts(path, chunks, fields.separator)))
      else:
        records = _records({"lines": lines, "json": objects, "tfrecord": _examples}[kind](path, chunks), fields)
    else:
      records = _tokens(path, fields) if kind == "tokens" else _records(_rows(path, kind, fields), fields)
    for record in records:
      position = record.position + 1
      yield record
  except BrokenFile as error:
    yield Record(position, bad=str(error))
  if kind not in _STREAMS:
    chunks = unpacked(path, "", digest)  # Its parts do not lie in order, so it is read once more for its hash.
  with contextlib.suppress(BrokenFile):
    collections.deque(chunks, maxlen=0)


def _examples(path: AnyPath, chunks: Iterator[bytes]) -> Iterator[Located]:
  return _located(path, tfrecord_rows(path, chunks))


def _located(path: AnyPath, rows: Iterator[Row]) -> Iterator[Located]:
  return (Located(position, f"{path}: row {position + 1}", row) for position, row in enumerate(rows))


def _rows(path: AnyPath, kind: str, fields: Fields) -> Iterator[Located]:
  """The rows of a file that is no stream of bytes."""
  if kind in READERS:
    return _located(path, _own_rows(path, kind))
  keys = [key for key in (fields.text, fields.label) if key]
  if kind == "array_record":
    return _located(path, array_record_rows(path))
  return _located(path, {"parquet": parquet_rows, "arrow": arrow_rows}[kind](path, keys, not fields.ids))


def _own_rows(path: AnyPath, kind: str) -> Iterator[Row]:
  """What a reader of the user's own gives."""
  number = 0
  try:
    for row in READERS[kind](path):
      yield row if isinstance(row, Mapping) else InputError(
          f"{path}: row {number + 1} is a {type(row).__name__}, where the reader of {kind} has to give fields; mend the reader")
      number += 1
  except Exception as error:  # Whatever it raises.
    raise BrokenFile(f"{path}: row {number + 1}: the reader of {kind} says {type(error).__name__}: {error}; mend the file, or "
                     "the reader") from None


def _tokens(path: AnyPath, fields: Fields) -> Iterator[Record]:
  """The documents of a file of tokens."""
  if fields.label:
    raise InputError(f"{path}: a file of tokens has no field {fields.label}; leave it out with Corpus.exclude")
  for position, ids in enumerate(token_documents(path, fields.ids)):
    yield _checked(position, lambda: Record(position, fields.ids.checked(ids, f"{path}: document {position + 1}")))


def _records(located: Iterator[Located], fields: Fields) -> Iterator[Record]:
  for position, where, row in located:
    yield Record(position, bad=str(row)) if isinstance(row, InputError) else _checked(
        position, lambda: _record(position, row, fields, where))


def _checked(position: int, record: Callable[[], Record]) -> Record:
  """The record, or what is wrong with it as one that is bad."""
  try:
    return record()
  except InputError as error:
    return Record(position, bad=str(error))


def _record(position: int, row: Mapping[str, Any], fields: Fields, where: str) -> Record:
  text = _string(row, fields.text, where, _TEXT_REMEDY) if fields.ids is None else fields.ids.checked(
      _present(row, fields.text, where, _TEXT_REMEDY), where)
  label = None
  if fields.label is not None:
    value = _value(row, fields.label)
    label = str(value) if isinstance(value, int) and not isinstance(value, bool) else _string(
        row, fields.label, where, _LABEL_REMEDY)
  return Record(position, text, label)


def _present(row: Mapping[str, Any], key: str, where: str, remedy: str) -> Any:
  value = _value(row, key)
  if value is _MISSING:
    raise InputError(f"{where}: no field `{key}` (fields: {', '.join(list(row)[:8]) or 'none'}); {remedy}")
  return value


def _string(row: Mapping[str, Any], key: str, where: str, remedy: str) -> str:
  value = _present(row, key, where, remedy)
  if isinstance(value, bytes):
    return decoded(value, where)
  if not isinstance(value, str):
    kind = "null" if value is None else f"a {type(value).__name__}"
    raise InputError(f"{where}: field `{key}` is {kind}, not a string (fields: {', '.join(list(row)[:8])}); "
                     f"{_SKIP if value is None else remedy}")
  try:
    value.encode()
  except UnicodeEncodeError:
    raise InputError(f"{where}: field `{key}` holds half a surrogate pair, which is no Unicode text; repair the line") from None
  return value


def _value(row: Mapping[str, Any], key: str) -> Any:
  """A field by its name, or by the names that lead to it."""
  if key in row:
    return row[key]
  first, dot, rest = key.partition(".")
  inner = row.get(first) if dot else None
  return _value(inner, rest) if isinstance(inner, Mapping) else _MISSING
