"""Streaming decompression of .gz, .bz2, .xz and .zst files, of any number of members or frames; plain files too."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import zstandard

from jaxsplit.data.remote import AnyPath
from jaxsplit.errors import InputError

CHUNK_BYTES = 1 << 20

# What stands in the place of a file that version control keeps elsewhere, and how to get the file.
_POINTERS = {
    b"version https://git-lfs.github.com/spec/v1": ("Git LFS", "git lfs pull"),
    b"/annex/objects/": ("git-annex", "git annex get")}


class BrokenFile(InputError):
  """A file that ends, or stops making sense, before its end: what comes behind is lost."""


def check_no_pointer(path: AnyPath) -> None:
  """Raises InputError where `path` is no file of text but the note that Git LFS or git-annex leaves in its place."""
  try:
    with path.open("rb") as file:
      start = file.read(64)
  except OSError:
    return  # Whoever reads it next will say so.
  for sign, (tool, remedy) in _POINTERS.items():
    if start.startswith(sign):
      raise InputError(f"{path}: a pointer of {tool}, not the file itself; fetch it with `{remedy}`")


def unpacked(path: AnyPath, packing: str, digest: Any = None) -> Iterator[bytes]:
  """The unpacked bytes of a file, in pieces.

  Args:
    path: the file.
    packing: its suffix, "" for none.
    digest: a hash of hashlib, given the file's bytes as they lie on disk; complete at the end, and where the file is broken too.

  Raises:
    BrokenFile: a broken or truncated archive.
    InputError: a file that cannot be read.
  """
  try:
    with path.open("rb") as raw:
      file = _Hashed(raw, digest)
      try:
        if packing == ".zst":
          yield from _zstd_chunks(file)
        elif packing:
          reader = {".gz": gzip.GzipFile, ".bz2": bz2.BZ2File, ".xz": lzma.LZMAFile}[packing]
          with reader(**{"fileobj" if packing == ".gz" else "filename": file}) as members:
            # As much as one step unpacks: `read` would lose what it had before a break, up to a whole chunk.
            yield from iter(lambda: members.read1(CHUNK_BYTES), b"")
        else:
          yield from iter(lambda: file.read(CHUNK_BYTES), b"")
      except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zstandard.ZstdError) as error:
        raise _broken(path, file, error) from None
      except OSError as error:
        if packing == ".bz2" and error.errno is None:  # The library has no error of its own for a broken archive.
          raise _broken(path, file, error) from None
        raise
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


class _Hashed:
  """A file that is being read, whose bytes go to a hash as well."""

  def __init__(self, file: BinaryIO, digest: Any):
    self._file, self._digest = file, digest

  def read(self, size: int = -1) -> bytes:
    try:
      data = self._file.read(size)
    except OSError:
      raise
    except Exception as error:  # File systems elsewhere have errors of their own.
      raise OSError(errno.EIO, f"{type(error).__name__}: {' '.join(str(error)[:160].split())}") from None
    if self._digest is not None:
      self._digest.update(data)
    return data


def _broken(path: AnyPath, file: _Hashed, error: Exception) -> BrokenFile:
  while file.read(CHUNK_BYTES):  # For the hash.
    pass
  reason = str(error).rstrip(".") or type(error).__name__
  return BrokenFile(f"{path}: the archive is broken or truncated ({reason}); copy it again")


def _zstd_chunks(file: _Hashed) -> Iterator[bytes]:
  # zstandard's stream reader takes a file that stops inside a frame for a complete one, so the frames are followed here.
  # Long-range archives of large corpora have windows of up to 2 GiB, above the library's default limit.
  decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
  frame = None
  while compressed := file.read(CHUNK_BYTES // 16):
    while compressed:
      frame = frame or decompressor.decompressobj()
      yield frame.decompress(compressed)
      compressed = frame.unused_data if frame.eof else b""
      frame = None if frame.eof else frame
  if frame is not None:
    raise zstandard.ZstdError("the last frame has no end")
