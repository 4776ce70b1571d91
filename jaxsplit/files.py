"""Files that are either whole or absent: atomic writing, strict JSON, content hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from jaxsplit.errors import InputError

TEMPORARY = ".tmp"  # Ends the names of files that are being written. One that stays behind is of a process that was killed.

_JSON_BYTES = 256 << 20  # What any JSON file of ours or of a tokenizer may have; more is some other file.


def from_home(path: str, where: str) -> str:
  """The path with the home folder that a leading ~ or ~user stands for. The shell does that only where ~ begins a word.

  Raises:
    InputError: there is no such user; it names `where` the path was given.
  """
  expanded = os.path.expanduser(path)
  if expanded.startswith("~"):
    user = path.partition("/")[0]
    raise InputError(f"{where}: {path}: no user has {user} for a home; give the whole path, or ./{path} for a folder of that name")
  return expanded


def write_atomic(path: str | os.PathLike, data: str | bytes) -> None:
  """Writes `data` to `path` so that a reader sees the old content or the new, never a part of it.

  Raises:
    OSError: it cannot be written; the error names `path`. A folder that is not there is not made: it may have been lost.
  """
  path = pathlib.Path(path)
  payload = data.encode() if isinstance(data, str) else data
  temporary = None
  try:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    with os.fdopen(handle, "wb") as f:
      f.write(payload)
      f.flush()
      os.fsync(f.fileno())
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
    sync_folder(path.parent)
  except BaseException as error:
    if temporary:
      pathlib.Path(temporary).unlink(missing_ok=True)
    if isinstance(error, OSError):  # Writing to a file that is open already names none.
      raise OSError(error.errno, error.strerror, str(path)) from error
    raise


def check_replaceable(path: str | os.PathLike, flag: str, key: str | None) -> None:
  """Refuses to write over what is no earlier output of the same kind.

  Args:
    path: what will be written later.
    flag: gives it.
    key: of the JSON object that will be written; None for an HTML page.

  Raises:
    InputError: a folder or another kind of file is there, the name ends as those of other kinds, or the folder that it lies in
      cannot be made; it names `flag`.
  """
  path, ending = pathlib.Path(path), ".html" if key is None else ".json"
  if path.suffix.lower() not in ("", ending):
    raise InputError(f"{flag}={path}: this is a {ending} file; name one, as in {path.with_suffix(ending)}")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
      raise InputError(f"{flag}={path}: is a folder; name a file")
    if path.exists() and path.stat().st_size and not _is_ours(path, key):
      raise InputError(f"{flag}={path}: there is another kind of file of that name, which is not written over; name a new file")
    with tempfile.TemporaryFile(dir=path.parent):  # As it will be written; permissions alone do not tell.
      pass
  except OSError as error:
    raise InputError(f"{flag}={path}: cannot be written ({error.strerror}); name a file that can be") from None


def _is_ours(path: pathlib.Path, key: str | None) -> bool:
  if key is None:
    with path.open("rb") as f:
      begins = f.read(1 << 16).lower()
    return begins.startswith(b"<!doctype html>") and b"jaxsplit" in begins
  try:
    found = read_json(path)
  except InputError:
    return False
  return isinstance(found, dict) and key in found


@contextlib.contextmanager
def naming_the_file(path: str | os.PathLike) -> Iterator[None]:
  """Makes an OSError within name `path`, where it names no file: a write to an open file on a full disk does not."""
  try:
    yield
  except OSError as error:
    if error.filename is not None or error.errno is None:
      raise
    raise OSError(error.errno, error.strerror, str(path)) from error


def sync_folder(path: pathlib.Path) -> None:
  """Returns when the names of the files in a folder are durable."""
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  except OSError as error:
    if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # Not every file system can, and needs to.
      raise
  finally:
    os.close(handle)


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes `value` as strict JSON (no NaN or infinity: they become null), atomically."""
  write_atomic(path, json.dumps(_finite(value), indent=1, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
  """Reads a JSON file; InputError names the file and the line where it breaks."""
  path = pathlib.Path(path)
  try:
    if path.stat().st_size > _JSON_BYTES:
      raise InputError(f"{path}: {path.stat().st_size:,} bytes are too many for a JSON file of this kind")
    return json.loads(path.read_text(encoding="utf-8"))
  except InputError:
    raise
  except FileNotFoundError:
    raise InputError(f"{path}: no such file") from None
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror})") from None
  except json.JSONDecodeError as error:
    raise InputError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
  except (UnicodeDecodeError, RecursionError, ValueError):
    raise InputError(f"{path}: not a JSON text") from None


def content_hash(*parts: str | bytes) -> str:
  """The first 16 hex digits of the SHA-256 of the parts, each preceded by its length."""
  digest = hashlib.sha256()
  for part in parts:
    payload = part.encode() if isinstance(part, str) else part
    digest.update(len(payload).to_bytes(8, "little"))
    digest.update(payload)
  return digest.hexdigest()[:16]


def file_hash(path: Any) -> str:
  """The first 16 hex digits of the SHA-256 of a file's bytes. The path is a string, or has an `open` as pathlib's."""
  with path.open("rb") if hasattr(path, "open") else open(path, "rb") as f:
    return hashlib.file_digest(f, "sha256").hexdigest()[:16]


def _finite(value: Any) -> Any:
  if isinstance(value, dict):
    return {str(k): _finite(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [_finite(v) for v in value]
  if hasattr(value, "tolist"):
    return _finite(value.tolist())
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
