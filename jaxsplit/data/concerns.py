"""Warnings about a corpus before training: repeated text, text that domains share, unknown tokens, too little text."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence

from jaxsplit.data.document_table import first_sources
from jaxsplit.data.file_table import FileTable, load_file_table, printable
from jaxsplit.data.formats import format_of
from jaxsplit.data.parts import DOCUMENT_TABLE, FILE_TABLE
from jaxsplit.data.reading import OTHER, REASONS
from jaxsplit.data.store import Store

_DIFFERENT_MIN = 0.5  # Of a split's tokens.
_SHARED_MAX = 0.01  # Of the documents of the smaller of two domains.
_FILES_NAMED = 20  # A line each.
_SINGLE = 3  # Domains of one document each, from which on that may be a mistake.
_VALID_MIN = 2048  # Different tokens of a validation set; with fewer, a loss is mostly noise.


def describe_files(store: Store) -> list[str]:
  """The file table that a store of text keeps, in short, and then what `concerns` says."""
  path = store.directory / FILE_TABLE
  table = load_file_table(path, store.directory) if path.exists() else FileTable(store.directory, ())
  bad = [reason for reason in store.left_out if reason not in REASONS[:OTHER]]
  sources = first_sources(store.directory / DOCUMENT_TABLE, bad) if bad else {}
  first = lambda reason: f", the first in {sources[reason]}" if reason in sources else ""
  left_out = [f"left out, {printable(reason)}: {documents:,} documents{first(reason)}"
              for reason, documents in sorted(store.left_out.items())]
  separator = store.source.get("corpus", {}).get("text_separator", "")  # Of text alone.
  notes = [*single_documents(table), *undivided(table, separator), *concerns(store)]
  return [*(table.lines() if table.files else ()), *left_out, *(f"note: {line}" for line in notes)]


def undivided(table: FileTable, separator: str) -> list[str]:
  """A line for each text file, of a table whose documents were counted, that `Corpus.text_separator` does not divide; one where there
  are none to divide."""
  if not separator:
    return []
  files = [file for file in table.files if not file.ignored and format_of(file.path.rpartition("/")[2]).kind == "text"]
  if not files:
    return [f"Corpus.text_separator = {separator!r} divides nothing: no file that is read is a .txt; leave it out"]
  whole = [printable(file.path) for file in files if file.documents is not None and file.documents < 2]
  lines = [f"{path}: one document, as Corpus.text_separator = {separator!r} is not between any two in it" for path in whole[:_FILES_NAMED]]
  more = len(whole) - _FILES_NAMED
  return [*lines, *[f"{more:,} more .txt files are one document each in spite of Corpus.text_separator"] * (more > 0)]


def single_documents(table: FileTable) -> list[str]:
  """A line where every domain of a table whose documents were counted is a file with one document: they may be one domain's."""
  domains = [[file for files in splits.values() for file in files] for splits in table.domains.values()]
  if len(domains) < _SINGLE or any(len(files) != 1 or files[0].documents != 1 for files in domains):
    return []
  return [f"{len(domains)} domains, each of one file with one document, as each file of {table.root} is a domain: if they are documents of "
          "one domain, name the folder above as Corpus.path"]


def shared_documents(added: Store, base: Store, others: Iterable[Store]) -> list[str]:
  """A line for each domain of a store, or of others added to it, that has documents which an added one has too. Reads the tables of
  documents, no text; passages of a document that was divided count as all of it."""
  lines = []
  for other in (base, *others):
    if not all((store.directory / DOCUMENT_TABLE).exists() for store in (added, other)):
      continue
    both_read = "the seed has been trained on them" if other is base else "their experts will be alike in them"
    means = {("train", "train"): f"in domain {{}} of {other.directory} too: to that degree {both_read}",
             ("train", "valid"): f"held out, whole or in part, in domain {{}} of {other.directory}: its expert's loss there is partly of "
                                 "text that it has read",
             ("valid", "train"): f"trained on, whole or in part, in domain {{}} of {other.directory}: losses on them are partly of text "
                                 "that was read"}
    own, found = _shared(added, other, tuple(means))
    lines += [f"{found[mine, theirs, domain]:,} of the {own[mine]:,} {'training' if mine == 'train' else 'validation'} documents are "
              + means[mine, theirs].format(domain) for mine, theirs, domain in sorted(found)]
  return lines


def _shared(added: Store, other: Store, pairs: Sequence[tuple[str, str]]) -> tuple[dict[str, int], dict[tuple[str, str, str], int]]:
  """The documents of a store by split; and how many are in another store, by a pair of splits, of the one and the other, and its domain."""
  from pyarrow import compute, parquet

  mine = parquet.read_table(added.directory / DOCUMENT_TABLE, columns=["sha256", "split"])
  own = {split: mine.filter(compute.equal(mine["split"].cast("string"), split))["sha256"].combine_chunks() for split, _ in pairs}
  found: collections.Counter[tuple[str, str, str]] = collections.Counter()
  for batch in parquet.ParquetFile(other.directory / DOCUMENT_TABLE).iter_batches(columns=["sha256", "domain", "split"]):
    for split, theirs in pairs:
      both = batch.filter(compute.and_(compute.is_in(batch["sha256"], own[split]), compute.equal(batch["split"].cast("string"), theirs)))
      found.update((split, theirs, domain) for domain in both["domain"].cast("string").to_pylist())
  return {split: len(documents) for split, documents in own.items()}, found


def concerns(store: Store) -> list[str]:
  """A line for everything about a store of text that makes its results worth less, with the numbers. Reads no tokens."""
  if store.record:
    return []  # A book to be memorised repeats, and is validated on, by intention.
  lines = []
  for domain in store.domains:
    train, valid = store.counts(domain, "train"), store.counts(domain, "valid")
    for name, counts in (("training", train), ("validation", valid)):
      if counts.unique_tokens < _DIFFERENT_MIN * counts.tokens:
        lines.append(f"domain {domain}: of its {counts.tokens:,} {name} tokens only {counts.unique_tokens:,} "
                     f"({counts.unique_tokens / counts.tokens:.1%}) are of different documents; the others repeat these")
      if counts.unknown > 0:
        lines.append(f"domain {domain}: {counts.unknown:.2%} of its {name} text is unknown to the tokenizer")
    if valid.tokens > train.tokens:
      lines.append(f"domain {domain}: {valid.tokens:,} validation tokens, more than the {train.tokens:,} that it is trained on")
    if valid.unique_tokens < _VALID_MIN:
      lines.append(f"domain {domain}: its validation set has {valid.unique_tokens:,} different tokens, so its loss is mostly "
                   f"noise; give it {_VALID_MIN:,} or more")
  for a, b, documents in store.overlaps:
    count, smaller = min((store.counts(d, "train").documents, d) for d in (a, b))
    if documents >= _SHARED_MAX * count:
      lines.append(f"domains {a} and {b} share {documents:,} training documents ({documents / count:.1%} of the {count:,} of "
                   f"{smaller}); their experts will be alike in them")
  return lines
