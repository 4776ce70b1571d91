"""Which losses are a divergence, and which are only noise."""

import numpy as np
import pytest

from jaxsplit.experiment.divergence import Divergence, Divergences, first_divergence


def curve(steps=200, seed=0):
  rng = np.random.default_rng(seed)
  return 2 + 3 * np.exp(-np.arange(steps) / 30) + 0.3 * rng.standard_normal(steps)


def found(losses, spike=1.0):
  return first_divergence(np.stack([curve(seed=9)[:len(losses)], losses], axis=1), spike, np.log(256))


def test_training_is_no_divergence():
  assert not any(found(curve(seed=seed)) for seed in range(20))


def test_a_spike_that_stays():
  losses = curve()
  losses[150:] += 2
  (row, (step, what)), = found(losses).items()
  assert row == 1 and 150 <= step <= 166 and "a rise of 1." in what or "a rise of 2." in what


def test_a_run_that_is_lost_from_its_first_step():
  assert found(np.concatenate([[3.0, 6e6], np.full(38, np.log(256))]))[1][0] <= 4


def test_a_spike_that_comes_back_is_none():
  losses = curve()
  losses[100:130] += 4
  assert not found(losses)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_updates_that_are_not_finite(bad):
  losses = curve()
  losses[60:67] = bad
  assert not found(losses)  # Each was left out; the run went on.
  losses[60:68] = bad
  assert found(losses)[1][0] == 60


def test_a_stage_of_a_few_steps():
  assert not found(curve()[:3])
  assert found(np.full(3, np.nan)) == {1: (0, "3 steps that were not finite")}


def test_what_diverged_is_kept_in_a_file(tmp_path):
  path = tmp_path / "divergence.json"
  one, two = Divergence("x/branch-3", 1, 0, 60, "a rise"), Divergence("x/branch-3", 0, 0, 9, "a rise")
  Divergences(path).add([one])
  again = Divergences(path)
  again.add([two, one])
  assert list(Divergences(path)) == [two, one]
  for text in ('[{"stage": 3}]', path.read_text().replace('"run": 1', '"run": "1"')):
    path.write_text(text)
    assert not list(Divergences(path))
