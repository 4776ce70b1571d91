"""A work directory grows: what is there stays as it is, nothing is trained twice, and the ledger has what was really spent."""

import dataclasses
import json
import shutil

import pytest
from small import arguments

from jaxsplit import train
from jaxsplit.errors import InputError
from jaxsplit.report.evidence import read_evidence
from jaxsplit.results.cells import read_cells, write_cells
from jaxsplit.results.stages import read_stages
from jaxsplit.training.metrics import read_metrics
from jaxsplit.training.telemetry import read_telemetry


@pytest.fixture
def workdir(finished, tmp_path):
  return shutil.copytree(finished, tmp_path / "w")


def grow(corpus, workdir, *more):
  """Gives the command again with more settings. Returns stage -> steps of what was trained, having checked all that must hold."""
  before, steps, cells = _trunks(workdir), _steps(workdir), set(read_cells(workdir / "cells.csv"))
  seen = len(read_telemetry(workdir / "telemetry.jsonl"))
  assert train.main(arguments(corpus, workdir, *more)) == 0
  assert cells <= set(read_cells(workdir / "cells.csv"))
  now = _trunks(workdir)
  assert {name: now.get(name) for name in before} == before  # No trunk's snapshot is dropped, or made again.
  trained = {record.stage: record.steps for record in read_telemetry(workdir / "telemetry.jsonl")[seen:]}
  assert _steps(workdir) == steps | trained and not steps.keys() & trained
  stages = read_stages(workdir / "ledger.json")
  assert {stage.name: stage.steps for stage in stages} == _steps(workdir)
  assert sum(stage.tokens for stage in stages) == sum(record.tokens for record in read_telemetry(workdir / "telemetry.jsonl"))
  return trained


def _files(workdir):
  """Path -> content of all but the lock, which says who holds it."""
  return {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file() and path.name != "lock"}


def _trunks(workdir):
  return {path.relative_to(workdir): path.read_bytes() for path in workdir.glob("checkpoints/*/trunk/*/*/snapshot.json")}


def _steps(workdir):
  steps = {}
  for line in read_metrics(workdir / "metrics.jsonl"):
    steps[line["stage"]] = steps.get(line["stage"], 0) + line["steps"]
  return steps


