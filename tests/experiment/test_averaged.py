"""Averaged cells: along one trunk and one branch, each the mean of the last weights at a constant rate."""

import dataclasses

import jax
import numpy as np
import pytest
from closeness import assert_near
from small import write_store_of

from jaxsplit.data.stream import Batches, validation
from jaxsplit.errors import Interrupted
from jaxsplit.evaluation.perplexity import held_out
from jaxsplit.experiment import tree
from jaxsplit.experiment.cell_table import CellTable
from jaxsplit.experiment.progress import Progress
from jaxsplit.experiment.recipe import Recipe, StageSetup
from jaxsplit.experiment.runner import Runner
from jaxsplit.experiment.tree import Shape
from jaxsplit.experiment.workdir import Workdir
from jaxsplit.models.config import Architecture
from jaxsplit.parallel.sharding import Layout
from jaxsplit.results.stages import Point
from jaxsplit.training import fork, stack
from jaxsplit.training.interruption import Interruption
from jaxsplit.training.loop import Training
from jaxsplit.training.optimizer import Optimizer

DOMAINS = "d", "e"
MODEL = Architecture(head_dim=8).at(8, 1, 256, 8)
POINTS = [Point(d, e, "grid") for d in (20, 40) for e in (0, 10, 30)]
TRAINING = Training(sequence_length=8, batch_sequences=2, steps_per_dispatch=4, save_every_steps=8)


