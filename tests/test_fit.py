"""The fit entry point."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jaxsplit import cli, fit, plan
from jaxsplit.errors import InputError, Interrupted
from jaxsplit.law import FitSettings, load_law
from jaxsplit.law.forms import FORMS
from jaxsplit.report import law_page


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
  assert "form: chinchilla\n" in text and "alpha" in text and str(out) in text


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
    ([COLUMNS, "--form=chinchila"], "did you mean chinchilla"),
    ([COLUMNS, "--extension=nowhere.py"], "--extension=nowhere.py: cannot be read (No such file or directory)"),
    ([COLUMNS, "--form=own.py"], "FitSettings.form = 'own.py': there is none of that name"),
    ([COLUMNS, "--holdout=parms:1"], "did you mean params"),
    ([COLUMNS, "--holdout=params:0"], "AXIS:k such as params:1"),
    ([COLUMNS, "--holdout=params:\u00b2"], "AXIS:k such as params:1"),
    ([COLUMNS, "--bootstrap=-5"], "FitSettings.bootstrap = -5 (--bootstrap of the fit entry point): must be from 0"),
])
def test_bad_input_is_one_line(table, argv, message):
  given = [] if "missing" in message else [f"--cells={table}"]
  with pytest.raises(InputError) as error:
    fit.main([*given, *argv])
  assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("flag, name, message", [
    ("out", "cells.csv", "this is a .json file; name one, as in .*cells.json"),
    ("report", "cells.csv", "this is a .html file; name one, as in .*cells.html"),
    ("out", "notes.json", "there is another kind of file of that name, which is not written over"),
    ("out", "plan.json", "there is another kind of file of that name, which is not written over"),
    ("report", "notes.html", "there is another kind of file of that name, which is not written over")])
def test_a_file_of_another_kind_is_not_written_over(table, tmp_path, flag, name, message):
  path = tmp_path / name
  path.write_text('{"fraction": 0.5}' if name == "plan.json" else "<p>mine</p>")
  before = path.read_bytes()
  with pytest.raises(InputError, match=f"--{flag}={path}: {message}"):
    fit.main([f"--cells={table}", COLUMNS, "--form=chinchilla", "--bootstrap=0", f"--out={tmp_path / 'law.json'}", f"--{flag}={path}"])
  assert path.read_bytes() == before and not (tmp_path / "law.json").exists()


def test_earlier_output_is_written_over(table, tmp_path):
  argv = [f"--cells={table}", COLUMNS, "--form=chinchilla", "--bootstrap=0", f"--out={tmp_path / 'law.json'}", f"--report={tmp_path / 'l.html'}"]
  assert fit.main(argv) == 0 and fit.main(argv) == 0
  for name, profile in load_law(tmp_path / "law.json").profiles.items():
    assert np.isfinite(profile["interval"]).all(), f"{name}, of cells that follow the form exactly"


def test_the_chosen_form_is_named(split_table, tmp_path, capsys):
  assert fit.main([f"--cells={split_table}", "--bootstrap=0", "--starts=4", f"--out={tmp_path / 'law.json'}"]) == 0
  law = load_law(tmp_path / "law.json")
  assert len(law.candidates) > 1
  assert capsys.readouterr().out.startswith(f"form: {law.form}, of {len(law.candidates)} tried\n36 cells")


def test_a_law_whose_report_is_interrupted_is_there(table, tmp_path, monkeypatch):
  def interrupted(*given):
    raise Interrupted

  monkeypatch.setattr(law_page, "write_law_page", interrupted)
  out = tmp_path / "law.json"
  with pytest.raises(Interrupted, match="law.json is written, the report is not"):
    fit.main([f"--cells={table}", COLUMNS, "--form=chinchilla", "--bootstrap=0", f"--out={out}", f"--report={tmp_path / 'l.html'}"])
  assert load_law(out).form == "chinchilla"


@pytest.fixture
def split_table(tmp_path):
  rows = ["params,seed_tokens,expert_tokens,loss"]
  rows += [f"{n},{d},{x},{1.5 + 20 * n**-0.3 + 150 * (x + 3 * d**0.8) ** -0.35}" for n in (1e5, 3e5, 1e6, 3e6)
           for d in (4e6, 8e6, 1.6e7) for x in (0, 1e6, 2e6)]
  path = tmp_path / "split.csv"
  path.write_text("\n".join(rows) + "\n")
  return path


def test_a_form_from_a_file_is_given_to_each_entry_point_that_needs_it(extensions, split_table, tmp_path):
  own, law = tmp_path / "own.py", tmp_path / "law.json"
  own.write_text("import dataclasses\nfrom jaxsplit.law.forms import FORMS, add_form\n"
                 "add_form(dataclasses.replace(FORMS['effective_data'], name='own'))\n")
  fit.main([f"--cells={split_table}", f"--extension={own}", "--form=own", "--bootstrap=20", "--holdout=params:1", f"--out={law}"])
  assert json.loads(law.read_text())["settings"]["form"] == "own"
  asked = [f"--law={law}", "--params=1e6", "--budget_tokens=1e7", "--num_domains=2"]
  assert plan.main([*asked, f"--extension={own}"]) == 0
  del FORMS["own"]
  with pytest.raises(InputError, match="'own': there is none of that name.*a file that adds one is given as --extension=FILE"):
    plan.main(asked)


@pytest.mark.parametrize("name, value, message", [
    ("form", "nonsense", "FitSettings.form = 'nonsense': there is none of that name"),
    ("form", "effective_dat", "did you mean effective_data"),
    ("form", "own.py", "'own.py': there is none of that name"),
    ("form", "3", "FitSettings.form = 3: must be text"),
    ("holdout", "parms:1", "FitSettings.holdout = 'parms:1' .*did you mean params"),
    ("bootstrap", "-5", "FitSettings.bootstrap = -5 .*must be from 0"),
    ("starts", "0", "FitSettings.starts = 0 .*must be from 1"),
    ("profile", "-1", "FitSettings.profile = -1"),
    ("delta", "0", "FitSettings.delta = 0.0"),
])
def test_settings_are_checked_before_anything_is_trained(monkeypatch, tmp_path, name, value, message):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "own.py").write_text("raise SystemExit('this must not run')")
  (tmp_path / "a.gin").write_text(f"FitSettings.{name} = {value if value[-1].isdigit() and ':' not in value else repr(value)}")
  for given in (f"--gin.FitSettings.{name}={value}", "--gin_file=a.gin"):
    with pytest.raises(InputError, match=message):
      cli.parse("train", "", (FitSettings,), [given])
