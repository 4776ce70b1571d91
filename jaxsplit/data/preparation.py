"""Prepares the token store of a corpus: opens the existing one if nothing has changed, otherwise reads and tokenizes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jaxsplit.clustering.features import FEATURES, read_vectors
from jaxsplit.clustering.settings import Clustering
from jaxsplit.data.corpus import Corpus
from jaxsplit.data.document_table import check_document_table, write_document_table
from jaxsplit.data.domains import Domain, ReadCorpus, document_hash, read_corpus
from jaxsplit.data.drivers import Driver, Local
from jaxsplit.data.encoding import Tokenizer
from jaxsplit.data.file_table import FileTable, load_file_table
from jaxsplit.data.formats import READERS
from jaxsplit.data.index import Part
from jaxsplit.data.listing import list_files
from jaxsplit.data.pace import Pace
from jaxsplit.data.parts import CLUSTERS, DOCUMENT_TABLE, FILE_TABLE, MANIFEST
from jaxsplit.data.paths import SPLITS
from jaxsplit.data.source import corpus_of, differences, identified, times
from jaxsplit.data.store import Counts, Store, check_tokens, note_times, open_store
from jaxsplit.data.store_writer import StoreWriter, replacing
from jaxsplit.data.token_files import Ids
from jaxsplit.data.tokenizer import Tokenization, make_tokenizer
from jaxsplit.data.tokenizing import Tokenized, batch_from, token_jobs, tokenize_part
from jaxsplit.data.unfinished import unfinished
from jaxsplit.errors import InputError
from jaxsplit.files import content_hash, file_hash, from_home
from jaxsplit.passages import PASSAGE_CHARACTERS, passages

# Counting the words of 100 MB takes a minute and 0.7 GB. Merges learned from a quarter of it need 0.2 % more tokens on average
# over ten domains, and 0.7 % at worst.
_BPE_TRAINING_CHARACTERS = 32 << 20
# Settings of a corpus that decide a store's tokens where they are not their defaults.
_DECIDING = ("domains_from", "text_key", "text_separator", "on_bad_document", "min_characters", "duplicates", "test_fraction")


def prepare_store(
    corpus: Corpus,
    tokenization: Tokenization,
    directory: str | os.PathLike,
    log: Callable[[str], None] = lambda line: None,
    replace: bool = True,
    check: Callable[[Store], None] = lambda store: None,
    clustering: Clustering = Clustering(),
    driver: Driver = Local(),
    least_domains: int = 1,
) -> Store:
  """Opens the token store of a corpus in `directory`, reading and tokenizing first unless it is there already.

  A store is reused when the settings and the names, sizes and contents of all source files, within the corpus, are those that
  it was made from, wherever the corpus lies. Contents are hashed only where a file's time is not the one that was noted when it
  was last found the same, or where the corpus has moved. The file table (`FILE_TABLE`) in the store is of what lies there now.

  Args:
    corpus: which documents.
    tokenization: how they become tokens.
    directory: where the store lies or shall lie.
    log: takes a line of text every few seconds while reading and tokenizing.
    replace: whether a store there that cannot be opened, or is of another corpus or other settings, may be replaced. One that
      is of this corpus and damaged is made anew in any case. `log` is told.
    check: raises where a new store must not take the place of the one in `directory`.
    clustering: how domains are found, where `corpus.domains_from` says that they are.
    driver: where files are read and documents tokenized. What was finished when a preparation was stopped is not done again.
    least_domains: fewer are refused; before anything is read, where files tell what domain they are of.

  Raises:
    InputError: a store that may not be replaced; what `list_files`, `read_corpus`, `make_tokenizer` and `replacing` say, a split
      without text or with too much that the tokenizer does not know, or a validation set of fewer than
      `corpus.valid_tokens_min` tokens.
    OSError: no room, for one; it names the file.
  """
  check_settings(corpus, tokenization, clustering)
  table = list_files(corpus)
  if corpus.by_folder and not corpus.clustered:
    check_domain_count(tuple(table.domains), least_domains)
  settings = _settings(corpus, tokenization, clustering)
  store = _reusable(pathlib.Path(directory), table, settings, log, replace)
  if store:
    return store
  found_at = times(table)
  learned = tokenization.kind == "bpe" and tokenization.path is None
  tokenizer = None if learned else make_tokenizer(tokenization, ())  # One that cannot work is refused before anything is read.
  with unfinished(directory, log) as parts, replacing(directory) as build:
    _write(corpus, tokenization, tokenizer, clustering, table, settings, parts, build, log, driver)
    note_times(build, "source", found_at)
    check(open_store(build))
  return open_store(directory)


def check_domain_count(names: Sequence[str], least: int) -> None:
  """Fewer domains than `least` are an InputError."""
  if len(names) < least:
    raise InputError(f"only one domain, {names[0]}: there is nothing to split; give a corpus with a subfolder or file for each "
                     "domain, or have them found in the texts (Corpus.domains_from = 'cluster')")


def _write(corpus: Corpus, tokenization: Tokenization, tokenizer: Tokenizer | None, clustering: Clustering, table: FileTable,
           settings: dict[str, Any], parts: pathlib.Path, build: pathlib.Path, log: Callable[[str], None], driver: Driver) -> None:
  """Reads the corpus and writes the files of its store into the folder `build`; `parts` keeps what is finished. Without a tokenizer,
  one is learned."""
  of_ids = tokenization.kind == "tokens"
  ids = Ids(tokenizer.vocab_size, tokenizer.end_of_document, tokenization.dtype) if of_ids else None
  read = read_corpus(corpus, table, parts, log, ids, driver)
  if corpus.clustered:
    from jaxsplit.data.found_domains import find_domains  # Imports scikit-learn, which takes a second.

    read = find_domains(read, clustering, build / CLUSTERS, log)
  if tokenizer is None:
    log(f"training a byte-level BPE of {tokenization.vocab_size:,} ids")
    tokenizer = make_tokenizer(tokenization, _training_sample(read))
  writer = StoreWriter(build, tokenizer)
  tokenized = _tokenized(read, tokenizer, parts, log, driver)
  for domain in read.domains:
    for split in domain.splits:
      wanted = domain.number, SPLITS.index(split)
      batches = (batch_from(ids, read.index, part, wanted) for ids, part in tokenized.get(wanted, ()))
      _check(domain, split, writer.add(domain.name, split, batches), corpus, tokenization)
      read.index.release()
  left_out = write_document_table(build / DOCUMENT_TABLE, read)
  table.counted({path: file.documents for path, file in read.files.items()}).save(build / FILE_TABLE)
  writer.finish({**settings, "files": identified(table, {path: file.content for path, file in read.files.items()})}, left_out)


def _tokenized(read: ReadCorpus, tokenizer: Tokenizer, parts: pathlib.Path, log: Callable[[str], None],
               driver: Driver) -> dict[tuple[int, int], list[tuple[Tokenized, Part]]]:
  """Of each domain and split, by their numbers, the parts that have documents of it, as ids."""
  path = parts / f"{tokenizer.fingerprint}.json"
  tokenizer.save(path)
  jobs = token_jobs(read.index, {domain.number: domain.name for domain in read.domains}, tokenizer, path, read.of_ids, parts / "ids")
  total = sum(job.part.bytes for job in jobs)
  pace = Pace(log, total)
  tokenized = driver.run(tokenize_part, jobs, total,
                         lambda i, _: pace(jobs[i].part.bytes, f"tokenizing {', '.join(jobs[i].names.values())}"))
  found: dict[tuple[int, int], list[tuple[Tokenized, Part]]] = {}
  for job, ids in zip(jobs, tokenized):
    for group in ids.groups:
      found.setdefault((group.domain, group.split), []).append((ids, job.part))
  return found


def check_settings(corpus: Corpus, tokenization: Tokenization, clustering: Clustering) -> None:
  """Refuses settings that contradict each other, and features or a tokenizer that are not there. Reads no corpus.

  Raises:
    InputError: it names a setting.
  """
  if not corpus.clustered and clustering != Clustering():
    name = next(field.name for field in dataclasses.fields(clustering) if getattr(clustering, field.name) != field.default)
    raise InputError(f"Clustering.{name} = {getattr(clustering, name)!r} is given, but domains are not found in the texts; "
                     "give Corpus.domains_from = 'cluster' too, or leave it out")
  if corpus.clustered and tokenization.kind == "tokens":
    raise InputError("Corpus.domains_from = 'cluster' finds domains in text, but documents are ids (Tokenization.kind = "
                     "'tokens'); give 'folder', or text")
  if corpus.clustered and clustering.of_vectors:
    read_vectors(clustering.features)
  elif corpus.clustered and clustering.by == "kmeans":
    FEATURES[clustering.features](clustering)
  _tokenizer_hash(tokenization)


def check_store(directory: str | os.PathLike, corpus: Corpus | None = None, tokenization: Tokenization | None = None,
                clustering: Clustering = Clustering()) -> Store:
  """Opens the token store in `directory`, hashing all of its token files, and all files of the corpus where that is given.

  Writes nothing.

  Raises:
    InputError: no store there, one whose tokens are not those that were written, or not that of `corpus` and `tokenization`.
  """
  store = open_store(directory)
  check_tokens(store, thorough=True)
  table = list_files(corpus) if corpus else None
  if found := differences(store, _settings(corpus, tokenization, clustering), table, thorough=True):
    raise InputError(f"{directory}: its tokens are whole, those of {corpus_of(store)}, but not what is given: {'; '.join(found)};"
                     " prepare it again with --replace, or leave out what differs")
  return store


def _reusable(directory: pathlib.Path, table: FileTable, settings: dict[str, Any], log: Callable[[str], None],
              replace: bool) -> Store | None:
  """The store in `directory` where it is whole and made from what would be read now; None where it is to be written."""
  if not (directory / MANIFEST).is_file():
    return None
  other = "name another --store, or give --replace"
  try:
    store = open_store(directory)
  except InputError as error:
    if not replace:
      raise InputError(f"{directory}: a token store lies there that cannot be opened ({error}); {other}") from None
    log(f"the corpus is read again, as its token store is damaged: {error}")
    return None
  if found := differences(store, settings, table):
    if not replace:
      raise InputError(f"{directory}: the token store of {corpus_of(store)} lies there, and differs: {'; '.join(found)}; {other}")
    log(f"the corpus is read again, as its token store is of another: {'; '.join(found)}")
    return None
  try:
    check_tokens(store)
    before = load_file_table(directory / FILE_TABLE, table.root)
    check_document_table(directory / DOCUMENT_TABLE)
  except InputError as error:
    log(f"the corpus is read again, as its token store is damaged: {error}")
    return None
  note_times(directory, "source", times(table))
  now = table.counted({file.path: file.documents for file in before.files})
  if now.files != before.files:
    with contextlib.suppress(OSError):  # Of a store that cannot be written.
      now.save(directory / FILE_TABLE)
  return store


def _settings(corpus: Corpus | None, tokenization: Tokenization | None, clustering: Clustering) -> dict[str, dict[str, Any]]:
  """What decides a store's tokens, but for the files of the corpus; as JSON gives it back. Parts that are None are left out."""
  settings = {}
  if corpus:
    others = {field.name: getattr(corpus, field.name) for field in dataclasses.fields(Corpus)
              if field.name in _DECIDING and getattr(corpus, field.name) != field.default}
    if not corpus.by_folder and corpus.domains:  # Else files tell.
      others["domains"] = list(corpus.domains)
    if corpus.clustered:
      others["clustering"] = _identity(clustering)
    settings["corpus"] = {"valid_fraction": corpus.valid_fraction, "valid_tokens_min": corpus.valid_tokens_min, **others}
    settings["rules"] = {"passage_characters": PASSAGE_CHARACTERS, "bpe_training_characters": _BPE_TRAINING_CHARACTERS,
                         "held_out_of": "all domains", **({"readers": dict(READERS.origins)} if READERS.origins else {})}
  if tokenization:
    settings["tokenization"] = {**dataclasses.asdict(tokenization), "path": _tokenizer_hash(tokenization)}
  return settings