@pytest.mark.long
def test_more_splits_to_compare_start_from_the_trunk_that_is_there(corpus, workdir):
  forks = {cell.seed_tokens // cell.batch_tokens for cell in read_cells(workdir / "cells.csv") if cell.role == "split"}
  there = max(300, *forks)  # Full pretraining cools down from 300 on.
  trained = grow(corpus, workdir, "--gin.Experiment.compare=(0.95, 1.0)")
  assert trained == {"d24-l1/trunk/357": 357 - there, "d24-l1/experts-357+1/cooldown-9": (375 - 357) // 2}
  assert grow(corpus, workdir, "--gin.Experiment.compare=(0.95, 1.0)") == {}
  assert grow(corpus, workdir, "--gin.Experiment.compare=(1.0,)") == {}
  assert len(read_evidence(workdir).by_fraction("loss")) == len(forks) + 2 >= 3


@pytest.mark.long
def test_a_new_snapshot_is_forked_and_nothing_else_is_trained(corpus, workdir):
  trained = grow(corpus, workdir, "--gin.Experiment.sizes=((8, 1),)", "--gin.Experiment.seed_fractions=(0.25, 0.5, 0.6, 0.9)")
  assert {stage: steps for stage, steps in trained.items() if not stage.startswith("d24")} == {
      "d8-l1/trunk/180": 30, "d8-l1/trunk/225": 37, "d8-l1/full/225+1": 45, "d8-l1/experts-225+1/cooldown-37": 37,
      "d8-l1/experts-225+1/cooldown-75": 75}  # What the seed leaves, less than half of the budget.
  assert read_evidence(workdir).law.num_points == 3 * 8 * 2 + 3 * 2


def test_sizes_that_are_no_longer_asked_for_stay_the_laws_data(corpus, workdir):
  law = (workdir / "law.json").read_bytes()
  assert grow(corpus, workdir, "--gin.Experiment.sizes=((8, 1),)", "--gin.Experiment.seed_fractions=(0.25,)") == {}
  assert (workdir / "law.json").read_bytes() == law


def test_an_uneven_plan_is_trained_off_the_trunk_and_compared(corpus, workdir, capsys):
  trained = grow(corpus, workdir, "--gin.Experiment.uneven")
  plan, cells = read_evidence(workdir).plan, [cell for cell in read_cells(workdir / "cells.csv") if cell.role == "uneven"]
  assert {cell.domain for cell in cells} == {domain.domain for domain in plan.domains} and len(cells) == 2
  for domain in plan.domains:
    cell, = (cell for cell in cells if cell.domain == domain.domain)
    assert 0 <= domain.best_seed_tokens - cell.seed_tokens < 32 and 0 <= domain.best_expert_tokens - cell.expert_tokens < 32
  assert max(cell.seed_tokens for cell in cells) + sum(cell.expert_tokens for cell in cells) <= 12_000
  assert all(name.startswith("d24-l1/") for name in trained)
  line = read_evidence(workdir).closing()[-1]
  assert line.uneven == pytest.approx(sum(cell.loss for cell in cells) / 2) and " uneven\n" in capsys.readouterr().out
  assert grow(corpus, workdir, "--gin.Experiment.uneven") == {}


@pytest.mark.long
def test_a_new_target_gets_its_rate_without_moving_the_others(corpus, tmp_path):
  workdir = tmp_path / "w"
  small, large = ("--gin.Experiment.target=(8, 1)",), ("--gin.Experiment.target=(16, 1)",)
  flags = ("--gin.Experiment.sizes=()", "--gin.Probe.rates=(4e-3, 8e-3)", "--gin.Probe.fractions=(0.05,)")
  assert train.main(arguments(corpus, workdir, *flags, *small)) == 0
  first = {cell.params: cell.learning_rate for cell in read_cells(workdir / "cells.csv")}
  assert set(grow(corpus, workdir, *flags, *large)) == {"d16-l1/probe/19", "d16-l1/full/375"}
  rates = {cell.params: cell.learning_rate for cell in read_cells(workdir / "cells.csv")}
  assert len(rates) == 2 and rates.items() >= first.items()
  assert {cell.params for cell in read_evidence(workdir).proof} == rates.keys() - first.keys()
  (workdir / "sizes.json").write_text("{")  # What is lost with it, the cells know.
  assert grow(corpus, workdir, *flags, *small) == {}
  assert {cell.params for cell in read_evidence(workdir).proof} == first.keys()


@pytest.mark.parametrize("more, message", [
    (["--gin.Experiment.sizes=((8, 1), (16, 1), (8, 2))", "--gin.Experiment.target=(16, 2)"], "take another one, or another --workdir"),
    (["--gin.Experiment.replicas=2"], "another experiment's results"),
    (["--gin.Experiment.mixture=tokens"], "another experiment's results"),
    (["--gin.Probe.rates=(1e-3,)"], "another experiment's results"),
])
def test_what_is_no_growth_is_refused(corpus, workdir, more, message):
  with pytest.raises(InputError, match=message) as caught:
    train.main(arguments(corpus, workdir, *more))
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spelling", ["relative, through a link", "copied"])
def test_the_same_corpus_elsewhere_is_the_same_experiment(corpus, workdir, tmp_path, monkeypatch, spelling):
  monkeypatch.chdir(tmp_path)
  if spelling == "copied":
    other = shutil.copytree(corpus, tmp_path / "copy")
  else:
    (tmp_path / "link").symlink_to(corpus)
    other = "./link/"
  assert grow(other, workdir) == {}
  assert json.loads((workdir / "config.json").read_text())["Corpus"]["path"] == str(other)


def test_cells_of_one_kind_are_not_added_to_those_of_the_other(corpus, workdir):
  """Those that end with a cooldown, and those of averaged weights."""
  before = _files(workdir)
  with pytest.raises(InputError, match="law's cells there are measured at the end of cooldowns; give Experiment.averaged = False, or another"):
    train.main(arguments(corpus, workdir, "--gin.Experiment.averaged=True"))
  assert _files(workdir) == before


def test_where_all_cells_diverged_it_says_so(corpus, workdir):
  cells = [dataclasses.replace(cell, status="diverged", loss=float("nan")) if cell.role == "grid" else cell
           for cell in read_cells(workdir / "cells.csv")]
  write_cells(workdir / "cells.csv", cells)
  with pytest.raises(InputError, match=r"cells.csv: all \d+ of the law's cells are from runs that diverged, at learning rates .*; give lower Probe.rates"):
    train.main(arguments(corpus, workdir))
