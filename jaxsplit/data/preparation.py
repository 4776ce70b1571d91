"""From a corpus to its token store: opens the one that is there when nothing has changed, else reads and tokenizes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jaxsplit.data.corpus import Corpus, real
from jaxsplit.data.documents import PASSAGE_CHARACTERS, passages
from jaxsplit.data.domains import Domain, FileRead, document_hash, read_corpus
from jaxsplit.data.file_table import FILE_TABLE, FileTable, load_file_table
from jaxsplit.data.listing import list_files
from jaxsplit.data.store import Counts, Store, intact_store, note_times, noted_times, open_store
from jaxsplit.data.store_writer import Document, StoreWriter, replacing
from jaxsplit.data.tokenizer import Tokenization, Tokenizer, make_tokenizer
from jaxsplit.errors import InputError
from jaxsplit.files import file_hash, from_home

# Counting the words of 100 MB takes a minute and 0.7 GB. Merges learned from a quarter of it need 0.2 % more tokens on average
# over ten domains, and 0.7 % at worst.
_BPE_TRAINING_CHARACTERS = 32 << 20
_BATCH_CHARACTERS = 1 << 22
_SECONDS_BETWEEN_LINES = 3.0


def prepare_store(
    corpus: Corpus,
    tokenization: Tokenization,
    directory: str | os.PathLike,
    progress: Callable[[str], None] = lambda line: None,
    thorough: bool = False,
) -> Store:
  """Opens the token store of a corpus in `directory`, reading and tokenizing first unless it is there already.

  A store is reused when the settings and the names, sizes and contents of all source files, within the corpus, are those that
  it was made from, wherever the corpus lies. Contents are hashed only where a file's time is not the one that was noted when it
  was last found the same, or where the corpus has moved. The file table (`FILE_TABLE`) in the store is of what lies there now.

  Args:
    corpus: which documents.
    tokenization: how they become tokens.
    directory: where the store lies or shall lie; a store of another corpus there is replaced.
    progress: takes a line of text every few seconds while reading and tokenizing.
    thorough: hash all source and token files, whatever their times.

  Raises:
    InputError: what `list_files`, `read_corpus`, `make_tokenizer` and `replacing` say, a split without text or with too much that
      the tokenizer does not know, or a validation set of fewer than `corpus.valid_tokens_min` tokens.
    OSError: no room, for one; it names the file.
  """
  table = list_files(corpus)
  settings = _settings(corpus, tokenization)
  store = _reusable(directory, table, settings, progress, thorough)
  if store:
    return store
  times = _times(table)
  with replacing(directory) as build:
    _write(corpus, tokenization, table, settings, build, _Throttled(progress))
    note_times(build, "source", times)
  return open_store(directory)


def _write(corpus: Corpus, tokenization: Tokenization, table: FileTable, settings: dict[str, Any], build: pathlib.Path,
           say: _Throttled) -> None:
  """Reads the corpus and writes the files of its store into the folder `build`."""
  scratch = build / "documents"
  scratch.mkdir()
  domains: Iterator[Domain] | list[Domain] = read_corpus(corpus, table, scratch, say)
  if tokenization.kind == "bpe" and tokenization.path is None:
    domains = list(domains)
    say.now(f"training a byte-level BPE of {tokenization.vocab_size:,} ids")
    tokenizer = make_tokenizer(tokenization, _training_sample(domains))
  else:
    tokenizer = make_tokenizer(tokenization, ())
  writer = StoreWriter(build, tokenizer)
  read: dict[str, FileRead] = {}
  for domain in domains:
    read |= domain.read
    for split in domain.splits:
      counts = writer.add(domain.name, split, _encoded(domain, split, tokenizer, say))
      _check(domain, split, counts, corpus, tokenization)
    domain.forget()
  shutil.rmtree(scratch)
  table.counted({path: file.documents for path, file in read.items()}).save(build / FILE_TABLE)
  writer.finish({**settings, "files": _identified(table, {path: file.content for path, file in read.items()})})


def _reusable(directory: str | os.PathLike, table: FileTable, settings: dict[str, Any], say: Callable[[str], None],
              thorough: bool) -> Store | None:
  """The store in `directory` where it is whole and made from what would be read now; else None."""
  store = intact_store(directory, say, thorough)
  if store is None or {name: value for name, value in store.source.items() if name != "files"} != settings:
    return None
  try:
    made_from = {path: (domain, split, size, content) for domain, split, path, size, content in store.source["files"]}
    before = load_file_table(store.directory / FILE_TABLE, table.root)
  except (KeyError, TypeError, ValueError):  # InputError among them: a table that is damaged or was not written yet.
    return None
  times, noted = _times(table), noted_times(store.directory, "source")
  trusted = noted.get("") == times[""] and not thorough
  for domain, split, path, size, _ in (files := _identified(table, {})):
    if path not in made_from or made_from[path][:3] != (domain, split, size):
      return None
    if not (trusted and noted.get(path) == times[path]) and file_hash(table.root / path) != made_from[path][3]:
      return None
  if len(files) != len(made_from):
    return None
  note_times(store.directory, "source", times)
  now = table.counted({file.path: file.documents for file in before.files})
  if now.files != before.files:
    with contextlib.suppress(OSError):  # Of a store that cannot be written.
      now.save(store.directory / FILE_TABLE)
  return store


def _settings(corpus: Corpus, tokenization: Tokenization) -> dict[str, Any]:
  """What decides a store's tokens, but for the files of the corpus; as JSON gives it back."""
  tokenizer = None
  if tokenization.path is not None:
    path = pathlib.Path(from_home(tokenization.path, "Tokenization.path"))
    if not path.is_file():
      raise InputError(f"Tokenization.path: no such file: {tokenization.path}")
    tokenizer = file_hash(path)
  return {
      "corpus": {"valid_fraction": corpus.valid_fraction, "valid_tokens_min": corpus.valid_tokens_min},
      "tokenization": {**dataclasses.asdict(tokenization), "path": tokenizer},
      "rules": {"passage_characters": PASSAGE_CHARACTERS, "bpe_training_characters": _BPE_TRAINING_CHARACTERS},
  }


