"""The tree of an experiment: trunk, snapshots, forks and cooldowns, as stages to be trained one after another.

A cell ends with a cooldown of its own, or, where cells are averaged, with the mean of its weights over the last steps at the constant
rate: then one trunk and one branch of each fork measure them all.

A stage is a part of the training of one run stack, from the final states of its parents to its own. Which stages there are follows
from the cells that are wanted: every trunk step and every constant-rate branch step that several cells need is trained once.
Everything here is integers of steps; nothing here trains.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence

from jaxsplit.models.family import ModelConfig
from jaxsplit.results.stages import Phase, Point


@dataclasses.dataclass(frozen=True)
class Run:
  """One run of a stage's stack. Its steps count from the start of its seed.

  Attributes:
    parent: its index in the concatenation of the parents' stacks; unused if the stage has no parents.
    replica: which replica it belongs to; determines initial weights and data order.
    seed_index: which of the independent seeds of that replica it descends from.
    domain: what it trains on; None is the mixture.
    learning_rate: the constant rate.
    born: steps before this stage; for an expert, including those of its seed.
    first_batch: index in its stream of the stage's first batch.
    decay: steps between which the rate falls to 0; equal for none.
    mean_start: step from which weights are averaged for the cell; None for none.
    rewarm: step at which the rate warms up: 0, or the fork if moments are reset there.
    point: the cell measured at the end of the stage, or None.
    serves: the domain that a run on the mixture is measured on, if each domain has its own seed; None is all of them.
  """

  parent: int
  replica: int
  seed_index: int
  domain: str | None
  learning_rate: float
  born: int
  first_batch: int
  decay: tuple[int, int]
  rewarm: int
  point: Point | None
  serves: str | None = None
  mean_start: int | None = None


@dataclasses.dataclass(frozen=True)
class Wave:
  """A part of a stage whose stack is trained in waves (`experiment.waves`).

  Attributes:
    stage: the whole stage's name.
    count: number of waves.
    runs: size of a wave's stack; the last wave may have fewer runs.
  """

  stage: str
  count: int
  runs: int


@dataclasses.dataclass(frozen=True)
class Stage:
  """A part of the training of one stack.

  Attributes:
    name: unique, and the folder of its snapshots.
    size: name of the model's shape.
    phase: as of `results.stages.StageRecord`.
    parents: stages whose final stacks are concatenated and gathered from; empty for initial weights.
    steps: of training.
    forks: whether the parents' runs become experts here (moments may be reset).
    keep: whether the final state is a result, saved even if no stage starts from it.
    wave: the part of a larger stage that it is, or None.
  """

  name: str
  size: str
  phase: Phase
  model: ModelConfig
  parents: tuple[str, ...]
  runs: tuple[Run, ...]
  steps: int
  forks: bool = False
  keep: bool = False
  wave: Wave | None = None


@dataclasses.dataclass(frozen=True)
class Shape:
  """What a tree of stages depends on, besides its points.

  Attributes:
    name: of the model size; prefixes the stages' names.
    model, domains, replicas, learning_rate: of every run.
    seeds: independent seeds per replica: 1 is a trunk shared by all domains, K gives each domain its own.
    cooldown: (D, D') in steps -> length of the cooldown in steps.
    keep_moments: whether experts start with their seed's moments.
    keep: whether the final states are results.
    averaged: whether cells are means of weights, over half the length of a cooldown, in place of cooldowns.
  """

  name: str
  model: ModelConfig
  domains: tuple[str, ...]
  replicas: int
  learning_rate: float
  seeds: int
  cooldown: Callable[[int, int], int]
  keep_moments: bool
  keep: bool
  averaged: bool = False

  def ending(self, seed_steps: int, expert_steps: int) -> int:
    """Steps before the end of a cell from which its rate falls, or its weights are averaged."""
    cooldown = self.cooldown(seed_steps, expert_steps)
    return max(-(-cooldown // 2), 1) if self.averaged else cooldown


def build(shape: Shape, points: Sequence[Point], trunk: Mapping[int, str] = {}, mark: str = "") -> list[Stage]:
  """The stages that measure `points`, parents before children.

  Args:
    shape, points: of the cells.
    trunk: step -> name of the stage that ends there, of an existing trunk, from which new stages start.
    mark: suffix of the new stages' names, to differ from existing ones.
  """
  full = sorted(p for p in set(points) if p.expert_steps == 0)
  forks = sorted({p.seed_steps for p in points if p.expert_steps > 0})
  stages, at = _trunk(shape, full, forks, trunk, mark)
  for seeds, branch_points in _groups(points):
    stages += _experts(shape, seeds, branch_points, at, mark)
  return stages


def build_all(requests: Sequence[tuple[Shape, Sequence[Point]]]) -> list[Stage]:
  """The stages of successive requests: each starts from the trunks of those before it."""
  stages: list[Stage] = []
  for number, (shape, points) in enumerate(requests):
    stages += build(shape, points, trunk_of(stages, rows=shape.replicas * shape.seeds), f"+{number}" if number else "")
  return stages


def trunk_of(stages: Sequence[Stage], rows: int) -> dict[int, str]:
  """Step -> name of the stage that ends there, for trunk stages with `rows` runs."""
  return {stage.runs[0].born + stage.steps: stage.name for stage in stages if stage.phase == "trunk" and len(stage.runs) == rows}


def needed(stages: Sequence[Stage], points: Sequence[Point]) -> list[Stage]:
  """The stages that measure any of the points, and their ancestors."""
  wanted, parents, out = set(points), set(), []
  for stage in reversed(stages):
    if stage.name in parents or any(run.point in wanted for run in stage.runs):
      parents.update(stage.parents)
      out.append(stage)
  return out[::-1]


def _groups(points: Sequence[Point]) -> list[tuple[list[int], dict[int, dict[int, Point]]]]:
  """Forks with the same set of D' train as one stack: [(D values, D -> D' -> point)]."""
  wanted: dict[int, dict[int, Point]] = {}
  for point in sorted(set(points)):
    if point.expert_steps > 0:
      wanted.setdefault(point.seed_steps, {})[point.expert_steps] = point
  groups: dict[tuple, list[int]] = {}
  for seed_steps, branch in wanted.items():
    # D = 0 starts from initial weights, not from a snapshot.
    groups.setdefault((seed_steps > 0, *sorted(branch)), []).append(seed_steps)
  return [(seeds, {s: wanted[s] for s in seeds}) for seeds in groups.values()]


def _trunk(shape: Shape, full: Sequence[Point], forks: Sequence[int], trunk: Mapping[int, str],
           mark: str) -> tuple[list[Stage], dict[int, str]]:
  """The trunk's stages and its cells; also the name of the trunk stage that ends at each step."""
  starts = {p: p.seed_steps - shape.ending(p.seed_steps, 0) for p in full}
  ends = {p.seed_steps: p for p in full if shape.averaged and p.seed_steps not in trunk}  # Measured where the trunk's stages end.
  apart = [p for p in full if p not in ends.values()]
  stops = {*forks, *ends, *(starts[p] for p in apart)} - trunk.keys()
  last = max(apart, default=None)
  if last and max(stops, default=0) == starts[last] not in forks and list(starts.values()).count(starts[last]) == 1:
    stops.discard(starts[last])  # Nothing else needs that state: one stage continues to the end of the cooldown.
  stages, at = [], dict(trunk)

  def stage(name: str, phase: Phase, begin: int, end: int, point: Point | None, keep: bool) -> Stage:
    decay = (starts[point], end) if point and not shape.averaged else (0, 0)
    mean_start = max(starts[point], begin) if point and shape.averaged else None
    return Stage(name, shape.name, phase, shape.model, (at[begin],) if begin else (), tuple(
        Run(i, replica, seed, None, shape.learning_rate, begin, begin, decay, 0, point,
            shape.domains[seed] if shape.seeds > 1 or len(shape.domains) == 1 else None, mean_start)
        for i, (replica, seed) in enumerate(itertools.product(range(shape.replicas), range(shape.seeds)))), end - begin, keep=keep)

  for stop in sorted(stops - {0}):
    here = max((step for step in at if step < stop), default=0)
    name = f"{shape.name}/trunk/{stop}"
    stages.append(stage(name, "trunk", here, stop, ends.get(stop), False))
    at[stop] = name
  for point in apart:
    begin = starts[point] if starts[point] in at else max((stop for stop in at if stop <= starts[point]), default=0)
    stages.append(stage(f"{shape.name}/full/{point.seed_steps}{mark}", "full", begin, point.seed_steps, point, shape.keep))
  return stages, at