def _identity(clustering: Clustering) -> dict[str, Any]:
  """The settings of clusters as JSON, with the contents that they name in the place of paths."""
  given = {**dataclasses.asdict(clustering), "levels": list(clustering.levels)}
  if clustering.of_vectors:
    given["features"] = file_hash(clustering.features)
  elif clustering.model:
    given["model"] = content_hash(*(file_hash(pathlib.Path(clustering.model) / name) for name in ("config.json", "ledger.json")))
  elif clustering.features in FEATURES.origins:
    given["features"] = f"{clustering.features} {FEATURES.origins[clustering.features]}"
  return given


def _tokenizer_hash(tokenization: Tokenization) -> str | None:
  if tokenization.path is None:
    return None
  path = pathlib.Path(from_home(tokenization.path, "Tokenization.path"))
  if path.is_dir():
    raise InputError(f"Tokenization.path: {tokenization.path} is a folder; name its tokenizer.json")
  if not path.is_file():
    raise InputError(f"Tokenization.path: no such file: {tokenization.path}")
  return file_hash(path)


def _training_sample(read: ReadCorpus) -> Iterator[str]:
  """The text that a BPE is trained on: all of train, or passages of it that add up to some _BPE_TRAINING_CHARACTERS.

  Passages are chosen by their hashes, hence evenly over domains and documents, whatever their order.
  """
  total = sum(len(document.text) for document in read.documents("train"))
  limit = 2**128 if total <= _BPE_TRAINING_CHARACTERS else 2**128 * _BPE_TRAINING_CHARACTERS // total
  for document in read.documents("train"):
    yield from (p for p in passages(document.text) if int.from_bytes(document_hash(p)) < limit)


def _check(domain: Domain, split: str, counts: Counts, corpus: Corpus, tokenization: Tokenization) -> None:
  """Makes sure that a split has enough tokens, and few unknown ones."""
  if counts.unknown > tokenization.unknown_max:
    raise InputError(f"domain {domain.name}: {counts.unknown:.1%} of its {split} text is unknown to the tokenizer, more than "
                     f"Tokenization.unknown_max = {tokenization.unknown_max}; take a tokenizer that knows such text, or leave "
                     "the domain out")
  if split == "valid" and counts.tokens < corpus.valid_tokens_min:
    remedy = f"raise Corpus.valid_fraction ({corpus.valid_fraction})" if domain.drawn else "add documents to its valid files"
    raise InputError(f"domain {domain.name}: its validation set has {counts.tokens} tokens, fewer than Corpus.valid_tokens_min = "
                     f"{corpus.valid_tokens_min}; add text, {remedy}, or lower Corpus.valid_tokens_min")
