"""Rows that dwarf all others, beside a plan."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxsplit.law import fit_law, plan_split
from worlds import measured_cells


@pytest.mark.long
def test_one_loss_ten_times_too_large_does_not_move_the_split():
  cells = measured_cells()
  wrong = np.array(cells.loss)
  wrong[57] *= 10
  settings = dict(form="additive", bootstrap=20, starts=8, holdout="none")
  clean, spoilt = (fit_law(dataclasses.replace(cells, loss=loss), **settings) for loss in (cells.loss, wrong))
  assert any("splits are planned without it): row" in text for text in spoilt.warnings)
  plans = [plan_split(law, params=39_912, budget_tokens=1.2e6, num_domains=7) for law in (clean, spoilt)]
  assert abs(plans[0].fraction - plans[1].fraction) < 0.02
  assert np.allclose(plans[0].fraction_interval, plans[1].fraction_interval, rtol=0, atol=0.03)
