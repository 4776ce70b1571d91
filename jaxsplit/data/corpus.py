"""Corpora: a folder with one subfolder or one file per domain becomes documents per (domain, split).

In a domain's subfolder, a file whose path starts with train, valid, validation, dev or test, and there ends or goes on with
anything but a letter (train-00.txt, test/a.txt), belongs to that split, and any other file (testament.txt) to train. Files about
the data (SOURCE, LICENSE, README, ... in capitals) and hidden files are no documents.
A domain without validation files has documents held out by the hash of their content: the same ones on every machine,
whatever the order and the names of the files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
import pathlib
import re
from collections.abc import Iterator

from jaxsplit.data.documents import SUFFIXES, passages, read_documents
from jaxsplit.errors import InputError, nearest

SPLITS = ("train", "valid", "test")

_SPLIT_NAMES = {"train": "train", "valid": "valid", "validation": "valid", "dev": "valid", "test": "test"}
_SPLIT_NAME = re.compile(rf"({'|'.join(_SPLIT_NAMES)})(?![^\W\d_])", re.IGNORECASE)  # No letter follows.
_ABOUT_THE_DATA = re.compile(r"(SOURCES?|LICEN[CS]ES?|README|NOTICES?|COPYING|COPYRIGHT|CITATION)([._-].*)?")
_DOMAIN_NAME = re.compile(r"\w[\w .+()&-]*")


@dataclasses.dataclass(frozen=True)
class Corpus:
  """Which documents to learn from, and which to hold out.

  Attributes:
    path: a corpus folder, or "bundled" for the five public-domain domains that ship with the package.
    domains: the domains to use; empty for all.
    valid_fraction: the share of a domain's bytes to hold out where it has no validation files.
    valid_tokens_min: the fewest tokens a domain's validation set may have.
  """

  path: str = "bundled"
  domains: tuple[str, ...] = ()
  valid_fraction: float = 0.1
  valid_tokens_min: int = 2048

  def __post_init__(self):
    if not 0 < self.valid_fraction < 1:
      raise InputError(f"Corpus.valid_fraction = {self.valid_fraction}: must lie between 0 and 1")
    if self.valid_tokens_min < 1:
      raise InputError(f"Corpus.valid_tokens_min = {self.valid_tokens_min}: must be 1 or more")


@dataclasses.dataclass(frozen=True)
class Domain:
  """One domain of an opened corpus.

  Attributes:
    name: the subfolder's name, or the file's without its suffix.
    files: the files of each split, sorted by path; splits without files are absent.
    held_out: hashes of the documents that train must not contain.
    drawn: those of them that make up the validation set; None where that has files of its own.
  """

  name: str
  files: dict[str, tuple[pathlib.Path, ...]]
  held_out: frozenset[bytes]
  drawn: frozenset[bytes] | None

  @property
  def splits(self) -> tuple[str, ...]:
    """The splits that have documents, among train, valid and test."""
    return tuple(s for s in SPLITS if s in self.files or (s == "valid" and self.drawn is not None))

  def documents(self, split: str) -> Iterator[str]:
    """Yields the documents of a split in the order of its files. A document held out never appears in train."""
    if split == "train":
      train = _read_all(self.files["train"], cut=self.drawn is not None)
      yield from (document for document in train if document_hash(document) not in self.held_out)
    elif split == "valid" and self.drawn is not None:
      train = _read_all(self.files["train"], cut=True)
      yield from (document for document in train if document_hash(document) in self.drawn)
    else:
      yield from _read_all(self.files[split])


def document_hash(document: str) -> bytes:
  """128 bits that identify a document by its text."""
  return hashlib.blake2b(document.encode(), digest_size=16).digest()


def corpus_files(corpus: Corpus) -> dict[str, dict[str, tuple[pathlib.Path, ...]]]:
  """Finds the files of a corpus: domain -> split -> files. Reads none of them.

  Raises:
    InputError: no such folder, no domains, an unknown or unusable domain name, or a domain without text files.
  """
  root = _root(corpus)
  found: dict[str, pathlib.Path] = {}
  for path in sorted(root.iterdir()):
    if path.name.startswith(".") or _ABOUT_THE_DATA.fullmatch(path.name):
      continue
    name = path.name if path.is_dir() else _without_suffix(path.name)
    if name is None:
      continue
    if not _DOMAIN_NAME.fullmatch(name):
      raise InputError(f"{root}: {name!r} cannot name a domain; begin with a letter or digit, then use also spaces and .+-_()&")
    if name in found:
      raise InputError(f"{root}: domain {name} is given twice, by {found[name].name} and {path.name}; rename one")
    found[name] = path
  if not found:
    raise InputError(f"{root}: no domains here; a corpus has one subfolder or one {'/'.join(SUFFIXES)} file per domain")
  for name in corpus.domains:
    if name not in found:
      raise InputError(f"Corpus.domains: {corpus.path} has no domain {name!r}{nearest(name, found)}")
  return {name: _split_files(found[name]) for name in sorted(corpus.domains or found)}


def open_corpus(corpus: Corpus) -> Iterator[Domain]:
  """Yields the domains of a corpus, sorted by name, each with its documents divided between the splits.

  Raises:
    InputError: as `corpus_files` and `read_documents` say, or a domain that is too small to be divided.
  """
  for name, files in corpus_files(corpus).items():
    if "train" not in files:
      raise InputError(f"domain {name}: {' and '.join(files)} files but nothing to train on; add a train file")
    # Passages are compared where train is cut into passages, whole documents where it is not.
    cut = "valid" not in files
    known = frozenset(document_hash(d) for split in ("valid", "test") for d in _read_all(files.get(split, ()), cut))
    drawn = _draw_validation(name, files["train"], known, corpus.valid_fraction) if cut else None
    yield Domain(name, files, known | (drawn or frozenset()), drawn)


def _draw_validation(name: str, files: tuple[pathlib.Path, ...], known: frozenset[bytes], fraction: float) -> frozenset[bytes]:
  """Chooses the documents of a validation set: the first in the order of their hashes, up to a share of the bytes.

  Long documents are cut into passages first. A domain may be one book, and a book can only be on one side of a split; its
  passages can be on both. What that costs is independence: a held-out passage shares its book's names and style with train.
  """
  sizes: dict[bytes, int] = {}
  for document in _read_all(files, cut=True):
    key = document_hash(document)
    if key not in known:
      sizes[key] = sizes.get(key, 0) + len(document.encode())
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


def _read_all(files: tuple[pathlib.Path, ...], cut: bool = False) -> Iterator[str]:
  for path in files:
    for document in read_documents(path):
      yield from passages(document) if cut else (document,)


def _root(corpus: Corpus) -> pathlib.Path:
  if corpus.path == "bundled":
    return pathlib.Path(str(importlib.resources.files("jaxsplit.data") / "bundled"))
  root = pathlib.Path(corpus.path).expanduser()
  if not root.is_dir():
    known = [p.name for p in root.parent.iterdir() if p.is_dir()] if root.parent.is_dir() else []
    kind = "is no folder" if root.exists() else "no such folder"
    raise InputError(f"Corpus.path: {kind}: {corpus.path}{nearest(root.name, known)}")
  return root


def _without_suffix(name: str) -> str | None:
  return next((name.removesuffix(s) for s in SUFFIXES if name.endswith(s)), None)


def _split_files(path: pathlib.Path) -> dict[str, tuple[pathlib.Path, ...]]:
  if path.is_file():
    return {"train": (path,)}
  splits: dict[str, list[pathlib.Path]] = {}
  for file in sorted(path.rglob("*")):
    inside = file.relative_to(path)
    hidden = any(part.startswith(".") for part in inside.parts)
    if hidden or not file.is_file() or _without_suffix(file.name) is None or _ABOUT_THE_DATA.fullmatch(file.name):
      continue
    named = _SPLIT_NAME.match(inside.parts[0])
    split = _SPLIT_NAMES[named[1].lower()] if named else "train"
    splits.setdefault(split, []).append(file)
  if not splits:
    raise InputError(f"domain {path.name}: no text in {path}; put {', '.join(SUFFIXES)} files there")
  return {split: tuple(files) for split, files in splits.items()}
