"""Writes token stores (see store.py): beside the place where they shall lie, then moved there whole."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxsplit.data.store import (
    MANIFEST, TOKENIZER, VERSION, Counts, Record, Store, note_times, open_store, token_dtype, token_file, token_times)
from jaxsplit.data.tokenizer import Tokenizer
from jaxsplit.errors import InputError
from jaxsplit.files import file_hash, naming_the_file, write_json


@dataclasses.dataclass(frozen=True)
class Document:
  """A document on its way into a store.

  Attributes:
    ids: its tokens, without separator [n].
    bytes: its size as UTF-8.
    key: 16 bytes that equal texts share.
    unknown, dropped: as in tokenizer.Encoding.
  """

  ids: np.ndarray
  bytes: int
  key: bytes
  unknown: int = 0
  dropped: int = 0


def write_store(
    directory: str | os.PathLike,
    tokenizer: Tokenizer,
    splits: Iterable[tuple[str, str, Iterable[Document]]],
    source: dict[str, Any],
    record: Record | None = None,
) -> Store:
  """Writes a store and opens it. It is built beside `directory` and moved there whole; a store already there is replaced.

  Args:
    directory: where it shall lie.
    tokenizer: what made the ids.
    splits: (domain, split, documents), in any order.
    source: what it is made from, as JSON.
    record: the shape of entries; None for text, whose documents are separated.

  Raises:
    InputError: `directory` holds something that is no token store.
    OSError: no room, for one; it names the file.
  """
  with replacing(directory) as build:
    writer = StoreWriter(build, tokenizer, record)
    for domain, split, documents in splits:
      writer.add(domain, split, documents)
    writer.finish(source)
  return open_store(directory)


class StoreWriter:
  """Writes a store into a folder that `replacing` has made, a split at a time.

  In memory is a hash of every document of one split while it is written, and eight bytes of those of all training splits.

  Args:
    build: the folder.
    tokenizer, record: as in `write_store`.
  """

  def __init__(self, build: pathlib.Path, tokenizer: Tokenizer, record: Record | None = None):
    self._build, self._tokenizer, self._record = build, tokenizer, record
    self._counts: dict[str, dict[str, Counts]] = {}
    self._trained: dict[str, np.ndarray] = {}

  def add(self, domain: str, split: str, documents: Iterable[Document]) -> Counts:
    """Writes one split of a domain."""
    separator = [] if self._record else [self._tokenizer.end_of_document]
    file = token_file(self._build, domain, split)
    counts, keys = _write_tokens(file, documents, token_dtype(self._tokenizer.vocab_size), separator)
    self._counts.setdefault(domain, {})[split] = counts
    if split == "train":
      self._trained[domain] = keys
    return counts

  def finish(self, source: dict[str, Any]) -> None:
    """Writes what makes a store of the splits."""
    tokenizer, record = self._tokenizer, self._record
    tokenizer.save(self._build / TOKENIZER)
    write_json(self._build / MANIFEST, {
        "version": VERSION,
        "tokenizer": {"kind": tokenizer.kind, "vocab_size": tokenizer.vocab_size, "end_of_document": tokenizer.end_of_document,
                      "separator": tokenizer.separator, "fingerprint": tokenizer.fingerprint},
        "record": dataclasses.asdict(record) if record else None,
        "domains": {d: {s: dataclasses.asdict(c) for s, c in splits.items()} for d, splits in self._counts.items()},
        "overlaps": _overlaps(self._trained),
        "source": source,
    })
    note_times(self._build, "tokens", token_times(open_store(self._build)))


@contextlib.contextmanager
def replacing(directory: str | os.PathLike) -> Iterator[pathlib.Path]:
  """A new folder that takes the place of `directory` once the block has ended well, and vanishes otherwise.

  Raises:
    InputError: `directory` holds something that is no token store, or cannot be made.
  """
  directory = pathlib.Path(directory).resolve()
  empty = directory.is_dir() and not any(directory.iterdir())
  if directory.exists() and not empty and not (directory / MANIFEST).is_file():
    raise InputError(f"{directory}: exists and is no token store; name another folder")
  try:
    directory.parent.mkdir(parents=True, exist_ok=True)
    build = pathlib.Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
  except OSError as error:
    raise InputError(f"{directory}: cannot be made ({error.strerror}); name another folder") from None
  try:
    build.chmod(0o755)
    yield build
    # A folder cannot replace one that has files in it, so the old one steps aside first.
    old = build.with_name(f"{build.name}.old")
    if directory.exists():
      os.rename(directory, old)
    os.rename(build, directory)
    shutil.rmtree(old, ignore_errors=True)
  finally:
    shutil.rmtree(build, ignore_errors=True)


def _write_tokens(path: pathlib.Path, documents: Iterable[Document], dtype: np.dtype,
                  separator: list[int]) -> tuple[Counts, np.ndarray]:
  """Writes a token file. Returns its counts, and 64 bits of the key of every different document, sorted."""
  separator = np.array(separator, dtype)
  totals = dict(documents=0, tokens=0, unique_tokens=0, bytes=0)
  seen = set()
  unknown = pieces = 0
  with naming_the_file(path), open(path, "wb") as file:
    for document in documents:
      size = len(document.ids) + len(separator)
      file.write(document.ids.astype(dtype).tobytes())
      file.write(separator.tobytes())
      totals["documents"] += 1
      totals["tokens"] += size
      totals["bytes"] += document.bytes
      totals["unique_tokens"] += 0 if document.key in seen else size
      seen.add(document.key)
      unknown += document.unknown
      pieces += len(document.ids) + document.dropped
  keys = np.frombuffer(b"".join(key.ljust(8, b"\0")[:8] for key in seen), np.uint64)
  return Counts(**totals, content=file_hash(path), unknown=unknown / max(pieces, 1)), np.unique(keys)


def _overlaps(keys: Mapping[str, np.ndarray]) -> list[tuple[str, str, int]]:
  """How many different documents each two domains share, of those that share any, from their sorted keys."""
  domains = sorted(keys)
  _, at, counts = np.unique(np.concatenate([keys[d] for d in domains] or [[]]), return_inverse=True, return_counts=True)
  shared = np.split(counts[at] > 1, np.cumsum([len(keys[d]) for d in domains])[:-1]) if domains else []
  repeated = {d: keys[d][own] for d, own in zip(domains, shared) if own.any()}
  pairs = ((a, b, len(np.intersect1d(repeated[a], repeated[b]))) for a, b in itertools.combinations(sorted(repeated), 2))
  return [pair for pair in pairs if pair[2]]
