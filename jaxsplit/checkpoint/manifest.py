"""A snapshot's manifest, written last and checked when read: facts about its arrays, and the size and SHA-256 of every file of them.
A snapshot exists once its manifest does.

TensorStore checks its own indexes, but not the arrays: a bit flipped there would be read back as another number.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxsplit.errors import InputError
from jaxsplit.files import content_hash, read_json, sync_folder, write_json

VERSION = 2
MANIFEST = "snapshot.json"


def write_manifest(folder: pathlib.Path, about: Mapping[str, Any]) -> dict[str, Any]:
  """Commits the snapshot in `folder`, once the disk has all of its files; returns what was written.

  Args:
    folder: of the snapshot; its arrays' files are under state/.
    about: JSON facts.
  """
  files = {path.relative_to(folder / "state").as_posix(): _digest(path, durable=True) for path in _files(folder / "state")}
  for inner in {path.parent for path in _files(folder / "state")}:
    sync_folder(inner)
  manifest = {"version": VERSION, "about": dict(about), "files": files}
  write_json(folder / MANIFEST, {**manifest, "check": _check(manifest)})
  sync_folder(folder.parent)
  return read_json(folder / MANIFEST)


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
  """A snapshot's manifest, every byte of the snapshot checked. InputError says in what the snapshot does not fit it."""
  manifest = read_json(folder / MANIFEST)
  if not isinstance(manifest, dict) or manifest.get("check") != _check({k: v for k, v in manifest.items() if k != "check"}):
    raise InputError(f"{MANIFEST} does not fit its own hash")
  if manifest.get("version") != VERSION:
    raise InputError(f"{MANIFEST} is of another version")
  there = {path.relative_to(folder / "state").as_posix(): path for path in _files(folder / "state")}
  for name in sorted(manifest["files"].keys() | there.keys()):
    if name not in there:
      raise InputError(f"state/{name} is missing")
    if name not in manifest["files"]:
      raise InputError(f"state/{name} is not of it")
    size, _ = expected = manifest["files"][name]
    if there[name].stat().st_size != size:
      raise InputError(f"state/{name} has {there[name].stat().st_size} bytes instead of {size}")
    if _digest(there[name]) != expected:
      raise InputError(f"state/{name} has other bytes than were written")
  return manifest


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(path for path in folder.rglob("*") if path.is_file())


def _digest(path: pathlib.Path, durable: bool = False) -> list:
  """[bytes, SHA-256] of a file; `durable` also waits until the disk has it."""
  with path.open("rb") as f:
    if durable:
      os.fsync(f.fileno())
    return [os.fstat(f.fileno()).st_size, hashlib.file_digest(f, "sha256").hexdigest()]


def _check(manifest: Mapping[str, Any]) -> str:
  return content_hash(json.dumps(manifest, sort_keys=True))
