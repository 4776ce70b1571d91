"""The index of a corpus's documents during preparation: what was read of each file (reading.py), joined into one table.

A row is of a document, or of a passage of one that was cut. Rows that were left out have a reason.
"""

from __future__ import annotations

import mmap
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxsplit.data.keys import KEY_FIELDS
from jaxsplit.data.reading import HELD_OUT, KEPT, NO_DOMAIN, OTHER, PACKED_ROW, REASONS, REPEATED, FileRead
from jaxsplit.files import naming_the_file

ROW = np.dtype([
    *KEY_FIELDS, ("bytes", "<u8"), ("position", "<u8"), ("tokens", "<u8"), ("file", "<u4"), ("label", "<u4"),
    ("domain", "<u4"), ("reason", "<u2"), ("split", "u1"), ("sha256", "V32")])
assert PACKED_ROW.size == ROW.itemsize

_JOINED = 1 << 18  # Rows at a time.


class Text(NamedTuple):
  """A document: its row, its key, and its text as UTF-8."""

  row: int
  key: bytes
  data: bytes


class Part(NamedTuple):
  """Consecutive rows of one file: the first one and how many, and where their texts lie: a file, where in it, and how long."""

  first: int
  count: int
  texts: pathlib.Path
  offset: int
  bytes: int


class Index:
  """The documents of files that were read. First files are added; then rows are read and changed.

  Args:
    path: a new file for the rows.

  Attributes:
    rows: a ROW for each, [n], memory-mapped; there from `close` on.
    parts: of the rows, in their order.
    reasons: why rows were left out, by `reason`.
  """

  def __init__(self, path: pathlib.Path):
    self.path, self._count = path, 0
    self.parts: list[Part] = []
    self.reasons = list(REASONS)
    self._reasons: dict[str, int] = {}
    self.rows = np.empty(0, ROW)
    self._map: mmap.mmap | None = None
    with naming_the_file(path):
      self._file = open(path, "wb")

  def add(self, read: FileRead, file: int, labels: Sequence[int]) -> None:
    """Adds the rows of a file with its number and, for each of its labels, the number among those of all files."""
    label = np.array([*labels, NO_DOMAIN], np.uint32)
    reason = np.array([*range(len(REASONS)), *map(self._reason, read.reasons)], np.uint16)
    with naming_the_file(self.path), open(read.rows, "rb") as rows:
      while len(block := np.fromfile(rows, ROW, _JOINED)):
        block["file"] = file
        block["label"] = block["domain"] = label[np.minimum(block["label"], len(label) - 1)]
        block["reason"] = reason[block["reason"]]
        self._file.write(block.tobytes())
    offset = 0
    for count, size in read.parts:
      self.parts.append(Part(self._count, count, read.texts, offset, size))
      self._count += count
      offset += size

  def close(self) -> None:
    """Ends the adding."""
    with naming_the_file(self.path):
      self._file.close()
    if self._count:
      with open(self.path, "r+b") as file:
        self._map = mmap.mmap(file.fileno(), 0)
      self.rows = np.frombuffer(self._map, ROW)

  def texts(self, domain: int | None, split: int) -> Iterator[Text]:
    """What is kept of a domain, or of all of them, for a split, in the order of the rows."""
    for part in self.parts:
      rows = self.rows[part.first:part.first + part.count]
      wanted = (rows["reason"] == KEPT) & (rows["split"] == split)
      if domain is not None:
        wanted &= rows["domain"] == domain
      if wanted.any():
        yield from texts_of(part, rows, wanted)
        self.release()

  def flush(self) -> None:
    """Returns when other processes see the rows as they are here."""
    if self._map is not None:
      self._map.flush()

  def release(self) -> None:
    """Lets go of the memory that rows have taken since they were looked at; they stay in their file."""
    if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
      self._map.madvise(mmap.MADV_DONTNEED)

  def _reason(self, text: str) -> int:
    if text not in self._reasons and len(self.reasons) < 1 << 16:
      self._reasons[text] = len(self.reasons)
      self.reasons.append(text)
    return self._reasons.get(text, OTHER)


def texts_of(part: Part, rows: np.ndarray, wanted: np.ndarray) -> Iterator[Text]:
  """The texts of those rows of a part that are wanted, bool [count]."""
  has_text = np.isin(rows["reason"], (KEPT, HELD_OUT, REPEATED))  # Those that were kept when they were read.
  sizes = np.where(has_text, rows["bytes"], 0).astype(np.int64)
  starts = np.cumsum(sizes) - sizes
  with open(part.texts, "rb") as file:
    file.seek(part.offset)
    data = file.read(part.bytes)
  keys = keys_of(rows)
  for i in np.flatnonzero(wanted & has_text):
    yield Text(part.first + int(i), keys[16 * i:16 * i + 16], data[starts[i]:starts[i] + sizes[i]])


def keys_of(rows: np.ndarray) -> bytes:
  """The keys of rows, 16 bytes each."""
  return np.stack([rows["high"], rows["low"]], axis=1).tobytes()


def begins(rows: np.ndarray) -> np.ndarray:
  """Which rows begin a document, bool [n]; the passages of one follow each other."""
  new = np.ones(len(rows), bool)
  new[1:] = (rows["file"][1:] != rows["file"][:-1]) | (rows["position"][1:] != rows["position"][:-1])
  return new
