"""Resampled tables: errors that rows share are found where they are, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from jaxsplit.law import Cells, FitSettings, fit_law
from jaxsplit.law.fit import fit_form
from jaxsplit.law.forms import FORMS
from jaxsplit.law.resampling import resample, shared_errors

SIZES, LENGTHS = np.geomspace(5e7, 5e9, 8), np.geomspace(1e9, 1e11, 6)


def cells(seed, shared=0.0, cell=0.004, sizes=SIZES):
  """A Chinchilla table of independent rows, or of rows whose sizes have errors of their own."""
  random = np.random.default_rng(seed)
  n, d = map(np.ravel, np.meshgrid(sizes, LENGTHS, indexing="ij"))
  error = cell * random.standard_normal(len(n)) + np.repeat(shared * random.standard_normal(len(sizes)), len(LENGTHS))
  loss = (1.7 + 0.7 * (n / 3e8) ** -0.34 + 0.6 * (d / 1e10) ** -0.35) * np.exp(error)
  return Cells.from_columns({"params": n, "seed_tokens": d, "loss": loss})


def fitted(table):
  return fit_form(FORMS["chinchilla"], table, FitSettings(starts=8), ())


def likely(table):
  """The likely standard deviation of what a size's rows share, and how likely it is that they share nothing."""
  fit = fitted(table)
  residual = (fit.target - fit.predictions())[fit.row >= 0]
  _, group = np.unique(table.params, return_inverse=True)
  found = shared_errors(fit.jacobian(), residual, (group, np.arange(len(group))))
  assert len(found.groups) == 1, "a kind of which every row has its own is not asked about"
  assert found.weights.sum() == pytest.approx(1)
  return np.sqrt(found.weights @ found.scales[:, 0] ** 2), found.weights[found.scales[:, 0] == 0].sum()


def test_errors_that_a_size_shares_are_found():
  scales, nothing = zip(*(likely(cells(seed, shared=0.008)) for seed in range(6)))
  assert 0.004 < np.median(scales) < 0.016 and np.median(nothing) < 0.05


def test_rows_that_share_nothing_are_taken_for_independent():
  scales, nothing = zip(*(likely(cells(seed)) for seed in range(6)))
  assert np.median(scales) < 0.001 and np.median(nothing) > 0.6


def test_an_outlier_is_no_shared_error():
  table = cells(0)
  table.loss[7] *= 1.5
  assert likely(table)[1] > 0.6


def test_what_a_size_shares_does_not_count_again_for_each_row():
  own = []
  for seed in range(4):
    table = cells(seed, shared=0.008)
    fit = fitted(table)
    target, _ = resample(fit, table, "shared", 1000, 0)
    drawn = (target - fit.predictions())[:, fit.row >= 0].reshape(-1, len(SIZES), len(LENGTHS))
    own.append((drawn - drawn.mean(2, keepdims=True)).std() * (len(LENGTHS) / (len(LENGTHS) - 1)) ** 0.5)
  assert 0.75 < np.median(own) / 0.004 < 1.3


def test_targets_are_drawn_above_the_fit_as_often_as_an_objective_leaves_them():
  table = cells(0)
  fit = fit_form(FORMS["chinchilla"], table, FitSettings(starts=8, overestimate_penalty=3.0), ())
  target, _ = resample(fit, table, "shared", 1000, 0)
  measured, drawn = ((values > fit.predictions())[..., fit.row >= 0].mean() for values in (fit.target, target))
  assert abs(drawn - 0.75) < 0.05 and abs(measured - 0.75) < 0.1


def test_intervals_of_independent_rows_are_those_of_rows_drawn_anew():
  width = lambda kind: np.median([np.ptp(fit_law(
      cells(seed), form="chinchilla", holdout="none", starts=8, bootstrap=200, resample=kind).intervals["beta"]) for seed in range(3)])
  assert 0.75 < width("auto") / width("pairs") < 1.35


def test_weights_have_mean_one_and_scatter_more_where_a_row_decides_more():
  table = cells(0, sizes=SIZES[:4])
  fit = fitted(table)
  _, weight = resample(fit, table, "auto", 4000, 0)
  weight = weight[:, fit.row >= 0]
  np.testing.assert_allclose(weight.mean(0), 1, atol=0.15)
  jacobian = fit.jacobian()
  leverage = np.diag(jacobian @ np.linalg.pinv(jacobian.T @ jacobian) @ jacobian.T)
  assert np.corrcoef(weight.var(0), 1 / (1 - leverage))[0, 1] > 0.9
