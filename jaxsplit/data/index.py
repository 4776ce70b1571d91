"""The documents of a corpus on their way to a store: their text in files by domain and split, and a row of facts about each.

A row is of a document, or of a passage of one that was cut. Rows that were left out have a reason, and no text here.
"""

from __future__ import annotations

import hashlib
import itertools
import mmap
import pathlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxsplit.data.keys import KEY_FIELDS
from jaxsplit.data.paths import SPLITS
from jaxsplit.files import naming_the_file

ROW = np.dtype([
    *KEY_FIELDS, ("bytes", "<u8"), ("position", "<u8"), ("tokens", "<u8"), ("file", "<u4"), ("label", "<u4"),
    ("domain", "<u4"), ("reason", "<u2"), ("split", "u1"), ("sha256", "V32")])
TRAIN, VALID, TEST = range(len(SPLITS))
NO_DOMAIN = (1 << 32) - 1

# Why a row is no document of its split; other reasons are those of bad documents, as they come.
KEPT, PART, EMPTY, SHORT, HELD_OUT, REPEATED, NOT_WANTED, OTHER = range(8)
REASONS = ("", "a passage of a document held out", "empty", "shorter than Corpus.min_characters", "held out of training",
           "a repeated document", "not in Corpus.domains", "bad for one of many reasons")

_ROW = struct.Struct("<16sQQQIIIHB32s")
_HEAD = struct.Struct("<16sQQ")  # A document's key, row and bytes, before its text.
_RELEASED = 1 << 16  # Documents after which the memory of their rows is given back.
_BUFFERED = 1 << 20  # Bytes of text that a file's buffer may hold, and
_BUFFERED_ALL = 1 << 26  # all of them together.
assert _ROW.size == ROW.itemsize


class Spilled(NamedTuple):
  """A document: its key, its text as UTF-8, and its row."""

  key: bytes
  data: bytes
  row: int


class Index:
  """Documents in a folder. First all are added; then rows are read and changed, and texts are read as often as needed.

  Args:
    scratch: the folder.
    names: of the domains; more may come while documents are added.

  Attributes:
    rows: a ROW for each, [n], memory-mapped; there from `close` on.
    reasons: why rows were left out, by `reason`.
  """

  def __init__(self, scratch: pathlib.Path, names: Sequence[str]):
    self._scratch, self._names, self._count = scratch, names, 0
    self.reasons = list(REASONS)
    self._reasons: dict[str, int] = {}
    self._buffers: dict[tuple[int, int], bytearray] = {}
    self._buffered, self._added = 0, bytearray()
    self._path = scratch / "rows"
    self.rows = np.empty(0, ROW)
    self._map: mmap.mmap | None = None
    with naming_the_file(self._path):
      self._file = open(self._path, "wb")

  def add(self, data: bytes, file: int, position: int, domain: int, split: int, sha256: bytes, reason: int = KEPT) -> None:
    """Adds a document or passage; only one that is kept has its text kept."""
    key = text_key(data) if reason in (KEPT, PART) else bytes(16)
    self._added += _ROW.pack(key, len(data), position, 0, file, domain, domain, reason, split, sha256)
    if reason == KEPT:
      self._keep(Spilled(key, data, self._count), domain, split)
    if len(self._added) > _BUFFERED:
      self._flush_rows()
    self._count += 1

  def reason(self, text: str) -> int:
    """The number of a reason; of very many different ones, the later share one."""
    if text not in self._reasons and len(self.reasons) < 1 << 16:
      self._reasons[text] = len(self.reasons)
      self.reasons.append(text)
    return self._reasons.get(text, OTHER)

  def close(self) -> None:
    """Ends the adding."""
    self._flush()
    self._flush_rows()
    with naming_the_file(self._path):
      self._file.close()
    if self._count:
      with open(self._path, "r+b") as file:
        self._map = mmap.mmap(file.fileno(), 0)
      self.rows = np.frombuffer(self._map, ROW)

  def regrouped(self, folder: pathlib.Path, names: Sequence[str], documents: Iterable[tuple[Spilled, int, int]]) -> Index:
    """The same rows with other texts: documents, each with its domain among `names` and its split, in an empty folder.

    Rows that are none of these have no domain; labels stay.
    """
    index = Index(folder, names)
    index.close()
    index.rows, index.reasons, index._map = self.rows, self.reasons, self._map
    index.rows["domain"] = NO_DOMAIN
    for document, domain, split in documents:
      index._keep(document, domain, split)
      index.rows["domain"][document.row] = domain
    index._flush()
    return index

  def texts(self, domain: int, split: int) -> Iterator[Spilled]:
    """What was added of a domain for a split, in the order of adding."""
    path = self._text(domain, split)
    if path.exists():
      with open(path, "rb") as file:
        for number in itertools.count():
          head = file.read(_HEAD.size)
          if not head:
            break
          key, row, size = _HEAD.unpack(head)
          yield Spilled(key, file.read(size), row)
          if number % _RELEASED == 0:
            self.release()

  def release(self) -> None:
    """Lets go of the memory that rows have taken since they were looked at; they stay in their file."""
    if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
      self._map.madvise(mmap.MADV_DONTNEED)

  def has_texts(self, domain: int, split: int) -> bool:
    """Whether anything was added of a domain for a split."""
    return self._text(domain, split).exists()

  def forget(self, domain: int) -> None:
    """Deletes the texts of a domain from the disk."""
    for split in range(len(SPLITS)):
      self._text(domain, split).unlink(missing_ok=True)

  def _text(self, domain: int, split: int) -> pathlib.Path:
    return self._scratch / f"{self._names[domain]}.{SPLITS[split]}"

  def _flush_rows(self) -> None:
    with naming_the_file(self._path):
      self._file.write(self._added)
    self._added.clear()

  def _keep(self, document: Spilled, domain: int, split: int) -> None:
    buffer = self._buffers.setdefault((domain, split), bytearray())
    buffer += _HEAD.pack(document.key, document.row, len(document.data))
    buffer += document.data
    self._buffered += _HEAD.size + len(document.data)
    if len(buffer) > _BUFFERED or self._buffered > _BUFFERED_ALL:
      self._flush()

  def _flush(self) -> None:
    for of, buffer in self._buffers.items():
      with naming_the_file(self._text(*of)), open(self._text(*of), "ab") as file:
        file.write(buffer)
    self._buffers.clear()
    self._buffered = 0


def text_key(data: bytes) -> bytes:
  """128 bits that identify a document by its text as UTF-8."""
  return hashlib.blake2b(data, digest_size=16).digest()


def begins(rows: np.ndarray) -> np.ndarray:
  """Which rows begin a document, bool [n]; the passages of one follow each other."""
  new = np.ones(len(rows), bool)
  new[1:] = (rows["file"][1:] != rows["file"][:-1]) | (rows["position"][1:] != rows["position"][:-1])
  return new
