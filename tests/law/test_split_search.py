"""The search for a split along a line of one budget: shares, valleys, and the end of the line."""

from __future__ import annotations

import numpy as np
import pytest

from jaxsplit.law import Cells, fit_law, plan_split
from jaxsplit.law.plan import _minimum_near
from jaxsplit.law.split import _share_out, lowest
from worlds import BUDGET as C, SIZE as N, effective_cells


def test_tokens_are_shared_out_where_none_would_cost_everything():
  lengths = np.linspace(0, 4, 401)
  with np.errstate(divide="ignore"):
    losses = np.stack([weight / lengths for weight in (1.0, 4.0)])  # Their best lengths are as the roots of the weights.
  chosen = lengths[_share_out(losses, lengths)]
  np.testing.assert_allclose(chosen, [2 / 3, 4 / 3], atol=0.02)


def test_the_best_split_lies_in_the_valley_that_was_measured():
  fractions = np.linspace(0, 1, 11)
  measured, ends = (fractions > 0.15) & (fractions < 0.85), (fractions == 0) | (fractions == 1)
  inside = (fractions - 0.4) ** 2
  lost = np.where(fractions == 0.1, -1, inside)  # Rises to .2, and is low at .1, where nothing was measured.
  down = (fractions - 0.1) ** 2  # Falls on beyond what was measured.
  up = (fractions - 0.9) ** 2
  dense = np.where(fractions == 1, -1, inside)  # Of another kind: it may be best, whatever lies between.
  best = lambda *curves, measured=measured: fractions[lowest(np.array(curves), 1.0 - measured, ends)].round(2).tolist()
  assert best(inside, lost, down, up, dense) == [0.4, 0.4, 0.1, 0.9, 1.0]
  nearest = np.abs(fractions - 0.7) + 0.1  # Nothing was measured: the valley nearest to it.
  assert fractions[lowest(np.array([lost, down]), nearest, ends)].round(2).tolist() == [0.4, 0.1]
  assert best(inside, down, up, measured=fractions == 0.7) == [0.4, 0.1, 0.9]  # One was measured: both ways are open.


def test_the_split_point_is_right_near_the_end_of_the_curve():
  # Where experts gain a fiftieth of what the seed does, the best split is 97 or 98 % seed, and D there is the split point.
  rows = [(n, d, x, 1.2 + 20 * n**-0.3 + 150 * d**-0.35 + 1.5 * x**-0.35) for n in (1e5, 3e5, 1e6) for d in (1e6, 4e6, 1.6e7)
          for x in (1e4, 1e5, 1e6)]
  cells = Cells.from_columns(dict(zip(("params", "seed_tokens", "expert_tokens", "loss"), zip(*rows))))
  law = fit_law(cells, form="additive", bootstrap=0, starts=8, holdout="none")
  for domains in (1, 5):
    plan = plan_split(law, params=1e6, budget_tokens=1e7, num_domains=domains)
    assert 0.95 < plan.fraction < 1 and plan.split_point == pytest.approx(plan.seed_tokens, rel=1e-9)
    assert np.diff(plan.curve.fraction).min() > 1e-9
  # On the way to full pretraining as the best split, no token ever helps experts more.
  dense = plan_split(fit_law(effective_cells(), form="effective_data", bootstrap=0, starts=8, holdout="none"), params=N,
                     budget_tokens=C, num_domains=40)
  assert dense.fraction == 1 and dense.split_point == dense.seed_tokens


def test_the_split_point_is_in_the_valley_of_the_recommendation():
  losses = np.array([3.0, 2.9, 2.95, 2.8, 2.6, 2.5, 2.52, 2.7])  # The first upturn is where nothing was measured.
  assert [_minimum_near(losses, at) for at in range(8)] == [1, 1, 5, 5, 5, 5, 5, 5]
  assert _minimum_near(losses[::-1][:3], 2) == 2 and _minimum_near(losses[:2], 0) == 1
