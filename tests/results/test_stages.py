"""ledger.json: stages as records."""

import json

import pytest

from jaxsplit.errors import InputError
from jaxsplit.results.stages import Point, StageRecord, StageRun, read_stages, totals, write_stages
from jaxsplit.experiment import ledger


def stage(purpose="grid", name="a", phase="trunk", tokens=10, flops=1e9):
  runs = (StageRun(None, 0, 5, None), StageRun("law", 1, 5, Point(5, 2, "split")))
  return StageRecord(purpose, name, name, "d8-l1", (8, 1), phase, 1000, 2, runs, tokens, flops)


def test_stages_come_back_by_purpose(tmp_path):
  write_stages(tmp_path / "ledger.json", [stage("proof", "b"), stage("probe", "c"), stage("grid", "a"), stage("grid", "0")])
  assert read_stages(tmp_path / "ledger.json") == (stage("probe", "c"), stage("grid", "a"), stage("grid", "0"), stage("proof", "b"))


def test_what_was_spent_is_added_up(tmp_path):
  spent = totals([stage(), stage(name="b"), stage("retry", "c", tokens=3), stage("probe", "d", "probe")])
  assert [(total.name, total.tokens, total.flops) for total in spent] == [
      ("grid, trunk", 20, 2e9), ("retry, trunk", 3, 1e9), ("probe", 10, 1e9)]
  write_stages(tmp_path / "ledger.json", [stage(), stage(name="b")])
  assert json.loads((tmp_path / "ledger.json").read_text())["totals"] == [
      {"purpose": "grid", "phase": "trunk", "tokens": 20, "flops": 2e9}]


def test_a_ledger_of_the_version_before_is_begun_anew(tmp_path):
  (tmp_path / "ledger.json").write_text('{"totals": [], "entries": []}')
  with pytest.raises(InputError, match="version None of a ledger is not 2; write it again with python -m jaxsplit.train"):
    read_stages(tmp_path / "ledger.json")
  said = []
  assert ledger.recorded(tmp_path / "ledger.json", said.append) == () and len(said) == 1 and "\n" not in said[0]
