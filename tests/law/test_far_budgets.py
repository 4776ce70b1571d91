"""Budgets far beyond what was measured: the split stays where cells support it, and the distance is told."""

from __future__ import annotations

import numpy as np
import pytest

from jaxsplit.law import Cells, fit_law, plan_split
from jaxsplit.law.split import Split
from jaxsplit.results.budget import Budget
from worlds import BUDGET as C, DOMAINS as K, SIZE as N, effective_loss


def test_a_budget_far_beyond_all_cells_stays_in_their_valley(law):
  fractions = np.linspace(0.01, 0.99, 197)
  truth = effective_loss(N, fractions * 8 * C, (1 - fractions) * 8 * C / K, e=1.2, k=3.0)
  beyond = plan_split(law, params=N, budget_tokens=8 * C, num_domains=K)
  assert not any(beyond.curve.measured)
  assert abs(beyond.fraction - fractions[truth.argmin()]) < 0.1
  assert any("no split of this budget" in text for text in beyond.warnings)


@pytest.mark.parametrize("expert_scale, best", [(8, (0.4, 0.6)), (0.4, (0.85, 0.99))])
def test_a_budget_far_beyond_all_cells_has_no_end_of_the_line_for_its_best(expert_scale, best):
  """Both kinds of tokens are beyond what was measured, but where one of them is nearly all: that is not nearer to the cells."""
  rows = np.array([(n, d, x) for n in (1e6, 3e6, 1e7, 3e7) for d in (1e7, 1e8, 1e9) for x in (1e6, 1e7, 1e8, 1e9)])
  n, d, x = rows.T
  noise = np.exp(np.random.default_rng(0).normal(0, 2e-3, len(n)))
  loss = lambda n, d, x: 1.7 + 120 / n**0.3 + 60 / d**0.28 + expert_scale / x**0.2
  law = fit_law(Cells.from_columns({"params": n, "seed_tokens": d, "expert_tokens": x, "loss": loss(n, d, x) * noise}), form="additive",
                bootstrap=50, starts=16, holdout="none")
  fractions = np.linspace(0.001, 0.999, 999)
  for tokens in (1e10, 1e11, 1e12):
    truth = fractions[loss(1e7, fractions * tokens, (1 - fractions) * tokens / 3).argmin()]
    found = plan_split(law, params=1e7, budget_tokens=tokens, num_domains=3)
    assert best[0] < truth < best[1] and abs(found.fraction - truth) < 0.1
    beyond = Split(law, 1e7, Budget(tokens, 3)).beyond(fractions)
    assert 0.2 < fractions[beyond.argmin()] < 0.3  # D = D', as both were measured up to 1e9.


def test_what_is_extrapolated_is_told(law):
  plan = plan_split(law, params=1e8, budget_tokens=1e10)
  assert any("N = 1e+08 is 33.3 times the largest measured" in text and "further than its intervals were ever checked (4 times)" in text
             for text in plan.warnings)
  assert not any("ever checked" in text for text in plan_split(law, params=6e6, budget_tokens=C).warnings)