def shape(cooldown=lambda d, e: (e or d) // 2, averaged=True, seeds=1, keep_moments=True):
  return Shape("s", MODEL, DOMAINS, 1, 5e-3, seeds, cooldown, keep_moments, False, averaged)


@pytest.mark.parametrize("cooldown", [lambda d, e: (e or d) // 2, lambda d, e: e or d, lambda d, e: 0], ids=["half", "all", "none"])
@pytest.mark.parametrize("seeds", [1, 2])
def test_one_trunk_and_one_branch_a_fork_measure_every_cell(cooldown, seeds):
  stages = tree.build(shape(cooldown, seeds=seeds), POINTS)
  assert sum(stage.steps * len(stage.runs) for stage in stages) == seeds * 40 + 2 * 2 * 30
  assert {stage.phase for stage in stages} == {"trunk", "branch"}
  measured = [(run, stage.steps) for stage in stages for run in stage.runs if run.point]
  assert {run.point for run, _ in measured} == set(POINTS) and len(measured) == 2 * seeds + 2 * 2 * 2
  for run, steps in measured:
    end = run.born + steps
    assert end == run.point.seed_steps + run.point.expert_steps and run.decay == (0, 0)
    window = max(-(-cooldown(run.point.seed_steps, run.point.expert_steps) // 2), 1)
    assert run.mean_start == max(end - window, run.born) < end


def test_later_cells_go_on_from_the_trunk_that_is_there():
  first = tree.build(shape(), POINTS)
  more = [Point(20, 5, "grid"), Point(30, 0, "grid"), Point(60, 10, "grid")]
  stages = tree.build_all([(shape(), POINTS), (shape(), more)])
  later = stages[len(first):]
  assert {stage.name: (stage.parents, stage.steps) for stage in later if stage.phase == "trunk"} == {
      "s/trunk/30": (("s/trunk/20",), 10), "s/trunk/60": (("s/trunk/40",), 20)}
  again = tree.build_all([(shape(), [Point(40, 10, "grid")]), (shape(), [Point(40, 0, "grid"), Point(40, 20, "grid")])])
  full = next(stage for stage in again if stage.phase == "full")  # That trunk was not measured where it ends.
  assert (full.parents, full.steps, full.runs[0].mean_start) == ((), 40, 30)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  return write_store_of(tmp_path_factory.mktemp("store") / "store", DOMAINS)


def run(store, path, points=POINTS, stop_after=None, runs=None, training=TRAINING):
  recipe = Recipe(training, Optimizer(warmup_tokens=64), Layout(devices=1), dict.fromkeys(DOMAINS, 1.0), 0, True, 128, False)
  stages = tree.build(runs or shape(), points)
  with Workdir(path, lambda line: None) as workdir, Interruption() as interruption, Progress(16) as progress:
    workdir.claim({"Experiment": {}})
    table = CellTable(path / "cells.csv")
    with Runner(store, recipe, workdir, progress, interruption) as runner:
      if stop_after is not None:
        advance, count = progress.advance, iter(range(stop_after))

        def advance_and_stop(*arguments):
          advance(*arguments)
          if next(count, None) is None:
            interruption.requested = True  # As a signal does.

        progress.advance = advance_and_stop
      runner.run(stages, table)
      return {(cell.seed_tokens, cell.expert_tokens, cell.domain): cell for cell in table}


@pytest.fixture(scope="module")
def whole(store, tmp_path_factory):
  return run(store, tmp_path_factory.mktemp("whole") / "w")


def test_a_cell_is_the_loss_of_the_mean(store, whole):
  """The expert of d forked at 20 steps, stepped by hand: its cell after 10 steps is the mean over the last 3."""
  setup = StageSetup(store, Recipe(TRAINING, Optimizer(warmup_tokens=64), Layout(devices=1), dict.fromkeys(DOMAINS, 1.0), 0, True, 128, False))
  stages = {stage.name: stage for stage in tree.build(shape(), POINTS)}
  trunk, branch = stages["s/trunk/20"], next(stage for stage in stages.values() if stage.name.endswith("/branch-10"))
  setup.settle(stages.values())
  assert branch.parents == ("s/trunk/20", "s/trunk/40") and all(run.mean_start for run in branch.runs)
  plain = lambda stage: dataclasses.replace(setup.spec(stage), averages=False)

  def step(stage, state, i):
    windows = Batches(setup.streams(stage), 2).block([run.first_batch + i for run in stage.runs], 1)
    return stack.train_block(plain(stage))(state, windows.tokens, np.int32(1), setup.schedule(stage))[0]

  state = stack.initialize(plain(trunk), setup.weight_seeds(trunk))
  for i in range(20):
    state = step(trunk, state, i)
  state, after = fork.gather(plain(branch), [state], [0] * len(branch.runs)), []
  for i in range(10):
    state = step(branch, state, i)
    after.append(jax.device_get(state["params"]))
  mean = jax.tree.map(lambda *each: np.mean(each, axis=0), *after[-3:])
  windows = validation(store, "d", 8, 128)
  loss = held_out(plain(branch), {"params": mean}, [[windows]] * len(branch.runs))["loss"][0, 0]
  cell = whole[20 * 16, 10 * 16, "d"]
  assert_near(np.array(cell.loss), np.array(loss), 1e-5)
  assert cell.weights == "mean" and branch.runs[0].domain == "d" and branch.runs[0].born == 20


@pytest.mark.parametrize("stop_after", [4, 13, 17])
def test_stopped_within_a_mean_and_started_again(store, whole, tmp_path, stop_after):
  with pytest.raises(Interrupted):
    run(store, tmp_path / "w", stop_after=stop_after)
  assert run(store, tmp_path / "w") == whole


def test_experts_of_an_averaged_trunk_are_those_of_a_plain_one(store, whole, tmp_path):
  """What cools down forks from the trunk's weights, not from their mean."""
  cooled = [Point(20, 10, "split")]
  alone = run(store, tmp_path / "alone", cooled, runs=shape(averaged=False))
  workdir = tmp_path / "both"
  recipe = Recipe(TRAINING, Optimizer(warmup_tokens=64), Layout(devices=1), dict.fromkeys(DOMAINS, 1.0), 0, True, 128, False)
  stages = tree.build_all([(shape(), POINTS), (shape(averaged=False), cooled)])
  with Workdir(workdir, lambda line: None) as opened, Interruption() as interruption, Progress(16) as progress:
    opened.claim({"Experiment": {}})
    table = CellTable(workdir / "cells.csv")
    with Runner(store, recipe, opened, progress, interruption) as runner:
      runner.run(stages, table)
    both = {cell.domain: cell.loss for cell in table if cell.role == "split"}
  assert both == {domain: alone[20 * 16, 10 * 16, domain].loss for domain in DOMAINS}
