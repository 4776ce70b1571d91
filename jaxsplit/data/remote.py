"""Remote paths: fsspec's file systems behind the few methods of pathlib that are needed."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from jaxsplit.errors import InputError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class Entry(NamedTuple):
  """What lies in a folder: its name, whether it is a folder, and its bytes."""

  name: str
  folder: bool
  bytes: int


class RemotePath:
  """A path of an fsspec file system, such as gs://bucket/folder.

  Args:
    system: the file system.
    path: within it.
  """

  def __init__(self, system: Any, path: str):
    self.system, self.path = system, path.rstrip("/")

  def __truediv__(self, name: str) -> RemotePath:
    return RemotePath(self.system, f"{self.path}/{name}" if name else self.path)

  def __str__(self) -> str:
    return self.system.unstrip_protocol(self.path)

  @property
  def name(self) -> str:
    return self.path.rpartition("/")[2]

  def open(self, mode: str = "rb") -> BinaryIO:
    """Opens the file for reading."""
    with self._reached():
      return self.system.open(self.path, mode)

  def is_dir(self) -> bool:
    with self._reached():
      return self.system.isdir(self.path)

  def is_file(self) -> bool:
    with self._reached():
      return self.system.isfile(self.path)

  def size(self) -> int:
    """The file's bytes; 0 where the file system cannot tell."""
    with self._reached():
      return int(self.system.size(self.path) or 0)

  def entries(self) -> list[Entry]:
    """What lies in the folder, by name."""
    with self._reached():
      found = self.system.ls(self.path, detail=True)
    names = ((one["name"].rstrip("/").rpartition("/")[2], one) for one in found)
    return sorted(Entry(name, one["type"] == "directory", int(one.get("size") or 0)) for name, one in names
                  if name and one["name"].strip("/") != self.path.strip("/"))

  def glob(self, pattern: str) -> list[str]:
    """The paths within the file system of what in this folder matches."""
    with self._reached():
      return self.system.glob(f"{self.path}/{pattern}")

  def changed(self) -> str:
    """What is another where the file was written anew, as far as the file system can tell."""
    with self._reached():
      info = self.system.info(self.path)
    return "; ".join(str(info[key]) for key in ("etag", "ETag", "generation", "mtime", "LastModified", "created") if key in info)

  @contextlib.contextmanager
  def _reached(self) -> Iterator[None]:
    """Has errors of any file system be one line: each has exceptions of its own."""
    try:
      yield
    except FileNotFoundError:
      raise InputError(f"{self}: no such file or folder") from None
    except Exception as error:
      raise InputError(f"{self}: cannot be reached ({type(error).__name__}: {' '.join(str(error)[:160].split())})") from None


AnyPath = pathlib.Path | RemotePath


def is_url(path: str) -> bool:
  return _URL.match(path) is not None


def remote_path(url: str) -> RemotePath:
  """The path of a URL; InputError where fsspec knows no such protocol, or lacks a package for it."""
  import fsspec  # Only those who have such paths wait for it.

  try:
    return RemotePath(*fsspec.core.url_to_fs(url))
  except Exception as error:  # Whatever a file system's package raises.
    raise InputError(f"Corpus.path: {url}: cannot be reached ({' '.join(str(error)[:200].split())})") from None


def changed(path: AnyPath) -> Any:
  """What is another where a file was written anew: of a local one its time."""
  return path.changed() if isinstance(path, RemotePath) else path.stat().st_mtime_ns


def folders(path: AnyPath) -> list[str]:
  """The names of the folders in a folder, sorted."""
  if isinstance(path, RemotePath):
    return [entry.name for entry in path.entries() if entry.folder]
  return sorted(one.name for one in path.iterdir() if one.is_dir())


@contextlib.contextmanager
def on_disk(path: AnyPath) -> Iterator[str]:
  """The name of a local file of the same content, for libraries that read no other; a copy is deleted at the end."""
  if not isinstance(path, RemotePath):
    yield str(path)
    return
  handle, copy = tempfile.mkstemp(suffix=path.name[-50:])
  try:
    with path.open("rb") as source, os.fdopen(handle, "wb") as target:
      shutil.copyfileobj(source, target, 1 << 20)
    yield copy
  finally:
    os.unlink(copy)
