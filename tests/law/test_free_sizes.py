"""A budget in FLOPs, without a size: the best size is found, wherever it lies."""

from __future__ import annotations

import numpy as np
import pytest

from jaxsplit.law import Cells, fit_law, plan_split
from jaxsplit.law.size import best_size
from worlds import BUDGET as C, SIZE as N, measured_cells


def test_a_flop_budget_chooses_the_size(law):
  plan = plan_split(law, budget_flops=6 * N * C)
  neighbours = [plan_split(law, params=plan.params * f, budget_flops=6 * N * C).loss for f in (0.8, 1.25)]
  assert plan.loss <= min(neighbours)


def test_a_size_far_beyond_the_measured_ones_is_found_and_told():
  n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1.6e10, 6), np.geomspace(1e9, 3e11, 8)))
  share = np.tile([0.2, 0.5, 0.8, 1.0], len(n) // 4)
  truth = lambda n, t: 1.8172 + 477.83 * n**-0.3473 + 2143.4 * t**-0.3672
  cells = Cells.from_columns({"params": n, "seed_tokens": share * d, "expert_tokens": (1 - share) * d, "loss": truth(n, d)})
  law = fit_law(cells, form="chinchilla", bootstrap=0, starts=8, holdout="none")
  for flops in (1e21, 2e25, 1e27):
    size, told = best_size(law, flops, 1, "total")
    sizes = np.geomspace(1e7, 1e14, 20001)
    assert size == pytest.approx(sizes[truth(sizes, flops / (6 * sizes)).argmin()], rel=0.02) and not told
  flat = Cells.from_columns({"params": n, "seed_tokens": d, "loss": 1 + 30 * n**-0.3 + 1e-9 * d**-0.3})
  size, told = best_size(fit_law(flat, form="chinchilla", bootstrap=0, starts=8, holdout="none"), 1e21, 1, "total")
  assert "no size is best under this budget" in told and "--params" in told


@pytest.mark.long
def test_a_free_size_is_the_best_by_the_loss_that_the_plan_states():
  cells = measured_cells()
  law = fit_law(cells, form="additive", bootstrap=20, starts=8, holdout="none")
  flops = 6 * 20_000 * 1.2e6
  plan = plan_split(law, budget_flops=flops, num_domains=7)
  around = plan.params * np.array([0.6, 0.8, 1.25, 1.6])
  assert all(plan_split(law, params=n, budget_flops=flops, num_domains=7).loss > plan.loss * (1 - 1e-4) for n in around)
