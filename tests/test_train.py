"""The train entry point: a whole small experiment, again, and interrupted."""

import csv
import json
import os
import re
import shutil
import signal
import threading
import time

import jax
import numpy as np
import pytest
from small import arguments

from jaxsplit import prepare, train
from jaxsplit.data.store import open_store
from jaxsplit.errors import RETRY_EXIT_CODE, InputError
from jaxsplit.experiment.contents import OURS
from jaxsplit.law import load_law
from jaxsplit.report.evidence import read_evidence
from jaxsplit.results.stages import read_stages
from jaxsplit.training.metrics import read_metrics


def proof_only(corpus, workdir, *more):
  return arguments(corpus, workdir, "--gin.Experiment.sizes=()", "--gin.Experiment.compare=(0.5, 1.0)", "--gin.Training.save_every_steps=50",
                   *more)


def rows(workdir):
  with (workdir / "cells.csv").open() as f:
    return list(csv.DictReader(f))


def test_the_work_directory_holds_everything(finished):
  for name in ("config.gin", "config.json", "metrics.jsonl", "cells.csv", "law.json", "plan.json", "report.html", "ledger.json"):
    assert (finished / name).stat().st_size > 0, name
  assert any((finished / "figures").iterdir())
  assert {path.name for path in finished.iterdir()}.issubset(OURS)


def test_cells_are_the_grid_and_the_proof(finished):
  grid = [r for r in rows(finished) if r["role"] == "grid"]
  assert len(grid) == 3 * (3 + 3 + 2) * 2  # sizes, D' of each D with 0, domains; beside D = .9 C there is only .1 C for experts
  assert {r["domain"] for r in grid} == {"latin", "numbers"}
  proof = [r for r in rows(finished) if r["role"] != "grid"]
  assert {r["role"] for r in proof} >= {"dense"}
  assert len({r["params"] for r in proof} | {r["params"] for r in grid}) == 4
  assert all(0 < float(r["loss"]) < np.log(256) for r in grid + proof)
  for r in proof:  # Equal compute, to the token: 375 steps.
    assert int(r["seed_tokens"]) + 2 * int(r["expert_tokens"]) == 375 * int(r["batch_tokens"]) == 12_000


def test_every_step_is_in_the_metrics_once(finished):
  steps = {}
  for line in read_metrics(finished / "metrics.jsonl"):
    steps.setdefault(line["stage"], []).extend(range(line["first_step"], line["first_step"] + line["steps"]))
  assert {stage.name: stage.steps for stage in read_stages(finished / "ledger.json")} == {stage: len(s) for stage, s in steps.items()}
  assert all(sorted(s) == list(range(len(s))) for s in steps.values())


def test_again_recomputes_nothing(corpus, finished):
  names = ("cells.csv", "law.json", "plan.json", "metrics.jsonl")
  before = [(finished / name).read_bytes() for name in names]
  assert train.main(arguments(corpus, finished)) == 0
  assert [(finished / name).read_bytes() for name in names] == before


@pytest.mark.parametrize("part", ["chapters.closing", "training_figures.spending", "page.answer"])
def test_a_report_that_fails_costs_neither_the_closing_table_nor_the_exit_code(corpus, finished, tmp_path, monkeypatch, capsys, part):
  workdir = shutil.copytree(finished, tmp_path / "w")

  def fails(*_):
    raise KeyError("retry")

  monkeypatch.setattr(f"jaxsplit.report.{part}", fails)
  assert train.main(arguments(corpus, workdir)) == 0
  said = capsys.readouterr().out
  assert re.search(r"^recommended split of .*\n(.*\n)*mean ", said, re.MULTILINE) and said.endswith(f"report: {workdir / 'report.html'}\n")
  warnings = load_law(workdir / "law.json").warnings
  assert warnings and all(f"\nwarning: {warning}\n" in said for warning in warnings)
  assert re.search(r"^report: .*\(KeyError: 'retry', jaxsplit/.*\.py:\d+\)+; no measurement is lost$", said, re.MULTILINE)


def test_a_run_that_is_trained_again_is_told_of_in_the_report(corpus, tmp_path, capsys):
  workdir = tmp_path / "w"
  assert train.main(arguments(corpus, workdir, "--gin.Experiment.sizes=()", "--gin.Experiment.target=(8, 1)",
                              "--gin.Training.spike=0.001", "--gin.Optimizer.warmup_tokens=0", "--gin.Probe.rates=(0.3,)")) == 0
  said, page = capsys.readouterr().out, (workdir / "report.html").read_text()
  assert "trained again" in said and "could not be written" not in said + page
  assert "<td>retry, full</td>" in page


