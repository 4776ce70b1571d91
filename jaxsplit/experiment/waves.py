"""Waves: a leg whose stack does not fit into the devices at once is several legs, of as many of its runs each as fit.

Runs of a stack never see each other, so a wave's results are those of the whole stack. Waves are legs like any other: each has
snapshots, metrics, cells and repairs of its own, and is trained once. A wave descends from those waves of the leg's parents that
have its runs' parents. All waves of a leg have stacks of one shape, the last with idle rows where its runs are fewer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from jaxsplit.experiment.tree import Leg, Wave
from jaxsplit.parallel.sharding import Layout


def names(leg: str, count: int) -> list[str]:
  """The names of a leg's waves, if it has so many."""
  return [leg] if count == 1 else [f"{leg}.wave-{i + 1}-of-{count}" for i in range(count)]


def whole(wave: Leg) -> tuple[str, int]:
  """The name of the leg that this is a wave of, or is, and how many waves that has."""
  return (wave.wave.leg, wave.wave.count) if wave.wave else (wave.name, 1)


def told(leg: Leg, runs: int, given: Layout, layout: Layout) -> str:
  """In words, how a leg or a wave of it is trained where that is not as the settings have it; empty where it is.

  Args:
    leg: the leg, or a wave of it.
    runs: how many the whole leg has.
    given, layout: as the settings have it, and its own.
  """
  ways = [f"in {leg.wave.count} waves of {leg.wave.runs}"] if leg.wave else []
  changed = [f"Layout.{name} = {now}" for name, now in dataclasses.asdict(layout).items() if now != getattr(given, name)]
  if changed:
    ways.append(f"with {', '.join(changed)}")
  kind = "expert" if leg.runs[0].domain else "run"
  what = f"{runs} {kind}s of {leg.model.params_total:,} parameters train" if runs > 1 else (
      f"a {kind} of {leg.model.params_total:,} parameters trains")
  return f"to fit into memory, {what} {', '.join(ways)}" if ways else ""


def in_waves(legs: Sequence[Leg], counts: Mapping[str, int]) -> list[Leg]:
  """The legs, each in as many waves as `counts` says, parents before children."""
  waves: list[Leg] = []
  place: dict[str, list[tuple[str, int]]] = {}  # Leg -> of each of its runs, its wave and its row there.
  for leg in legs:
    place[leg.name] = []
    any_wave = _any_wave(leg, counts[leg.name])
    size = any_wave.wave.runs if any_wave.wave else len(leg.runs)
    for i, name in enumerate(names(leg.name, counts[leg.name])):
      runs = leg.runs[i * size:(i + 1) * size]
      wave = dataclasses.replace(any_wave, name=name, runs=runs)
      waves.append(_descending(wave, [where for parent in leg.parents for where in place[parent]],
                               {wave.name: len(wave.runs) for wave in waves}))
      place[leg.name] += [(name, row) for row in range(len(runs))]
  return waves


def _any_wave(leg: Leg, count: int) -> Leg:
  """The leg, with a stack as each of so many waves has it."""
  return dataclasses.replace(leg, wave=Wave(leg.name, count, -(-len(leg.runs) // count)) if count > 1 else None)


def _descending(wave: Leg, parents: Sequence[tuple[str, int]], sizes: Mapping[str, int]) -> Leg:
  """The wave with the waves that its runs descend from, and each run's row in their concatenation.

  Args:
    wave: its runs' parents are indices of `parents`.
    parents: of each run of all parents, its wave and its row there.
    sizes: how many runs each wave has.
  """
  if not wave.parents:
    return wave
  needed = list(dict.fromkeys(parents[run.parent][0] for run in wave.runs))
  first = {name: sum(sizes[before] for before in needed[:i]) for i, name in enumerate(needed)}
  runs = tuple(dataclasses.replace(run, parent=first[parents[run.parent][0]] + parents[run.parent][1]) for run in wave.runs)
  return dataclasses.replace(wave, parents=tuple(needed), runs=runs)


def begun(legs: Sequence[Leg], trained: Mapping[str, int]) -> dict[str, list[int]]:
  """Of each leg that was trained, wholly or in part, in how many waves: several numbers where it was begun again, furthest first.

  Args:
    legs: which.
    trained: of a leg or wave, how many of its steps were trained.
  """
  found = {}
  for leg in legs:
    counts = {-(-len(leg.runs) // runs) for runs in range(1, len(leg.runs) + 1)}
    share = {count: sum(trained.get(name, 0) for name in names(leg.name, count)) / count for count in counts}
    found[leg.name] = sorted((count for count in counts if share[count]), key=share.get, reverse=True)
  return found


def choose(
    legs: Sequence[Leg], there: Mapping[str, Sequence[int]], missing: Callable[[Sequence[Leg]], set[str]],
    fits: Callable[[Leg], bool], best: Callable[[Leg], int]) -> dict[str, int]:
  """In how many waves each leg is trained.

  What is there stays as it is where nothing has to be trained. A leg that has to be, or that one starts from which has to be,
  is in as many waves as it was begun in, or as the leg that it continues is in, if such waves fit here; otherwise in as many
  as are best. So devices of other memory go on with what is there as long as they can.

  Args:
    legs: parents before children.
    there: as `begun` has it.
    missing: the names of those among legs in waves that have to be trained.
    fits: whether a leg's stack, of a wave or whole, fits into the devices.
    best: in how many waves a leg is best trained.
  """
  counts = {leg.name: (*there.get(leg.name, ()), 1)[0] for leg in legs}
  while True:
    waves = in_waves(legs, counts)
    train = missing(waves)
    of = {wave.name: whole(wave)[0] for wave in waves}
    needed = {of[name] for wave in waves if wave.name in train for name in (wave.name, *wave.parents)}
    chosen: dict[str, int] = {}
    for leg in legs:
      before = [*there.get(leg.name, ()), *(chosen[name] for name in leg.parents if not leg.forks)]
      going_on = (count for count in before if fits(_any_wave(leg, count)))
      chosen[leg.name] = counts[leg.name] if leg.name not in needed else next(going_on, None) or best(leg)
    if chosen == counts:
      return counts
    counts = chosen
