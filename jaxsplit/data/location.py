"""Resolves `Corpus.path` to a folder and the parts of it that are searched for files.

A path that is there as it is written is that folder or file. Any other is a pattern: braces are expanded ({law,med}, {00..12},
{00000..00127}), then * ? [] and ** are matched, and whatever has no match is an error. The folder of a pattern is the last one
before its first * ? [ or {; names of domains are those within it, without the numbers that a range of braces stands for.
"""

from __future__ import annotations

import fnmatch
import glob
import importlib.resources
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from jaxsplit.data.corpus import Corpus, real
from jaxsplit.data.remote import AnyPath, RemotePath, folders, is_url, remote_path
from jaxsplit.errors import InputError, nearest
from jaxsplit.files import from_home

_TFDS = "tfds:"
_TFDS_FORMATS = ("array_record", "tfrecord", "parquet")
_TFDS_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_MAGIC = re.compile(r"[*?[{]")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_EXPANDED_MAX = 100_000  # Paths that braces may stand for.


class Location(NamedTuple):
  """Where the files of a corpus lie.

  Attributes:
    root: the folder that paths of the corpus are within.
    starts: the files and folders in it that are looked at, as paths within; ("",) for the whole folder.
    names: of files that a range of braces has named, their paths without its numbers.
  """

  root: AnyPath
  starts: tuple[str, ...] = ("",)
  names: Mapping[str, str] = {}


def locate(corpus: Corpus) -> Location:
  """Where the files of a corpus lie; InputError where there are none of that path."""
  if corpus.path == "bundled":
    return Location(pathlib.Path(str(importlib.resources.files("jaxsplit.data") / "bundled")))
  if corpus.path.startswith(_TFDS):
    return _tfds(corpus)
  path = corpus.path if is_url(corpus.path) else from_home(corpus.path, "Corpus.path")
  there = _path(path)
  if there.is_file():
    folder, _, name = path.rpartition("/")
    return Location(_path(folder or ("/" if path.startswith("/") else ".")), (name,))
  if there.is_dir():
    return Location(there)
  if not _MAGIC.search(path.partition("://")[2] or path):
    raise InputError(f"Corpus.path: {'neither a file nor a folder' if _exists(there) else 'no such folder'}: {corpus.path}"
                     f"{_nearest(there)}")
  return _matched(path)


def _path(path: str) -> AnyPath:
  return remote_path(path) if is_url(path) else pathlib.Path(path)


def _exists(path: AnyPath) -> bool:
  return isinstance(path, pathlib.Path) and path.exists()


