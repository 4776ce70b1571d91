"""Stacks that the devices have no room for train in waves: which, what they descend from, and that nothing else changes.

Eight devices are emulated, in one process of their own (this file, run as a program), which writes down what the tests look at.
"""

import collections
import dataclasses
import json
import pathlib
import sys

import numpy as np
import pytest
from alone import run_alone

from jaxsplit.experiment import tree, waves
from jaxsplit.experiment.probe import Probe, probe_stages
from jaxsplit.experiment.tree import Shape, Wave
from jaxsplit.models.config import Architecture
from jaxsplit.parallel.sharding import Layout
from jaxsplit.results.stages import Point

DOMAINS = tuple("abcdefg")
MODEL = Architecture(head_dim=8).at(16, 1, 256, 8)


def shape(name="s", seeds=1, replicas=1):
  return Shape(name, MODEL, DOMAINS, replicas, 5e-3, seeds, lambda seed, expert: (expert or seed) // 2, True, False)


def grid(**options):
  return tree.build(shape(**options), [Point(16, expert, "grid") for expert in (8, 24)])


# --- which waves there are ---


def lineage(stages):
  """Of every run with a cell, what it descends from: the stages' steps, and each ancestor's domain, replica and seed."""
  known, found = {}, {}
  for stage in stages:
    parents = [line for name in stage.parents for line in known[name]]
    known[stage.name] = [(parents[run.parent] if parents else ()) + (
        (waves.whole(stage)[0], stage.steps, dataclasses.replace(run, parent=0)),) for run in stage.runs]
    for run, line in zip(stage.runs, known[stage.name]):
      if run.point:
        found[stage.model, run.point, run.domain, run.replica, run.seed_index, run.learning_rate] = line
  return found


@pytest.mark.parametrize("seeds, replicas", [(1, 1), (1, 2), (7, 1), (7, 2)])
@pytest.mark.parametrize("sizes", [{"experts": 4}, {"trunk": 2, "full": 2, "experts": 3}, {"experts": 5, "trunk": 7, "full": 1}])
def test_every_run_descends_from_what_it_would(seeds, replicas, sizes):
  points = [Point(seed, expert, "grid") for seed in (10, 16) for expert in (0, 8, 24)]
  stages = tree.build(shape(seeds=seeds, replicas=replicas), points)
  counts = {stage.name: min(len(stage.runs), sizes.get(stage.name.split("/")[1].split("-")[0], 1)) for stage in stages}
  counts = {stage.name: -(-len(stage.runs) // -(-len(stage.runs) // counts[stage.name])) for stage in stages}
  cut = waves.in_waves(stages, counts)
  assert lineage(cut) == lineage(stages)
  assert collections.Counter(waves.whole(wave)[0] for wave in cut) == counts
  for wave in cut:
    (before,) = [stage for stage in stages if stage.name == waves.whole(wave)[0]]
    assert dataclasses.replace(wave, name=before.name, runs=before.runs, parents=before.parents, wave=None) == before
    assert (len(wave.runs) <= wave.wave.runs) if wave.wave else wave.name == before.name
    assert len(wave.parents) == len(set(wave.parents)) and all(
        any(parent == other.name for other in cut[:cut.index(wave)]) for parent in wave.parents)


def test_a_cooldowns_wave_needs_its_own_branchs_alone():
  cut = {wave.name: wave for wave in waves.in_waves(grid(), {stage.name: 4 if "experts" in stage.name else 1 for stage in grid()})}
  third = cut["s/experts-16/cooldown-24.wave-3-of-4"]
  assert third.parents == ("s/experts-16/branch-4.wave-3-of-4",) or third.parents == ("s/experts-16/branch-12.wave-3-of-4",)
  assert [(run.domain, run.parent) for run in third.runs] == [("e", 0), ("f", 1)]
  last = cut["s/experts-16/cooldown-8.wave-4-of-4"]
  assert [run.domain for run in last.runs] == ["g"] and last.wave == Wave("s/experts-16/cooldown-8", 4, 2)


def test_nothing_changes_where_everything_fits():
  assert waves.in_waves(grid(), {stage.name: 1 for stage in grid()}) == grid()


def test_what_is_decided_is_said():
  stages = waves.in_waves(grid(), {stage.name: 4 if "experts" in stage.name else 1 for stage in grid()})
  assert waves.told(stages[0], 1, Layout(), Layout()) == ""
  assert waves.told(stages[0], 1, Layout(), Layout(fsdp=True)) == (
      "to fit into memory, a run of 11,584 parameters trains with Layout.fsdp = True")
  assert waves.told(stages[-1], 7, Layout(fsdp=True), Layout(expert=2, data=4, fsdp=True)) == (
      "to fit into memory, 7 experts of 11,584 parameters train in 4 waves of 2, with Layout.expert = 2, Layout.data = 4")


def chosen(stages, there, room, missing=lambda cut: {stage.name for stage in cut}, best=None):
  size = lambda stage: stage.wave.runs if stage.wave else len(stage.runs)
  return waves.choose(stages, there, missing, lambda stage: size(stage) <= room, best or (lambda stage: -(-size(stage) // room)))


def test_what_is_begun_goes_on_as_it_began_where_it_fits():
  stages = grid()
  experts = [stage.name for stage in stages if "experts" in stage.name]
  assert chosen(stages, {}, room=7) == {stage.name: 1 for stage in stages}
  assert chosen(stages, {}, room=2) == {stages[0].name: 1, **dict.fromkeys(experts, 4)}
  begun = {experts[0]: [4]}  # Devices have more memory now: what continues those waves is in as many.
  assert chosen(stages, begun, room=7) == {stages[0].name: 1, **dict.fromkeys(experts, 4)}
  assert chosen(stages, {experts[0]: [1]}, room=2) == {stages[0].name: 1, **dict.fromkeys(experts, 4)}
  assert chosen(stages, {experts[0]: [1, 4]}, room=2)[experts[0]] == 4


def test_what_is_done_stays_and_what_others_start_from_must_fit():
  stages = grid()
  branch, short, last = (stage.name for stage in stages if "experts" in stage.name)
  there = {stage.name: [1] for stage in stages}
  assert chosen(stages, there, room=2, missing=lambda cut: set()) == dict.fromkeys(there, 1)

  def missing(cut):  # All is there but the last cooldown; of other waves than were trained there is nothing.
    names = {stage.name for stage in cut}
    lacks = {name for name in names if name.startswith(last) or (name.startswith(branch) and name != branch)}
    return lacks if any(name.startswith(last) for name in names) else set()

  assert chosen(stages, there, room=2, missing=missing) == {stages[0].name: 1, branch: 4, short: 1, last: 4}
  assert chosen(stages, there, room=7, missing=missing) == dict.fromkeys(there, 1)


def test_what_was_begun_is_read_off_the_steps_that_are_there():
  stages = grid()
  branch = next(stage.name for stage in stages if "branch" in stage.name)
  trained = {branch: 3, **dict.fromkeys(waves.names(branch, 4)[:2], 5), "other": 3, f"{branch}~1": 9}
  none = {stage.name: [] for stage in stages}
  assert waves.begun(stages, {}) == none
  assert waves.begun(stages, trained) == none | {branch: [1, 4]}
  assert waves.begun(stages, trained | {branch: 2}) == none | {branch: [4, 1]}


# --- on eight devices ---


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
  """What the process of 8 devices has seen."""
  return run_alone(__file__, tmp_path_factory.mktemp("waves"))


def experts_of(found):
  """What was measured and trained of the first tree."""
  return ({key: cell for key, cell in found["cells"].items() if cell["seed_tokens"] == 16 * 16},
          {name: steps for name, steps in found["steps"].items() if name.startswith(("s/trunk", "s/experts"))})


def losses(cells):
  return {key: cell["loss"] for key, cell in cells.items()}


@pytest.mark.long
def test_waves_measure_what_the_whole_stack_does(seen):
  whole, waved = seen["whole"], seen["waves"]
  assert not any(".wave-" in name for name in whole["steps"]) and whole["said"] == []
  assert waved["steps"] == {wave: steps for name, steps in whole["steps"].items()
                            for wave in waves.names(name, 1 if name == "s/trunk/16" else 4)}
  assert losses(waved["cells"]) == pytest.approx(losses(whole["cells"]), rel=1e-6)
  assert len(whole["cells"]) == 2 * 7 + 3 * 7 + 7 * 7  # Of a shared trunk, of seven, and of seven rates on each domain.
  plain = lambda cells: {key: {**cell, "loss": 0, "bits_per_byte": 0} for key, cell in cells.items()}
  assert plain(waved["cells"]) == plain(whole["cells"])
  assert waved["said"] == [f"  to fit into memory, 7 {what} of 11,584 parameters train in 4 waves of 2"
                           for what in ("experts", "runs")]


@pytest.mark.long
def test_each_shape_is_compiled_once(seen):
  assert seen["waves"]["compiled"]["jit(block)"] == 2  # The trunk of one, and all waves, of which the last has an idle row.
  assert {devices for _, _, devices in seen["waves"]["records"]} == {1, 2}


@pytest.mark.long
def test_killed_among_the_waves_and_started_again(seen):
  assert (seen["killed"]["cells"], seen["killed"]["steps"]) == experts_of(seen["waves"])  # To the bit, and each step once.
  assert seen["killed"]["before"] and 0 < seen["killed"]["trained again"] <= 8 + 4  # From a snapshot in the middle of a wave.


@pytest.mark.long
@pytest.mark.parametrize("moved", ["to more memory", "to less memory"])
def test_devices_of_other_memory_go_on(seen, moved):
  found, before = seen[moved], seen[moved]["before"]
  assert losses(found["cells"]) == pytest.approx(losses(experts_of(seen["whole"])[0]), rel=1e-6)
  assert before and {key: found["cells"][key] for key in before} == before  # What was measured is not measured again.
  if moved == "to more memory":  # It goes on in the waves that it began in.
    assert found["steps"] == experts_of(seen["waves"])[1]
  else:  # What was measured of whole stacks stays; what they left behind for others is trained again, and nothing of it is left.
    assert "s/experts-16/cooldown-8" in found["steps"] and "s/experts-16/cooldown-24.wave-1-of-4" in found["steps"]
    assert not [name for name in found["snapshots"] if "experts" in name]


@pytest.mark.long
def test_a_run_of_a_wave_that_diverges_is_trained_again_alone(seen):
  found, (whole, _) = seen["repaired"], experts_of(seen["waves"])
  again = [key for key, cell in found["cells"].items() if cell["retries"]]
  assert again and all(found["cells"][key]["domain"] == "d" and found["cells"][key]["status"] == "ok" for key in again)
  assert {key: cell for key, cell in found["cells"].items() if key not in again} == {
      key: cell for key, cell in whole.items() if key not in again}


def look(folder):
  """What the tests look at, in a process of 8 devices."""
  import jax
  jax.config.update("jax_num_cpu_devices", 8)

  from jaxsplit.data.plain_tokenizers import ByteTokenizer
  from jaxsplit.data.store_writer import Document, write_store
  from jaxsplit.experiment.cell_table import CellTable
  from jaxsplit.experiment.progress import Progress
  from jaxsplit.experiment.recipe import Recipe, StageSetup
  from jaxsplit.experiment.runner import Runner
  from jaxsplit.experiment.workdir import Workdir
  from jaxsplit.parallel.sharding import Layout
  from jaxsplit.training import capacity, memory
  from jaxsplit.training.interruption import Interruption
  from jaxsplit.training.loop import Training
  from jaxsplit.training.metrics import Metrics, read_metrics
  from jaxsplit.training.optimizer import Optimizer
  from jaxsplit.training.stack import StackSpec
  from jaxsplit.training.telemetry import read_telemetry

  rng = np.random.default_rng(0)

  def documents(domain, count):
    texts = ["".join(rng.choice(list(f"{domain}xyz "), 60)) for _ in range(count)]
    return [Document(ByteTokenizer().encode(t), len(t), t.encode()) for t in texts]

  store = write_store(folder / "store", ByteTokenizer(),
                      [(d, split, documents(d, n)) for d in DOMAINS for split, n in (("train", 40), ("valid", 4))], {})
  training = Training(sequence_length=8, batch_sequences=2, steps_per_dispatch=4, save_every_steps=8)
  probes = probe_stages(Probe(rates=tuple(1e-3 * 2 ** i for i in range(7))), [("s", MODEL)], [8], shape().cooldown)
  seeds = tree.build(shape("k", seeds=7), [Point(12, expert, "grid") for expert in (0, 8, 24)])
  one = StackSpec(MODEL, Optimizer(warmup_tokens=64), Layout(devices=8, expert=1, data=1), 1, 1, 2, store.end_of_document)
  room = int(2.5 * memory.estimate(one).total / memory.FILLED)  # For two runs, one to a device.
  there, memory._machine_bytes = memory._machine_bytes(), lambda: memory.bytes_here
  memory.bytes_here = there

  class Killed(BaseException):
    """Where a process would be gone."""

  def go(name, memory_here, kill_at=None, poisoned=False, more=()):
    memory.bytes_here = memory_here
    path, said, names = folder / name, [], []
    listen = lambda event, _, **about: names.append(about.get("fun_name")) if event.endswith("backend_compile_duration") else None
    weights = dict.fromkeys(DOMAINS, 1.0)
    recipe = Recipe(training, one.optimizer, Layout(devices=8), weights, 0, True, 64, False)
    append, schedule, blocks = Metrics.append, StageSetup.schedule, []

    def counted(self, stage, *arguments):
      blocks.append(len(arguments[-1]["loss"]))
      if len(blocks) == kill_at:
        raise Killed
      append(self, stage, *arguments)

    def poison(self, stage):
      plan = schedule(self, stage)
      absurd = stage.forks and stage.name.startswith("s/") and "~" not in stage.name
      return plan._replace(peak=np.where([absurd and run.domain == "d" for run in self.padded_runs(stage)], np.float32(3e3), plan.peak))

    jax.monitoring.register_event_duration_secs_listener(listen)
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(Metrics, "append", counted)
      if poisoned:
        patch.setattr(StageSetup, "schedule", poison)
        patch.setattr("jaxsplit.experiment.guards.check_schedule", lambda *_: None)
      try:
        with Workdir(path, said.append) as workdir, Interruption() as interruption, Progress(training.batch_tokens) as progress:
          progress.log = said.append
          workdir.claim({"Experiment": {}})
          with Runner(store, recipe, workdir, progress, interruption) as runner:
            runner.run([*grid(), *more], CellTable(path / "cells.csv"))
      except Killed:
        pass
      finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    steps = collections.Counter()
    for line in read_metrics(path / "metrics.jsonl"):
      steps[line["stage"]] += line["steps"]
    table = CellTable(path / "cells.csv")
    return {
        "cells": {repr(cell.key): {**dataclasses.asdict(cell), "provenance": ""} for cell in table}, "steps": steps,
        "said": [line for line in said if "to fit into memory" in line],
        "trained": sum(blocks), "compiled": collections.Counter(names),
        "records": [(s.stage, s.first_step, s.devices) for s in read_telemetry(path / "telemetry.jsonl")],
        "snapshots": sorted({p.parent.parent.relative_to(path / "checkpoints").as_posix() for p in path.rglob("snapshot.json")})}

  def stopped(name, memory_before, kill_at, memory_after):
    before = go(name, memory_before, kill_at)
    after = go(name, memory_after)
    again = before["trained"] + after["trained"] - sum(after["steps"].values())
    return {**after, "before": before["cells"], "trained again": again}

  assert capacity.waves(dataclasses.replace(one, runs=7, layout=Layout(devices=8)), False) == 1
  seen = {"waves": go("waves", room, more=[*seeds, *probes]), "whole": go("whole", there, more=[*seeds, *probes])}
  blocks = lambda name, stage: [i for i, line in enumerate(read_metrics(folder / name / "metrics.jsonl")) if line["stage"] == stage]
  third = blocks("waves", "s/experts-16/cooldown-24.wave-3-of-4")
  seen["killed"] = stopped("killed", room, third[1] + 1, room)
  seen["to more memory"] = stopped("more", room, third[1] + 1, there)
  seen["to less memory"] = stopped("less", there, blocks("whole", "s/experts-16/cooldown-24")[1] + 1, room)
  seen["repaired"] = go("repaired", room, poisoned=True)
  (folder / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
  look(pathlib.Path(sys.argv[1]))
