"""Waves: a stage whose stack does not fit into the devices' memory is divided into several stages, each with as many runs as fit.

Runs of a stack are independent, so a wave's results are those of the whole stack. Waves are stages like any other: each has
separate snapshots, metrics, cells and retries. A wave's parents are the waves of the stage's parents that contain its runs'
parents. All waves of a stage have stacks of one shape, the last with idle runs if it has fewer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from jaxsplit.experiment.tree import Stage, Wave
from jaxsplit.parallel.sharding import Layout


def names(stage: str, count: int) -> list[str]:
  """The names of a stage's waves, if it has `count`."""
  return [stage] if count == 1 else [f"{stage}.wave-{i + 1}-of-{count}" for i in range(count)]


def whole(wave: Stage) -> tuple[str, int]:
  """The name of the stage that this is (a wave of), and its number of waves."""
  return (wave.wave.stage, wave.wave.count) if wave.wave else (wave.name, 1)


def told(stage: Stage, runs: int, given: Layout, layout: Layout) -> str:
  """How a stage or a wave of it is trained, in words, if that differs from the settings; otherwise empty.

  Args:
    stage: the stage, or a wave of it.
    runs: number of runs of the whole stage.
    given, layout: the layout of the settings, and the one used.
  """
  ways = [f"in {stage.wave.count} waves of {stage.wave.runs}"] if stage.wave else []
  changed = [f"Layout.{name} = {now}" for name, now in dataclasses.asdict(layout).items() if now != getattr(given, name)]
  if changed:
    ways.append(f"with {', '.join(changed)}")
  kind = "expert" if stage.runs[0].domain else "run"
  what = f"{runs} {kind}s of {stage.model.params_total:,} parameters train" if runs > 1 else (
      f"a {kind} of {stage.model.params_total:,} parameters trains")
  return f"to fit into memory, {what} {', '.join(ways)}" if ways else ""


def in_waves(stages: Sequence[Stage], counts: Mapping[str, int]) -> list[Stage]:
  """The stages, each in `counts` waves, parents before children."""
  waves: list[Stage] = []
  place: dict[str, list[tuple[str, int]]] = {}  # Stage -> for each of its runs, the wave and the index there.
  for stage in stages:
    place[stage.name] = []
    any_wave = _any_wave(stage, counts[stage.name])
    size = any_wave.wave.runs if any_wave.wave else len(stage.runs)
    for i, name in enumerate(names(stage.name, counts[stage.name])):
      runs = stage.runs[i * size:(i + 1) * size]
      wave = dataclasses.replace(any_wave, name=name, runs=runs)
      waves.append(_descending(wave, [where for parent in stage.parents for where in place[parent]],
                               {wave.name: len(wave.runs) for wave in waves}))
      place[stage.name] += [(name, row) for row in range(len(runs))]
  return waves


def _any_wave(stage: Stage, count: int) -> Stage:
  """The stage with the stack size of each of `count` waves."""
  return dataclasses.replace(stage, wave=Wave(stage.name, count, -(-len(stage.runs) // count)) if count > 1 else None)


def _descending(wave: Stage, parents: Sequence[tuple[str, int]], sizes: Mapping[str, int]) -> Stage:
  """The wave with the waves that its runs descend from, and each run's index in their concatenation.

  Args:
    wave: its runs' parents are indices into `parents`.
    parents: for each run of all parents, its wave and the index there.
    sizes: number of runs of each wave.
  """
  if not wave.parents:
    return wave
  needed = list(dict.fromkeys(parents[run.parent][0] for run in wave.runs))
  first = {name: sum(sizes[before] for before in needed[:i]) for i, name in enumerate(needed)}
  runs = tuple(dataclasses.replace(run, parent=first[parents[run.parent][0]] + parents[run.parent][1]) for run in wave.runs)
  return dataclasses.replace(wave, parents=tuple(needed), runs=runs)


def begun(stages: Sequence[Stage], trained: Mapping[str, int]) -> dict[str, list[int]]:
  """The numbers of waves in which each stage was trained, completely or in part; several if it was restarted, furthest first.

  Args:
    stages: which.
    trained: number of trained steps, by stage or wave.
  """
  found = {}
  for stage in stages:
    counts = {-(-len(stage.runs) // runs) for runs in range(1, len(stage.runs) + 1)}
    share = {count: sum(trained.get(name, 0) for name in names(stage.name, count)) / count for count in counts}
    found[stage.name] = sorted((count for count in counts if share[count]), key=share.get, reverse=True)
  return found


def choose(
    stages: Sequence[Stage], there: Mapping[str, Sequence[int]], missing: Callable[[Sequence[Stage]], set[str]],
    fits: Callable[[Stage], bool], best: Callable[[Stage], int]) -> dict[str, int]:
  """The number of waves of each stage.

  Stages that need no training stay as they are. A stage to be trained, or from which such a stage starts,
  has as many waves as it was begun in, or as the stage that it continues, if such waves fit here; otherwise the best
  number. So devices with other memory continue existing waves if they can.

  Args:
    stages: parents before children.
    there: the result of `begun`.
    missing: names of the stages, among those in waves, that have to be trained.
    fits: whether a stage's stack, of a wave or whole, fits into the devices' memory.
    best: the best number of waves of a stage.
  """
  counts = {stage.name: (*there.get(stage.name, ()), 1)[0] for stage in stages}
  while True:
    waves = in_waves(stages, counts)
    train = missing(waves)
    of = {wave.name: whole(wave)[0] for wave in waves}
    needed = {of[name] for wave in waves if wave.name in train for name in (wave.name, *wave.parents)}
    chosen: dict[str, int] = {}
    for stage in stages:
      before = [*there.get(stage.name, ()), *(chosen[name] for name in stage.parents if not stage.forks)]
      going_on = (count for count in before if fits(_any_wave(stage, count)))
      chosen[stage.name] = counts[stage.name] if stage.name not in needed else next(going_on, None) or best(stage)
    if chosen == counts:
      return counts
    counts = chosen
