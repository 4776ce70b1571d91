"""File formats by file name: the kind of file, and its compression."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from jaxsplit.data.remote import AnyPath
from jaxsplit.registry import Registry

PACKINGS = (".gz", ".bz2", ".xz", ".zst")
# Kinds that are read as a stream of bytes, and may be packed, come first.
_KINDS = {
    ".txt": "text", ".jsonl": "lines", ".ndjson": "lines", ".json": "json", ".tfrecord": "tfrecord", ".tfrecords": "tfrecord",
    ".parquet": "parquet", ".arrow": "arrow", ".array_record": "array_record", ".arrayrecord": "array_record",
    ".bin": "tokens", ".npy": "tokens"}
_PACKED = ("text", "lines", "json", "tfrecord")
FORMATS = (f".txt, .jsonl, .ndjson, .json or .tfrecord (also with {', '.join(PACKINGS)}), .parquet, .arrow, .array_record, .bin "
           "or .npy")

# Readers of a user's own, by suffix: from a path to the fields of each document (docs/extending.md).
READERS: Registry[Callable[[AnyPath], Iterator[Mapping[str, Any]]]] = Registry("the suffix of a corpus's files")

_SHARD = re.compile(r"[-_.]\d+[-_.]of[-_.]\d+$", re.IGNORECASE)


class Format(NamedTuple):
  """How a file is read: its name without suffix, its kind ("text", "lines", "json", "tfrecord", "parquet", "arrow",
  "array_record", "tokens", or the suffix of a reader of the user's own), and how it is packed ("" if not)."""

  stem: str
  kind: str
  packing: str


def format_of(name: str) -> Format | None:
  """The format that a file's name says; None for one that is not read.

  The number of a shard may follow the suffix, as in c4-train.tfrecord-00000-of-00128; it stays in the stem.
  """
  shard = _SHARD.search(name)
  whole, number = (name[:shard.start()], shard[0]) if shard else (name, "")
  lower = whole.lower()
  own = next((suffix for suffix in READERS if lower.endswith(suffix)), None)
  if own:
    return Format(whole[:len(whole) - len(own)] + number, own, "")
  packing = next((p for p in PACKINGS if lower.endswith(p)), "")
  inner = lower.removesuffix(packing)
  suffix = next((s for s in _KINDS if inner.endswith(s)), None)
  if suffix is None or (packing and _KINDS[suffix] not in _PACKED):
    return None
  return Format(whole[:len(inner) - len(suffix)] + number, _KINDS[suffix], packing)


def without_shard(stem: str) -> str:
  """A stem without the number that makes it one of several shards: c4-00000-of-00128 is c4."""
  return _SHARD.sub("", stem) or stem
