"""Writes records in every format that is read, by other means than the readers'."""

from __future__ import annotations

import gzip
import json
import struct

import pyarrow as pa
from array_record.python.array_record_module import ArrayRecordWriter
from pyarrow import parquet
from tensorflow_datasets.proto.tf_example_generated_pb2 import Example

from jaxsplit.data.formats import format_of


def example(**fields):
  message = Example()
  for name, value in fields.items():
    values = message.features.feature[name]
    (values.int64_list if isinstance(value, list) else values.bytes_list).value.extend(value if isinstance(value, list) else [value.encode()])
  return message.SerializeToString()


def crc32c(data):
  """Bit by bit, masked: another way than the reader's."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc ^= byte
    for _ in range(8):
      crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
  crc ^= 0xFFFFFFFF
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def tfrecord(records):
  parts = []
  for record in records:
    size = struct.pack("<Q", len(record))
    parts += [size, struct.pack("<I", crc32c(size)), record, struct.pack("<I", 0)]
  return b"".join(parts)


def write_records(path, rows):
  """Rows of fields in the format that the path's name says."""
  kind = format_of(path.name).kind
  if kind == "array_record":
    writer = ArrayRecordWriter(str(path), "group_size:2")
    for row in rows:
      writer.write(example(**row))
    writer.close()
  elif kind == "tfrecord":
    data = tfrecord([example(**row) for row in rows])
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
  elif kind == "parquet":
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
  elif kind == "arrow":
    table = pa.Table.from_pylist(rows)
    new = pa.ipc.new_file if path.name.startswith("file") else pa.ipc.new_stream
    with new(str(path), table.schema) as writer:
      writer.write_table(table, max_chunksize=2)
  elif kind == "json":
    path.write_text("\ufeff [\n" + " ,\n ".join(json.dumps(row, indent=2) for row in rows) + "\n]\n", encoding="utf-8")
  else:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
