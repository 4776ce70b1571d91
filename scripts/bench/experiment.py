"""The time to the law: an experiment's sweep by jaxsplit against a PyTorch script that trains each of its cells by itself.

    python scripts/bench/experiment.py --torch_python=PATH                          configs/grid.gin
    python scripts/bench/experiment.py --torch_python=PATH --torch_threads 1 2      the faster of one and two threads, at each size

PATH is the interpreter of an environment with torch (measured with 2.13, CPU build). The sweep is what a law is fitted to: probe and
grid. Steps are counted: ours in the stages that `train --dry_run` shows; the script's in their cells. It trains every cell from initial
weights, D steps on the mixture and D' on the domain with a cooldown of the cell's own, one run after another, in float32 by
torch.compile and fused AdamW (torch_worker.py, whose losses are ours: against_torch.py). Seconds a step are measured, at the config's
sizes, batch, sequence length and steps a dispatch: of every stack that the sweep has, and of PyTorch after each of them, in turns. Both
sides' seconds of the sweep are then sums of steps times seconds a step, round by round, and the median of their ratio over the rounds is
printed, with its quartiles, and with the two factors that it has: run-tokens (tokens that any run trains on), and seconds a run-token.

Not counted: compilation, evaluation of cells, reading of batches, and snapshots, which only we write. The ratio in processor time is that
against a script that keeps each core busy with a run of its own. The run-tokens of a script that trains each seed once, and its experts
from there, are printed too.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence

import jax
import numpy as np
from against_torch import Torch, save_weights, tokens
from stacks import Stack, in_turns

from jaxsplit.errors import InputError
from jaxsplit.experiment import waves
from jaxsplit.experiment.checks import check
from jaxsplit.experiment.experiment import recipe_of
from jaxsplit.experiment.progress import Progress
from jaxsplit.experiment.recipe import StageSetup
from jaxsplit.experiment.settings import Settings
from jaxsplit.experiment.story import Story
from jaxsplit.experiment.tokens import read_store
from jaxsplit.experiment.tree import Stage
from jaxsplit.experiment.workdir import Workdir
from jaxsplit.models.config import Architecture
from jaxsplit.parallel.sharding import Layout, present_devices
from jaxsplit.running import claimed
from jaxsplit.train import read_settings
from jaxsplit.training import stack
from jaxsplit.training.program_cache import keep_programs
from jaxsplit.training.stack import StackSpec

Trained = Sequence[tuple[Stage, StackSpec]]  # Stages, and what they are trained in.


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--torch_python", required=True)
  parser.add_argument("--gin_file", default="configs/grid.gin")
  parser.add_argument("--threads", type=int, default=2, help="cores that both sides may use")
  parser.add_argument("--torch_threads", type=int, nargs="+", default=[1], help="of PyTorch; of several, the fastest counts")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--steps", type=int, help="steps a turn and a dispatch; by default Training.steps_per_dispatch")
  flags = parser.parse_args()
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:flags.threads])  # XLA takes a thread a core; PyTorch inherits it.
  if len(os.sched_getaffinity(0)) < max(flags.threads, *flags.torch_threads, 1):
    parser.error(f"there are {len(os.sched_getaffinity(0))} cores for --threads={flags.threads} and --torch_threads; give fewer")
  if not shutil.which(flags.torch_python):
    parser.error(f"--torch_python={flags.torch_python}: no interpreter there; name that of an environment with torch")
  try:
    settings = read_settings(flags.gin_file)
    present_devices(settings.layout)
    check_known(settings)
    keep_programs()
    with tempfile.TemporaryDirectory() as folder:
      compare(sweep(settings, pathlib.Path(folder) / "sweep"), settings, flags, pathlib.Path(folder))
  except InputError as error:
    parser.error(str(error))
  return 0


def check_known(settings: Settings) -> None:
  """Refuses models, optimizers and beginnings that torch_worker.py does not have."""
  check(settings)
  given, plain = settings.architecture, Architecture()
  for name in ("family", "queries_per_kv", "qk_norm", "tie_embeddings", "attention", "compute_dtype"):
    if getattr(given, name) != getattr(plain, name):
      raise InputError(f"Architecture.{name} = {getattr(given, name)!r}: torch_worker.py does not have it; take a config without it")
  if settings.optimizer.name != "adamw" or settings.experiment.init_from:
    raise InputError("torch_worker.py trains by AdamW, from initial weights; take a config that does so too")


def sweep(settings: Settings, folder: pathlib.Path) -> Trained:
  """The stages of probe and grid, as `train --dry_run` shows them, and the stacks that they are trained in. Loss weights are left out."""
  with Progress(settings.training.batch_tokens) as progress, Workdir(folder, progress.log) as workdir:
    workdir.claim(claimed(settings))
    store = read_store(settings, workdir, progress)
    parts = Story(settings, store, workdir, progress, runner=None).outline()
    setup = StageSetup(store, recipe_of(settings, store))
    whole = [*parts["probe"], *parts["grid"]]
    stages = waves.in_waves(whole, {stage.name: setup.waves(stage) for stage in whole})
    setup.settle(stages)
    return [(stage, dataclasses.replace(setup.spec(stage), weighted=False)) for stage in stages]


def compare(trained: Trained, settings: Settings, flags: argparse.Namespace, folder: pathlib.Path) -> None:
  """Measures all sizes, one after another, and prints each and the whole."""
  c = settings.training
  print(f"{flags.gin_file}: B = {c.batch_sequences}, T = {c.sequence_length}, {flags.threads} cores, jax {jax.__version__}; {loaded()}",
        *ledger(trained), sep="\n", flush=True)
  steps = flags.steps or c.steps_per_dispatch
  sizes = [measured([one for one in trained if one[1].model == model], steps, flags, folder)
           for model in dict.fromkeys(spec.model for _, spec in trained)]
  ours, theirs = (sum(sides) for sides in zip(*sizes))
  fewer = sum(map(alone_steps, trained)) / sum(map(our_steps, trained))
  for at, what in enumerate(("seconds", "seconds of processor time")):
    ratios = theirs[:, at] / ours[:, at]
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    print(f"the sweep: {np.median(ours[:, at]):.1f} {what} of training, {np.median(theirs[:, at]):.1f} in PyTorch: {middle:.1f} times "
          f"({low:.1f} to {high:.1f}) = {fewer:.2f} times fewer run-tokens x {middle / fewer:.2f} times less a run-token")
  print(loaded())


def measured(trained: Trained, steps: int, flags: argparse.Namespace, folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """Seconds, and seconds of processor time, that one size takes here and in PyTorch, by round: [rounds, 2] each."""
  model, stacks = trained[0][1].model, collections.Counter()
  for stage, spec in trained:
    stacks[spec] += stage.steps
  one = dataclasses.replace(trained[0][1], runs=1, accumulation=1, layout=Layout(devices=1))
  save_weights(stack.initialize(one, [0]), folder)
  block = tokens(one, 0, steps)
  workers = {threads: Torch(flags.torch_python, one, folder, threads, compile=True) for threads in flags.torch_threads}
  turns = {}
  for spec in stacks:
    turns[spec] = functools.partial(our_turn, Stack(spec, steps))
    turns |= {(spec, threads): functools.partial(torch_turn, worker, block) for threads, worker in workers.items()}
  taken = {side: times / steps for side, times in in_turns(turns, flags.rounds).items()}
  for worker in workers.values():
    worker.close()
  ours = sum(count * taken[spec] for spec, count in stacks.items())
  a_step = {threads: np.mean([taken[spec, threads] for spec in stacks], axis=0) for threads in workers}
  best = min(a_step, key=lambda threads: np.median(a_step[threads][:, 0]))
  theirs = sum(map(alone_steps, trained)) * a_step[best]
  print(f"{trained[0][0].size}, N = {model.params:,}: {np.median(theirs[:, 0] / ours[:, 0]):.1f} times; ms a step and a run")
  sides = {f"torch {workers[threads].version}, threads: {threads}": times for threads, times in a_step.items()}
  sides |= {f"a stack of {spec.runs}, {count:,} steps": taken[spec] / spec.runs for spec, count in stacks.items()}
  for name, times in sides.items():
    wall, processor = 1e3 * np.median(times, axis=0)
    print(f"  {name:<30}{wall:>8.2f}{processor:>8.2f} of processor time", flush=True)
  return ours, theirs


def our_turn(one: Stack) -> tuple[float, float]:
  """Seconds, and those of processor time."""
  began = time.process_time()
  return one(), time.process_time() - began


def torch_turn(worker: Torch, block: np.ndarray) -> tuple[float, float]:
  """The same of PyTorch."""
  return worker.train(block, 0)[0], worker.processor


def our_steps(one: tuple[Stage, StackSpec]) -> int:
  """Steps of all runs of a stage."""
  return len(one[0].runs) * one[0].steps


def alone_steps(one: tuple[Stage, StackSpec]) -> int:
  """Steps of a stage's cells, each trained by itself from initial weights."""
  return sum(run.point.seed_steps + run.point.expert_steps for run in one[0].runs if run.point)


