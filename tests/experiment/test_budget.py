"""What the shares of a budget are in steps."""

import pytest

from jaxsplit.errors import InputError
from jaxsplit.experiment.budget import Steps
from jaxsplit.results.stages import Point


@pytest.mark.parametrize("accounting, left", [("total", 0), ("separate", 366 % 8), ("per_model", 0)])
def test_a_split_spends_what_the_dense_model_spends(accounting, left):
  budget = Steps(366, 8, accounting)
  for fraction in (0.1, 0.25, 1 / 3, 0.5, 0.6, 0.75, 0.9):
    point = budget.point(fraction)
    assert budget.left_over(point) == left
    assert budget.seeds * point.seed_steps + budget.experts * point.expert_steps == 366 - left
    assert abs(budget.share(point) - fraction) <= (4 + left) / 366  # So far do whole steps of eight move it.
  assert 0 <= budget.left_over(budget.point(0.0)) < 8  # No seed could have it.
  assert budget.point(1.0) == Point(366, 0, "dense") and budget.share(budget.point(1.0)) == 1 and budget.left_over(budget.point(1.0)) == 0


def test_shares_of_less_than_a_step_or_of_the_same_steps_are_refused():
  budget = Steps(100, 5)
  for name, fractions, message in (("seed_fractions", (0.004,), "the least that works is 0.01"),
                                   ("expert_fractions", (0.1, 0.04), "0.04 is less than a step; the least that works is 0.05"),
                                   ("seed_fractions", (0.5, 0.501), "are both 50 steps")):
    with pytest.raises(InputError, match=message):
      budget.check_shares(name, fractions)
  budget.check_shares("expert_fractions", (0.05, 0.1))
  with pytest.raises(InputError, match="leaves each expert less than a step; the most below 1 that works is 0.95"):
    budget.check_splits((0.5, 0.97))
  budget.check_splits((0.0, 0.5, 0.95, 1.0))


def test_the_grid_has_every_pair_and_every_seed_alone():
  budget = Steps(100, 5, "per_model")
  assert budget.grid((0.2, 0.5), (0.1,)) == [Point(20, 0, "grid"), Point(20, 10, "grid"), Point(50, 0, "grid"), Point(50, 10, "grid")]


def test_experts_have_at_most_what_their_seed_leaves():
  budget = Steps(103, 5)
  points = budget.grid((0.2, 0.5, 0.95), (0.25, 1.0))
  assert [(p.seed_steps, p.expert_steps) for p in points] == [(21, 0), (21, 5), (21, 16), (52, 0), (52, 5), (52, 10), (98, 0), (98, 1)]
  assert all(0 <= budget.left_over(p) < 5 for p in points if p.expert_steps in (16, 10, 1))  # On the line of the whole budget.
  assert max(p.seed_steps + 2 * p.expert_steps for p in Steps(50, 2, "separate").grid((0.5, 1.0), (1.0,))) <= 50
  assert Steps(50, 9, "per_model").grid((0.4,), (1.0,))[-1] == Point(20, 30, "grid")