def _identified(table: FileTable, contents: Mapping[str, str]) -> list[list[Any]]:
  """Of every file that is read: domain, split, path, size and content, in the order of reading."""
  return [[domain, split, file.path, file.bytes, contents.get(file.path)] for domain, splits in table.domains.items()
          for split, files in splits.items() for file in files]


def _times(table: FileTable) -> dict[str, Any]:
  """When each file that is read was last changed, and under "" where the corpus lies."""
  paths = [file.path for file in table.files if not file.ignored]
  return {"": str(real(table.root)), **{path: (table.root / path).stat().st_mtime_ns for path in paths}}


def _training_sample(domains: Sequence[Domain]) -> Iterator[str]:
  """The text that a BPE is trained on: all of train, or passages of it that add up to some _BPE_TRAINING_CHARACTERS.

  Passages are chosen by their hashes, hence evenly over domains and documents, whatever their order.
  """
  total = sum(len(text) for domain in domains for _, text in domain.documents("train"))
  limit = 2**128 if total <= _BPE_TRAINING_CHARACTERS else 2**128 * _BPE_TRAINING_CHARACTERS // total
  for domain in domains:
    for _, text in domain.documents("train"):
      yield from (p for p in passages(text) if int.from_bytes(document_hash(p)) < limit)


def _encoded(domain: Domain, split: str, tokenizer: Tokenizer, say: Callable[[str], None]) -> Iterator[Document]:
  """The documents of a split as ids."""
  tokens = 0
  for batch in _batches(domain.documents(split)):
    try:
      encodings = tokenizer.encode_batch([text for _, text in batch])
    except InputError as error:
      raise InputError(f"domain {domain.name}: {error}") from None
    for (key, text), (ids, unknown, dropped) in zip(batch, encodings):
      tokens += len(ids) + 1
      yield Document(ids, len(text.encode()), key, unknown, dropped)
    say(f"tokenizing {domain.name} {split}: {tokens:,} tokens")


def _check(domain: Domain, split: str, counts: Counts, corpus: Corpus, tokenization: Tokenization) -> None:
  """Makes sure that a split has enough tokens, and few unknown ones."""
  if not counts.tokens:
    files = domain.files.get(split, domain.files["train"])[:3]
    raise InputError(f"domain {domain.name}: no text in its {split} split that is not also held out; add documents to "
                     f"{', '.join(file.path for file in files)}")
  if counts.unknown > tokenization.unknown_max:
    raise InputError(f"domain {domain.name}: {counts.unknown:.1%} of its {split} text is unknown to the tokenizer, more than "
                     f"Tokenization.unknown_max = {tokenization.unknown_max}; take a tokenizer that knows such text, or leave "
                     "the domain out")
  if split == "valid" and counts.tokens < corpus.valid_tokens_min:
    drawn = domain.drawn is not None
    remedy = f"raise Corpus.valid_fraction ({corpus.valid_fraction})" if drawn else "add documents to its valid files"
    raise InputError(f"domain {domain.name}: its validation set has {counts.tokens} tokens, fewer than Corpus.valid_tokens_min = "
                     f"{corpus.valid_tokens_min}; add text, {remedy}, or lower Corpus.valid_tokens_min")


def _batches(documents: Iterator[tuple[bytes, str]]) -> Iterator[list[tuple[bytes, str]]]:
  """Documents in lists of some megabytes: enough for all cores of a parallel tokenizer, little enough for memory."""
  batch, size = [], 0
  for document in documents:
    batch.append(document)
    size += len(document[1])
    if size >= _BATCH_CHARACTERS:
      yield batch
      batch, size = [], 0
  if batch:
    yield batch


class _Throttled:
  """Passes on one line every few seconds and drops the others."""

  def __init__(self, progress: Callable[[str], None]):
    self.now = progress
    self._last = time.monotonic()

  def __call__(self, line: str) -> None:
    if time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
      self._last = time.monotonic()
      self.now(line)
