"""An experiment from Python is the one of the train entry point."""

import dataclasses
import json
import re
import shutil

import pytest
from small import arguments, write_corpus

import jaxsplit
from jaxsplit import cli, prepare, train
from jaxsplit.errors import InputError
from jaxsplit.law import load_law, load_plan
from jaxsplit.results.cells import read_cells
from jaxsplit.results.stages import read_stages


def settings(corpus, **experiment):
  """Those of `small.arguments`, without gin."""
  return jaxsplit.Settings(
      jaxsplit.Experiment(**{"budget_tokens": 12_000, "sizes": ((8, 1), (16, 1), (16, 2)), "target": (24, 1), "validation_tokens": 2048,
                             "seed_fractions": (0.25, 0.5, 0.9), "expert_fractions": (0.2, 0.5), **experiment}),
      corpus=jaxsplit.Corpus(str(corpus)), probe=jaxsplit.Probe(rates=(5e-3,)), architecture=jaxsplit.Architecture(head_dim=8),
      training=jaxsplit.Training(sequence_length=16, batch_sequences=2), optimizer=jaxsplit.Optimizer(warmup_tokens=320),
      layout=jaxsplit.Layout(devices=2), fit=jaxsplit.FitSettings(bootstrap=40, form="effective_data"))


def test_the_same_settings_go_on_with_what_the_command_made(corpus, finished, tmp_path):
  workdir = shutil.copytree(finished, tmp_path / "w")
  files = ("cells.csv", "law.json", "plan.json", "metrics.jsonl", "config.json", "config.gin")
  before = [(workdir / name).read_bytes() for name in files]
  result = jaxsplit.run(settings(corpus), workdir)
  assert [(workdir / name).read_bytes() for name in files] == before
  assert list(result.cells.loss) == [cell.loss for cell in read_cells(workdir / "cells.csv")] and len(result.cells) > 48
  assert result.plan == load_plan(workdir / "plan.json") and result.law.parameters == load_law(workdir / "law.json").parameters
  assert list(result.closing.domain) == ["latin", "numbers", "mean"]


def test_the_settings_of_a_work_directory_are_given_again_by_its_file(finished):
  given = cli.parse("train", "", train.SETTINGS, [f"--gin_file={finished / 'config.gin'}"])
  held = json.loads((finished / "config.json").read_text())
  assert json.loads(json.dumps({cls.__name__: dataclasses.asdict(given[cls]) for cls in train.SETTINGS})) == {
      name: fields for name, fields in held.items() if name not in ("Extension", "Workdir", "Base")}


def test_what_was_planned_is_on_disk_and_was_trained(finished):
  plan = load_plan(finished / "plan.json")
  point = plan.point
  assert point.seed_steps + 2 * point.expert_steps == 375 and point.left_over == 0
  assert (point.seed_tokens, point.expert_tokens) == (32 * point.seed_steps, 32 * point.expert_steps)
  assert point.fraction == point.seed_steps / 375 == pytest.approx(plan.fraction, abs=2 / 375)
  proof = [cell for cell in read_cells(finished / "cells.csv") if cell.role == "split"]
  usual = 301, 37  # Steps of 80/20, beside which every plan stands: what two experts cannot share is the seed's.
  assert {(cell.params_total, cell.seed_tokens, cell.expert_tokens) for cell in proof} == {
      (point.params_total, 32 * seed, 32 * expert) for seed, expert in ((point.seed_steps, point.expert_steps), usual)}
  experts = [run for stage in read_stages(finished / "ledger.json") for run in stage.runs if run.point and run.point.role == "split"]
  assert {(run.domain, run.point.seed_steps, run.point.expert_steps) for run in experts} == {
      (domain, *steps) for domain in ("latin", "numbers") for steps in ((point.seed_steps, point.expert_steps), usual)}


def test_where_nothing_is_left_to_train_nothing_else_is_said(corpus, finished, tmp_path, capsys):
  jaxsplit.run(settings(corpus), shutil.copytree(finished, tmp_path / "w"))
  said = capsys.readouterr().out
  assert re.search(r"training 3 sizes, each with 3 snapshots, 2 domains, \d+ splits: done before", said)
  assert re.search(r"training at the target size: .*dense: done before", said)


def test_a_work_directory_of_the_version_before_is_gone_on_with(corpus, finished, tmp_path, capsys):
  workdir = shutil.copytree(finished, tmp_path / "w")
  stages, plan = read_stages(workdir / "ledger.json"), json.loads((workdir / "plan.json").read_text())
  (workdir / "ledger.json").write_text('{"totals": [], "entries": []}')
  (workdir / "plan.json").write_text(json.dumps({**plan, "version": 5}))
  before = (workdir / "cells.csv").read_bytes()
  assert train.main(arguments(corpus, workdir)) == 0
  assert "ledger.json: version None of a ledger is not 2" in capsys.readouterr().out
  assert (workdir / "cells.csv").read_bytes() == before and read_stages(workdir / "ledger.json") == stages
  assert json.loads((workdir / "plan.json").read_text()) == plan


@pytest.mark.parametrize("change, message", [
    ({"sizes": [(8, 1), (16, 1), (16, 2)]}, r"Experiment.sizes = \[\(8, 1\), .*: give tuples, not lists"),
    ({"target": [24, 1]}, "Experiment.target = .* give tuples"), ({"sizes": ([8, 1], [16, 1], [16, 2])}, "Experiment.sizes = .* give tuples"),
    ({"seed_fractions": [0.25, 0.5, 0.9]}, "Experiment.seed_fractions")])
def test_settings_that_are_lists_are_told_in_a_line(corpus, change, message):
  with pytest.raises(InputError, match=message) as caught:
    settings(corpus, **change)
  assert "\n" not in str(caught.value)


def test_a_grid_that_cannot_be_is_told_before_the_corpus_is_read(corpus, finished, tmp_path):
  gone = tmp_path / "corpus"  # Read, it would not be found.
  gone.mkdir()
  with pytest.raises(InputError, match="holdout=params:4: the table has only 3 values of params.* Nothing was trained"):
    train.main(arguments(gone, finished, "--gin.FitSettings.holdout=params:4"))
  with pytest.raises(InputError, match="form chinchilla takes seed and expert tokens for the same"):
    jaxsplit.run(dataclasses.replace(settings(gone), fit=jaxsplit.FitSettings(form="chinchilla")), finished)


def test_the_store_of_cells_is_not_replaced(finished, tmp_path):
  workdir = shutil.copytree(finished, tmp_path / "w")
  (tmp_path / "other").mkdir()
  write_corpus(tmp_path / "other")
  (tmp_path / "other" / "numbers.jsonl").write_text('{"text": "one two three"}\n' * 900)
  before = {path: path.read_bytes() for path in (workdir / "store").iterdir()}
  with pytest.raises(InputError, match=f"--store={workdir}/store: the cells in .* were measured with its tokens, .*; name another --store") as caught:
    prepare.main(["--replace", f"--store={workdir}/store", f"--gin.Corpus.path={tmp_path / 'other'}"])
  assert "\n" not in str(caught.value) and {path: path.read_bytes() for path in (workdir / "store").iterdir()} == before
