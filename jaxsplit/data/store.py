"""The token store: per domain and split one flat file of token ids, memory-mapped, and a manifest that says what they are.

    manifest.json               counts, sizes, hashes, tokenizer, and the settings and source files that it was made from
    tokenizer.json              reads the ids back
    times.json                  sizes and times of token files and source files when they were last found to be right
    files.csv                   every file of its corpus, whether it was read, and as what (see file_table.py)
    documents.parquet           every document of its corpus, and what became of it (see document_table.py)
    <domain>.<split>.bin        little-endian uint16 or uint32; every document is followed by `end_of_document`

A store of text is read in overlapping windows. A store of records (the phonebook) holds entries of one length, of which only
the part after a prompt is to be learned. `Store.windows` and `Store.weights` hide the difference from streams and models.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxsplit.data.encoding import Tokenizer
from jaxsplit.data.parts import MANIFEST, TIMES, TOKENIZER
from jaxsplit.data.tokenizer import load_tokenizer
from jaxsplit.errors import InputError, nearest
from jaxsplit.files import content_hash, file_hash, read_json, write_json
from jaxsplit.results.record import parsed

VERSION = 1


@dataclasses.dataclass(frozen=True)
class Counts:
  """What one split of one domain holds.

  Attributes:
    documents: how many documents; the passages of a long one count each where a validation set was drawn from train.
    tokens: how many tokens, separators included.
    unique_tokens: the tokens of the documents that differ, each counted once.
    bytes: the documents' size as UTF-8 text.
    content: the hash of the token file.
    unknown: the share of the text that the tokenizer does not know, of its tokens (see tokenizer.Encoding).
  """

  documents: int
  tokens: int
  unique_tokens: int
  bytes: int
  content: str
  unknown: float = 0.0


@dataclasses.dataclass(frozen=True)
class Record:
  """The shape of a store whose documents are entries of one length, without separators.

  Attributes:
    length: tokens of an entry.
    prompt: how many of them are given; the others are to be predicted.
  """

  length: int
  prompt: int

  @property
  def sequence_length(self) -> int:
    """T of a window: its last token is a target only."""
    return self.length - 1


class Store:
  """An open token store, read-only. Made by `open_store`.

  Attributes:
    directory: where it lies.
    domains: names, sorted.
    tokenizer: reads ids back as text; `vocab_size` and `end_of_document` are its own.
    record: the entries' shape; None for text.
    manifest_hash: identifies tokens and tokenizer, wherever the store lies and whenever it was made.
    source: the settings and files that it was made from.
    overlaps: the training documents that two domains share: (domain, domain, number of different documents).
    left_out: how many documents of the corpus are not in it, by the reason.
    added: of the domains that came later (see joined.py), the manifest hashes of their own stores.
  """

  added: Mapping[str, str] = {}

  def __init__(self, directory: pathlib.Path, tokenizer: Tokenizer, counts: dict[str, dict[str, Counts]], record: Record | None,
               source: dict[str, Any], overlaps: Sequence[tuple[str, str, int]] = (), left_out: Mapping[str, int] | None = None):
    self.directory = directory
    self.domains = tuple(sorted(counts))
    self.tokenizer = tokenizer
    self.vocab_size = tokenizer.vocab_size
    self.end_of_document = tokenizer.end_of_document
    self.record = record
    self.source = source
    self.overlaps = tuple(overlaps)
    self.left_out = dict(left_out or {})
    self._counts = counts
    self._opened: dict[tuple[str, str], np.memmap] = {}
    contents = [f"{d}.{s}.{c.content}" for d in self.domains for s, c in sorted(counts[d].items())]
    self.manifest_hash = content_hash(str(VERSION), tokenizer.fingerprint, repr(record), *contents)

  def splits(self, domain: str) -> tuple[str, ...]:
    """The splits of a domain: train, valid, and test where the corpus has one."""
    return tuple(self._domain(domain))

  def counts(self, domain: str, split: str) -> Counts:
    """Documents, tokens, unique tokens and bytes of a split."""
    splits = self._domain(domain)
    if split not in splits:
      raise InputError(f"domain {domain}: the token store has no split {split!r}{nearest(split, splits)}")
    return splits[split]

  def count(self, domain: str, split: str) -> int:
    """The tokens of a split."""
    return self.counts(domain, split).tokens

  def bytes(self, domain: str, split: str) -> int:
    """The UTF-8 bytes of a split's text."""
    return self.counts(domain, split).bytes

  def tokens(self, domain: str, split: str) -> np.memmap:
    """All token ids of a split, [count], memory-mapped, once."""
    count, which = self.count(domain, split), (domain, split)
    if which not in self._opened:
      self._opened[which] = np.memmap(token_file(self.directory, domain, split), token_dtype(self.vocab_size), mode="r", shape=(count,))
    return self._opened[which]

  def windows(self, domain: str, split: str, sequence_length: int) -> np.ndarray:
    """A view [num_windows, sequence_length + 1] of a split: inputs are window[:-1], targets window[1:].

    Windows of text start every `sequence_length` tokens, so each token but the first is a target once; the tokens after the
    last whole window are left out. Windows of records are the entries.

    Raises:
      InputError: a split smaller than one window, or a sequence length other than that of the records.
    """
    tokens = self.tokens(domain, split).view(np.ndarray)
    if self.record:
      self._check_record(sequence_length)
      return tokens.reshape(-1, self.record.length)
    if len(tokens) <= sequence_length:
      raise InputError(f"domain {domain}: its {split} split has {len(tokens)} tokens, fewer than one window of "
                       f"{sequence_length + 1}; add text or shorten the sequence length")
    return np.lib.stride_tricks.sliding_window_view(tokens, sequence_length + 1)[::sequence_length]

  @property
  def weighted(self) -> bool:
    """Whether windows have weights for their targets."""
    return self.record is not None

  def weights(self, domain: str, split: str, sequence_length: int) -> np.ndarray | None:
    """What each target of `windows` counts: a view, float32 [num_windows, sequence_length], with a positive sum in every window.

    None for text, whose targets all count the same; in a record, the targets after its prompt count 1, the others 0.
    """
    if not self.weighted:
      return None
    self._check_record(sequence_length)
    weights_T = (np.arange(sequence_length) >= self.record.prompt - 1).astype(np.float32)
    return np.broadcast_to(weights_T, (self.count(domain, split) // self.record.length, sequence_length))

  def _check_record(self, sequence_length: int) -> None:
    if sequence_length != self.record.sequence_length:
      raise InputError(f"sequence length {sequence_length}: the entries in {self.directory} need {self.record.sequence_length}")

  def _domain(self, domain: str) -> dict[str, Counts]:
    if domain not in self._counts:
      raise InputError(f"the token store {self.directory} has no domain {domain!r}{nearest(domain, self.domains)}")
    return self._counts[domain]


def read_tokenizer(directory: str | os.PathLike) -> Tokenizer:
  """The tokenizer of a token store, of which no tokens need to be there. InputError where there is none, or another."""
  return _tokenizer(pathlib.Path(directory), _manifest(pathlib.Path(directory)))


def open_store(directory: str | os.PathLike) -> Store:
  """Opens a token store; checks the manifest, the tokenizer and the size of every token file, but reads no tokens.

  Raises:
    InputError: no token store there, one of another version, or one whose files do not match its manifest.
  """
  directory = pathlib.Path(directory)
  path, manifest = directory / MANIFEST, _manifest(directory)
  try:
    counts = {_name(d): {_name(s): parsed(Counts, {"unknown": 0.0, **c}) for s, c in splits.items()}
              for d, splits in manifest["domains"].items()}
    record = parsed(Record | None, manifest["record"])
    source = dict(manifest["source"])
    overlaps = [(_name(a), _name(b), int(documents)) for a, b, documents in manifest.get("overlaps", [])]
    left_out = {str(reason): int(documents) for reason, documents in manifest.get("left_out", {}).items()}
  except (KeyError, TypeError, AttributeError, ValueError) as error:
    raise InputError(f"{path}: a field is missing or wrong ({error}); prepare it again, with --replace") from None
  tokenizer = _tokenizer(directory, manifest)
  for domain, splits in counts.items():
    for split, count in splits.items():
      file = token_file(directory, domain, split)
      size, expected = file.stat().st_size if file.is_file() else 0, count.tokens * token_dtype(tokenizer.vocab_size).itemsize
      if size != expected:
        raise InputError(f"{file}: {size} bytes where {MANIFEST} says {expected}; prepare it again, with --replace")
  return Store(directory, tokenizer, counts, record, source, overlaps, left_out)


def _manifest(directory: pathlib.Path) -> dict[str, Any]:
  path = directory / MANIFEST
  if not path.is_file():
    raise InputError(f"{directory}: no token store here ({MANIFEST} is missing); make one with python -m jaxsplit.prepare")
  manifest = read_json(path)
  if not isinstance(manifest, dict) or manifest.get("version") != VERSION:
    raise InputError(f"{path}: not a token store of version {VERSION}; prepare it again, with --replace")
  return manifest


def _tokenizer(directory: pathlib.Path, manifest: dict[str, Any]) -> Tokenizer:
  try:
    fingerprint, separator = manifest["tokenizer"]["fingerprint"], manifest["tokenizer"].get("separator")
  except (KeyError, TypeError, AttributeError) as error:
    raise InputError(f"{directory / MANIFEST}: a field is missing or wrong ({error}); prepare it again, with --replace") from None
  tokenizer = load_tokenizer(directory / TOKENIZER, separator)
  if tokenizer.fingerprint != fingerprint:
    raise InputError(f"{directory / TOKENIZER}: not the tokenizer that {MANIFEST} names; prepare it again, with --replace")
  return tokenizer


def intact_store(directory: str | os.PathLike, log: Callable[[str], None] = print) -> Store | None:
  """The store in `directory` where its tokens are those that were written; else None.

  A token file of the size and time that the manifest has is taken to be what was written; others are read and hashed. `log` is
  told of damage.
  """
  if not (pathlib.Path(directory) / MANIFEST).is_file():
    return None
  try:
    store = open_store(directory)
    check_tokens(store)
  except InputError as error:
    log(f"the token store is made anew: {error}")
    return None
  return store


def check_tokens(store: Store, thorough: bool = False) -> None:
  """Makes sure that a store's tokens are those that were written, as `intact_store` says; else InputError names the file.

  Where `thorough`, all are hashed whatever their times, and nothing is noted.
  """
  noted = noted_times(store.directory, "tokens")
  times = token_times(store)
  for domain in store.domains:
    for split in store.splits(domain):
      file = token_file(store.directory, domain, split)
      if (thorough or noted.get(file.name) != times[file.name]) and file_hash(file) != store.counts(domain, split).content:
        raise InputError(f"{file}: has other tokens than were written; prepare it again, with --replace")
  if not thorough:
    note_times(store.directory, "tokens", times)


def noted_times(directory: pathlib.Path, part: str) -> dict[str, Any]:
  """What `note_times` has noted last, where that can be read."""
  try:
    return dict(read_json(directory / TIMES)[part])
  except (InputError, KeyError, TypeError, ValueError):
    return {}


def note_times(directory: pathlib.Path, part: str, times: Mapping[str, Any]) -> None:
  """Notes the times of files that were found to be right, so that they need not be read again while these stay the same."""
  if noted_times(directory, part) == times:
    return
  try:
    noted = read_json(directory / TIMES)
  except InputError:
    noted = {}
  with contextlib.suppress(OSError):  # A store that cannot be written is read again at every start.
    write_json(directory / TIMES, {**(noted if isinstance(noted, dict) else {}), part: times})


def token_times(store: Store) -> dict[str, list[int]]:
  files = [token_file(store.directory, domain, split) for domain in store.domains for split in store.splits(domain)]
  return {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def _name(text: str) -> str:
  """A domain's or split's name; ValueError for one that would lead out of the store's folder."""
  if not text or text in (".", "..") or any(c in text for c in "/\\\0"):
    raise ValueError(f"{text!r} cannot name a file")
  return text


def token_file(directory: pathlib.Path, domain: str, split: str) -> pathlib.Path:
  return directory / f"{domain}.{split}.bin"


def token_dtype(vocab_size: int) -> np.dtype:
  return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
