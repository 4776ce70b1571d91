"""Streaming parsers of text and JSON, in constant memory, that know the line or element number of every document."""

from __future__ import annotations

import codecs
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from jaxsplit.data.records import Row
from jaxsplit.data.remote import AnyPath
from jaxsplit.data.unpacking import BrokenFile
from jaxsplit.errors import InputError

_REMEDY = "mend that, or leave the file out with Corpus.exclude"
_BEFORE_JSON = b"\xef\xbb\xbf \t\r\n"
_BETWEEN = re.compile(r"\s*,?\s*")  # Elements of an array.
_ELEMENT_MAX = 1 << 26  # Characters.


class Located(NamedTuple):
  """A row, with its position in its file, from 0, and where that is for a reader."""

  position: int
  where: str
  row: Row


def texts(path: AnyPath, chunks: Iterator[bytes], separator: str) -> Iterator[str | InputError]:
  """The documents of a text file. Where it has separators, bytes that are not UTF-8 end it, as one may be lost in them."""
  if not separator:
    data = b"".join(chunks)
    try:
      yield decoded(data, str(path), "utf-8-sig")
    except InputError as error:
      yield error
    return
  pending = ""
  for text in _characters(path, chunks):
    *whole, pending = (pending + text).split(separator)
    yield from whole
  if pending:
    yield pending


def lines(path: AnyPath, chunks: Iterator[bytes]) -> Iterator[Located]:
  """The JSON objects of lines; blank lines count for positions."""
  for position, line in enumerate(_lines(chunks)):
    if line.strip():
      where = f"{path}:{position + 1}"
      try:
        yield Located(position, where, _object(decoded(line, where, "utf-8-sig"), where))
      except InputError as error:
        yield Located(position, where, error)


def objects(path: AnyPath, chunks: Iterator[bytes]) -> Iterator[Located]:
  """The elements of an array, or the objects of lines: a .json may be either."""
  start = b""
  for chunk in chunks:
    start += chunk
    if start.lstrip(_BEFORE_JSON):
      break
  array = start.lstrip(_BEFORE_JSON)
  if array.startswith(b"["):
    yield from _of_array(path, itertools.chain([array[1:]], chunks))
  else:
    yield from lines(path, itertools.chain([start], chunks))


def _of_array(path: AnyPath, chunks: Iterator[bytes]) -> Iterator[Located]:
  """The elements of an array, from behind its bracket; it is never whole in memory. One that is no JSON ends it, as where the next
  begins is then unknown."""
  decode, pending, position, wanted = json.JSONDecoder().raw_decode, "", 0, 1
  following = itertools.chain(_characters(path, chunks), [None])
  for text in following:
    pending += text or ""
    if len(pending) < wanted and text is not None:
      continue
    at = 0
    while True:
      at = _BETWEEN.match(pending, at).end()
      where = f"{path}: element {position + 1}"
      if pending.startswith("]", at):
        if pending[at + 1:].strip() or any((text or "").strip() for text in following):
          raise BrokenFile(f"{path}: there is more behind its array, which is not read; have one JSON array or one object a line")
        return
      try:
        value, at = decode(pending, at)
      except (ValueError, RecursionError) as error:
        if text is None or len(pending) > _ELEMENT_MAX:  # Else the rest of it may not have been read yet.
          raise BrokenFile(f"{where}: not JSON ({getattr(error, 'msg', error)}); {_REMEDY}") from None
        break
      try:
        yield Located(position, where, _mapping(value, where))
      except InputError as error:
        yield Located(position, where, error)
      position += 1
    pending = pending[at:]
    wanted = 2 * len(pending)


def decoded(data: bytes, where: str, encoding: str = "utf-8") -> str:
  """Bytes as text; InputError, which begins with `where`, for what is not UTF-8."""
  try:
    return data.decode(encoding)
  except UnicodeDecodeError as error:
    raise InputError(f"{where}: byte {error.start} is not UTF-8; convert the file to UTF-8") from None


def _characters(path: AnyPath, chunks: Iterator[bytes]) -> Iterator[str]:
  """Bytes as text, whatever characters the pieces cut."""
  decoder, offset = codecs.getincrementaldecoder("utf-8-sig")(), 0
  for chunk in itertools.chain(chunks, [b""]):
    begun = len(decoder.getstate()[0])
    try:
      yield decoder.decode(chunk, final=not chunk)
    except UnicodeDecodeError as error:
      yield error.object[:error.start].decode("utf-8-sig")
      raise BrokenFile(f"{path}: byte {offset - begun + error.start} is not UTF-8; convert the file to UTF-8") from None
    offset += len(chunk)


def _object(line: str, where: str) -> Mapping[str, Any]:
  try:
    return _mapping(json.loads(line), where)
  except InputError:
    raise
  except (ValueError, RecursionError) as error:
    raise InputError(f"{where}: not a JSON line ({getattr(error, 'msg', error)}); {_REMEDY}") from None


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
  if not isinstance(value, dict):
    raise InputError(f"{where}: a {type(value).__name__} where a JSON object is needed; {_REMEDY}")
  return value


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
  """Splits a stream of bytes at line feeds; a line may span any number of chunks."""
  pending: list[bytes] = []
  for chunk in chunks:
    first, *rest = chunk.split(b"\n")
    pending.append(first)
    if rest:
      yield b"".join(pending)
      yield from rest[:-1]
      pending = [rest[-1]]
  if any(pending):
    yield b"".join(pending)
