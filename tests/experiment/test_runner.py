"""Runs of a stack that go wrong, processes that are killed, and other devices: every other number stays as it was."""

import dataclasses
import gc

import jax
import numpy as np
import pytest
from small import write_store_of

from jaxsplit.errors import InputError
from jaxsplit.experiment import tree
from jaxsplit.experiment.cell_table import CellTable
from jaxsplit.experiment.probe import Probe, probe_stages
from jaxsplit.experiment.progress import Progress
from jaxsplit.experiment.recipe import Recipe, StageSetup
from jaxsplit.experiment.runner import Runner
from jaxsplit.experiment.tree import Shape
from jaxsplit.experiment.workdir import Workdir
from jaxsplit.files import read_json
from jaxsplit.models.config import Architecture
from jaxsplit.parallel.sharding import Layout
from jaxsplit.results.stages import Point
from jaxsplit.training import memory
from jaxsplit.training.interruption import Interruption
from jaxsplit.training.loop import Training
from jaxsplit.training.metrics import Metrics, read_metrics
from jaxsplit.training.optimizer import Optimizer
from jaxsplit.training.telemetry import read_telemetry

DOMAINS = ("d", "e", "f")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  return write_store_of(tmp_path_factory.mktemp("store") / "store", DOMAINS)


def run(store, path, devices=1, save_every_steps=16, **training):
  """A trunk of 40 steps, and three experts forked off it, of 40 more. Returns the cells by domain."""
  training = Training(sequence_length=8, batch_sequences=2, steps_per_dispatch=8, save_every_steps=save_every_steps, **training)
  recipe = Recipe(training, Optimizer(warmup_tokens=64), Layout(devices=devices), dict.fromkeys(DOMAINS, 1.0), 0, True, 128, False)
  shape = Shape("s", Architecture(head_dim=8).at(8, 1, 256, 8), DOMAINS, 1, 5e-3, 1, lambda seed, expert: expert // 2, True, False)
  planned = tree.build(shape, [Point(40, 40, "grid")])
  with Workdir(path, lambda line: None) as workdir, Interruption() as interruption, Progress(training.batch_tokens) as progress:
    workdir.claim({"Experiment": {}})
    table = CellTable(path / "cells.csv")
    with Runner(store, recipe, workdir, progress, interruption) as runner:
      runner.run(planned, table)
      return {cell.domain: cell for cell in table}, runner.repairs(planned)


def losses(path, stage):
  blocks = sorted((line["first_step"], line["loss"]) for line in read_metrics(path / "metrics.jsonl") if line["stage"] == stage)
  assert [first for first, _ in blocks] == list(np.cumsum([0, *(len(loss) for _, loss in blocks)])[:-1])
  return np.concatenate([np.array(loss, float) for _, loss in blocks])


@pytest.fixture(scope="module")
def whole(store, tmp_path_factory):
  path = tmp_path_factory.mktemp("whole") / "w"
  return path, run(store, path)[0]


def poison(monkeypatch, attempts):
  """Expert e gets an absurd learning rate in its stage, in the first so many attempts."""
  schedule = StageSetup.schedule

  def poisoned(self, stage):
    plan = schedule(self, stage)
    if stage.forks and stage.name.count("~") * int(stage.name[-1]) < attempts:
      plan = plan._replace(peak=np.where([run.domain == "e" for run in self.padded_runs(stage)], np.float32(3e3), plan.peak))
    return plan

  monkeypatch.setattr(StageSetup, "schedule", poisoned)
  monkeypatch.setattr("jaxsplit.experiment.guards.check_schedule", lambda *_: None)  # Which would have caught it.


def test_a_run_that_diverges_is_trained_again_and_the_others_are_as_ever(store, whole, tmp_path, monkeypatch):
  poison(monkeypatch, attempts=1)
  cells, repairs = run(store, tmp_path / "w")
  for domain in ("d", "f"):
    assert cells[domain] == whole[1][domain]
  assert (cells["e"].status, cells["e"].retries) == ("ok", 1)
  assert abs(cells["e"].loss - whole[1]["e"].loss) < 0.5
  branch = "s/experts-40/cooldown-40"
  assert [d["stage"] for d in read_json(tmp_path / "w" / "divergence.json")] == [branch]
  assert [(stage.name, len(stage.runs), stage.steps) for stage in repairs] == [(f"{branch}~1", 1, 40)]
  assert losses(tmp_path / "w", f"{branch}~1").shape == (40, 1)
  assert not list((tmp_path / "w" / "checkpoints").rglob("*~1*"))


def test_a_run_that_keeps_diverging_is_marked_with_all_that_descends_from_it(store, whole, tmp_path, monkeypatch):
  poison(monkeypatch, attempts=9)
  cells, _ = run(store, tmp_path / "w")
  assert {domain: cell.status for domain, cell in cells.items()} == {"d": "ok", "e": "diverged", "f": "ok"}
  assert [cells[domain] for domain in ("d", "f")] == [whole[1][domain] for domain in ("d", "f")]


@pytest.mark.parametrize("diverges", [False, True])
def test_one_stack_is_alive_while_it_trains(store, tmp_path, monkeypatch, diverges):
  """Neither the seed beside the experts, nor those that went well while one is trained again."""
  if diverges:
    poison(monkeypatch, attempts=1)
  alive = lambda: sum(array.nbytes for array in jax.live_arrays() if not array.is_deleted())
  append, seen = Metrics.append, []

  def looking(self, stage, *arguments):
    seen.append((stage, alive() - before))
    append(self, stage, *arguments)

  monkeypatch.setattr(Metrics, "append", looking)
  gc.collect()
  before = alive()
  run(store, tmp_path / "w", save_every_steps=1000)
  runs = {"s/trunk/40": 1, "s/experts-40/cooldown-40": 3, "s/experts-40/cooldown-40~1": 1}
  assert {stage for stage, _ in seen} == set(list(runs)[:2 + diverges])
  state = 12 * Architecture(head_dim=8).at(8, 1, 256, 8).params_total
  there = [size / (state * runs[stage]) for stage, size in seen]
  assert 0.95 < min(there) and max(there) < 1.1, there


class Killed(BaseException):
  """Where a process would be gone."""


def run_until(store, path, monkeypatch, block):
  """Runs until that block of metrics is to be written: 5 are of the trunk, 5 of the experts, with snapshots after 2 and 4."""
  append, blocks = Metrics.append, [0]

  def dies(self, *arguments):
    blocks[0] += 1
    if blocks[0] == block:
      raise Killed
    append(self, *arguments)

  with monkeypatch.context() as patch, pytest.raises(Killed):
    patch.setattr(Metrics, "append", dies)
    run(store, path)


@pytest.mark.parametrize("block", [1, 4, 6, 9])
def test_killed_in_any_block_and_started_again(store, whole, tmp_path, monkeypatch, block):
  run_until(store, tmp_path / "w", monkeypatch, block)
  cells, _ = run(store, tmp_path / "w")
  assert cells == whole[1]
  assert (tmp_path / "w" / "cells.csv").read_bytes() == (whole[0] / "cells.csv").read_bytes()
  for stage in {line["stage"] for line in read_metrics(whole[0] / "metrics.jsonl")}:
    np.testing.assert_array_equal(losses(tmp_path / "w", stage), losses(whole[0], stage))


def test_other_devices_go_on_to_the_same_cells(store, whole, tmp_path, monkeypatch):
  run_until(store, tmp_path / "w", monkeypatch, 9)
  assert {p.parent.parent.name for p in (tmp_path / "w" / "checkpoints").rglob("snapshot.json")} == {"40", "cooldown-40"}
  cells, _ = run(store, tmp_path / "w", devices=2)  # Where three runs take four rows.
  assert cells.keys() == whole[1].keys()
  for domain, cell in cells.items():
    assert cell.loss == pytest.approx(whole[1][domain].loss, rel=1e-6)
    assert dataclasses.replace(cell, loss=0, bits_per_byte=0) == dataclasses.replace(whole[1][domain], loss=0, bits_per_byte=0)


def test_a_damaged_parent_is_trained_again(store, whole, tmp_path, monkeypatch):
  run_until(store, tmp_path / "w", monkeypatch, 6)
  folder = tmp_path / "w" / "checkpoints" / "s" / "trunk" / "40" / "40"
  largest = max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
  data = bytearray(largest.read_bytes())
  data[len(data) // 2] ^= 4
  largest.write_bytes(data)
  cells, _ = run(store, tmp_path / "w")
  assert cells == whole[1]


def test_branches_go_once_measured_and_trunks_stay(whole):
  assert [p.name for p in (whole[0] / "checkpoints" / "s").iterdir() if any(p.rglob("snapshot.json"))] == ["trunk"]


def test_a_snapshot_says_where_it_comes_from(whole):
  manifest = read_json(whole[0] / "checkpoints" / "s" / "trunk" / "40" / "40" / "snapshot.json")["about"]
  assert manifest["final"] and manifest["provenance"]["jax"] == jax.__version__ and manifest["provenance"]["code"]
  assert manifest["runs"][0]["tokens"] == 40 * 16 and manifest["runs"][0]["flops"] > 0
  made_with = read_json(whole[0] / "provenance.json")["made_with"]
  assert {cell.provenance for cell in whole[1].values()} == set(made_with)


def test_a_trace_is_of_the_stage_that_is_asked_for(store, whole, tmp_path):
  cells, _ = run(store, tmp_path / "w", trace="experts")
  assert cells == whole[1]
  assert [p.stat().st_size > 1000 for p in (tmp_path / "w" / "trace").rglob("*.trace.json.gz")] == [True]


def test_telemetry_has_every_step_of_every_process(store, whole, tmp_path, monkeypatch):
  steps = lambda path: [(line.stage, line.first_step, line.steps) for line in read_telemetry(path / "telemetry.jsonl")]
  assert steps(whole[0]) == [("s/trunk/40", 0, 40), ("s/experts-40/cooldown-40", 0, 40)]
  run_until(store, tmp_path / "w", monkeypatch, 9)
  run(store, tmp_path / "w")
  experts = "s/experts-40/cooldown-40"
  assert steps(tmp_path / "w") == [("s/trunk/40", 0, 40), (experts, 0, 24), (experts, 16, 24)]


def test_each_seed_of_a_domain_has_a_cell_of_its_own(store, tmp_path):
  """Where K domains have K seeds, D' = 0 is measured on domain k for seed k, and no cell takes another's place."""
  training = Training(sequence_length=8, batch_sequences=2, steps_per_dispatch=8)
  recipe = Recipe(training, Optimizer(warmup_tokens=64), Layout(devices=1), dict.fromkeys(DOMAINS, 1.0), 0, True, 128, False)
  shape = Shape("s", Architecture(head_dim=8).at(8, 1, 256, 8), DOMAINS, 1, 5e-3, 3, lambda seed, expert: (expert or seed) // 2, True, False)
  stages = tree.build(shape, [Point(16, expert, "grid") for expert in (0, 8)])
  with Workdir(tmp_path / "w", lambda line: None) as workdir, Interruption() as interruption, Progress(16) as progress:
    workdir.claim({"Experiment": {}})
    table = CellTable(tmp_path / "w" / "cells.csv")
    with Runner(store, recipe, workdir, progress, interruption) as runner:
      runner.run(stages, table)
  measured = [run for stage in stages for run in stage.runs if run.point]
  assert sorted((cell.expert_tokens, cell.domain) for cell in table) == [(tokens, d) for tokens in (0, 128) for d in DOMAINS]
  assert len(table) == len(measured)


def test_what_is_trained_must_fit_and_what_is_done_need_not(store, whole, tmp_path, monkeypatch):
  monkeypatch.setattr(memory, "FILLED", 0.0)  # As on a machine without memory.
  path, cells = whole
  assert run(store, path)[0] == cells
  with pytest.raises(InputError, match="of which 0.0 MiB are available"):
    run(store, tmp_path / "w")


def test_each_stack_shape_is_compiled_once(store, tmp_path):
  """Through probe, grid and proof, with two stack sizes: the trunk's, and that of three rates or three domains."""
  training = Training(sequence_length=16, batch_sequences=2, steps_per_dispatch=8)
  recipe = Recipe(training, Optimizer(warmup_tokens=64), Layout(devices=1), dict.fromkeys(DOMAINS, 1.0), 0, True, 128, False)
  model, cooldown = Architecture(head_dim=8).at(8, 1, 256, 16), lambda seed, expert: (expert or seed) // 2
  shape = Shape("s", model, DOMAINS, 1, 5e-3, 1, cooldown, True, False)
  probes = probe_stages(Probe(rates=(1e-3, 2e-3, 4e-3)), [("s", shape.model)], [20], shape.cooldown)
  grid = tree.build(shape, [Point(20, expert, "grid") for expert in (0, 12, 30)])
  proof = tree.build(dataclasses.replace(shape, name="p", keep=True), [Point(30, 20, "split"), Point(44, 0, "dense")])
  names = []
  listener = lambda event, _, **about: names.append(about.get("fun_name")) if event.endswith("backend_compile_duration") else None
  jax.monitoring.register_event_duration_secs_listener(listener)
  try:
    with Workdir(tmp_path / "w", lambda line: None) as workdir, Interruption() as interruption, Progress(32) as progress:
      workdir.claim({"Experiment": {}})
      with Runner(store, recipe, workdir, progress, interruption) as runner:
        runner.run(probes, CellTable(tmp_path / "w" / "probe.csv"), later=grid)
        runner.run(grid, CellTable(tmp_path / "w" / "cells.csv"), later=proof)
        before = len(names)
        runner.run(proof, CellTable(tmp_path / "w" / "cells.csv"))
  finally:
    jax.monitoring.unregister_event_duration_listener(listener)
  assert {(stage.model, len(stage.runs)) for stage in (*probes, *grid, *proof)} == {(shape.model, 1), (shape.model, 3)}
  assert names.count("jit(block)") == 2 and names.count("jit(_new_stack)") == 2 and names.count("jit(gathered)") >= 1
  assert names[before:] == []  # Everything that the proof needs was there from the grid, to the smallest program.
