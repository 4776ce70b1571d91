"""What an experiment will train, and what that takes, before anything is trained: its tree, ledger, memory and time.

The stages are those that will be trained, so tokens and FLOPs of probe and grid are exactly those of the later ledger. What later rounds
of a sweep and an uneven plan will train is not known: they count as the most that they may take. The proof assumes a recommended split near
50 %, beside those that are compared anyway; each tenth of the budget less for the seed costs a tenth of it more. Times are estimated from
a few blocks of steps of the smallest, middle and largest stack, trained here on random tokens, by a line through seconds against FLOPs; and
of what comes beside that (overhead.py), where the training is so short that it counts.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.experiment import ledger, waves
from jaxsplit.experiment.grid import Grid
from jaxsplit.experiment.overhead import law_seconds, snapshot_seconds
from jaxsplit.experiment.pace import pace_of
from jaxsplit.experiment.recipe import StageSetup
from jaxsplit.experiment.tree import Stage
from jaxsplit.law import FitSettings
from jaxsplit.parallel import sharding
from jaxsplit.results.stages import Purpose, StageRecord, totals
from jaxsplit.training import memory, stack
from jaxsplit.training.chips import peak_bf16_flops
from jaxsplit.training.optimizer import Schedule
from jaxsplit.training.stack import StackSpec

_BLOCKS = 3  # Timed, after a step that warms up.
_BLOCK = 1.0  # Seconds that a timed block takes, about.
_SHORT = 3600.0  # Seconds of training beside which other things count.
_REPORT = 10.0  # Seconds to start, and to draw the report, about.
_PATIENCE = 1e12  # Maximum FLOPs of a step that is timed: half a minute on a slow device.
_FORWARD = 1 / 3  # Of a training step's FLOPs.
_USUAL = 0.4  # Assumed fraction of a chip's peak if nothing could be measured on it.


def forecast(parts: Mapping[Purpose, Sequence[Stage]], split: float | None, grid: Grid, setup: StageSetup, uneven: bool, law: FitSettings,
             folder: pathlib.Path, log: Callable[[str], None]) -> str:
  """The forecast as text.

  Args:
    parts: the stages of each purpose.
    split: the fraction that stands for the recommended split in them; None: there will be none.
    grid: the law's cells; without requests if no law is requested.
    setup: layout of the stacks.
    uneven: whether an uneven plan will be measured as well.
    law: how it is fitted.
    folder: where snapshots are written to be timed, and removed.
    log: gets a line on each measurement.
  """
  batch_tokens = setup.recipe.training.batch_tokens
  records = {purpose: ledger.records(purpose, stages, batch_tokens) for purpose, stages in parts.items() if stages}
  unknown = _unknown(grid, uneven)
  lines = ["", *(line for purpose in records for line in (f"{purpose}:", *_tree(parts[purpose]))), "", *_ledger(records, unknown, split)]
  if grid.requests:
    more = f"; with later rounds at most {grid.price + grid.later_price:.1%}" if grid.later_price else ""
    lines += ["", f"the sweep costs {grid.price:.1%} of the final training, {grid.task.final_flops:.4g} FLOPs{more}"]
  stages = [stage for of in parts.values() for stage in of]
  try:
    stages = waves.in_waves(stages, {stage.name: setup.waves(stage) for stage in stages})
  except InputError as error:
    return "\n".join([*lines, f"memory: {error}", "time: not measured, as it does not fit here"])
  setup.settle(stages)
  domains, replicas = setup.store.domains, max(run.replica for stage in stages for run in stage.runs) + 1
  others = [lambda spec: snapshot_seconds(spec, folder) * sum(bool(stage.parents) or stage.keep for stage in stages)]
  if grid.requests:
    others.append(lambda spec: law_seconds(grid, law, domains, replicas))
  return "\n".join([*lines, *_memory(stages, setup), *_time(stages, unknown, setup, others, log)])


def _unknown(grid: Grid, uneven: bool) -> dict[str, tuple[int, float]]:
  """The most tokens and FLOPs of what will be trained but is not known yet, by name: later rounds are of the smallest models at least, and
  an uneven plan spends the budget."""
  found, task = {}, grid.task
  if grid.later_price:
    flops = grid.later_price * task.final_flops
    found["grid, later rounds, at most"] = round(flops / min(model.flops_per_token for model in task.candidates.values())), flops
  if uneven and grid.requests:
    flops = task.replicas * task.final_flops
    found["proof, uneven plan, at most"] = round(flops / task.target.flops_per_token), flops
  return found


def _tree(stages: Sequence[Stage]) -> list[str]:
  """The stages of each size with their parents, indented by phase."""
  depth = {"probe": 1, "trunk": 1, "full": 2, "branch": 2, "cooldown": 3}
  out, size, short = [], None, lambda name: name.partition("/")[2]
  for one in stages:
    if one.size != size:
      size = one.size
      out.append(f"  {size}, N = {one.model.params:,}")
    cells = sum(run.point is not None for run in one.runs)
    out.append(f"  {'  ' * depth[one.phase]}{short(one.name)}: {len(one.runs)} run{'s' * (len(one.runs) != 1)} x {one.steps:,} steps, from "
               f"{', '.join(map(short, one.parents)) or 'initial weights'}{f'; {cells} measured' if cells else ''}")
  return out


def _ledger(records: Mapping[Purpose, Sequence[StageRecord]], unknown: Mapping[str, tuple[int, float]], split: float | None) -> list[str]:
  """Tokens and FLOPs, by purpose and phase, and in total."""
  all_records = [one for of in records.values() for one in of]
  rows = [(total.name, total.tokens, total.flops) for total in totals(all_records)]
  rows += [(name, *most) for name, most in unknown.items()]
  rows.append(("total", sum(tokens for _, tokens, _ in rows), sum(flops for *_, flops in rows)))
  note = "" if split is None else f" (proof: at a recommended split of {split:.0%})"
  return [f"ledger{note}:", *(f"  {name:<28}{tokens:>20,} tokens{flops:>14.6g} FLOPs" for name, tokens, flops in rows)]


def _memory(stages: Sequence[Stage], setup: StageSetup) -> list[str]:
  """Memory per device of the largest stack."""
  largest = max(stages, key=lambda stage: memory.estimate(setup.spec(stage)).total)
  spec = setup.spec(largest)
  need, (room, what) = memory.estimate(spec), memory.limit(spec)
  return ["", f"memory: at most {memory.text(need.total)} of each device ({largest.name}: {need}); "
          f"of each {what} {memory.text(room)} may be filled"]


def _time(stages: Sequence[Stage], unknown: Mapping[str, tuple[int, float]], setup: StageSetup,
          others: Sequence[Callable[[StackSpec], float]], log: Callable[[str], None]) -> list[str]:
  """Estimated time of training and evaluation on this machine, of the most of what is `unknown` too; `others` are seconds beside
  it, given a stack of middle size."""
  recipe = setup.recipe
  block = recipe.training.steps_per_dispatch
  flops_of = lambda spec: spec.runs * spec.batch * spec.model.sequence_length * spec.model.flops_per_token
  specs = sorted({setup.spec(stage) for stage in stages}, key=lambda spec: (flops_of(spec), repr(spec)))
  measured = [spec for spec in dict.fromkeys(specs[i] for i in (0, len(specs) // 2, -1)) if flops_of(spec) < _PATIENCE]
  # Steps and FLOPs of a step of each stage; cells are measured by forward passes.
  work = [(stage.steps, flops_of(setup.spec(stage))) for stage in stages]
  domains = len(setup.store.domains)
  reading = sum(_FORWARD * stage.model.flops_per_token * recipe.validation_tokens * (1 if run.domain or run.serves else domains)
                for stage in stages for run in stage.runs if run.point)
  work += [(round(most / flops_of(specs[0])), flops_of(specs[0])) for _, most in unknown.values()]
  total = sum(steps * flops for steps, flops in work) + reading
  if not measured:
    peak = peak_bf16_flops(jax.devices()[0].device_kind)
    if not peak:
      return [f"time: not measured, as a step takes long here; {total:.3g} FLOPs"]
    return [f"time: about {_clock(total / (_USUAL * peak * jax.device_count()))} if {_USUAL:.0%} of the peak is reached (not measured)"]
  seconds, compiling = zip(*(_measured(spec, block, log) for spec in measured))
  pace = pace_of(np.ones(len(measured)), np.array([flops_of(spec) for spec in measured]), np.array(seconds))
  training = pace.seconds(sum(steps for steps, _ in work), total)
  compilation = float(np.mean(compiling)) * len(specs)
  text = (f"{_clock(training)} of training and measuring cells, by {len(measured)} of the {len(specs)} kinds of stacks, timed here and "
          f"now, and up to {_clock(compilation)} of compilation for programs that are not cached")
  if training > _SHORT:
    return [f"time: {text}"]
  log("  measuring what comes beside training: snapshots, and the law of invented losses")
  beside = _REPORT + sum(seconds(measured[len(measured) // 2]) for seconds in others)
  return [f"time: {_clock(training + compilation + beside)} in all: {text}; {_clock(beside)} for snapshots, the law and the report"]


def _measured(spec: StackSpec, block: int, log: Callable[[str], None]) -> tuple[float, float]:
  """Seconds of a step (median over blocks of about a second, no longer than those of training), and of the compilation."""
  log(f"  measuring {spec.runs} run{'s' * (spec.runs != 1)} of {spec.model.params_total:,} parameters")
  shape = (block, spec.runs, spec.batch, spec.model.sequence_length + 1)
  random = np.random.default_rng(0)
  put = lambda value, where: jax.device_put(value, where)
  tokens = put(random.integers(0, spec.model.vocab_size, shape).astype(np.int32), sharding.batch_sharding(spec.mesh))
  weights = [put(np.ones((*shape[:3], shape[3] - 1), np.float32), sharding.batch_sharding(spec.mesh))] if spec.weighted else []
  never = np.zeros(spec.runs, np.int32)
  schedule = put(Schedule(np.full(spec.runs, 1e-3, np.float32), *[never] * 5), sharding.run_sharding(spec.mesh))
  began = time.perf_counter()
  stack.compile_training(spec, block)
  compiled = time.perf_counter() - began
  state, count, took = stack.initialize(spec, range(spec.runs)), 1, []
  for _ in range(_BLOCKS + 1):
    began = time.perf_counter()
    state, metrics = stack.train_block(spec)(state, tokens, put(np.int32(count), sharding.replicated(spec.mesh)), schedule, *weights)
    jax.block_until_ready((state, metrics))
    took.append((time.perf_counter() - began) / count)
    count = int(np.clip(_BLOCK / took[-1], 1, block))
  return float(np.median(took[1:])), compiled


def _clock(seconds: float) -> str:
  for length, unit in ((86400, "days"), (3600, "h"), (60, "min")):
    if seconds >= 2 * length:
      return f"{seconds / length:.1f} {unit}"
  return f"{seconds:.0f} s"
