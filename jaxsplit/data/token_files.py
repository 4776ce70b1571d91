"""Files of tokens that exist already: documents as ids, without a tokenizer.

    .bin         raw ids as nanoGPT writes them, of `Tokenization.dtype`
    .bin         with llm.c's header: 256 int32, of which the first is 20240520 (uint16) or 20240801 (uint32), the third the count
    .bin, .idx   Megatron's indexed data set: the .idx beside the .bin says the type, and where documents begin
    .npy         NumPy's, with a header, of any whole numbers; without one (OLMo's) as a raw .bin

Streams are cut at `end_of_document`, whether it follows each document (nanoGPT) or precedes it (llm.c). Ids in the rows of
Parquet, Arrow, TFRecord and ArrayRecord files, or in JSON, are a document a row (documents.py).
"""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxsplit.data.remote import AnyPath, RemotePath, on_disk
from jaxsplit.data.unpacking import BrokenFile
from jaxsplit.errors import InputError

PASSAGE_TOKENS = 2048  # What a long document is cut into where validation documents are drawn.

_LLM_C = {20240520: "<u2", 20240801: "<u4"}
_LLM_C_HEADER = 256 * 4
_MEGATRON = b"MMIDIDX\x00\x00"
_MEGATRON_TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_HELD = 1 << 22  # Ids at a time.
_LONGEST = 1 << 26  # Ids of a document; longer ones are most likely none.


class Ids(NamedTuple):
  """What ids are: all are below `vocab_size`, `end_of_document` separates documents, and raw files are of `dtype`."""

  vocab_size: int
  end_of_document: int
  dtype: str

  def checked(self, values: Any, where: str) -> np.ndarray:
    """The ids of a document [n], uint32, without separators at its ends; InputError for what are no ids of this vocabulary."""
    try:
      ids = np.asarray(values)
    except ValueError:  # Lists of several lengths.
      ids = np.empty((0, 0))
    if ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "iu"):
      raise InputError(f"{where}: is no list of token ids; name the field of the ids as Corpus.text_key")
    wrong = np.flatnonzero((ids < 0) | (ids >= self.vocab_size)) if len(ids) else ()
    if len(wrong):
      raise InputError(f"{where}: id {ids[wrong[0]]} at its place {wrong[0]} is not below Tokenization.vocab_size = "
                       f"{self.vocab_size}; give the size of the vocabulary, or the Tokenization.dtype of the file")
    inner = np.flatnonzero(ids != self.end_of_document)
    return ids[inner[0]:inner[-1] + 1].astype(np.uint32) if len(inner) else np.empty(0, np.uint32)


def token_documents(path: AnyPath, ids: Ids) -> Iterator[np.ndarray]:
  """Yields the documents of a file of tokens, as they lie there [n].

  Raises:
    BrokenFile: a file that is shorter than it says, or no such file.
    InputError: a document so long that `end_of_document` is likely another id.
  """
  with on_disk(path) as local:
    index = _index_of(path)
    if index is not None:
      yield from _megatron(path, pathlib.Path(local), index)
    else:
      yield from _split(path, _stream(path, pathlib.Path(local), ids.dtype), ids.end_of_document)


def passages_of(ids: np.ndarray) -> Iterator[np.ndarray]:
  """A long document in pieces."""
  return (ids[first:first + PASSAGE_TOKENS] for first in range(0, len(ids), PASSAGE_TOKENS))


