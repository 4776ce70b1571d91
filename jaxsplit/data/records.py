"""Readers of Parquet, Arrow, ArrayRecord and TFRecord files, without TensorFlow: each row is a mapping, or an error.

Arrow files are those that Hugging Face's `save_to_disk` writes (a stream), or Arrow's own files. The records of the last two are
tf.Example messages.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxsplit.data.remote import AnyPath, on_disk
from jaxsplit.data.unpacking import BrokenFile
from jaxsplit.errors import InputError

Row = Mapping[str, Any] | InputError

_ROWS = 1024  # At a time.
_REMEDY = "mend that, or leave the file out with Corpus.exclude"


def parquet_rows(path: AnyPath, keys: Sequence[str], of_text: bool) -> Iterator[Row]:
  """The rows of a Parquet file, of the columns `keys`; see `_table_rows`."""
  from pyarrow import parquet  # It takes a third of a second, which only those who have such files should wait for.

  with _arrow_errors(path, "parquet"), path.open("rb") as opened, parquet.ParquetFile(opened) as file:
    columns = _columns(path, file.schema_arrow, keys, of_text)
    yield from _table_rows(path, file.iter_batches(batch_size=_ROWS, columns=columns))


def arrow_rows(path: AnyPath, keys: Sequence[str], of_text: bool) -> Iterator[Row]:
  """The rows of an Arrow file or stream, of the columns `keys`; see `_table_rows`."""
  import pyarrow

  with _arrow_errors(path, "Arrow"), path.open("rb") as opened:
    start = opened.read(6)
    opened.seek(0)
    if start == b"ARROW1":
      file = pyarrow.ipc.open_file(opened)
      schema, batches = file.schema, (file.get_batch(i) for i in range(file.num_record_batches))
    else:
      opened.seek(-min(4, len(start)), 2)
      if opened.read() != bytes(4):  # Without this mark of its end, a stream that was cut reads as a shorter one.
        raise BrokenFile(f"{path}: cannot be read as Arrow (it stops before its end); copy it again")
      opened.seek(0)
      batches = pyarrow.ipc.open_stream(opened)
      schema = batches.schema
    columns = _columns(path, schema, keys, of_text)
    whole = list(dict.fromkeys(column if column in schema.names else column.split(".")[0] for column in columns))
    yield from _table_rows(path, (_validated(batch.select(whole)) for batch in batches))


def _validated(batch: Any) -> Any:
  """The batch, where its lengths and offsets are right: reading others may end the process."""
  import pyarrow

  for column in batch.columns:
    try:
      column.validate(full=True)
    except pyarrow.ArrowInvalid as error:
      if "UTF8" not in str(error):  # Which is the last to be looked at, and is said of each row.
        raise
  return batch


class _arrow_errors:
  """Has the errors of pyarrow be of one line."""

  def __init__(self, path: AnyPath, kind: str):
    self._path, self._kind = path, kind

  def __enter__(self) -> None:
    pass

  def __exit__(self, kind: type | None, error: BaseException | None, _: Any) -> None:
    import pyarrow
    if isinstance(error, (pyarrow.ArrowException, OSError)) and not isinstance(error, InputError):
      what = f"{self._path}: cannot be read as {self._kind} ({' '.join(str(error)[:160].split())}); copy it again"
      raise (InputError if isinstance(error, (PermissionError, FileNotFoundError)) else BrokenFile)(what) from None


def _columns(path: AnyPath, schema: Any, keys: Sequence[str], of_text: bool) -> list[str]:
  """The columns that are there, of the keys; the first of them must be."""
  fields = {field.name: str(field.type) for field in schema}
  present = [key for key in keys if key in fields or key.split(".")[0] in fields]
  text = keys[0]
  if text not in present:
    raise BrokenFile(f"{path}: no column `{text}` (columns: {', '.join(list(fields)[:8]) or 'none'}); name the column of the "
                     "text as Corpus.text_key, or leave the file out with Corpus.exclude")
  if of_text and text in fields and not any(kind in fields[text] for kind in ("string", "binary")):
    raise BrokenFile(f"{path}: column `{text}` is of type {fields[text]}, not of strings (columns: "
                     f"{', '.join(list(fields)[:8])}); {_REMEDY}")
  return present


def _table_rows(path: AnyPath, batches: Iterator[Any]) -> Iterator[Row]:
  """Rows of Arrow batches; a row whose text is not UTF-8 is an error of its own."""
  number = 0
  for batch in batches:
    for first in range(0, batch.num_rows, _ROWS):
      part = batch.slice(first, _ROWS)
      try:
        rows = part.to_pylist()
      except UnicodeDecodeError:
        rows = [_row(path, part.slice(i, 1), number + i) for i in range(part.num_rows)]
      yield from rows
      number += len(rows)


def _row(path: AnyPath, alone: Any, position: int) -> Row:
  try:
    return alone.to_pylist()[0]
  except UnicodeDecodeError:
    return InputError(f"{path}: row {position + 1} is not UTF-8; convert it to UTF-8")


def array_record_rows(path: AnyPath) -> Iterator[Row]:
  """The tf.Examples of an ArrayRecord file."""
  from array_record.python.array_record_module import ArrayRecordReader

  with on_disk(path) as local:
    number = 0
    try:
      reader = ArrayRecordReader(local)
      try:
        count = reader.num_records()
        while number < count:
          for data in reader.read(number, min(number + _ROWS, count)):
            yield _example(path, data, number)
            number += 1
      finally:
        reader.close()
    except (RuntimeError, ValueError, IndexError) as error:
      if isinstance(error, InputError):
        raise
      raise BrokenFile(f"{path}: cannot be read as ArrayRecord from row {number + 1} on "
                       f"({' '.join(str(error)[:160].split())}); copy it again") from None


def tfrecord_rows(path: AnyPath, chunks: Iterator[bytes]) -> Iterator[Row]:
  """The tf.Examples of a TFRecord file: each record has its length, that length's checksum, itself, and its own checksum."""
  stream, number = _Stream(chunks), 0
  while head := stream.take(12):
    length, checksum = struct.unpack("<QI", head) if len(head) == 12 else (0, None)
    if checksum != _masked_crc(head[:8]):
      raise BrokenFile(f"{path}: no TFRecord at row {number + 1} (its length has another checksum); copy it again")
    data = stream.take(length + 4)
    if len(data) < length + 4:
      raise BrokenFile(f"{path}: the file stops in row {number + 1}; copy it again")
    yield _example(path, data[:length], number)
    number += 1


