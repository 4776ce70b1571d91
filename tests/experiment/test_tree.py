"""Trees: every wanted cell is measured once, from the right parent, with the right steps and the right cooldown."""

import pytest

from jaxsplit.experiment.tree import Shape, build, needed, trunk_of
from jaxsplit.models.config import Architecture
from jaxsplit.results.stages import Point

MODEL = Architecture(head_dim=8).at(16, 1, 20, 8)


def shape(cooldown=lambda d, e: round(0.2 * (e or d)), domains=("a", "b"), replicas=1, seeds=1):
  return Shape("s", MODEL, domains, replicas, 1e-3, seeds, cooldown, True, False)


def walk(stages, stage, index):
  """The path of one run from birth: [(stage, run)], following parents by row."""
  run, by_name = stage.runs[index], {l.name: l for l in stages}
  if not stage.parents:
    return [(stage, run)]
  rows = [(by_name[name], i) for name in stage.parents for i in range(len(by_name[name].runs))]
  return walk(stages, *rows[run.parent]) + [(stage, run)]


POINTS = [Point(d, e, "grid") for d in (100, 200, 400) for e in (0, 20, 50)]


@pytest.mark.parametrize("cooldown", [
    lambda d, e: round(0.2 * (e or d)), lambda d, e: min(round(0.2 * (d + e)), e or d), lambda d, e: e or d, lambda d, e: 0,
], ids=["branch", "total", "all", "none"])
@pytest.mark.parametrize("replicas, seeds", [(1, 1), (2, 1), (2, 2)])
def test_every_cell_once_and_its_path_adds_up(cooldown, replicas, seeds):
  stages = build(shape(cooldown, replicas=replicas, seeds=seeds), POINTS)
  assert len({stage.name for stage in stages}) == len(stages)
  seen = []
  for stage in stages:
    for index, run in enumerate(stage.runs):
      if run.point is None:
        continue
      path = walk(stages, stage, index)
      domain_steps = sum(l.steps for l, r in path if r.domain)
      mixture_steps = sum(l.steps for l, r in path if not r.domain)
      assert (mixture_steps, domain_steps) == (run.point.seed_steps, run.point.expert_steps)
      assert {r.replica for _, r in path} == {run.replica} and {r.seed_index for _, r in path} == {run.seed_index}
      born = 0
      for l, r in path:  # Life and stream go on without a gap, and nothing but the last stage decays.
        assert r.born == born and r.first_batch == (born if not r.domain else born - run.point.seed_steps)
        assert r.domain in (None, run.domain)
        assert r is run or r.decay == (0, 0)
        born += l.steps
      end = run.point.seed_steps + run.point.expert_steps
      length = cooldown(run.point.seed_steps, run.point.expert_steps)
      assert run.decay == (end - length, end)
      assert run.born <= end - length
      seen.append((run.point, run.replica, run.seed_index if not run.domain else None, run.domain))
  full = replicas * seeds * 3
  assert len(seen) == len(set(seen)) == full + 3 * 2 * replicas * 2


def test_a_grid_shares_trunk_and_branches():
  """Cost: max(D), max(D') per fork and domain at constant rate, and the cooldowns."""
  stages = build(shape(), POINTS)
  steps = lambda phase: sum(stage.steps * len(stage.runs) for stage in stages if stage.phase == phase)
  assert steps("trunk") == 400
  assert steps("full") == 20 + 40 + 80
  assert steps("branch") + steps("cooldown") == 3 * 2 * (50 + 0.2 * 20)


def test_experts_of_all_snapshots_are_one_stack():
  stages = build(shape(), POINTS)
  assert {len(stage.runs) for stage in stages if stage.phase in ("branch", "cooldown")} == {6}


def test_each_seed_feeds_its_own_domain():
  stages = build(shape(seeds=2), POINTS)
  for stage in stages:
    for run in stage.runs:
      if run.domain:
        assert ("a", "b")[run.seed_index] == run.domain


def test_a_seed_of_one_domain_is_measured_on_it_alone():
  for seeds in (1, 2):
    served = [run.serves for stage in build(shape(seeds=seeds), POINTS) for run in stage.runs if stage.phase == "full"]
    assert served == ([None] * 3 if seeds == 1 else ["a", "b"] * 3)


def test_no_seed_at_all_starts_experts_from_fresh_weights():
  stages = build(shape(), [Point(0, 50, "split"), Point(100, 25, "split"), Point(150, 0, "dense")])
  fresh = [stage for stage in stages if not stage.parents]
  assert {stage.phase for stage in fresh} == {"trunk", "cooldown"}
  assert not any(stage.forks for stage in fresh)


def test_a_cooldown_that_nothing_shares_is_one_stage():
  stages = build(shape(), [Point(150, 0, "dense")])
  assert [(stage.phase, stage.steps, stage.parents) for stage in stages] == [("full", 150, ())]


def test_what_is_asked_later_starts_from_the_trunk_that_is_there():
  first = build(shape(), POINTS)
  more = [Point(300, 0, "grid"), Point(300, 20, "grid"), Point(100, 30, "grid"), Point(500, 20, "grid")]
  later = build(shape(), more, trunk_of(first, rows=1), "+1")
  assert {stage.name for stage in first}.isdisjoint(stage.name for stage in later)
  trunk = {stage.name: (stage.parents, stage.steps) for stage in later if stage.phase == "trunk"}
  assert trunk == {"s/trunk/240": (("s/trunk/200",), 40), "s/trunk/300": (("s/trunk/240",), 60), "s/trunk/500": (("s/trunk/400",), 100)}
  for stage in later:
    for index, run in enumerate(stage.runs):
      if run.point:
        path = walk([*first, *later], stage, index)
        assert sum(l.steps for l, _ in path) == run.point.seed_steps + run.point.expert_steps


def test_only_what_is_wanted_is_needed():
  stages = build(shape(), POINTS)
  assert needed(stages, POINTS) == stages
  assert [stage.name for stage in needed(stages, [Point(200, 0, "grid")])] == ["s/trunk/80", "s/trunk/100", "s/trunk/160", "s/full/200"]
  assert needed(stages, []) == []
