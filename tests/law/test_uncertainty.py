"""Intervals widen with noise, narrow with data, and agree with theory where there is one."""

from __future__ import annotations

import numpy as np
import pytest

from jaxsplit.errors import InputError
from jaxsplit.law import Cells, fit_law
from jaxsplit.law.law import weighted_quantile
from worlds import effective_cells, effective_loss


@pytest.fixture(scope="module")
def noisy():
  return fit_law(effective_cells(noise=5e-3), form="effective_data", bootstrap=200, profile=11)


def test_prediction_intervals_are_wider_than_mean_intervals(noisy):
  point = (1e6, 8e6, 2e6)
  low, high = noisy.interval(*point)
  wide_low, wide_high = noisy.interval(*point, kind="prediction")
  assert wide_low < low < noisy.predict(*point) < high < wide_high
  assert low < effective_loss(*point) < high
  narrow_low, narrow_high = noisy.interval(*point, level=0.5)
  assert low < narrow_low < narrow_high < high


def test_a_new_run_is_no_surer_than_the_mean_even_of_few_refits():
  law = fit_law(effective_cells(noise=2e-4), form="effective_data", bootstrap=10, starts=4, holdout="none")
  n, d, x = np.meshgrid((1e5, 1e6, 1e7), (4e6, 1.6e7, 1e8), (0.0, 1e6, 1e7))
  (low, high), (wide_low, wide_high) = law.interval(n, d, x), law.interval(n, d, x, kind="prediction")
  assert (wide_low <= low).all() and (high <= wide_high).all()


def test_intervals_scale_with_noise(noisy):
  width = lambda law: float(np.subtract(*law.interval(1e6, 8e6, 2e6)[::-1]))
  quiet = fit_law(effective_cells(noise=5e-4), form="effective_data", bootstrap=200)
  assert 5 < width(noisy) / width(quiet) < 20


@pytest.mark.parametrize("resample", ["auto", "rows", "pairs", "trunks"])
def test_other_resamplings_refit_too(noisy, resample):
  law = fit_law(effective_cells(noise=5e-3), form="effective_data", bootstrap=64, resample=resample)
  low, high = law.interval(1e6, 8e6, 2e6)
  other_low, other_high = noisy.interval(1e6, 8e6, 2e6)
  assert 0.1 < (high - low) / (other_high - other_low) < 10


def test_profiles_have_their_least_at_the_fit_and_cross_the_limit(noisy):
  profile = noisy.profiles["alpha"]
  assert noisy.parameters["alpha"] == pytest.approx(profile["value"][int(np.argmin(profile["deviance"]))], rel=1e-6)
  low, high = profile["interval"]
  assert low < noisy.parameters["alpha"] < high and max(profile["deviance"]) > 3.84
  # Profiles take cells for independent, as these are.
  bootstrap_low, bootstrap_high = fit_law(
      effective_cells(noise=5e-3), form="effective_data", bootstrap=200, resample="rows").intervals["alpha"]
  assert 0.4 < (high - low) / (bootstrap_high - bootstrap_low) < 2.5


def test_a_law_without_bootstrap_has_no_intervals():
  law = fit_law(effective_cells(), form="chinchilla", bootstrap=0)
  with pytest.raises(InputError, match="bootstrap"):
    law.interval(1e6, 1e7, 0)


@pytest.mark.parametrize("resample", ["auto", "shared", "rows", "pairs", "trunks"])
def test_rows_of_weight_zero_are_as_if_they_were_not_there(resample):
  cells = effective_cells(noise=5e-3)
  names = ("params", "seed_tokens", "expert_tokens", "loss")
  more = Cells.from_columns({name: np.append(getattr(cells, name), [3e7, 1e9, 5e8, 9.0][i]) for i, name in enumerate(names)} | {
      "weight": np.append(cells.weight, 0.0)})
  settings = {"form": "effective_data", "bootstrap": 16, "starts": 4, "resample": resample}
  without, with_it = fit_law(cells, **settings), fit_law(more, **settings)
  np.testing.assert_array_equal(with_it.members[0].samples, without.members[0].samples)
  assert (with_it.parameters, with_it.held_out, with_it.r2, with_it.num_points) == (
      without.parameters, without.held_out, without.r2, without.num_points)
  assert with_it.data["dropped"] == {"weight is 0": 1}


def test_weighted_quantiles():
  values = np.array([[3.0], [1.0], [2.0]])
  assert weighted_quantile(values, np.full(3, 1 / 3), 0.5) == pytest.approx([2.0])
  assert weighted_quantile(values, np.array([0.98, 0.01, 0.01]), 0.5)[0] > 2.9
