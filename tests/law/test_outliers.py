"""Errors with heavy tails: found where they are, drawn in there, and nothing touched where errors are normal."""

from __future__ import annotations

import numpy as np
import pytest

from jaxsplit.law import Cells
from jaxsplit.law.constraints import Constraints
from jaxsplit.law.forms import FORMS
from jaxsplit.law.outliers import drawn_in
from jaxsplit.law.pooled_fit import Table, read_form
from jaxsplit.law.priors import Priors
from jaxsplit.law.surface_fit import pool, ratios

K, CELL = 5, 3e-3
POINTS = np.array([(n, d, x) for n in (2e6, 6e6, 2e7) for d in (4e7, 1.2e8, 3.6e8) for x in (0.0, 8e6, 3e7)]).T


def truth(k):
  n, d, x = POINTS
  return (1 + 0.1 * k) * (1.4 + 25 * n**-0.3 + (150 + 20 * k) * d**-0.32 + 14 * (x + 2e6) ** -0.22)


TRUE = np.log(np.stack([truth(k) for k in range(K)]))


def measured(errors):
  columns = {name: np.tile(values, K) for name, values in zip(("params", "seed_tokens", "expert_tokens"), POINTS)}
  cells = Cells.from_columns({**columns, "loss": np.exp(TRUE + errors).ravel(), "domain": np.repeat(list("abcde"), POINTS.shape[1])})
  pooled = pool(cells)
  return Table(pooled, ratios(cells, pooled))


@pytest.fixture(scope="module")
def read():
  return lambda table: read_form(FORMS["additive"], table, Priors(), Constraints(), 0)


def off(table):
  """Root mean square error of the pooled losses: of all but what their points share, which is none here."""
  place = {key: i for i, key in enumerate(zip(*POINTS))}
  at = [place[key] for key in zip(table.pooled.params, table.pooled.seed_tokens, table.pooled.expert_tokens)]
  return np.sqrt(np.mean((np.log(table.pooled.loss) - np.log(np.exp(TRUE).mean(0))[at]) ** 2))


def test_heavy_tails_are_drawn_in(read):
  before, after = [], []
  for seed in range(3):
    table = measured(CELL * np.random.default_rng(seed).standard_t(2.0, TRUE.shape))
    steady = drawn_in(table, read(table))
    before.append(off(table))
    after.append(off(steady))
  assert np.mean(after) < 0.8 * np.mean(before), (before, after)


def test_one_broken_cell_hardly_moves_its_point(read):
  errors = CELL * np.random.default_rng(0).standard_normal(TRUE.shape)
  whole = off(measured(errors))
  errors[2, 13] += 0.1
  table = measured(errors)
  assert off(table) > 3 * whole
  assert off(drawn_in(table, read(table))) < 1.5 * whole


def test_normal_errors_leave_the_table_as_it_is(read):
  for seed in range(3):
    table = measured(CELL * np.random.default_rng(seed).standard_normal(TRUE.shape))
    assert drawn_in(table, read(table)) is table


def test_domains_that_were_not_measured_stay_so(read):
  errors = CELL * np.random.default_rng(0).standard_normal(TRUE.shape)
  errors[2, 13] += 0.1
  table = measured(errors)
  ratio = table.ratio.copy()
  ratio[4, :5] = np.nan
  steady = drawn_in(Table(table.pooled, ratio), read(Table(table.pooled, ratio)))
  np.testing.assert_array_equal(np.isnan(steady.ratio), np.isnan(ratio))
  assert np.isfinite(steady.pooled.loss).all() and steady.ratio[2].max() < ratio[2].max()


def test_one_domain_tells_nothing_of_its_errors(read):
  table = measured(CELL * np.random.default_rng(0).standard_t(2.0, TRUE.shape))
  one = Table(table.pooled, np.zeros((1, len(table.pooled))))
  assert drawn_in(one, read(one)) is one