def _nearest(path: AnyPath) -> str:
  if isinstance(path, RemotePath):
    return ""
  try:
    return nearest(path.name, [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else [])
  except OSError:
    return ""


def _matched(pattern: str) -> Location:
  folder = pattern[:_MAGIC.search(pattern, pattern.find("://") + 3 if is_url(pattern) else 0).start()].rpartition("/")
  prefix = folder[0] + folder[1]
  root = _path(folder[0] or ("/" if folder[1] else "."))
  starts: dict[str, None] = {}
  names = {}
  for path, unnumbered in expanded(pattern):
    found = [path] if not _MAGIC.search(path, len(prefix)) and _there(path) else _glob(path, prefix, root)
    if not found:
      raise InputError(f"Corpus.path: no file or folder matches {path}; mend the path, or the range of its braces")
    for one in found:
      inside = one.removeprefix(prefix).rstrip("/")
      starts[inside] = None
      name = re.sub(r"[-_.]+(?=\.|$)", "", unnumbered.removeprefix(prefix))
      if unnumbered != path and found == [path] and re.search(r"(^|/)[^/.]+[^/]*$", name):
        names[inside] = name
  return Location(root, tuple(starts), names)


def may_match(pattern: str, folder: pathlib.Path) -> bool:
  """Whether a pattern of paths on this machine could match something within a folder, whatever will lie there."""
  for path, _ in expanded(pattern):
    magic = _MAGIC.search(path)
    if magic is None:
      continue
    fixed = path[:magic.start()].rpartition("/")[0]
    root = real(fixed or ("/" if path.startswith("/") else "."))
    if root in (folder, *folder.parents) and _leads(tuple(path[len(fixed):].strip("/").split("/")), folder.relative_to(root).parts):
      return True
  return False


def _leads(pattern: tuple[str, ...], names: tuple[str, ...]) -> bool:
  """Whether some path below folders of these names matches, or lies in what matches."""
  if not pattern or not names:
    return True
  if pattern[0] == "**":
    return _leads(pattern[1:], names) or _leads(pattern, names[1:])
  return fnmatch.fnmatchcase(names[0], pattern[0]) and _leads(pattern[1:], names[1:])


def _there(path: str) -> bool:
  there = _path(path)
  return there.is_file() or there.is_dir()


def _glob(pattern: str, prefix: str, root: AnyPath) -> list[str]:
  """What matches, each beginning with the prefix as it was given."""
  if not isinstance(root, RemotePath):
    return sorted(glob.glob(pattern, recursive=True))
  return sorted(prefix + found.removeprefix(f"{root.path}/") for found in root.glob(pattern.removeprefix(prefix)))


def expanded(pattern: str) -> Iterator[tuple[str, str]]:
  """The paths that braces stand for, each also as it is without the numbers of ranges."""
  paths = [(pattern, pattern)]
  while braces := _BRACES.search(paths[0][0]):
    bounds = _RANGE.fullmatch(braces[1])
    if bounds:
      first, last = int(bounds[1]), int(bounds[2])
      words = [(str(n).zfill(len(bounds[1])), "") for n in range(first, min(last, first + _EXPANDED_MAX) + 1)]
    else:
      words = [(word, word) for word in braces[1].split(",")]
    if not words or len(words) * len(paths) > _EXPANDED_MAX:
      raise InputError(f"Corpus.path: {braces[0]} in {pattern} stands for no name, or too many; give a range upwards, of "
                       f"at most {_EXPANDED_MAX:,} paths in all")
    paths = [(_BRACES.sub(lambda _: word, path, 1), _BRACES.sub(lambda _: plain, unnumbered, 1))
             for path, unnumbered in paths for word, plain in words]
  yield from paths


def _tfds(corpus: Corpus) -> Location:
  """The shards that dataset_info.json names, of its own file format where that is there, else of another."""
  given = corpus.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
  root = _path(given if is_url(given) else from_home(given, "Corpus.data_dir"))
  starts: list[str] = []
  for text, _ in expanded(corpus.path.removeprefix(_TFDS)):
    name, _, version = text.strip("/").partition(":")
    folder = root / name
    if not name or not folder.is_dir():
      raise InputError(f"Corpus.path: no data set {name} in {given}; name one that was prepared there, or its folder as "
                       "Corpus.data_dir")
    versions = sorted((entry for entry in folders(folder) if re.fullmatch(r"\d+(\.\d+)*", entry)),
                      key=lambda v: [int(n) for n in v.split(".")])
    if version not in versions and (version or not versions):
      raise InputError(f"Corpus.path: {_TFDS}{text}: no version {version} in {folder}{nearest(version, versions)}")
    inside = f"{name}/{version or versions[-1]}"
    starts += [f"{inside}/{file}" for file in _shards(root / inside, bool(corpus.include))]
  return Location(root, tuple(starts))


def _shards(folder: AnyPath, some: bool) -> Iterator[str]:
  """The files of a prepared data set; InputError where shards are missing, unless `some` may be."""
  info = folder / "dataset_info.json"
  try:
    with info.open("rb") as file:
      about = json.load(file)
    splits = [(split["name"], len(split["shardLengths"]), split.get("filepathTemplate") or _TFDS_TEMPLATE)
              for split in about["splits"]]
    own = about.get("fileFormat") or "tfrecord"
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise InputError(f"{info}: cannot be read as the description of a data set ({error}); prepare it with TensorFlow "
                     "Datasets") from None
  names = [entry.name for entry in folder.entries()] if isinstance(folder, RemotePath) else os.listdir(folder)
  for split, count, template in splits:
    found: list[str] = []
    for kind in (own, *_TFDS_FORMATS):
      found = found or sorted(name for name in names if _template(template, split, kind).fullmatch(name))
    if len(found) != count and not some:
      raise InputError(f"{folder}: {len(found)} of the {count} files of split {split} are there; copy the others, or name "
                       "those to read as Corpus.include")
    yield from found


def _template(template: str, split: str, kind: str) -> re.Pattern[str]:
  values = {"DATASET": ".+", "SPLIT": re.escape(split), "FILEFORMAT": kind, "SHARD_X_OF_Y": r"\d{5,}-of-\d{5,}",
            "SHARD_INDEX": r"\d{5,}", "NUM_SHARDS": r"\d{5,}"}
  return re.compile("".join(values.get(part, re.escape(part)) for part in re.split(r"[{}]", template)))
