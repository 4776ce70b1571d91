"""First step of a preparation: reads a file of a corpus, and writes its documents and a row about each to disk.

    rows        a ROW (index.py) for each document, passage of one, and record that was left out, in the order of the file
    texts       the text as UTF-8 of those that were kept, one behind the other
    read.json   what `FileRead` has, and the file's parts

Labels and reasons are numbers of the file's own there; index.py joins files.
"""

from __future__ import annotations

import glob
import hashlib
import pathlib
import re
import struct
from typing import Any, NamedTuple

from jaxsplit.data.corpus import Corpus
from jaxsplit.data.documents import Fields, Record, read_records
from jaxsplit.data.drivers import whole
from jaxsplit.data.file_table import CorpusFile, printable
from jaxsplit.data.formats import READERS, format_of
from jaxsplit.data.paths import SPLITS
from jaxsplit.data.remote import AnyPath, changed
from jaxsplit.errors import InputError
from jaxsplit.files import content_hash, naming_the_file, read_json, write_json
from jaxsplit.passages import PASSAGE_CHARACTERS

TRAIN, VALID, TEST = range(len(SPLITS))
NO_DOMAIN = (1 << 32) - 1

# Why a row is no document of its split; other reasons are those of bad documents, as they come.
KEPT, PART, EMPTY, SHORT, HELD_OUT, REPEATED, NOT_WANTED, OTHER = range(8)
REASONS = ("", "a passage of a document held out", "empty", "shorter than Corpus.min_characters", "held out of training",
           "a repeated document", "not in Corpus.domains", "bad for one of many reasons")

PACKED_ROW = struct.Struct("<16sQQQIIIHB32s")
LABELS_MAX = 10_000  # Different ones; a field with more is none of domains.

_PART_BYTES = 8 << 20  # Of text: what a process is given at a time.
_BUFFERED = 1 << 20
_READ, _ROWS, _TEXTS = "read.json", "rows", "texts"
_UNFIT = re.compile(r"[^\w .+()&-]")  # What a label may have and the name of a file should not.


class FileJob(NamedTuple):
  """A file to be read.

  Attributes:
    corpus: how.
    root: of the corpus.
    file: which.
    fields: where its documents lie in records.
    cut: whether documents are divided, so that long ones are cut into passages.
    folder: where files that were read lie.
  """

  corpus: Corpus
  root: AnyPath
  file: CorpusFile
  fields: Fields
  cut: bool
  folder: pathlib.Path

  def place(self) -> pathlib.Path:
    """The folder of what is read, named by all that decides it."""
    path, corpus, found = self.root / self.file.path, self.corpus, format_of(self.file.path.rpartition("/")[2])
    reader = READERS.origins.get(found.kind) if found else None
    return self.folder / content_hash(
        str(path).encode(errors="surrogateescape"), repr((self.file.bytes, self.file.domain, self.file.split)),
        str(changed(path)), repr((self.fields, self.cut, reader, PASSAGE_CHARACTERS, _PART_BYTES)),
        repr((corpus.on_bad_document, corpus.min_characters, corpus.domains if self.fields.label else ())))


class FileRead(NamedTuple):
  """What reading a file has shown.

  Attributes:
    place: the folder with its rows and texts.
    documents, bad: how many it has.
    content: the SHA-256 of its bytes, 16 hex digits.
    labels: what its documents are called in the source, and the position of the first of each.
    reasons: why documents are bad.
    parts: of consecutive documents: the number of their rows, and the bytes of their texts.
  """

  place: pathlib.Path
  documents: int
  bad: int
  content: str
  labels: list[tuple[str, int]]
  reasons: list[str]
  parts: list[tuple[int, int]]

  @property
  def rows(self) -> pathlib.Path:
    return self.place / _ROWS

  @property
  def texts(self) -> pathlib.Path:
    return self.place / _TEXTS


def read_file(job: FileJob) -> FileRead:
  """Reads a file, unless that was done.

  Raises:
    InputError: what `read_records` says, or a document that is bad unless these are skipped.
    OSError: the disk is full, for one; it names the file.
  """
  place = job.place()
  if not place.is_dir():
    with whole(place) as build:
      write_json(build / _READ, _Reading(job, build).read())
  found = read_json(place / _READ)
  return FileRead(place, *(found[name] for name in FileRead._fields[1:]))


def refusal(bad: str, corpus: Corpus, path: str) -> InputError:
  """The error of a bad document, which also says how to leave out its file, unless that is all: it may be no text of the corpus."""
  if corpus.path.endswith(path):
    return InputError(bad)
  way = "Corpus.exclude"
  return InputError(f"{bad if bad.endswith(way) else f'{bad}; or leave the file out with {way}'}={(glob.escape(path),)}")


