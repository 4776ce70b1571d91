"""From the files of a corpus to the documents of each domain, divided between its splits.

Each file is unpacked and parsed once. Its documents go to a temporary file for each domain and split, from where they are read
as often as needed: to choose a validation set, to train a tokenizer, and to be tokenized.

A domain without validation files has documents held out by the hash of their content: the same ones on every machine, whatever
the order and the names of the files. In memory is a hash of every document of one domain while it is read, and of the documents
held out from then on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from jaxsplit.data.corpus import Corpus
from jaxsplit.data.documents import passages, read_documents
from jaxsplit.data.file_table import CorpusFile, FileTable, printable
from jaxsplit.data.paths import SPLITS
from jaxsplit.errors import InputError
from jaxsplit.files import naming_the_file

_HEAD = struct.Struct("<16sQ")  # A document's hash and its bytes, before its text.


class FileRead(NamedTuple):
  """What reading a file has shown: how many documents it has, and the SHA-256 of its bytes."""

  documents: int
  content: str


@dataclasses.dataclass(frozen=True)
class Domain:
  """One domain of a corpus that was read.

  Attributes:
    name: its name.
    files: the files of each split; splits without files are absent.
    read: what each file holds, by its path in the corpus.
    held_out: hashes of the documents that train must not contain.
    drawn: those of them that make up the validation set; None where that has files of its own.
  """

  name: str
  files: dict[str, tuple[CorpusFile, ...]]
  read: dict[str, FileRead]
  held_out: frozenset[bytes]
  drawn: frozenset[bytes] | None
  _spilled: dict[str, pathlib.Path]

  @property
  def splits(self) -> tuple[str, ...]:
    """The splits that have documents, among train, valid and test."""
    return tuple(s for s in SPLITS if s in self.files or (s == "valid" and self.drawn is not None))

  def documents(self, split: str) -> Iterator[tuple[bytes, str]]:
    """Yields the documents of a split, each after its hash, in the order of its files. One held out never appears in train."""
    drawn = split == "valid" and self.drawn is not None
    for key, text in _unspilled(self._spilled["train" if drawn else split]):
      if drawn:
        if key in self.drawn:
          yield key, text
      elif split != "train" or key not in self.held_out:
        yield key, text

  def forget(self) -> None:
    """Deletes its documents from the disk."""
    for path in self._spilled.values():
      path.unlink(missing_ok=True)


def document_hash(document: str) -> bytes:
  """128 bits that identify a document by its text."""
  return hashlib.blake2b(document.encode(), digest_size=16).digest()


def count_documents(table: FileTable, say: Callable[[str], None] = lambda line: None) -> FileTable:
  """Reads every file once, and returns the table with the numbers of their documents."""
  documents = {}
  for splits in table.domains.values():
    for file in (file for files in splits.values() for file in files):
      documents[file.path] = sum(1 for _ in read_documents(table.root / file.path))
      say(f"reading {file.path}: {documents[file.path]:,} documents")
  return table.counted(documents)


def check_domains(table: FileTable) -> None:
  """Refuses, of a table whose documents were counted, domains that `read_corpus` refuses for having no text in a split."""
  for name, splits in table.domains.items():
    _check_trained(name, splits)
    for split, files in splits.items():
      _check_text(name, split, files, sum(file.documents or 0 for file in files))


def read_corpus(corpus: Corpus, table: FileTable, scratch: pathlib.Path,
                say: Callable[[str], None] = lambda line: None) -> Iterator[Domain]:
  """Yields the domains of a corpus, sorted by name, each with its documents divided between the splits.

  Args:
    corpus: how to divide.
    table: its files.
    scratch: an empty folder, with room for the unpacked text of all domains that are not forgotten (`Domain.forget`).
    say: told of every file that was read.

  Raises:
    InputError: as `read_documents` says, or a domain that is too small to be divided.
    OSError: the documents cannot be written; it names the file.
  """
  for name, files in table.domains.items():
    _check_trained(name, files)
    yield _Reading(corpus, table.root, name, files, scratch, say).domain()


def _check_trained(name: str, files: Mapping[str, Sequence[CorpusFile]]) -> None:
  if "train" not in files:
    raise InputError(f"domain {name}: {' and '.join(files)} files but nothing to train on; add a train file")


def _check_text(name: str, split: str, files: Sequence[CorpusFile], documents: int) -> None:
  if not documents:
    paths = ", ".join([*(printable(file.path) for file in files[:3]), *["..."] * (len(files) > 3)])
    raise InputError(f"domain {name}: no text in its {split} files ({paths}); add documents, or leave them out with "
                     "Corpus.exclude")


class _Reading:
  """Reads one domain."""

  def __init__(self, corpus: Corpus, root: pathlib.Path, name: str, files: Mapping[str, Sequence[CorpusFile]],
               scratch: pathlib.Path, say: Callable[[str], None]):
    self._corpus, self._root, self._name, self._files, self._say = corpus, root, name, dict(files), say
    self._spilled = {split: scratch / f"{name}.{split}" for split in files}
    self._read: dict[str, FileRead] = {}
    # Passages are compared where train is cut into passages, whole documents where it is not.
    self._cut = "valid" not in files

  def domain(self) -> Domain:
    known: set[bytes] = set()
    for split in ("valid", "test"):
      for key, text in self._spill(split, cut=False):
        known.update(map(document_hash, passages(text)) if self._cut else (key,))
    sizes: dict[bytes, int] = {}
    for key, text in self._spill("train", cut=self._cut):
      if self._cut and key not in known:
        sizes[key] = sizes.get(key, 0) + len(text.encode())
    for split, files in self._files.items():
      _check_text(self._name, split, files, sum(self._read[file.path].documents for file in files))
    drawn = _draw_validation(self._name, sizes, self._corpus.valid_fraction) if self._cut else None
    return Domain(self._name, self._files, self._read, frozenset(known) | (drawn or frozenset()), drawn, self._spilled)

  def _spill(self, split: str, cut: bool) -> Iterator[tuple[bytes, str]]:
    """Writes the documents of a split to its temporary file, and yields each with its hash."""
    if split not in self._files:
      return
    path = self._spilled[split]
    with naming_the_file(path), open(path, "wb") as spilled:
      for file in self._files[split]:
        digest, documents = hashlib.sha256(), 0
        for document in read_documents(self._root / file.path, digest):
          documents += 1
          for text in passages(document) if cut else (document,):
            key, data = document_hash(text), text.encode()
            spilled.write(_HEAD.pack(key, len(data)))
            spilled.write(data)
            yield key, text
        self._read[file.path] = FileRead(documents, digest.hexdigest()[:16])
        self._say(f"reading {file.path}: {documents:,} documents")


def _unspilled(path: pathlib.Path) -> Iterator[tuple[bytes, str]]:
  with open(path, "rb") as file:
    while head := file.read(_HEAD.size):
      key, size = _HEAD.unpack(head)
      yield key, file.read(size).decode()


def _draw_validation(name: str, sizes: Mapping[bytes, int], fraction: float) -> frozenset[bytes]:
  """Chooses the documents of a validation set: the first in the order of their hashes, up to a share of the bytes.

  Long documents were cut into passages before. A domain may be one book, and a book can only be on one side of a split; its
  passages can be on both. What that costs is independence: a held-out passage shares its book's names and style with train.
  """
  if len(sizes) < 2:
    raise InputError(f"domain {name}: {sum(sizes.values())} bytes in {len(sizes)} distinct passages cannot be divided into train "
                     "and validation; add text or a valid file")
  room = fraction * sum(sizes.values())
  chosen = set()
  for key in sorted(sizes)[:-1]:
    room -= sizes[key]
    if chosen and room < 0:
      break
    chosen.add(key)
  return frozenset(chosen)