class _Stream:
  """Pieces of bytes as one sequence."""

  def __init__(self, chunks: Iterator[bytes]):
    self._chunks, self._rest = chunks, memoryview(b"")

  def take(self, size: int) -> bytes:
    """The next `size` bytes, or what is left of them."""
    parts, missing = [], size
    while missing:
      if not self._rest:
        chunk = next(self._chunks, None)
        if chunk is None:
          break
        self._rest = memoryview(chunk)
      parts.append(self._rest[:missing])
      missing -= len(parts[-1])
      self._rest = self._rest[len(parts[-1]):]
    return b"".join(parts)


def _crc_table() -> list[int]:
  """Of CRC-32C (Castagnoli), reflected."""
  table = []
  for byte in range(256):
    for _ in range(8):
      byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    table.append(byte)
  return table


_CRC = _crc_table()


def _masked_crc(data: bytes) -> int:
  """The checksum as TFRecord has it. In Python, so of lengths alone: the text would take longer than all else."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc = _CRC[(crc ^ byte) & 255] ^ crc >> 8
  crc ^= 0xFFFFFFFF
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _example(path: AnyPath, data: bytes, position: int) -> Row:
  """A serialized tf.Example as a mapping; a list of one string is that string."""
  from google.protobuf.message import DecodeError
  from tensorflow_datasets.proto.tf_example_generated_pb2 import Example  # Half a second.

  try:
    features = Example.FromString(data).features.feature
  except DecodeError:
    return InputError(f"{path}: row {position + 1} is no tf.Example; {_REMEDY}")
  fields = {}
  for name, feature in features.items():
    kind = feature.WhichOneof("kind")
    values = list(getattr(feature, kind).value) if kind else None
    fields[name] = values[0] if kind == "bytes_list" and len(values) == 1 else values
  return fields
