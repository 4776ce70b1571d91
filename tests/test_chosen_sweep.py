"""A sweep that is chosen, as the quickstart has it: from texts to a plan, its experts, and small models to route them by."""

import json
import re

import pytest
from small import arguments

from jaxsplit import evaluate, train
from jaxsplit.law import load_law, load_plan
from jaxsplit.results.cells import read_cells
from jaxsplit.results.stages import read_stages


@pytest.fixture(scope="module")
def chosen(corpus, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("chosen") / "w"
  argv = arguments(corpus, workdir, "--gin.Experiment.target=(24, 2)", "--gin.Sweep.flops=2.0")
  assert train.main([flag for flag in argv if not re.search("sizes|fractions", flag)]) == 0
  return workdir


def test_a_plan_comes_from_cells_within_the_price(chosen):
  law, plan, cells = load_law(chosen / "law.json"), load_plan(chosen / "plan.json"), read_cells(chosen / "cells.csv")
  grid, dense = ([cell for cell in cells if cell.role == role] for role in ("grid", "dense"))
  assert law.settings["reading"] == "prior" and max(cell.params for cell in grid) < plan.params
  trained = sum(stage.flops for stage in read_stages(chosen / "ledger.json") if stage.purpose == "grid")
  assert 0 < trained <= 2.0 * dense[0].flops
  assert json.loads((chosen / "sweep.json").read_text()) and (chosen / "report.html").exists()


def test_small_models_route_its_experts(chosen, tmp_path):
  assert load_plan(chosen / "plan.json").point.expert_steps > 0, "the plan is full pretraining; this test needs experts"
  for _ in range(2):
    assert train.main([f"--workdir={chosen}", "--add_small_models"]) == 0
  small = {cell.params for cell in read_cells(chosen / "cells.csv") if cell.role == "router"}
  assert small == {min(cell.params for cell in read_cells(chosen / "cells.csv") if cell.role == "grid")}
  assert evaluate.main([f"--workdir={chosen}", "--router=prefix@1,uniform", "--tokens=1000", f"--out={tmp_path / 'r.json'}"]) == 0
  chosen_by = json.loads((tmp_path / "r.json").read_text())["routers"]["prefix@1"]["chosen"]
  assert sum(chosen_by[domain][domain] for domain in ("latin", "numbers")) > 1.2
