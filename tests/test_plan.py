"""The plan door."""

from __future__ import annotations

import json

import pytest

from jaxsplit import plan
from jaxsplit.errors import InputError
from jaxsplit.law import Cells, fit_law


@pytest.fixture(scope="module")
def law(tmp_path_factory):
  rows = [(n, d, x, 1.5 + 20 * n**-0.3 + 150 * (x + 3 * d**0.8) ** -0.35)
          for n in (1e5, 3e5, 1e6) for d in (4e6, 8e6, 1.6e7) for x in (0.0, 1e6, 2e6)]
  columns = dict(zip(("params", "seed_tokens", "expert_tokens", "loss"), zip(*rows)))
  path = tmp_path_factory.mktemp("law") / "law.json"
  fit_law(Cells.from_columns(columns), form="effective_data", bootstrap=20).save(path)
  return path


def test_a_plan_for_people_and_for_programs(law, tmp_path, capsys):
  argv = [f"--law={law}", "--params=1e6", "--budget_tokens=4e7", "--num_domains=5"]
  assert plan.main([*argv, f"--out={tmp_path / 'plan.json'}"]) == 0
  assert "full pretraining" in capsys.readouterr().out
  assert plan.main(["--json=yes", *argv]) == 0
  assert capsys.readouterr().out.startswith("{")
  assert plan.main([*argv, "--json"]) == 0
  record = json.loads(capsys.readouterr().out)
  assert record["seed_tokens"] + 5 * record["expert_tokens"] == pytest.approx(4e7)
  assert json.loads((tmp_path / "plan.json").read_text())["fraction"] == record["fraction"]


@pytest.mark.parametrize("argv, message", [
    (["--params=1e6"], "give one budget"),
    (["--params=1e6", "--budget_tokens=1e7"], "--num_domains is missing"),
    (["--budget=1"], "unknown flag --budget"),
    (["--params=x", "--budget_tokens=1e7"], "params"),
])
def test_bad_input_is_one_line(law, argv, message):
  with pytest.raises(InputError) as error:
    plan.main([f"--law={law}", *argv])
  assert message in str(error.value) and "\n" not in str(error.value)


def test_a_missing_law():
  with pytest.raises(InputError, match="--law is missing"):
    plan.main(["--params=1e6"])
  with pytest.raises(InputError, match="no such file"):
    plan.main(["--law=none.json", "--params=1e6", "--budget_tokens=1e7"])
