"""Damaged files of every format of documents: what can be read is, and what cannot is bad in one line."""

import numpy as np
import pytest
from damage import damaged_bytes, fuzzed, survives
from hypothesis import given
from hypothesis import strategies as st
from writing import write_records

from jaxsplit.data.documents import Fields, read_records
from jaxsplit.data.token_files import Ids

NAMES = ("a.json", "a.tfrecord", "a.tfrecord.gz", "a.parquet", "a.arrow", "file.arrow", "a.array_record")
TOKENS = ("a.bin", "header.bin", "index.bin", "a.npy")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  folder = tmp_path_factory.mktemp("files")
  for name in NAMES:
    write_records(folder / name, [{"text": f"document {i} {'x' * 50}"} for i in range(20)])
  ids = np.arange(1000, dtype="<u2") % 97
  header = np.zeros(256, "<i4")
  header[:3] = 20240520, 1, len(ids)
  (folder / "a.bin").write_bytes(ids.tobytes())
  (folder / "header.bin").write_bytes(header.tobytes() + ids.tobytes())
  (folder / "index.bin").write_bytes(ids.tobytes())
  (folder / "index.idx").write_bytes(b"MMIDIDX\0\0" + np.array([1], "<u8").tobytes() + b"\x08" + np.array([2, 3], "<u8").tobytes() + np.array(
      [400, 600], "<i4").tobytes() + np.array([0, 800], "<i8").tobytes() + np.array([0, 1, 2], "<i8").tobytes())
  np.save(folder / "a.npy", ids)
  return folder


def read(path, fields):
  records = list(read_records(path, fields=fields))
  assert all("\n" not in record.bad for record in records)
  return records


@pytest.mark.parametrize("name", NAMES)
@fuzzed
@given(data=st.data())
def test_records(files, tmp_path_factory, name, data):
  path = tmp_path_factory.getbasetemp() / f"damaged_{name}"
  path.write_bytes(data.draw(damaged_bytes((files / name).read_bytes())))
  survives(lambda: read(path, Fields()))


@pytest.mark.parametrize("name", (*TOKENS, "index.idx"))
@fuzzed
@given(data=st.data())
def test_tokens(files, tmp_path_factory, name, data):
  folder = tmp_path_factory.getbasetemp() / "tokens"
  folder.mkdir(exist_ok=True)
  for part in ("index.bin", "index.idx"):
    (folder / part).write_bytes((files / part).read_bytes())
  (folder / name).write_bytes(data.draw(damaged_bytes((files / name).read_bytes())))
  survives(lambda: read(folder / name.replace(".idx", ".bin"), Fields(ids=Ids(97, 0, "uint16"))))
