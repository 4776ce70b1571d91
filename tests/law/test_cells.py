"""Tables are read exactly, and what cannot be a measurement is refused in one line that says where."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxsplit.errors import InputError
from jaxsplit.law import Cells, read_cells, tables

MAPPING = {"params": "N", "seed_tokens": "D", "loss": "L"}


def write(path, text):
  path.write_text(text)
  return path


def test_csv_and_parquet_agree(tmp_path):
  rows = {"N": [1e6, 2e6], "D": [1e9, 2e9], "L": [3.25, 3.0], "domain": ["a", "b"]}
  pq.write_table(pa.table(rows), tmp_path / "t.parquet")
  lines = ["N,D,L,domain", *(",".join(map(str, row)) for row in zip(*rows.values()))]
  from_csv = read_cells(write(tmp_path / "t.csv", "\n".join(lines)), MAPPING)
  from_parquet = read_cells(tmp_path / "t.parquet", MAPPING)
  for cells in (from_csv, from_parquet):
    assert cells.params.tolist() == rows["N"] and cells.loss.tolist() == rows["L"]
    assert cells.expert_tokens.tolist() == [0, 0] and cells.domains == ("a", "b")


def test_failed_and_proof_rows_are_left_out_and_counted(tmp_path):
  path = write(tmp_path / "t.csv", "params,seed_tokens,loss,status,role\n1,1,3,ok,grid\n2,1,nan,diverged,grid\n3,1,2,ok,proof\n")
  cells = read_cells(path)
  assert cells.params.tolist() == [1]
  assert cells.source["dropped"] == {"status is not ok": 1, "role is not grid": 1}


def test_repeated_rows_are_kept_and_told(tmp_path):
  cells = read_cells(write(tmp_path / "t.csv", "N,D,L\n1,1,3\n2,1,3\n1,1,3\n1,1,3.1\n"), MAPPING)
  assert len(cells) == 4
  (note,) = cells.source["notes"]
  assert "t.csv:4: repeats row 2" in note


@pytest.mark.parametrize("text, message", [
    ("N,D,L\n1,1,3\n1,2,nan\n", "t.csv:3: loss is nan"),
    ("N,D,L\n1,1,-3\n", "t.csv:2: loss is -3"),
    ("N,D,L\n0,1,3\n", "t.csv:2: params is 0"),
    ("N,D,L\n1,-1,3\n", "t.csv:2: seed_tokens is -1"),
    ("N,D,L\n1,0,3\n", "untrained"),
    ("N,D,L\n1,x,3\n", "t.csv:2: seed_tokens is 'x', not a number"),
    ("N,D,L\n1,1\n", "t.csv:2: 2 values under 3 columns"),
    ("N,D,loss\n1,1,3\n", "no column 'L' (for loss)"),
    ("N,N,L\n1,1,3\n", "column 'N' appears 2 times"),
    ("N,D,L\n", "no rows"),
    ("", "no rows"),
])
def test_bad_csv(tmp_path, text, message):
  with pytest.raises(InputError, match=".") as error:
    read_cells(write(tmp_path / "t.csv", text), MAPPING)
  assert message in str(error.value) and "\n" not in str(error.value)


def test_bad_files(tmp_path, monkeypatch):
  pq.write_table(pa.table({"N": [1.0], "D": [1.0], "L": [3.0]}), tmp_path / "t.parquet")
  whole = (tmp_path / "t.parquet").read_bytes()
  (tmp_path / "cut.parquet").write_bytes(whole[:len(whole) // 2])
  (tmp_path / "latin.csv").write_bytes(b"N,D,L\n1,1,\xff\n")
  for name, message in (("cut.parquet", "not a whole parquet file"), ("latin.csv", "not UTF-8"), ("none.csv", "no such file"),
                        ("t.txt", "no such file"), (".", "is a folder")):
    with pytest.raises(InputError) as error:
      read_cells(tmp_path / name, MAPPING)
    assert message in str(error.value) and str(tmp_path) in str(error.value)
  monkeypatch.setattr(tables, "_MAX_BYTES", 10)
  with pytest.raises(InputError, match="too large"):
    read_cells(tmp_path / "t.parquet", MAPPING)


def test_a_gigabyte_is_refused_without_reading_it(tmp_path):
  with open(tmp_path / "t.csv", "wb") as f:
    f.truncate(1 << 30)  # sparse
  with pytest.raises(InputError, match="1024 MiB is too large"):
    read_cells(tmp_path / "t.csv")


@pytest.mark.parametrize("text", [
    "\ufeffN,D,L\n1e6,1e9,3.5\n", "N, D, L\n1e6, 1e9, 3.5\n",
    '"N","D","L"\r\n"1000000","1e9","3.5"\r\n', "L,note,D,N\n3.5,\"a, b\",1e9,1000000\n",
])
def test_unusual_tables_are_read(tmp_path, text):
  cells = read_cells(write(tmp_path / "t.CSV", text), MAPPING)
  assert (cells.params.tolist(), cells.seed_tokens.tolist(), cells.loss.tolist()) == ([1e6], [1e9], [3.5])


def test_tables_of_too_many_rows_or_columns_are_refused_early(tmp_path):
  pq.write_table(pa.table({"N": np.ones(300_000), "D": np.ones(300_000), "L": np.ones(300_000)}), tmp_path / "t.parquet")
  for path, message in ((tmp_path / "t.parquet", "300,000 rows"), (write(tmp_path / "w.csv", "," * 5000), "5,001 columns"),
                        (write(tmp_path / "t.csv.gz", "x"), "unpack it first")):
    with pytest.raises(InputError, match=message):
      read_cells(path, MAPPING)


def test_columns_from_python():
  with pytest.raises(InputError, match="did you mean params"):
    Cells.from_columns({"parms": [1.0], "loss": [3.0], "seed_tokens": [1.0]})
  with pytest.raises(InputError, match="no tokens"):
    Cells.from_columns({"params": [1.0], "loss": [3.0]})
  with pytest.raises(InputError, match="has 2 values"):
    Cells.from_columns({"params": [1.0, 2.0], "loss": [3.0], "seed_tokens": [1.0]})
  cells = Cells.from_columns({"params": [1, 2], "loss": [3.0, 2.0], "seed_tokens": [1, 1]})
  assert cells.take(np.array([1])).params.tolist() == [2.0]
