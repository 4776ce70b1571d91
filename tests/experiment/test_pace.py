import numpy as np
import pytest

from jaxsplit.experiment.pace import pace_of


@pytest.mark.parametrize("step, flop", [(2e-3, 1e-11), (0.0, 1e-10), (5e-3, 0.0)])
def test_both_parts_are_found(step, flop):
  steps, each = np.array([100, 50, 10.0]), np.array([1e6, 1e8, 3e9])
  pace = pace_of(steps, steps * each, steps * (step + flop * each))
  assert pace.seconds(1000, 1000 * 1e10) == pytest.approx(1000 * (step + flop * 1e10), rel=1e-6)


def test_a_larger_stack_that_was_faster_makes_nothing_negative():
  pace = pace_of(np.ones(2), np.array([1e6, 1e9]), np.array([2e-3, 1.5e-3]))
  assert pace.flop == 0 and 1.5e-3 <= pace.step <= 2e-3


def test_of_a_single_stack_time_goes_by_flops():
  assert pace_of(np.array([10.0]), np.array([1e9]), np.array([2.0])).seconds(1, 5e8) == pytest.approx(1.0)
