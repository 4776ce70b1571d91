"""Writes token stores (see store.py): beside the place where they shall lie, then moved there whole."""

from __future__ import annotations

import builtins
import collections
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxsplit.data.encoding import Tokenizer
from jaxsplit.data.keys import KEY_FIELDS, by_key, firsts, shared
from jaxsplit.data.parts import MANIFEST, PARTS, TOKENIZER
from jaxsplit.data.store import (
  VERSION,
  Counts,
  Record,
  Store,
  note_times,
  open_store,
  token_dtype,
  token_file,
  token_times,
)
from jaxsplit.errors import InputError
from jaxsplit.files import naming_the_file, write_json

_KEYS = np.dtype([*KEY_FIELDS, ("tokens", "<u8"), ("split", "<u4")])


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
  key: builtins.bytes
  unknown: int = 0
  dropped: int = 0


@dataclasses.dataclass(frozen=True)
class Batch:
  """Some documents of one split, as they lie in a store.

  Attributes:
    data: their ids, each document's with its separator.
    keys, sizes: of each, its key ("V16") and the number of its ids with the separator [n].
    bytes: of their texts.
    unknown, pieces: how much of them the tokenizer does not know, and of how much.
  """

  data: bytes
  keys: np.ndarray
  sizes: np.ndarray
  bytes: int
  unknown: int
  pieces: int


def batch_of(documents: Iterable[Document], tokenizer: Tokenizer, record: Record | None = None) -> Batch:
  """Documents as a batch; where `record` says that they are entries of one length, without separators."""
  dtype = token_dtype(tokenizer.vocab_size)
  documents, separator = list(documents), np.array([] if record else [tokenizer.end_of_document], dtype)
  ids = [part for document in documents for part in (document.ids.astype(dtype), separator)]
  sizes = np.array([len(document.ids) + len(separator) for document in documents], np.uint64)
  keys = np.frombuffer(b"".join(document.key[:16].ljust(16, b"\0") for document in documents), "V16")
  return Batch(np.concatenate(ids).tobytes() if ids else b"", keys, sizes, sum(document.bytes for document in documents),
               sum(document.unknown for document in documents), sum(len(document.ids) + document.dropped for document in documents))


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
      writer.add(domain, split, [batch_of(documents, tokenizer, record)])
    writer.finish(source)
  return open_store(directory)


class StoreWriter:
  """Writes a store into a folder that `replacing` has made, a split at a time. Memory does not grow with its documents.

  Args:
    build: the folder.
    tokenizer, record: as in `write_store`.
  """

  def __init__(self, build: pathlib.Path, tokenizer: Tokenizer, record: Record | None = None):
    self._build, self._tokenizer, self._record = build, tokenizer, record
    self._counts: dict[str, dict[str, Counts]] = {}
    self._splits: list[tuple[str, str]] = []
    self._keys = build / "keys"  # Of every document, with its tokens, until the store is finished.

  def add(self, domain: str, split: str, batches: Iterable[Batch]) -> Counts:
    """Writes one split of a domain. Its different documents are not counted yet."""
    path, itemsize = token_file(self._build, domain, split), token_dtype(self._tokenizer.vocab_size).itemsize
    totals = dict(documents=0, tokens=0, unique_tokens=0, bytes=0)
    unknown = pieces = 0
    digest = hashlib.sha256()
    with naming_the_file(path), open(path, "wb") as file, open(self._keys, "ab") as keys:
      for batch in batches:
        file.write(batch.data)
        digest.update(batch.data)
        rows = np.empty(len(batch.keys), _KEYS)
        halves = batch.keys.view(KEY_FIELDS)
        rows["high"], rows["low"] = halves["high"], halves["low"]
        rows["tokens"], rows["split"] = batch.sizes, len(self._splits)
        keys.write(rows.tobytes())
        totals["documents"] += len(batch.keys)
        totals["tokens"] += len(batch.data) // itemsize
        totals["bytes"] += batch.bytes
        unknown += batch.unknown
        pieces += batch.pieces
    self._splits.append((domain, split))
    counts = Counts(**totals, content=digest.hexdigest()[:16], unknown=unknown / max(pieces, 1))
    self._counts.setdefault(domain, {})[split] = counts
    return counts

  def finish(self, source: dict[str, Any], left_out: Mapping[str, int] | None = None) -> None:
    """Writes what makes a store of the splits."""
    tokenizer, record = self._tokenizer, self._record
    tokenizer.save(self._build / TOKENIZER)
    overlaps = self._different()
    write_json(self._build / MANIFEST, {
        "version": VERSION,
        "tokenizer": {"kind": tokenizer.kind, "vocab_size": tokenizer.vocab_size, "end_of_document": tokenizer.end_of_document,
                      "separator": tokenizer.separator, "fingerprint": tokenizer.fingerprint},
        "record": dataclasses.asdict(record) if record else None,
        "domains": {d: {s: dataclasses.asdict(c) for s, c in splits.items()} for d, splits in self._counts.items()},
        "overlaps": overlaps,
        "left_out": dict(left_out or {}),
        "source": source,
    })
    note_times(self._build, "tokens", token_times(open_store(self._build)))

  def _different(self) -> list[tuple[str, str, int]]:
    """Counts the tokens of different documents. Returns how many of these each two domains share in training, where any."""
    names = sorted(self._counts)
    splits = np.array([names.index(domain) if split == "train" else -1 for domain, split in self._splits])
    tokens, overlaps = np.zeros(len(self._splits), np.int64), collections.Counter()
    keys = np.memmap(self._keys, _KEYS, mode="r") if self._keys.exists() and self._keys.stat().st_size else np.empty(0, _KEYS)
    for part in by_key(keys):
      rows = keys[part.rows]
      once = firsts(part.groups, rows["split"])
      np.add.at(tokens, rows["split"][once], rows["tokens"][once].astype(np.int64))
      trained = splits[rows["split"]] >= 0
      overlaps += shared(splits[rows["split"][trained]], part.groups[trained])
    del keys
    self._keys.unlink(missing_ok=True)
    for (domain, split), unique in zip(self._splits, tokens):
      self._counts[domain][split] = dataclasses.replace(self._counts[domain][split], unique_tokens=int(unique))
    return [(names[a], names[b], documents) for (a, b), documents in sorted(overlaps.items())]


@contextlib.contextmanager
def replacing(directory: str | os.PathLike) -> Iterator[pathlib.Path]:
  """A new folder that takes the place of `directory` once the block has ended well, and vanishes otherwise.

  Raises:
    InputError: `directory` holds something that is no token store, or has something else beside one, or cannot be made.
  """
  directory = pathlib.Path(directory).resolve()
  empty = directory.is_dir() and not any(directory.iterdir())
  if directory.exists() and not empty and not (directory / MANIFEST).is_file():
    raise InputError(f"{directory}: exists and is no token store; name another folder")
  for path in () if empty or not directory.exists() else sorted(directory.iterdir()):
    if path.name not in PARTS and path.suffix != ".bin" and not path.name.startswith("."):
      raise InputError(f"{path}: is no part of the token store that it lies in, and would be deleted when that is replaced; move it away")
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
