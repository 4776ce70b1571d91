"""`documents.parquet` of a token store: a row for every document of its corpus, with its split or why it was left out.

    source    the file, as a path within the corpus
    position  of the document in it, from 0: its line, row, element or place between separators
    label     what the source calls its domain: the value of its field, or the folder; null where that cannot be read
    domain    the domain that it belongs to; null where that is a cluster and the document was left out
    split     train, valid or test; null where it was left out
    pieces    how many documents of the store it is: more than 1 for passages of a long one
    bytes     of its text as UTF-8
    tokens    in the store, with separators; null where it was left out
    sha256    of its text, in hexadecimal; null where that cannot be read
    reason    why it was left out; null where it was not

A document whose passages were divided has a row for each split, cluster and reason; their bytes and tokens add up to its own.
"""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Collection, Iterator

import numpy as np

from jaxsplit.data.domains import ReadCorpus
from jaxsplit.data.file_table import printable
from jaxsplit.data.index import ROW, begins
from jaxsplit.data.paths import SPLITS
from jaxsplit.data.reading import KEPT, NO_DOMAIN, PART
from jaxsplit.errors import InputError
from jaxsplit.files import naming_the_file

_ROWS = 1 << 18  # At a time.


def write_document_table(path: pathlib.Path, corpus: ReadCorpus) -> dict[str, int]:
  """Writes the table of a corpus whose documents were tokenized. Returns how many documents were left out, by reason."""
  import pyarrow as pa
  from pyarrow import parquet

  text, words = pa.string(), pa.dictionary(pa.int32(), pa.string())
  schema = pa.schema([("source", words), ("position", pa.int64()), ("label", words), ("domain", words), ("split", words),
                      ("pieces", pa.int32()), ("bytes", pa.int64()), ("tokens", pa.int64()), ("sha256", text), ("reason", words)])
  index, left_out = corpus.index, collections.Counter()
  names = {domain.number: domain.name for domain in corpus.domains}
  sources = [printable(path) for path in corpus.files]
  domains = [names.get(k, label) for k, label in enumerate(corpus.labels)] if corpus.clusters is None else list(names.values())
  with naming_the_file(path), parquet.ParquetWriter(path, schema) as writer:
    for rows, pieces in _merged(index.rows):
      kept, there = rows["reason"] == KEPT, rows["sha256"] != np.void(bytes(32))
      labelled, placed = (rows[name] != NO_DOMAIN for name in ("label", "domain"))
      of = lambda numbers, values, valid: pa.DictionaryArray.from_arrays(
          pa.array(np.where(valid, numbers, 0).astype(np.int32), mask=~valid), pa.array(values, text))
      everywhere = np.ones(len(rows), bool)
      digests = rows["sha256"].tobytes().hex()
      sha256 = pa.array([digests[64 * i:64 * i + 64] for i in range(len(rows))], text, mask=~there)
      writer.write_batch(pa.record_batch([
          of(rows["file"], sources, everywhere), pa.array(rows["position"].astype(np.int64)),
          of(rows["label"], list(corpus.labels), labelled), of(rows["domain"], domains, placed), of(rows["split"], SPLITS, kept),
          pa.array(pieces.astype(np.int32)), pa.array(rows["bytes"].astype(np.int64)),
          pa.array(rows["tokens"].astype(np.int64), mask=~kept), sha256, of(rows["reason"], index.reasons, ~kept)],
          schema=schema))
      numbers, counts = np.unique(rows["reason"][~kept], return_counts=True)
      left_out.update({index.reasons[number]: int(count) for number, count in zip(numbers, counts)})
  return dict(left_out)


def first_sources(path: pathlib.Path, reasons: Collection[str]) -> dict[str, str]:
  """The first source of a document that was left out, for each of some reasons; none of a table that cannot be read."""
  import pyarrow
  from pyarrow import compute, parquet

  found: dict[str, str] = {}
  try:
    with parquet.ParquetFile(path) as table:
      for rows in table.iter_batches(_ROWS, columns=["source", "reason"]):
        for reason in set(reasons).difference(found):
          first = compute.index(rows["reason"].dictionary_decode(), reason).as_py()
          if first >= 0:
            found[reason] = rows["source"][first].as_py()
        if len(found) == len(reasons):
          break
  except (OSError, ValueError, pyarrow.ArrowException):
    pass
  return found


def check_document_table(path: pathlib.Path) -> None:
  """InputError where the table is missing or damaged."""
  import pyarrow
  from pyarrow import parquet

  try:
    parquet.read_metadata(path)
  except (OSError, pyarrow.ArrowException) as error:
    raise InputError(f"{path}: cannot be read as the table of documents ({' '.join(str(error)[:160].split())}); prepare the "
                     "store again") from None


def _merged(rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Rows of whole documents, some at a time: the passages of one that have the same split, domain and reason as one row, with
  their sums; and how many they are."""
  first = 0
  while first < len(rows):
    part = _whole_documents(rows, first)
    first += len(part)
    part = part[part["reason"] != PART]
    documents = np.cumsum(begins(part))
    order = np.lexsort((part["reason"], part["domain"], part["split"], documents))
    part, documents = part[order], documents[order]
    new = np.ones(len(part), bool)
    new[1:] = np.any([column[1:] != column[:-1] for column in (
        documents, part["split"], part["domain"], part["reason"])], axis=0)
    starts = np.flatnonzero(new)
    merged = part[starts]
    for name in ("bytes", "tokens"):
      merged[name] = np.add.reduceat(part[name], starts)
    yield merged, np.diff(np.append(starts, len(part)))


def _whole_documents(rows: np.ndarray, first: int) -> np.ndarray:
  """The next rows, up to the end of a document."""
  count = _ROWS
  while True:
    part = np.array(rows[first:first + count], ROW)
    if first + count >= len(rows):
      return part
    ends = np.flatnonzero(begins(part)[1:])
    if len(ends):
      return part[:ends[-1] + 1]
    count *= 2
