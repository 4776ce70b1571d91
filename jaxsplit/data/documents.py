"""Reads documents out of text files: .txt, .jsonl, .jsonl.gz and .jsonl.zst, in constant memory, with errors that name the line.

A .txt file is one document. A .jsonl file has one JSON object a line, whose field `text` is the document.
"""

from __future__ import annotations

import gzip
import json
import pathlib
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import zstandard

from jaxsplit.errors import InputError

SUFFIXES = (".txt", ".jsonl", ".jsonl.gz", ".jsonl.zst")

# A document longer than this is cut before a hash split (see `passages`). Some three pages: longer than the contexts that small
# models are trained on, short enough that a tenth of a single book is several passages from different places in it.
PASSAGE_CHARACTERS = 8 * 1024

_CHUNK_BYTES = 1 << 20


def read_documents(path: pathlib.Path) -> Iterator[str]:
  """Yields the documents of one file, in order; documents of nothing but whitespace are left out.

  Raises:
    InputError: a file that cannot be read, a broken or truncated archive, bytes that are not UTF-8, a line that is not
      a JSON object, or one without a string field `text`.
  """
  if path.name.endswith(".txt"):
    text = _decode(b"".join(_chunks(path)), str(path))
    if text.strip():
      yield text
    return
  for number, line in enumerate(_lines(_chunks(path)), start=1):
    text = _text_field(_decode(line, f"{path}:{number}"), f"{path}:{number}")
    if text.strip():
      yield text


def passages(document: str) -> Iterator[str]:
  """Cuts a long document at paragraph breaks into pieces of at most PASSAGE_CHARACTERS; joined, they are the document."""
  start = 0
  while len(document) - start > PASSAGE_CHARACTERS:
    end = start + PASSAGE_CHARACTERS
    # The last paragraph break of the second half; without one the last line, then the last word, then anywhere.
    for mark in ("\n\n", "\n", " "):
      found = document.rfind(mark, start + PASSAGE_CHARACTERS // 2, end)
      if found >= 0:
        end = found + len(mark)
        break
    yield document[start:end]
    start = end
  yield document[start:]


def _decode(data: bytes, where: str) -> str:
  try:
    return data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise InputError(f"{where}: byte {error.start} is not UTF-8; convert the file to UTF-8") from None


def _text_field(line: str, where: str) -> str:
  if not line.strip():
    return ""
  try:
    row = json.loads(line)
  except (ValueError, RecursionError) as error:
    raise InputError(f"{where}: not a JSON line ({getattr(error, 'msg', error)})") from None
  if not isinstance(row, dict):
    raise InputError(f"{where}: a {type(row).__name__} where a JSON object with a field `text` is needed")
  text = row.get("text")
  if not isinstance(text, str):
    problem = "no field `text`" if "text" not in row else f"field `text` is a {type(text).__name__}, not a string"
    raise InputError(f"{where}: {problem} (fields: {', '.join(list(row)[:8]) or 'none'})")
  try:
    text.encode()
  except UnicodeEncodeError:
    raise InputError(f"{where}: field `text` holds half a surrogate pair, which is no Unicode text; repair the line") from None
  return text


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


def _chunks(path: pathlib.Path) -> Iterator[bytes]:
  """The decompressed bytes of a file, in pieces."""
  try:
    with open(path, "rb") as file:
      if path.name.endswith(".gz"):
        with gzip.open(file) as unzipped:
          yield from iter(lambda: unzipped.read(_CHUNK_BYTES), b"")
      elif path.name.endswith(".zst"):
        yield from _zstd_chunks(file)
      else:
        yield from iter(lambda: file.read(_CHUNK_BYTES), b"")
  except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
    reason = str(error).rstrip(".") or type(error).__name__
    raise InputError(f"{path}: the archive is broken or truncated ({reason}); copy it again") from None
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def _zstd_chunks(file: BinaryIO) -> Iterator[bytes]:
  # zstandard's stream reader takes a file that stops inside a frame for a complete one, so the frames are followed here.
  # Long-range archives of large corpora have windows of up to 2 GiB, above the library's default limit.
  decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
  frame = None
  while compressed := file.read(_CHUNK_BYTES // 16):
    while compressed:
      frame = frame or decompressor.decompressobj()
      yield frame.decompress(compressed)
      compressed = frame.unused_data if frame.eof else b""
      frame = None if frame.eof else frame
  if frame is not None:
    raise zstandard.ZstdError("the last frame has no end")