def test_interrupted_and_started_again_equals_uninterrupted(corpus, tmp_path):
  assert train.main(proof_only(corpus, tmp_path / "whole")) == 0
  cut = tmp_path / "cut"
  code, stops = RETRY_EXIT_CODE, 0
  while code == RETRY_EXIT_CODE:
    lines = sum(1 for _ in read_metrics(cut / "metrics.jsonl"))
    done = threading.Event()

    def interrupt():
      while not done.is_set() and stops < 3:
        if sum(1 for _ in read_metrics(cut / "metrics.jsonl")) > lines + 2:
          os.kill(os.getpid(), signal.SIGINT)
          return
        time.sleep(0.005)

    watcher = threading.Thread(target=interrupt)
    watcher.start()
    code = train.main(proof_only(corpus, cut))
    done.set()
    watcher.join()
    stops += code == RETRY_EXIT_CODE
  assert stops >= 1 and code == 0
  assert (cut / "cells.csv").read_bytes() == (tmp_path / "whole" / "cells.csv").read_bytes()
  record = lambda path: sorted((l["stage"], l["first_step"] + i, tuple(v)) for l in read_metrics(path / "metrics.jsonl") for i, v in enumerate(l["loss"]))
  assert record(cut) == record(tmp_path / "whole")


def test_a_store_that_prepare_made_is_trained_on_where_it_lies(corpus, tmp_path, capsys):
  prepare.main([f"--store={tmp_path / 'store'}", f"--gin.Corpus.path={corpus}"])
  argv = [a for a in proof_only(corpus, tmp_path / "w", f"--store={tmp_path / 'store'}") if "Corpus." not in a]
  capsys.readouterr()
  assert train.main(argv) == 0
  said = capsys.readouterr().out
  assert "latin    train      1          1" in said and "numbers  train      1        120" in said
  assert not (tmp_path / "w" / "store").exists()
  config = json.loads((tmp_path / "w" / "config.json").read_text())
  assert config["Store"] == {"manifest_hash": open_store(tmp_path / "store").manifest_hash, "path": str(tmp_path / "store")}
  assert "Corpus" not in config
  held = (tmp_path / "w" / "cells.csv").read_bytes()
  shutil.move(tmp_path / "store", tmp_path / "moved")
  assert train.main([*argv, f"--store={tmp_path / 'moved'}"]) == 0
  assert (tmp_path / "w" / "cells.csv").read_bytes() == held
  prepare.main([f"--store={tmp_path / 'other'}", f"--gin.Corpus.path={corpus}", "--gin.Corpus.valid_fraction=0.2"])
  claimed = (tmp_path / "w" / "config.json").read_bytes()
  with pytest.raises(InputError, match="the corpus has changed since .* or give the --store that they were made with"):
    train.main([*argv, f"--store={tmp_path / 'other'}"])
  assert (tmp_path / "w" / "config.json").read_bytes() == claimed, "what is refused leaves no trace"


def test_jaxs_debug_switches_find_nothing(corpus, tmp_path):
  switches = {"jax_transfer_guard": "disallow", "jax_numpy_rank_promotion": "raise", "jax_numpy_dtype_promotion": "strict"}
  before = {name: getattr(jax.config, name) for name in switches}
  try:
    for name, value in switches.items():
      jax.config.update(name, value)
    assert train.main(proof_only(corpus, tmp_path / "w", "--gin.Experiment.budget_tokens=3_200", "--gin.Experiment.target=(8, 1)",
                                 "--gin.Experiment.compare=(0.5,)", "--gin.Training.save_every_steps=20")) == 0
  finally:
    for name, value in before.items():
      jax.config.update(name, value)
  assert len(rows(tmp_path / "w")) == 2


@pytest.mark.parametrize("accounting, trunk, seeds, experts", [("total", "per_domain", 2, 2), ("per_model", "shared", 1, 1)])
def test_every_split_spends_the_budget_whatever_it_counts(corpus, tmp_path, accounting, trunk, seeds, experts):
  assert train.main(proof_only(corpus, tmp_path / "w", f"--gin.Experiment.accounting='{accounting}'", f"--gin.Experiment.trunk='{trunk}'")) == 0
  cells = {(int(r["seed_tokens"]), int(r["expert_tokens"]), r["domain"]): r for r in rows(tmp_path / "w")}
  assert len(cells) == len(rows(tmp_path / "w")) == 4
  half, steps = 6_000 / seeds, 12_000 // 32
  for (seed, expert, _), row in cells.items():
    dense = row["role"] == "dense"
    assert (seed, expert) == ((steps * 32, 0) if dense else (pytest.approx(half, abs=32), pytest.approx(6_000 / experts, abs=32)))
  evidence = read_evidence(tmp_path / "w")
  assert list(evidence.by_fraction("loss")) == [pytest.approx(0.5, abs=0.01), 1.0]
  stages = read_stages(tmp_path / "w" / "ledger.json")
  assert [(len(stage.runs), stage.steps) for stage in stages if stage.phase == "full"] == [(1, steps)] or trunk == "shared"
