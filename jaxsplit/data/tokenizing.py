"""Second step of a preparation: tokenizes a part of the documents that were read, and writes the ids to disk.

    ids         of each domain and split, the ids of its documents, each with the separator behind it
    sizes.npy   of each row of the part, its ids with the separator, uint32; 0 where it is in no split
    read.json   what `Tokenized` has
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxsplit.data.drivers import whole
from jaxsplit.data.encoding import Tokenizer
from jaxsplit.data.index import ROW, Index, Part, keys_of, texts_of
from jaxsplit.data.plain_tokenizers import IdTokenizer
from jaxsplit.data.reading import KEPT
from jaxsplit.data.store_writer import Batch, Document, batch_of
from jaxsplit.data.tokenizer import load_tokenizer
from jaxsplit.errors import InputError
from jaxsplit.files import content_hash, naming_the_file, read_json, write_json

_READ, _IDS, _SIZES = "read.json", "ids", "sizes.npy"


class TokenJob(NamedTuple):
  """A part to be tokenized.

  Attributes:
    part: where its texts lie.
    rows: the file with its rows.
    tokenizer, separator: as `load_tokenizer` takes them.
    of_ids: whether the texts are ids already.
    names: of its domains, by their number.
    place: the folder of what is made of it, named by all that decides it.
  """

  part: Part
  rows: pathlib.Path
  tokenizer: pathlib.Path
  separator: str | None
  of_ids: bool
  names: Mapping[int, str]
  place: pathlib.Path


class Group(NamedTuple):
  """The documents of one domain and split in a part: of how many, in how many bytes of `ids`; others as in `Batch`."""

  domain: int
  split: int
  documents: int
  size: int
  bytes: int
  unknown: int
  pieces: int


class Tokenized(NamedTuple):
  """What was made of a part.

  Attributes:
    place: the folder with its ids.
    groups: in the order of `ids`.
  """

  place: pathlib.Path
  groups: list[Group]


def token_jobs(index: Index, names: Mapping[int, str], tokenizer: Tokenizer, path: pathlib.Path, of_ids: bool,
               folder: pathlib.Path) -> list[TokenJob]:
  """A job for each part of an index; `path` is where the tokenizer lies, `folder` where ids shall lie."""
  jobs = []
  index.flush()
  for part in index.parts:
    rows = np.array(index.rows[part.first:part.first + part.count])
    for name in ("file", "position", "tokens", "label"):  # They decide no token.
      rows[name] = 0
    there = {int(k): names[int(k)] for k in np.unique(rows["domain"][rows["reason"] == KEPT])}
    place = folder / content_hash(rows.tobytes(), tokenizer.fingerprint, str(of_ids))
    jobs.append(TokenJob(part, index.path, path, tokenizer.separator, of_ids, there, place))
    index.release()
  return jobs


def tokenize_part(job: TokenJob) -> Tokenized:
  """Tokenizes a part, unless that was done.

  Raises:
    InputError: a text that the tokenizer cannot encode; it names the domain.
    OSError: the disk is full, for one; it names the file.
  """
  if not job.place.is_dir():
    with whole(job.place) as build, naming_the_file(build / _IDS):
      _tokenize(job, build)
  return Tokenized(job.place, [Group(*group) for group in read_json(job.place / _READ)])


def batch_from(tokenized: Tokenized, index: Index, part: Part, wanted: tuple[int, int]) -> Batch | None:
  """What was made of a part for a domain and split, as a store takes it; None where it has none. The sizes are noted in its rows."""
  offset = 0
  for group in tokenized.groups:
    if group[:2] == wanted:
      break
    offset += group.size
  else:
    return None
  rows = index.rows[part.first:part.first + part.count]
  mine = np.flatnonzero((rows["reason"] == KEPT) & (rows["domain"] == group.domain) & (rows["split"] == group.split))
  sizes = np.load(tokenized.place / _SIZES)[mine]
  rows["tokens"][mine] = sizes
  with open(tokenized.place / _IDS, "rb") as file:
    file.seek(offset)
    data = file.read(group.size)
  return Batch(data, np.frombuffer(keys_of(rows[mine]), "V16"), sizes, group.bytes, group.unknown, group.pieces)


def _tokenize(job: TokenJob, build: pathlib.Path) -> None:
  rows = np.fromfile(job.rows, ROW, job.part.count, offset=job.part.first * ROW.itemsize)
  sizes, groups, tokenizer = np.zeros(len(rows), np.uint32), [], _tokenizer(job.tokenizer, job.separator)
  kept = rows["reason"] == KEPT
  with open(build / _IDS, "wb") as ids:
    for domain, split in np.unique(np.stack([rows["domain"][kept], rows["split"][kept]]), axis=1).T.tolist():
      mine = kept & (rows["domain"] == domain) & (rows["split"] == split)
      texts = [(text.key, text.data) for text in texts_of(job.part, rows, mine)]
      documents = _of_ids(texts, tokenizer) if job.of_ids else _encoded(texts, tokenizer, job.names[domain])
      batch = batch_of(documents, tokenizer)
      sizes[mine] = batch.sizes
      ids.write(batch.data)
      groups.append(Group(domain, split, len(batch.sizes), len(batch.data), batch.bytes, batch.unknown, batch.pieces))
  np.save(build / _SIZES, sizes)
  write_json(build / _READ, groups)


def _encoded(texts: list[tuple[bytes, bytes]], tokenizer: Tokenizer, domain: str) -> list[Document]:
  try:
    encodings = tokenizer.encode_batch([data.decode() for _, data in texts])
  except InputError as error:
    raise InputError(f"domain {domain}: {error}") from None
  return [Document(ids, len(data), key, unknown, dropped) for (key, data), (ids, unknown, dropped) in zip(texts, encodings)]


def _of_ids(texts: list[tuple[bytes, bytes]], tokenizer: Tokenizer) -> list[Document]:
  """Documents that are ids; the bytes of their text are those that the tokenizer finds, none without one."""
  out = []
  for key, data in texts:
    ids = np.frombuffer(data, np.uint32)
    text = "" if isinstance(tokenizer, IdTokenizer) else tokenizer.decode(ids)
    out.append(Document(ids, len(text.encode()), key))
  return out


@functools.lru_cache(maxsize=1)
def _tokenizer(path: pathlib.Path, separator: str | None) -> Tokenizer:
  return load_tokenizer(path, separator)