def _stream(path: AnyPath, local: pathlib.Path, dtype: str) -> np.ndarray:
  """All ids of a file of one stream, memory-mapped [n]."""
  size = local.stat().st_size
  with local.open("rb") as file:
    head = file.read(12)
  if head.startswith(b"\x93NUMPY"):
    try:
      ids = np.load(local, mmap_mode="r")
    except Exception as error:  # Whatever NumPy's reader of headers stumbles over.
      raise BrokenFile(f"{path}: cannot be read as .npy ({' '.join(str(error)[:160].split())}); copy it again") from None
    if ids.dtype.kind not in "iu":
      raise BrokenFile(f"{path}: holds {ids.dtype}, no ids")
    return ids.reshape(-1)
  magic, _, count = struct.unpack("<iii", head) if len(head) == 12 else (0, 0, 0)
  if magic in _LLM_C and size >= _LLM_C_HEADER:
    kind = np.dtype(_LLM_C[magic])
    if size != _LLM_C_HEADER + count * kind.itemsize:
      raise BrokenFile(f"{path}: {size:,} bytes, where its header says {count:,} ids of {kind.itemsize} bytes; copy it again")
    return np.memmap(local, kind, mode="r", offset=_LLM_C_HEADER, shape=(count,))
  kind = np.dtype(dtype).newbyteorder("<")
  if size % kind.itemsize:
    raise BrokenFile(f"{path}: {size:,} bytes are no whole number of ids of {kind.itemsize} bytes; give the Tokenization.dtype "
                     "of the file, or copy it again")
  return np.memmap(local, kind, mode="r") if size else np.empty(0, kind)


def _split(path: AnyPath, stream: np.ndarray, separator: int) -> Iterator[np.ndarray]:
  """The stretches of a stream between separators, but for empty ones."""
  pending: list[np.ndarray] = []
  for first in range(0, len(stream), _HELD):
    part = np.array(stream[first:first + _HELD])
    start = 0
    for end in np.flatnonzero(part == separator):
      document = np.concatenate([*pending, part[start:end]]) if pending else part[start:end]
      pending, start = [], end + 1
      if len(document):
        yield document
    if start < len(part):
      pending.append(part[start:])
    if sum(map(len, pending)) > _LONGEST:
      raise InputError(f"{path}: no id {separator} among {_LONGEST:,}; give the id that ends documents as "
                       "Tokenization.end_of_document, and the Tokenization.dtype of the file")
  if pending:
    yield np.concatenate(pending)


def _index_of(path: AnyPath) -> AnyPath | None:
  """The .idx of a Megatron .bin, where there is one."""
  if not path.name.lower().endswith(".bin"):
    return None
  name = path.name[:-4] + (".IDX" if path.name.endswith(".BIN") else ".idx")
  if isinstance(path, RemotePath):
    index = RemotePath(path.system, f"{path.path.rpartition('/')[0]}/{name}")
  else:
    index = path.with_name(name)
  return index if index.is_file() else None


def _megatron(path: AnyPath, local: pathlib.Path, index: AnyPath) -> Iterator[np.ndarray]:
  """The documents of an indexed data set: each is some sequences, one behind the other."""
  with index.open("rb") as file:
    data = file.read()
  version, code, sequences, documents = struct.unpack_from("<QBQQ", data, 9) if len(data) >= 34 else (0, 0, 0, 0)
  known = data.startswith(_MEGATRON) and version == 1 and code in _MEGATRON_TYPES
  if not known or len(data) < 34 + 12 * sequences + 8 * documents:
    raise BrokenFile(f"{index}: no index of Megatron's version 1, or cut; copy it again, or leave it out of the folder for a "
                     "raw .bin")
  kind = np.dtype(_MEGATRON_TYPES[code])
  sizes = np.frombuffer(data, "<i4", sequences, 34)
  starts = np.frombuffer(data, "<i8", sequences, 34 + 4 * sequences)
  bounds = np.frombuffer(data, "<i8", documents, 34 + 12 * sequences)
  count = local.stat().st_size // kind.itemsize
  ids = np.memmap(local, kind, mode="r", shape=(count,)) if count else np.empty(0, kind)
  least = np.concatenate([[0], sizes, starts, np.diff(bounds)]).min()
  if least < 0 or len(bounds) and not 0 <= bounds[0] <= bounds[-1] <= sequences:
    raise BrokenFile(f"{index}: is damaged; copy it again")
  if sequences and (starts // kind.itemsize + sizes).max() > count:
    raise BrokenFile(f"{path}: shorter than its index says; copy it again")
  for first, last in zip(bounds[:-1], bounds[1:]):
    parts = [ids[start:start + size] for start, size in zip(starts[first:last] // kind.itemsize, sizes[first:last])]
    yield np.concatenate(parts) if parts else np.empty(0, kind)
