"""From the files of a corpus to the documents of each domain, divided between its splits.

Each file is unpacked and parsed once. Its documents go to temporary files for each domain and split (index.py), from where they
are read as often as needed: to train a tokenizer, and to be tokenized. Between the two it is decided, by the hashes of all of
them, what is held out and what is left out (division.py). Memory does not grow with the number of documents.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxsplit.data.corpus import Corpus
from jaxsplit.data.division import Division
from jaxsplit.data.documents import Fields, Record, read_records
from jaxsplit.data.file_table import CorpusFile, FileTable, printable
from jaxsplit.data.formats import format_of
from jaxsplit.data.index import EMPTY, KEPT, NO_DOMAIN, NOT_WANTED, PART, SHORT, TEST, TRAIN, VALID, Index, text_key
from jaxsplit.data.listing import check_cases, check_domain_name
from jaxsplit.data.paths import SPLITS
from jaxsplit.data.token_files import Ids
from jaxsplit.errors import InputError, nearest

if TYPE_CHECKING:  # It imports scikit-learn, which takes a second that only those who cluster have to wait.
  from jaxsplit.clustering.clusters import Clusters

_DOMAINS_MAX = 10_000  # Different labels; a field with more is none of domains.
_LABELS_TOLD = 50
_UNFIT = re.compile(r"[^\w .+()&-]")  # What a label may have and the name of a file should not.


class FileRead(NamedTuple):
  """What reading a file has shown: how many documents it has, and the SHA-256 of its bytes."""

  documents: int
  content: str


class Document(NamedTuple):
  """A document of a split: its hash, its text or ids, and its row in the index."""

  key: bytes
  text: str | np.ndarray
  row: int


@dataclasses.dataclass(frozen=True)
class Domain:
  """One domain of a corpus that was read.

  Attributes:
    name: its name.
    files: the files of each split; splits without files are absent. Of all domains, where documents say theirs.
    splits: those that it has, among train, valid and test.
    drawn: whether its validation set was drawn from its training documents.
    number: its own in the index.
  """

  name: str
  files: Mapping[str, Sequence[CorpusFile]]
  splits: tuple[str, ...]
  drawn: bool
  number: int
  _index: Index
  _of_ids: bool

  def documents(self, split: str) -> Iterator[Document]:
    """Yields the documents of a split, in the order of its files. One held out, by any domain, never appears in train."""
    wanted, rows = SPLITS.index(split), self._index.rows
    splits, reasons = rows["split"], rows["reason"]
    source = wanted if self._index.has_texts(self.number, wanted) else TRAIN  # What was drawn lies with what is trained on.
    for key, data, row in self._index.texts(self.number, source):
      if splits[row] == wanted and reasons[row] == KEPT:
        yield Document(key, np.frombuffer(data, np.uint32) if self._of_ids else data.decode(), row)

  def forget(self) -> None:
    """Deletes its documents from the disk."""
    self._index.forget(self.number)


@dataclasses.dataclass(frozen=True)
class ReadCorpus:
  """A corpus that was read.

  Attributes:
    domains: its domains, sorted by name.
    files: what each file holds, by its path in the corpus, in the order of reading; `Index.rows` has their numbers.
    index: its documents.
    labels: what the documents of each domain are called in the source, by their number.
    clusters: what the domains were found by; None where they are those of the labels.
  """

  domains: tuple[Domain, ...]
  files: Mapping[str, FileRead]
  index: Index
  labels: tuple[str, ...]
  clusters: Clusters | None = None

  def __iter__(self) -> Iterator[Domain]:
    return iter(self.domains)


def document_hash(document: str) -> bytes:
  """128 bits that identify a document by its text."""
  return text_key(document.encode())


def count_documents(corpus: Corpus, table: FileTable, log: Callable[[str], None] = lambda line: None) -> FileTable:
  """Reads every file once, and returns the table with the numbers of their documents. `log` is told of documents that are bad, and
  how many have each label, where that is their domain."""
  documents, labels = {}, collections.Counter()
  for splits in table.domains.values():
    for file in (file for files in splits.values() for file in files):
      if format_of(file.path).kind == "tokens":
        continue  # How they are divided is for the tokenization to say.
      documents[file.path] = bad = 0
      first: str | None = None
      for record in read_records(table.root / file.path, fields=corpus.fields):
        if _readable(corpus, record) is None:
          first, bad = first if bad else record.bad, bad + 1
        elif not record.empty:
          documents[file.path] += 1
          labels[record.label] += 1
      if bad:
        log(f"{printable(file.path)}: {bad:,} documents are bad, the first: {first}")
  if corpus.fields.label is not None:
    for label, count in labels.most_common(_LABELS_TOLD):
      log(f"{corpus.domains_from} {label!r}: {count:,} documents")
    if len(labels) > _LABELS_TOLD:
      log(f"{corpus.domains_from}: {len(labels) - _LABELS_TOLD:,} more labels")
  return table.counted(documents)


def check_domains(table: FileTable) -> None:
  """Refuses, of a table whose documents were counted, domains that `read_corpus` refuses for having no text in a split."""
  for name, splits in table.domains.items():
    _check_trained(name, splits)
    for split, files in splits.items():
      if all(file.documents is not None for file in files):
        _check_text(name, split, files, sum(file.documents for file in files))


def read_corpus(corpus: Corpus, table: FileTable, scratch: pathlib.Path, log: Callable[[str], None] = lambda line: None,
                ids: Ids | None = None) -> ReadCorpus:
  """Reads all documents of a corpus and divides them between domains and splits.

  Args:
    corpus: how to read and to divide.
    table: its files.
    scratch: an empty folder, with room for the unpacked text of all domains that are not forgotten (`Domain.forget`).
    log: told of every file that was read.
    ids: what the ids are, where documents are tokens already.

  Raises:
    InputError: as `read_records` says, a document that is bad unless these are skipped, or a domain that is too small to be
      divided.
    OSError: the documents cannot be written; it names the file.
  """
  reading = _Reading(corpus, table, dataclasses.replace(corpus.fields, ids=ids), scratch, log)
  for name, files in table.domains.items():
    _check_trained(name, files)
    for split in ("valid", "test", "train"):
      for file in files.get(split, ()):
        # Passages are divided where validation documents are drawn, whole documents where they are given.
        reading.read(file, cut=split == "train" and "valid" not in files)
  reading.index.close()
  return reading.divided()


def _readable(corpus: Corpus, record: Record) -> Record | None:
  """The record, or None for a bad one that is to be skipped."""
  if record.bad and corpus.on_bad_document == "fail":
    raise InputError(record.bad)
  return None if record.bad else record


def _check_trained(name: str, files: Mapping[str, Sequence[CorpusFile]]) -> None:
  if "train" not in files:
    raise InputError(f"{_called(name)}: {' and '.join(files)} files but nothing to train on; add a train file")


def _check_text(name: str, split: str, files: Sequence[CorpusFile], documents: int) -> None:
  if not documents:
    paths = ", ".join([*(printable(file.path) for file in files[:3]), *["..."] * (len(files) > 3)])
    raise InputError(f"{_called(name)}: no text in its {split} files ({paths}); add documents, or leave them out with "
                     "Corpus.exclude")


def _called(name: str) -> str:
  return f"domain {name}" if name else "the corpus"


class _Reading:
  """Reads files into an index."""

  def __init__(self, corpus: Corpus, table: FileTable, fields: Fields, scratch: pathlib.Path, log: Callable[[str], None]):
    self._corpus, self._table, self._fields, self._log = corpus, table, fields, log
    self._by_label = fields.label is not None
    self._files: dict[str, FileRead] = {}
    self._numbers: dict[str, int] = {}  # Of domains, by their label.
    self._names: list[str] = []
    self.index = Index(scratch, self._names)

  def read(self, file: CorpusFile, cut: bool) -> None:
    """Adds the documents of a file."""
    digest, documents, bad = hashlib.sha256(), 0, 0
    number, split = len(self._files), SPLITS.index(file.split)
    domain = NO_DOMAIN if self._by_label else self._domain(file.domain, file.path)
    for record in read_records(self._table.root / file.path, digest, self._fields):
      if self._by_label:
        known = NO_DOMAIN if record.label is None else self._numbers.get(record.label)
        domain = self._domain(record.label, f"{file.path}, document {record.position}") if known is None else known
      if _readable(self._corpus, record) is None:
        bad += 1
        reason = self.index.reason(printable(_short_reason(record.bad, str(self._table.root / file.path))))
        self.index.add(b"", number, record.position, domain, split, bytes(32), reason)
        continue
      data = record.data
      add = lambda part, reason: self.index.add(part, number, record.position, domain, split, sha256, reason)
      sha256 = hashlib.sha256(data).digest()
      reason = self._left_out(record, domain)
      documents += reason != EMPTY
      pieces = record.passages() if reason == KEPT and (cut or split != TRAIN) else [data]
      for piece in pieces if cut else (data,):
        add(piece, reason)
      if split != TRAIN and len(pieces) > 1:
        for piece in pieces:
          add(piece, PART)
    self._files[file.path] = FileRead(documents, digest.hexdigest()[:16])
    self._log(f"reading {file.path}: {documents:,} documents{f', and {bad:,} that are bad' if bad else ''}")

  def _left_out(self, record: Record, domain: int) -> int:
    if record.empty:
      return EMPTY
    if len(record.text) < self._corpus.min_characters:
      return SHORT
    chosen = not (self._by_label and self._corpus.domains) or self._names[domain] in self._corpus.domains
    return KEPT if chosen else NOT_WANTED

  def _domain(self, label: str, where: str) -> int:
    """The number of a label's domain."""
    if label not in self._numbers:
      name = _UNFIT.sub("_", label).strip()
      check_domain_name(name, where)
      if name in self._names:
        raise InputError(f"{where}: {label!r} and {next(k for k, v in self._numbers.items() if self._names[v] == name)!r} of "
                         f"Corpus.domains_from = {self._corpus.domains_from!r} are both {name} as the name of a file; rename one")
      if len(self._names) == _DOMAINS_MAX:
        raise InputError(f"{where}: more than {_DOMAINS_MAX:,} different labels for Corpus.domains_from = "
                         f"{self._corpus.domains_from!r}; name a field that many documents share")
      self._numbers[label] = len(self._names)
      self._names.append(name)
    return self._numbers[label]

  def divided(self) -> ReadCorpus:
    """The documents, divided."""
    corpus, index, names = self._corpus, self.index, self._names
    check_cases(names, f"Corpus.domains_from = {corpus.domains_from!r}")
    counts = self._counts()
    used = [k for k in range(len(names)) if counts[k].any() or not self._by_label]
    for name in corpus.domains if self._by_label else ():
      if name not in (names[k] for k in used):
        raise InputError(f"Corpus.domains: no document of {corpus.path} has the domain {name!r}{nearest(name, names)}")
    if not used:
      raise InputError(f"{self._table.root}: no documents in {len(self._files):,} files; mend Corpus.text_key or "
                       "Corpus.domains_from")
    files = [self._table.domains["" if self._by_label else name] for name in names]
    for k in used:
      for split in ("train",) if self._by_label else files[k]:
        _check_text(names[k], split, files[k][split], int(counts[k, SPLITS.index(split)]))
    has_valid, has_test = counts[:, VALID] > 0, counts[:, TEST] > 0
    draws = np.isin(np.arange(len(names)), used)
    draw_valid, draw_test = draws & ~has_valid, draws & ~has_test & (corpus.test_fraction > 0)
    Division(tuple(names), draw_valid, draw_test, corpus.valid_fraction, corpus.test_fraction,
             corpus.duplicates == "drop").apply(index)
    domains = []
    for k in sorted(used, key=names.__getitem__):
      splits = SPLITS if has_test[k] or draw_test[k] else SPLITS[:TEST]
      domains.append(Domain(names[k], files[k], splits, bool(draw_valid[k]), k, index, self._fields.ids is not None))
    return ReadCorpus(tuple(domains), self._files, index, tuple(self._numbers))

  def _counts(self) -> np.ndarray:
    """The documents and passages that are kept of each domain and split, [K, 3]."""
    counts = np.zeros((len(self._names), len(SPLITS)), np.int64)
    for first in range(0, len(self.index.rows), 1 << 20):
      rows = self.index.rows[first:first + (1 << 20)]
      rows = rows[rows["reason"] == KEPT]
      np.add.at(counts, (rows["domain"], rows["split"]), 1)
    return counts


def _short_reason(bad: str, path: str) -> str:
  """What is wrong with a document, without its place and without what to do about it."""
  return re.sub(r"^(:\d+)?: ((row|element) \d+:? )?", "", bad.removeprefix(path)).split(";")[0]
