"""Reads documents out of files, in constant memory but for a .txt, with errors that name the line.

A .txt file is one document. A .jsonl, .ndjson or .json file has one JSON object a line, whose field `text` is the document; these
may be packed as .gz, .bz2, .xz or .zst. A .parquet file has one document a row, in its column `text`. Suffixes may be upper-case.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import zstandard

from jaxsplit.errors import InputError

_PACKINGS = (".gz", ".bz2", ".xz", ".zst")
_KINDS = {".txt": "text", ".jsonl": "lines", ".ndjson": "lines", ".json": "lines", ".parquet": "parquet"}
FORMATS = f"{', '.join(list(_KINDS)[:-1])} (also with {', '.join(_PACKINGS)}) or .parquet"

# A document longer than this is cut before a hash split (see `passages`). Some three pages: longer than the contexts that small
# models are trained on, short enough that a tenth of a single book is several passages from different places in it.
PASSAGE_CHARACTERS = 8 * 1024

_CHUNK_BYTES = 1 << 20
_REMEDY = "mend that, or leave the file out with Corpus.exclude"

# What stands in the place of a file that version control keeps elsewhere, and how to get the file.
_POINTERS = {
    b"version https://git-lfs.github.com/spec/v1": ("Git LFS", "git lfs pull"),
    b"/annex/objects/": ("git-annex", "git annex get")}


class Format(NamedTuple):
  """How a file is read: its name without suffix, its kind ("text", "lines" or "parquet"), and how it is packed ("" if not)."""

  stem: str
  kind: str
  packing: str


def format_of(name: str) -> Format | None:
  """The format that a file's name says; None for one that is not read."""
  lower = name.lower()
  packing = next((p for p in _PACKINGS if lower.endswith(p)), "")
  inner = lower.removesuffix(packing)
  suffix = next((s for s in _KINDS if inner.endswith(s)), None)
  if suffix is None or (packing and _KINDS[suffix] == "parquet"):
    return None
  return Format(name[:len(inner) - len(suffix)], _KINDS[suffix], packing)


def read_documents(path: pathlib.Path, digest: Any = None) -> Iterator[str]:
  """Yields the documents of one file, in order; documents of nothing but whitespace are left out.

  Args:
    path: the file.
    digest: a hash of hashlib, given the file's bytes as they lie on disk; complete when the last document is read.

  Raises:
    InputError: a file that cannot be read, a broken or truncated archive, the pointer of a file that is kept elsewhere, bytes
      that are not UTF-8, a line that is not a JSON object, or one without a string field `text`.
  """
  kind, packing = (format_of(path.name) or Format("", "lines", ""))[1:]
  check_no_pointer(path)
  if kind == "text":
    text = _decode(b"".join(_chunks(path, packing, digest)), str(path))
    if text.strip():
      yield text
  elif kind == "lines":
    for number, line in enumerate(_lines(_chunks(path, packing, digest)), start=1):
      text = _text_field(_decode(line, f"{path}:{number}"), f"{path}:{number}")
      if text.strip():
        yield text
  else:
    for text in _parquet_texts(path):
      if text.strip():
        yield text
    for chunk in _chunks(path, "", digest):  # Its columns lie apart, so it is read once more for its hash.
      del chunk


def check_no_pointer(path: pathlib.Path) -> None:
  """Raises InputError where `path` is no file of text but the note that Git LFS or git-annex leaves in its place."""
  try:
    with open(path, "rb") as file:
      start = file.read(64)
  except OSError:
    return  # Whoever reads it next will say so.
  for sign, (tool, remedy) in _POINTERS.items():
    if start.startswith(sign):
      raise InputError(f"{path}: a pointer of {tool}, not the file itself; fetch it with `{remedy}`")


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
    raise InputError(f"{where}: not a JSON line ({getattr(error, 'msg', error)}); {_REMEDY}") from None
  if not isinstance(row, dict):
    raise InputError(f"{where}: a {type(row).__name__} where a JSON object with a field `text` is needed; {_REMEDY}")
  text = row.get("text")
  if not isinstance(text, str):
    problem = "no field `text`" if "text" not in row else f"field `text` is a {type(text).__name__}, not a string"
    raise InputError(f"{where}: {problem} (fields: {', '.join(list(row)[:8]) or 'none'}); {_REMEDY}")
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


class _Hashed:
  """A file that is being read, whose bytes go to a hash as well."""

  def __init__(self, file: BinaryIO, digest: Any):
    self._file, self._digest = file, digest

  def read(self, size: int = -1) -> bytes:
    data = self._file.read(size)
    if self._digest is not None:
      self._digest.update(data)
    return data


def _chunks(path: pathlib.Path, packing: str, digest: Any) -> Iterator[bytes]:
  """The unpacked bytes of a file, in pieces."""
  try:
    with open(path, "rb") as raw:
      file = _Hashed(raw, digest)
      if packing == ".zst":
        yield from _zstd_chunks(file)
      elif packing:
        unpacked = {".gz": gzip.GzipFile, ".bz2": bz2.BZ2File, ".xz": lzma.LZMAFile}[packing]
        with unpacked(**{"fileobj" if packing == ".gz" else "filename": file}) as reader:
          yield from iter(lambda: reader.read(_CHUNK_BYTES), b"")
      else:
        yield from iter(lambda: file.read(_CHUNK_BYTES), b"")
  except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zstandard.ZstdError) as error:
    raise _broken(path, error) from None
  except OSError as error:
    if packing == ".bz2" and error.errno is None:  # The library has no error of its own for a broken archive.
      raise _broken(path, error) from None
    raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def _broken(path: pathlib.Path, error: Exception) -> InputError:
  reason = str(error).rstrip(".") or type(error).__name__
  return InputError(f"{path}: the archive is broken or truncated ({reason}); copy it again")


def _zstd_chunks(file: _Hashed) -> Iterator[bytes]:
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


def _parquet_texts(path: pathlib.Path) -> Iterator[str]:
  """The column `text`, a batch of rows at a time."""
  import pyarrow  # It takes a third of a second, which only those who have such files should wait for.
  from pyarrow import parquet

  try:
    with parquet.ParquetFile(path) as file:
      fields = {field.name: str(field.type) for field in file.schema_arrow}
      if fields.get("text") not in ("string", "large_string"):
        problem = f"column `text` is of type {fields['text']}, not of strings" if "text" in fields else "no column `text`"
        raise InputError(f"{path}: {problem} (columns: {', '.join(list(fields)[:8]) or 'none'}); {_REMEDY}")
      number = 0
      for batch in file.iter_batches(batch_size=1024, columns=["text"]):
        for value in batch.column(0):
          number += 1
          text = value.as_py()
          if text is None:
            raise InputError(f"{path}: row {number} has no text; leave the row out")
          yield text
  except UnicodeDecodeError:
    raise InputError(f"{path}: row {number} is not UTF-8; convert it to UTF-8") from None
  except (pyarrow.ArrowException, OSError) as error:
    raise InputError(f"{path}: cannot be read as parquet ({' '.join(str(error)[:160].split())}); copy it again") from None