def text_key(data: bytes) -> bytes:
  """128 bits that identify a document by its text as UTF-8."""
  return hashlib.blake2b(data, digest_size=16).digest()


def domain_name(label: str) -> str:
  """A label as the name of a domain, and of files."""
  return _UNFIT.sub("_", label).strip()


class _Reading:
  """Reads one file into a folder."""

  def __init__(self, job: FileJob, build: pathlib.Path):
    self._job, self._build = job, build
    self._labels: dict[str, tuple[int, int]] = {}  # Number, and position of the first document.
    self._reasons: dict[str, int] = {}
    self._rows, self._texts = bytearray(), bytearray()
    self._parts: list[tuple[int, int]] = []
    self._part = [0, 0]

  def read(self) -> dict[str, Any]:
    """What `FileRead` has."""
    job, digest, documents, bad = self._job, hashlib.sha256(), 0, 0
    path, split = job.root / job.file.path, SPLITS.index(job.file.split)
    with naming_the_file(self._build / _TEXTS), open(self._build / _ROWS, "wb") as rows, open(self._build / _TEXTS, "wb") as texts:
      for record in read_records(path, digest, job.fields):
        label = self._label(record)
        if record.bad:
          if job.corpus.on_bad_document == "fail":
            raise refusal(record.bad, job.corpus, job.file.path)
          bad += 1
          self._add(b"", record, label, split, bytes(32), self._reason(printable(_short_reason(record.bad, str(path)))))
          continue
        data = record.data
        sha256, reason = hashlib.sha256(data).digest(), self._left_out(record)
        documents += reason != EMPTY
        pieces = record.passages() if reason == KEPT and (job.cut or split != TRAIN) else [data]
        for piece in pieces if job.cut else (data,):
          self._add(piece, record, label, split, sha256, reason)
        if split != TRAIN and len(pieces) > 1:
          for piece in pieces:
            self._add(piece, record, label, split, sha256, PART)
        if self._part[1] >= _PART_BYTES:
          self._end_part()
        if len(self._rows) + len(self._texts) > _BUFFERED:
          self._flush(rows, texts)
      self._end_part()
      self._flush(rows, texts)
    return {"documents": documents, "bad": bad, "content": digest.hexdigest()[:16],
            "labels": [(label, position) for label, (_, position) in self._labels.items()], "reasons": list(self._reasons),
            "parts": self._parts}

  def _add(self, data: bytes, record: Record, label: int, split: int, sha256: bytes, reason: int) -> None:
    key = text_key(data) if reason in (KEPT, PART) else bytes(16)
    self._rows += PACKED_ROW.pack(key, len(data), record.position, 0, 0, label, label, reason, split, sha256)
    self._part[0] += 1
    if reason == KEPT:
      self._texts += data
      self._part[1] += len(data)

  def _flush(self, rows: Any, texts: Any) -> None:
    rows.write(self._rows)
    texts.write(self._texts)
    self._rows.clear()
    self._texts.clear()

  def _end_part(self) -> None:
    if self._part[0]:
      self._parts.append(tuple(self._part))
    self._part = [0, 0]

  def _label(self, record: Record) -> int:
    label = self._job.file.domain if self._job.fields.label is None else record.label
    if label is None:
      return NO_DOMAIN
    if label not in self._labels:
      if len(self._labels) > LABELS_MAX:
        return NO_DOMAIN  # They are refused where files are joined.
      self._labels[label] = len(self._labels), record.position
    return self._labels[label][0]

  def _reason(self, text: str) -> int:
    """The number of a reason; of very many different ones, the later share one."""
    if text not in self._reasons and len(self._reasons) < (1 << 16) - len(REASONS):
      self._reasons[text] = len(REASONS) + len(self._reasons)
    return self._reasons.get(text, OTHER)

  def _left_out(self, record: Record) -> int:
    corpus = self._job.corpus
    if record.empty:
      return EMPTY
    if len(record.text) < corpus.min_characters:
      return SHORT
    chosen = self._job.fields.label is None or not corpus.domains or domain_name(record.label) in corpus.domains
    return KEPT if chosen else NOT_WANTED


def _short_reason(bad: str, path: str) -> str:
  """What is wrong with a document, without its place, any in its text, or what to do about it: documents are counted by it."""
  short = re.sub(r"^(:\d+)?: ((row|element) \d+:? )?", "", bad.removeprefix(path)).split(";")[0]
  return re.sub(r"^byte \d+ is", "a byte is", short)
