"""The source of a token store: the settings and files that it was made from, and how they differ from those that are given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jaxsplit.data.corpus import real
from jaxsplit.data.file_table import FileTable, printable
from jaxsplit.data.remote import RemotePath, changed
from jaxsplit.data.store import Store, noted_times
from jaxsplit.files import file_hash


def identified(table: FileTable, contents: Mapping[str, str]) -> list[list[Any]]:
  """Of every file that is read: domain, split, path, size and content, in the order of reading."""
  return [[domain, split, file.path, file.bytes, contents.get(file.path)] for domain, splits in table.domains.items()
          for split, files in splits.items() for file in files]


def times(table: FileTable) -> dict[str, Any]:
  """When each file that is read was last changed, and under "" where the corpus lies."""
  paths = [file.path for file in table.files if not file.ignored]
  lies = str(table.root) if isinstance(table.root, RemotePath) else str(real(table.root))
  return {"": lies, **{path: changed(table.root / path) for path in paths}}


def corpus_of(store: Store) -> str:
  """Where the corpus of a store was when it was last read, in words."""
  where = noted_times(store.directory, "source").get("")
  return f"the corpus {printable(where)}" if isinstance(where, str) else "a corpus"


def differences(store: Store, settings: Mapping[str, Mapping[str, Any]], table: FileTable | None,
                thorough: bool = False) -> list[str]:
  """How a store's source differs from what is given, in words; empty where it does not.

  Args:
    store: an open store.
    settings: by part, as in `Store.source`; parts that are absent are not compared.
    table: the files of the corpus; None where they are not to be compared. Their contents are hashed only where nothing else
      differs, and of them only those whose time is not the one that was noted, or all where the corpus has moved.
    thorough: hash all contents.
  """
  if store.record:
    return ["it is a phonebook's"]
  try:
    made_from = {path: (domain, split, size, content) for domain, split, path, size, content in store.source["files"]}
    there = {part: dict(store.source[part]) for part in settings}
  except (KeyError, TypeError, ValueError):
    return ["its manifest does not say what it was made from"]
  found = list(_other_settings(there, settings))
  if table is not None:
    found += _other_files(made_from, table)
    if not found:
      found += _other_content(store, {path: content for path, (*_, content) in made_from.items()}, table, thorough)
  return found


def _other_settings(there: Mapping[str, Mapping[str, Any]], given: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
  for part, values in given.items():
    for name in sorted({*values, *there[part]}):
      was, now = there[part].get(name), values.get(name)
      if was == now:
        continue
      if part == "rules":
        yield f"it was made by another rule ({name} = {was}, now {now})"
      elif name == "path":  # Kept as the hash of the file.
        yield "Tokenization.path names another tokenizer"
      else:
        yield f"{part.capitalize()}.{name} = {was!r} there, {now!r} given"


def _other_files(made_from: Mapping[str, tuple], table: FileTable) -> Iterator[str]:
  now = {path: (domain, split, size) for domain, split, path, size, _ in identified(table, {})}
  for what, paths in (("only there", [path for path in made_from if path not in now]),
                      ("only in the corpus given", [path for path in now if path not in made_from]),
                      ("of another size, domain or split", [p for p in now if p in made_from and made_from[p][:3] != now[p]])):
    if paths:
      yield f"{len(paths):,} file{'s' * (len(paths) > 1)} {what} ({printable(paths[0])}{', ...' * (len(paths) > 1)})"


def _other_content(store: Store, contents: Mapping[str, str], table: FileTable, thorough: bool) -> Iterator[str]:
  """The first file of other content."""
  now, noted = times(table), noted_times(store.directory, "source")
  trusted = noted.get("") == now[""] and not thorough
  for path, content in contents.items():
    if not (trusted and noted.get(path) == now[path]) and file_hash(table.root / path) != content:
      yield f"{printable(path)} has other content"
      return
