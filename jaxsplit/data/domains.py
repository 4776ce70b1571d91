"""Reads the files of a corpus and divides its documents between domains and splits.

Each file is unpacked and parsed once (reading.py). From what is kept of it, documents are read as often as needed: to train a
tokenizer, and to be tokenized. Between the two it is decided, by the hashes of all of them, what is held out and what is left out
(division.py). Memory does not grow with the number of documents.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxsplit.data.corpus import Corpus
from jaxsplit.data.division import Division
from jaxsplit.data.documents import Fields, read_records
from jaxsplit.data.drivers import Driver, Local
from jaxsplit.data.emptied import check_left
from jaxsplit.data.file_table import CorpusFile, FileTable, printable
from jaxsplit.data.formats import format_of
from jaxsplit.data.index import Index
from jaxsplit.data.listing import check_cases, check_domain_name
from jaxsplit.data.pace import Pace
from jaxsplit.data.paths import SPLITS
from jaxsplit.data.reading import KEPT, LABELS_MAX, TEST, VALID, FileJob, FileRead, domain_name, read_file, refusal, text_key
from jaxsplit.data.token_files import Ids
from jaxsplit.errors import InputError, nearest

if TYPE_CHECKING:  # It imports scikit-learn, which takes a second that only those who cluster have to wait.
  from jaxsplit.clustering.clusters import Clusters

_LABELS_TOLD = 50


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


@dataclasses.dataclass(frozen=True)
class ReadCorpus:
  """A corpus that was read.

  Attributes:
    domains: its domains, sorted by name.
    files: what each file holds, by its path in the corpus, in the order of reading; `Index.rows` has their numbers.
    index: its documents.
    of_ids: whether they are ids, not text.
    labels: what the documents of each domain are called in the source, by their number.
    clusters: what the domains were found by; None where they are those of the labels.
  """

  domains: tuple[Domain, ...]
  files: Mapping[str, FileRead]
  index: Index
  of_ids: bool
  labels: tuple[str, ...]
  clusters: Clusters | None = None

  def documents(self, split: str, domain: Domain | None = None) -> Iterator[Document]:
    """Yields the documents of a split, of one domain or of all, in the order of the files. One held out, by any domain, never
    appears in train."""
    for row, key, data in self.index.texts(None if domain is None else domain.number, SPLITS.index(split)):
      yield Document(key, np.frombuffer(data, np.uint32) if self.of_ids else data.decode(), row)


def document_hash(document: str) -> bytes:
  """128 bits that identify a document by its text."""
  return text_key(document.encode())


def count_documents(corpus: Corpus, table: FileTable, log: Callable[[str], None] = lambda line: None,
                    clusters: int = 1) -> tuple[FileTable, list[str]]:
  """Reads every file once, up to a document that `read_corpus` would refuse.

  `log` is told of bad documents that are left out, and how many have each label, where that is their domain.

  Args:
    corpus: how to read.
    table: its files.
    log: takes a line of text.
    clusters: K, where domains are to be found in the texts.

  Returns:
    The table with the numbers of documents, and what is refused: of each file the first, which says where and what to do, or more
    clusters than these documents can be, whatever is in them.
  """
  documents, labels, refused, pieces = {}, collections.Counter(), [], 0
  for splits in table.domains.values():
    for file in (file for files in splits.values() for file in files):
      if format_of(file.path).kind == "tokens":
        continue  # How they are divided is for the tokenization to say.
      count = bad = 0
      first: str | None = None
      for record in read_records(table.root / file.path, fields=corpus.fields):
        if record.bad:
          first, bad = first if bad else record.bad, bad + 1
          if corpus.on_bad_document == "fail":
            break
        elif not record.empty:
          count += 1
          labels[record.label] += 1
          pieces += len(record.passages()) if corpus.clustered else 0
      if bad and corpus.on_bad_document == "fail":
        refused.append(str(refusal(first, corpus, file.path)))
        continue
      documents[file.path] = count
      if bad:
        log(f"{printable(file.path)}: {bad:,} documents are bad and left out, the first: {first.split(';')[0]}")
  if corpus.fields.label is not None:
    for label, count in labels.most_common(_LABELS_TOLD):
      log(f"{corpus.domains_from} {label!r}: {count:,} documents")
    if len(labels) > _LABELS_TOLD:
      log(f"{corpus.domains_from}: {len(labels) - _LABELS_TOLD:,} more labels")
  if corpus.clustered and not refused:
    refused += _too_many(clusters, pieces, {"train", "valid", *["test"] * (corpus.test_fraction > 0),
                                            *(split for splits in table.domains.values() for split in splits)})
  return table.counted(documents), refused


def _too_many(clusters: int, pieces: int, splits: Collection[str]) -> list[str]:
  """Why so many clusters cannot each have one of the documents, or of their passages, in every split; none where they can."""
  most = pieces // len(splits)
  return [f"Clustering.k = {clusters}: each cluster needs text in {', '.join(sorted(splits, key=SPLITS.index))}, and the corpus is "
          f"{pieces:,} passages in all; take at most {most}, or more text"] if clusters > most else []


def check_domains(table: FileTable) -> None:
  """Refuses, of a table whose documents were counted, domains that `read_corpus` refuses for having no text in a split."""
  for name, splits in table.domains.items():
    _check_trained(name, splits)
    for split, files in splits.items():
      if all(file.documents is not None for file in files):
        _check_text(name, split, files, sum(file.documents for file in files))


def read_corpus(corpus: Corpus, table: FileTable, folder: pathlib.Path, log: Callable[[str], None] = lambda line: None,
                ids: Ids | None = None, driver: Driver = Local()) -> ReadCorpus:
  """Reads all documents of a corpus and divides them between domains and splits.

  Args:
    corpus: how to read and to divide.
    table: its files.
    folder: for what is read, with room for the unpacked text. What an earlier call has read of the same files is not read again.
    log: told how far it is.
    ids: what the ids are, where documents are tokens already.
    driver: where files are read.

  Raises:
    InputError: as `read_records` says, a document that is bad unless these are skipped, or a domain that is too small to be
      divided.
    OSError: the documents cannot be written; it names the file.
  """
  fields = dataclasses.replace(corpus.fields, ids=ids)
  jobs = []
  for name, files in table.domains.items():
    _check_trained(name, files)
    # Passages are divided where validation documents are drawn, whole documents where they are given.
    jobs += [FileJob(corpus, table.root, file, fields, split == "train" and "valid" not in files, folder / "read")
             for split in ("valid", "test", "train") for file in files.get(split, ())]
  total = sum(job.file.bytes for job in jobs)
  pace = Pace(log, total)

  def told(number: int, read: FileRead) -> None:
    bad = f", and {read.bad:,} that are bad" if read.bad else ""
    pace(jobs[number].file.bytes, f"reading {jobs[number].file.path}: {read.documents:,} documents{bad}")

  joined = _Joined(corpus, table, fields, folder / "rows")
  for job, read in zip(jobs, driver.run(read_file, jobs, total, told)):
    joined.add(job.file, read)
  return joined.divided()


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


class _Joined:
  """Files that were read, joined; their labels become domains."""

  def __init__(self, corpus: Corpus, table: FileTable, fields: Fields, path: pathlib.Path):
    self._corpus, self._table, self._fields = corpus, table, fields
    self._by_label = fields.label is not None
    self._files: dict[str, FileRead] = {}
    self._numbers: dict[str, int] = {}  # Of domains, by their label.
    self._names: list[str] = []
    self._index = Index(path)

  def add(self, file: CorpusFile, read: FileRead) -> None:
    """Adds what was read of a file."""
    where = lambda position: f"{file.path}, document {position}" if self._by_label else file.path
    if not self._by_label:
      self._domain(file.domain, file.path)
    self._index.add(read, len(self._files), [self._domain(label, where(position)) for label, position in read.labels])
    self._files[file.path] = read

  def _domain(self, label: str, where: str) -> int:
    """The number of a label's domain."""
    if label not in self._numbers:
      name = domain_name(label)
      check_domain_name(name, where)
      if name in self._names:
        raise InputError(f"{where}: {label!r} and {next(k for k, v in self._numbers.items() if self._names[v] == name)!r} of "
                         f"Corpus.domains_from = {self._corpus.domains_from!r} are both {name} as the name of a file; rename one")
      if len(self._names) == LABELS_MAX:
        raise InputError(f"{where}: more than {LABELS_MAX:,} different labels for Corpus.domains_from = "
                         f"{self._corpus.domains_from!r}; name a field that many documents share")
      self._numbers[label] = len(self._names)
      self._names.append(name)
    return self._numbers[label]

  def divided(self) -> ReadCorpus:
    """The documents, divided."""
    corpus, index, names = self._corpus, self._index, self._names
    index.close()
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
      domains.append(Domain(names[k], files[k], splits, bool(draw_valid[k]), k))
    if not corpus.clustered:  # Else these are no domains yet.
      check_left(index, names, {domain.number: domain.splits for domain in domains}, self._counts())
    return ReadCorpus(tuple(domains), self._files, index, self._fields.ids is not None, tuple(self._numbers))

  def _counts(self) -> np.ndarray:
    """The documents and passages that are kept of each domain and split, [K, 3]."""
    counts = np.zeros((len(self._names), len(SPLITS)), np.int64)
    for first in range(0, len(self._index.rows), 1 << 20):
      rows = self._index.rows[first:first + (1 << 20)]
      rows = rows[rows["reason"] == KEPT]
      np.add.at(counts, (rows["domain"], rows["split"]), 1)
    return counts