def ledger(trained: Trained) -> list[str]:
  """Steps of runs, by phase, at all sizes together."""
  phases: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0, 0])
  for one in trained:
    row = sum(run.point is not None for run in one[0].runs), alone_steps(one), our_steps(one)
    phases[one[0].phase] = [a + b for a, b in zip(phases[one[0].phase], row)]
  rows = [*phases.items(), ("total", [sum(column) for column in zip(*phases.values())])]
  runs = [(stage, run) for stage, _ in trained for run in stage.runs if run.point]
  seeds = {(stage.size, run.replica, run.seed_index, run.point.seed_steps) for stage, run in runs if run.point.expert_steps}
  careful = sum(run.point.expert_steps or run.point.seed_steps for _, run in runs) + sum(seed for *_, seed in seeds)
  return [f"  {'phase':<10}{'cells':>8}{'steps of runs, each cell by itself':>38}{'in the tree':>14}",
          *(f"  {phase:<10}{count:>8,}{alone:>38,}{ours:>14,}" for phase, (count, alone, ours) in rows),
          f"  a script that trains each seed once: {careful:,} steps of runs, {careful / rows[-1][1][2]:.2f} times those in the tree"]


def loaded() -> str:
  """What else the machine does."""
  return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


if __name__ == "__main__":
  sys.exit(main())
