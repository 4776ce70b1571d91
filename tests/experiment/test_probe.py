import math

import pytest

from jaxsplit.errors import InputError
from jaxsplit.experiment.probe import Probe, doubts, fit_rates
from jaxsplit.results.cells import Cell


def cells(loss, sizes=(10_000, 40_000, 160_000), rates=(1e-3, 2e-3, 4e-3, 8e-3, 16e-3)):
  return [Cell(n, n, "a", 1000, 0, 1, 1.0, loss(n, rate), 1.0, 1.0, 0, "probe", rate, 10, None, "ok") for n in sizes for rate in rates]


@pytest.mark.parametrize("exponent", [0.3, 0.5, 0.7])
def test_a_known_valley_is_found(exponent):
  best = lambda n: 5e-3 * (n / 40_000) ** -exponent
  rates = (1e-3, 2e-3, 4e-3, 8e-3, 16e-3)
  rule = fit_rates(Probe(rates=rates), cells(lambda n, r: 2 + 0.1 * math.log(r / best(n)) ** 2 + 1e4 / n, rates=rates))
  for n in (10_000, 40_000, 160_000, 500_000):
    assert rule.rate(n) == pytest.approx(best(n), rel=0.05)  # The prior of the exponent pulls a little.


def test_a_slope_out_of_bounds_is_held_at_the_bound():
  best = lambda n: 4e-3 * (n / 40_000) ** 0.4  # Rising with N, which bounds forbid.
  rule = fit_rates(Probe(rates=(1e-3, 16e-3)), cells(lambda n, r: 2 + 0.02 * math.log(r / best(n)) ** 2))
  assert 0.25 <= rule.exponent < 0.35
  assert rule.rate(40_000) == pytest.approx(4e-3, rel=0.25)


def test_one_noisy_size_does_not_take_the_rule_with_it():
  best = lambda n: 4e-3
  noisy = lambda n, r: 2 + 0.02 * math.log(r / best(n)) ** 2 - (0.02 if (n, r) == (40_000, 16e-3) else 0)
  assert fit_rates(Probe(rates=(1e-3, 16e-3)), cells(noisy)).rate(40_000) == pytest.approx(4e-3, rel=0.5)


def test_no_valley_takes_the_rates_own_best_and_diverged_rates_are_left_out():
  falling = lambda n, r: math.nan if r > 1e-2 else 3 - 0.1 * math.log(r)
  rule = fit_rates(Probe(rates=(1e-3, 8e-3)), cells(falling))
  assert rule.rate(40_000) <= 8e-3
  assert all(rate == 8e-3 and not inside for *_, rate, inside in rule.best)


@pytest.mark.parametrize("loss, sizes", [
    (lambda n, r: 2 + 0.02 * math.log(r / 4e-3) ** 2, (10_000,)),  # One size.
    (lambda n, r: 3 - 0.1 * math.log(r), (1_000, 3_000, 7_000)),  # Higher is always better.
])
def test_where_probes_do_not_tell_the_exponent_it_is_the_middle_of_its_bounds(loss, sizes):
  rule = fit_rates(Probe(rates=(1e-3, 16e-3)), cells(loss, sizes))
  assert rule.exponent == pytest.approx(0.5, abs=0.01)
  assert rule.rate(100 * sizes[-1]) < rule.rate(sizes[-1]) / 4
  fixed = fit_rates(Probe(rates=(1e-3, 16e-3), exponent=(0.0, 0.0)), cells(loss, sizes))
  assert fixed.exponent == 0


def test_a_best_rate_of_the_largest_size_at_the_end_of_those_tried_is_told():
  valley = lambda best: cells(lambda n, r: 2 + 0.02 * math.log(r / best(n)) ** 2, rates=(1e-3, 2e-3, 4e-3, 8e-3))
  assert doubts(valley(lambda n: 3e-3)) == []
  assert doubts(valley(lambda n: 3e-2 if n < 20_000 else 3e-3)) == []  # Small models want higher ones: no news.
  assert doubts([]) == doubts(cells(lambda n, r: 2.0, rates=(1e-3,))) == []
  high, low = doubts(valley(lambda n: 3e-2)), doubts(valley(lambda n: 1e-4))
  assert len(high) == len(low) == 1
  assert high[0].startswith("the highest learning rate that was tried, 0.008, is the best at N = 160,000, the largest size probed: higher")
  assert "raise Probe.fractions, then add higher ones to Probe.rates" in high[0] and "add lower ones to Probe.rates" in low[0]
  assert low[0].startswith("the lowest learning rate that was tried, 0.001, is the best at N = 160,000, the largest size probed: lower")


def test_a_single_rate_is_taken_as_it_is():
  for rate in (3e-3, 1.23456e-3):
    rule = fit_rates(Probe(rates=(rate,)), [])
    assert rule.rate(123) == rule.rate(10**9) == rate


def test_a_size_at_which_every_rate_diverges_is_named():
  with pytest.raises(InputError, match=r"Probe.rates = \(0.001, 0.016\): all of them diverged at N = 40,000 .* give lower ones"):
    fit_rates(Probe(rates=(1e-3, 16e-3)), cells(lambda n, r: math.nan if n == 40_000 else 2.0))


@pytest.mark.parametrize("settings, message", [
    ({"rates": ()}, r"Probe.rates = \(\): give at least one"),
    ({"rates": (1e-3, 0.0)}, r"Probe.rates = \(0.001, 0.0\): 0.0 must be positive"),
    ({"rates": (math.inf,)}, "inf must be positive"),
    ({"rates": (1e-3, 1e-3)}, "one is given twice"),
    ({"rates": (0.0012345678912, 1e-3)}, "0.0012345678912 has more digits than the nine that cells keep; use 0.00123456789"),
    ({"fractions": ()}, r"Probe.fractions = \(\)"),
    ({"fractions": (0.1, 1.5)}, "1.5 must be positive and at most 1"),
    ({"fractions": (-0.1,)}, "-0.1 must be positive"),
    ({"replicas": 0}, "Probe.replicas = 0: must be 1 or more"),
    ({"exponent": (0.5, 0.1)}, "the lower first"),
])
def test_probes_that_cannot_be(settings, message):
  with pytest.raises(InputError, match=message):
    Probe(**settings)