def _experts(shape: Shape, seeds: Sequence[int], points: dict[int, dict[int, Point]], at: Mapping[int, str],
             mark: str) -> list[Stage]:
  """One constant-rate branch for all experts of these forks, and their cells: along it, or each with a cooldown from it."""
  name = f"{shape.name}/experts-" + "-".join(map(str, seeds)) + mark
  rows = [(seed, replica, k) for seed in seeds for replica in range(shape.replicas) for k in range(len(shape.domains))]
  trunk_rows = shape.replicas * shape.seeds
  starts = {(seed, length): length - shape.ending(seed, length) for seed in seeds for length in points[seeds[0]]}
  stages, here, source = [], 0, tuple(at[seed] for seed in seeds if seed)

  def stage(suffix: str, phase: Phase, end: int, measured: bool) -> Stage:
    runs = []
    for i, (seed, replica, k) in enumerate(rows):
      index = k % shape.seeds
      start = seed + starts[seed, end] if measured else 0
      runs.append(Run(
          parent=i if here else seeds.index(seed) * trunk_rows + replica * shape.seeds + index,
          replica=replica, seed_index=index, domain=shape.domains[k], learning_rate=shape.learning_rate, born=seed + here,
          first_batch=here, decay=(start, seed + end) if measured and not shape.averaged else (0, 0),
          rewarm=0 if shape.keep_moments else seed, point=points[seed][end] if measured else None,
          mean_start=max(start, seed + here) if measured and shape.averaged else None))
    return Stage(f"{name}/{suffix}", shape.name, phase, shape.model, source, tuple(runs), end - here, not here and bool(source),
                 measured and shape.keep)

  lengths = sorted(points[seeds[0]])
  if shape.averaged:
    for length in lengths:
      stages.append(stage(f"branch-{length}", "branch", length, True))
      here, source = length, (stages[-1].name,)
    return stages
  # A cooldown may start at other steps for other D: the stage begins at the earliest, each run decays at its own.
  begins = {length: min(starts[seed, length] for seed in seeds) for length in lengths}
  for length in sorted(lengths, key=lambda n: (begins[n], n)):
    if begins[length] > here and length != lengths[-1]:  # Only its cooldown starts from the end of the last branch stage.
      stages.append(stage(f"branch-{begins[length]}", "branch", begins[length], False))
      here, source = begins[length], (stages[-1].name,)
    stages.append(stage(f"cooldown-{length}", "cooldown", length, True))
  return stages
