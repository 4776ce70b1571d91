"""Files that hold a table, with what programs and people write around it, and files that hold none."""

from __future__ import annotations

import pytest

from jaxsplit.errors import InputError
from jaxsplit.law import read_cells
from jaxsplit.law.mapping import parse_columns

PLAIN = "1e6 1e9 3\n2e6 2e9 2.9\n"
RUNS = [tuple(map(float, row.split())) for row in PLAIN.splitlines()]
COLUMNS = parse_columns("params=N,seed_tokens=D")


def test_a_markdown_file_is_a_table(tmp_path):
  lines = ["| N | D | loss |", "|---|---|---|", *(f"| {n} | {d} | {v} |" for n, d, v in RUNS)]
  (tmp_path / "t.md").write_text("\n".join(lines))
  assert read_cells(tmp_path / "t.md", COLUMNS).loss.tolist() == [3, 2.9]


@pytest.mark.parametrize("name", ["t.md", "t.txt"])
def test_the_prose_around_a_markdown_table_is_not_read(tmp_path, name):
  lines = ["# A sweep | of ours", "", "Some prose, with commas; and a - b.", "", "| N | D | loss |", "|---|:--|---|",
           *(f"| {n} | {d} | {v} |" for n, d, v in RUNS), "", "What came of it."]
  (tmp_path / name).write_text("\n".join(lines))
  assert read_cells(tmp_path / name, COLUMNS).loss.tolist() == [3, 2.9]
  (tmp_path / name).write_text("\n".join([*lines[:6], "| 1e7 | - | 3 |"]))
  with pytest.raises(InputError, match=rf"{name}:7: seed_tokens is missing, written as '-' \(column D\)"):
    read_cells(tmp_path / name, COLUMNS)
  (tmp_path / name).write_text("\n".join([*lines, "", *lines[4:]]))
  with pytest.raises(InputError, match=rf"{name}:12: a second table begins here; give one a file"):
    read_cells(tmp_path / name, COLUMNS)


@pytest.mark.parametrize("name, content", [
    ("t.csv", "# of 2025\n# two models\nparams,seed_tokens,loss\n" + PLAIN.replace(" ", ",")),
    ("t.csv", "# params,seed_tokens,loss\n" + PLAIN.replace(" ", ",")),  # As NumPy writes it.
    ("t.txt", "params   seed_tokens  loss \n" + PLAIN.replace(" ", "   ")),
    ("t.txt", "| params | seed_tokens | loss |\n|---|:---:|---:|\n" + "".join(f"| {' | '.join(row.split())} |\n" for row in PLAIN.splitlines())),
    ("t.json", '{"columns": ["params", "seed_tokens", "loss"], "index": [0, 1], "data": [[1e6, 1e9, 3], [2e6, 2e9, 2.9]]}'),
    ("t.json", '{"runs": [{"params": 1e6, "seed_tokens": 1e9, "loss": 3}, {"params": 2e6, "seed_tokens": 2e9, "loss": 2.9}], "by": ["me"]}')])
def test_what_programs_write_beside_the_rows(tmp_path, name, content):
  (tmp_path / name).write_text(content)
  cells = read_cells(tmp_path / name)
  assert (cells.params.tolist(), cells.seed_tokens.tolist(), cells.loss.tolist()) == ([1e6, 2e6], [1e9, 2e9], [3, 2.9])


@pytest.mark.parametrize("name, content, message", [
    ("t.json", '{"columns": ["a"], "data": [[1, 2]]}', "rows are not lists of 1 values"), ("t.jsonl", '{"params": 1}\n[1]\n', "t.jsonl:2: not a JSON object"), ("t.jsonl", '{"params": 1}\n{\n', "t.jsonl:2: not JSON"),
    ("t.json", "3", "a list of JSON objects"), ("t.json", '{"a": [1], "b": [1, 2]}', "have 1, 2 values"), ("t.json", "[" * 99_999, "not JSON"),
    ("t.jsonl", "", "no rows"), ("t.xlsx", "x", "give a .csv, .tsv, .txt, .md, .jsonl, .json or .parquet file")])
def test_broken_files_are_one_line(tmp_path, name, content, message):
  (tmp_path / name).write_text(content)
  with pytest.raises(InputError, match=message) as error:
    read_cells(tmp_path / name)
  assert "\n" not in str(error.value)
