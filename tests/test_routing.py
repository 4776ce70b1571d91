"""Routers at the evaluate entry point, on a finished experiment: documents, tasks, small models to route by, and the comparison."""

import json
import shutil

import numpy as np
import pytest

from jaxsplit import evaluate, train
from jaxsplit.errors import InputError
from jaxsplit.results.cells import read_cells
from jaxsplit.results.stages import read_stages

ROWS = [{"goal": goal, "sol1": first, "sol2": second, "label": label} for goal, first, second, label in (
    ("arma virumque cano", "troiae", "12 93", 0), ("7 100 4 23 190", "qui", "44 5", 1), ("1 2 3", "44 5", "primus", 0))]


def test_routers_find_the_experts_of_documents_and_questions(finished, tmp_path, capsys):
  (tmp_path / "piqa.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
  out = tmp_path / "r.json"
  names = ["oracle", "best_single", "centroid@1", "bayes", "bayes_cached@1", "uniform", "average"]
  assert evaluate.main([f"--workdir={finished}", f"--router={','.join(names)}", "--context_tokens=8", "--tokens=1000", "--tasks=piqa",
                        f"--data={tmp_path}", f"--out={out}"]) == 0
  found, told = json.loads(out.read_text()), capsys.readouterr().out
  routers = found["routers"]
  assert list(routers) == ["seed", "dense", *names] and "perplexity per token after the contexts of valid documents" in told
  for name in ("centroid@1", "bayes_cached@1"):
    for domain in ("latin", "numbers"):
      assert routers[name]["chosen"][domain][domain] > 0.9
      assert routers[name]["loss"][domain] == pytest.approx(routers["oracle"]["loss"][domain], rel=0.02)
  assert routers["oracle"]["mean_loss"] < min(routers[name]["mean_loss"] for name in ("uniform", "seed", "best_single", "average"))
  costs = {name: routers[name]["inference_cost"] for name in ("oracle", "uniform", "average", "centroid@1", "seed", "dense")}
  assert costs == pytest.approx({"oracle": 1, "uniform": 2, "average": 1, "centroid@1": 1, "seed": 1, "dense": 1})
  assert 1 < routers["bayes_cached@1"]["inference_cost"] < 2
  task = routers["centroid@1"]["tasks"]["piqa"]
  assert task["num"] == 3 and task["chosen"]["numbers"] == pytest.approx(2 / 3) and "piqa" not in routers["oracle"]["tasks"]
  stages = read_stages(finished / "ledger.json")
  split = next(cell for cell in read_cells(finished / "cells.csv") if cell.role == "split")
  per_token = split.flops / (split.seed_tokens + split.expert_tokens)
  assert routers["uniform"]["training_flops"] == pytest.approx(per_token * (split.seed_tokens + 2 * split.expert_tokens))
  assert routers["dense"]["training_flops"] == pytest.approx(per_token * 12_000, rel=0.01)
  assert not any(stage.purpose == "router" for stage in stages) and found["models"][-1]["kind"] == "average"


def test_small_models_to_route_by(finished, tmp_path):
  workdir = shutil.copytree(finished, tmp_path / "w")
  with pytest.raises(InputError, match="has no small model of every domain to route by; train them with .* --add_small_models"):
    evaluate.main([f"--workdir={workdir}", "--router=prefix@1"])
  before = (workdir / "cells.csv").read_text().splitlines()
  for _ in range(2):  # The second time there is nothing to train.
    assert train.main([f"--workdir={workdir}", "--add_small_models"]) == 0
    cells = [cell for cell in read_cells(workdir / "cells.csv") if cell.role == "router"]
    assert sorted(cell.domain for cell in cells) == ["latin", "numbers"] and {cell.params for cell in cells} == {
        min(stage.params for stage in read_stages(workdir / "ledger.json"))}
  assert set(before) < set((workdir / "cells.csv").read_text().splitlines())
  assert evaluate.main([f"--workdir={workdir}", "--router=prefix@1,uniform", "--tokens=1000", f"--out={tmp_path / 'r.json'}"]) == 0
  routers = json.loads((tmp_path / "r.json").read_text())["routers"]
  assert sum(routers["prefix@1"]["chosen"][domain][domain] for domain in ("latin", "numbers")) > 1.2
  assert 1 < routers["prefix@1"]["inference_cost"] < 2
  assert routers["prefix@1"]["training_flops"] > routers["uniform"]["training_flops"]


def test_the_comparison_names_what_is_not_measured(finished, tmp_path, capsys):
  for _ in range(2):  # The second writes over the first's.
    assert evaluate.main([f"--workdir={finished}", "--compare", f"--out={tmp_path / 'c.json'}"]) == 0
  told = capsys.readouterr().out
  ways = {way["name"]: way for way in json.loads((tmp_path / "c.json").read_text())["compare"]}
  assert ways["recommended split"]["loss"] and ways["full pretraining"]["loss"] and ways["recommended split"]["note"] == ""
  flops = [ways[name]["training_flops"] for name in ("recommended split", "full pretraining")]
  assert np.ptp(flops) / flops[0] < 0.01
  assert ways["80/20"]["loss"]  # It is measured beside every plan.
  for name in ("50/50 (BTM)", "no seed (D = 0)", "dense, equal total parameters"):
    assert ways[name]["loss"] is None and ways[name]["note"].startswith("not measured: ") and ways[name]["note"] in told


@pytest.mark.parametrize("flags, message", [
    (["--router=nearest"], "--router = 'nearest': there is none of that name"), (["--router=bayes@3"], "how many experts are kept, 1 to 2"),
    (["--router=bayes", "--temperature=0"], "Routing.temperature = 0.0: must be positive")])
def test_what_cannot_be_routed_is_one_line(finished, flags, message):
  with pytest.raises(InputError, match=message) as caught:
    evaluate.main([f"--workdir={finished}", "--tokens=500", *flags])
  assert "\n" not in str(caught.value)


def test_only_experiments_have_experts(tmp_path):
  for flag in ("--router=bayes", "--compare"):
    with pytest.raises(InputError, match="needs the experts of an experiment; give --workdir"):
      evaluate.main(["--model=hf:x", f"--store={tmp_path}", flag])
  with pytest.raises(InputError, match="no experiment there .config.json is missing"):
    evaluate.main([f"--workdir={tmp_path}", "--compare"])
