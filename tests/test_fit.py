"""The fit door."""

from __future__ import annotations

import json

import pytest

from jaxsplit import fit
from jaxsplit.errors import InputError


@pytest.fixture
def table(tmp_path):
  rows = ["N,D,L"]
  for n in (1e5, 3e5, 1e6, 3e6):
    rows += [f"{n},{d},{1.5 + 20 * n**-0.3 + 150 * d**-0.35}" for d in (1e6, 3e6, 1e7)]
  path = tmp_path / "cells.csv"
  path.write_text("\n".join(rows) + "\n")
  return path


COLUMNS = "--columns=params=N,seed_tokens=D,loss=L"


def test_a_law_is_written_and_told(table, tmp_path, capsys):
  out = tmp_path / "laws" / "law.json"
  assert fit.main([f"--cells={table}", COLUMNS, "--form=chinchilla", "--bootstrap=20", "--holdout=params:1", f"--out={out}"]) == 0
  record = json.loads(out.read_text())
  assert record["parameters"] == pytest.approx({"E": 1.5, "A": 20.0, "alpha": 0.3, "B": 150.0, "beta": 0.35}, rel=1e-3)
  assert record["held_out"]["rule"] == "params:1" and record["data"]["columns"]["params"] == "N"
  text = capsys.readouterr().out
  assert "chinchilla" in text and "alpha" in text and str(out) in text


def test_the_same_cells_elsewhere_give_the_same_law(table, tmp_path):
  elsewhere = tmp_path / "moved" / table.name
  elsewhere.parent.mkdir()
  elsewhere.write_bytes(table.read_bytes())
  for cells in (table, elsewhere):
    fit.main([f"--cells={cells}", COLUMNS, "--form=chinchilla", "--bootstrap=0", f"--out={cells.parent / 'law.json'}"])
  assert (table.parent / "law.json").read_bytes() == (elsewhere.parent / "law.json").read_bytes()


@pytest.mark.parametrize("argv, message", [
    (["--form=chinchilla"], "--cells is missing"),
    (["--columns=params"], "is not NAME=COLUMN"),
    (["--columns=parms=N"], "did you mean params"),
    (["--columns=params=M"], "no column 'M'"),
    ([COLUMNS, "--objectve=l1"], "did you mean --objective"),
    ([COLUMNS, "--objective=l3"], "must be one of"),
    ([COLUMNS, "--form=additive"], "expert_tokens has 1 distinct value"),
])
def test_bad_input_is_one_line(table, argv, message):
  given = [] if "missing" in message else [f"--cells={table}"]
  with pytest.raises(InputError) as error:
    fit.main([*given, *argv])
  assert message in str(error.value) and "\n" not in str(error.value)
