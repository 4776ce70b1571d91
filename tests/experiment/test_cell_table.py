"""cells.csv: a number that was not measured is never read from it."""

import dataclasses

import pytest

from jaxsplit.errors import InputError
from jaxsplit.experiment.cell_table import CellTable
from jaxsplit.results.cells import Cell, read_cells


def cell(domain="a", loss=1 / 3):
  return Cell(10, 20, domain, 100, 50, 1000, 0.1, loss, 0.5, 1e9, 0, "grid", 1e-3, 32, None, "ok", 0, "abc")


@pytest.fixture
def path(tmp_path):
  CellTable(tmp_path / "cells.csv").add([cell("a"), cell("b, or c")])
  return tmp_path / "cells.csv"


def test_cells_are_the_same_before_and_after_reading(tmp_path, path):
  table = CellTable(tmp_path / "other.csv")
  table.add([cell("a"), cell("b, or c")])
  assert list(table) == list(CellTable(path)) == read_cells(path)


@pytest.mark.parametrize("old, new", [("0.333333333", "0.333333332"), ("grid", "gird"), ("b, or c", "b, or d"), ("1000", "x")])
def test_a_changed_row_is_measured_again(path, old, new):
  text = path.read_text()
  at = text.rindex(old)
  path.write_text(text[:at] + new + text[at + len(old):])
  with pytest.raises(InputError, match=r"cells.csv:3: .*delete the row"):
    read_cells(path)
  said = []
  table = CellTable(path, said.append)
  assert [c.domain for c in table] == ["a"] and "1 damaged rows" in said[0]
  assert len(read_cells(path)) == 1


def test_a_torn_file_keeps_its_whole_rows(path):
  path.write_bytes(path.read_bytes()[:-20])
  assert len(CellTable(path, lambda line: None)) == 1


def test_another_table_is_refused(tmp_path):
  (tmp_path / "cells.csv").write_text("N,loss\n1,2\n")
  with pytest.raises(InputError, match="cells.csv:2: has 2 columns"):
    CellTable(tmp_path / "cells.csv")


def test_marks_survive(path):
  CellTable(path).add([dataclasses.replace(cell("z"), status="diverged", retries=2, loss=float("nan"))])
  last = read_cells(path)[-1]
  assert (last.status, last.retries, last.provenance) == ("diverged", 2, "abc") and last.loss != last.loss


def test_a_table_of_another_version_is_named_and_not_measured_again(path):
  header, *rows = path.read_text().split("\n")
  path.write_text("\n".join([header.replace(",check", ",colour,check"), *rows]))
  with pytest.raises(InputError, match="was written by another version of jaxsplit .columns colour.; use that version"):
    CellTable(path)
