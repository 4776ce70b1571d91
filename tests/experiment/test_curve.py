"""What was measured at the target, split by split, and whether another split than the recommended one was better."""

import dataclasses

import pytest

from jaxsplit.experiment.curve import curve_text, measured_curve
from jaxsplit.law import load_plan
from jaxsplit.results.budget import Budget
from jaxsplit.results.cells import Cell

BUDGET = 8000


def cell(domain, seed, loss, replica=0):
  expert = (BUDGET - seed) // 2
  return Cell(10, 20, domain, seed, expert, 100, 1.0, loss, 1.0, 1e9, replica, "split" if expert else "dense", 1e-3, 32, None, "ok")


@pytest.fixture
def planned(finished):
  plan = load_plan(finished / "plan.json")
  wide = dataclasses.replace(plan.curve, low=(0.0,) * len(plan.curve.loss), high=(9.0,) * len(plan.curve.loss))
  plan = dataclasses.replace(plan, fraction_interval=(0.4, 0.7), curve=wide)
  return lambda fraction, asked=None: dataclasses.replace(
      plan, fraction=fraction if asked is None else asked, point=dataclasses.replace(plan.point, fraction=fraction))


def test_a_split_has_a_mean_where_all_domains_have_a_loss():
  cells = [cell("a", 4000, 2.0), cell("b", 4000, 2.2), cell("a", 4000, 1.8, 1), cell("b", 4000, 2.0, 1), cell("a", 8000, 3.0)]
  assert measured_curve(cells, ("a", "b"), Budget(BUDGET, 2)) == {0.5: pytest.approx([2.1, 1.9])}
  assert measured_curve(cells, ("a", "b", "c"), Budget(BUDGET, 2)) == {}


def test_a_better_split_is_told_plainly(planned):
  text = curve_text({0.25: [2.05], 0.5: [2.1, 1.9], 0.6: [1.96], 1.0: [2.2]}, planned(0.5))
  first, verdict = text.splitlines()
  assert first == ("measured, mean over domains: 25% seed 2.0500, 50% seed (recommended) 2.0000, 60% seed 1.9600, "
                   "100% seed (dense) 2.2000")
  assert verdict == ("another split was better: 60% seed, by 2.04% of the loss; it is within the 95 % interval of the recommendation, "
                     "40% to 70%")
  near = curve_text({0.4951: [2.0], 0.5: [1.999]}, planned(0.4951), scatter=0.004)
  assert "49.5% seed (recommended) 2.0000, 50.0% seed 1.9990" in near
  assert "by 0.05% of the loss, which may be noise: two runs of the same split differ by about 0.40%; it is within" in near
  assert "outside the 95 % interval" in curve_text({0.25: [1.9], 0.5: [2.0]}, planned(0.5))
  assert curve_text({0.5: [1.9], 1.0: [2.0]}, planned(0.5)).endswith("no other measured split is better than the recommended one")


def test_measured_losses_outside_the_band_are_told(planned):
  plan = planned(0.5)
  curve = dataclasses.replace(plan.curve, fraction=(0.0, 1.0), loss=(2.0, 2.0), low=(1.9, 1.9), high=(2.1, 2.1), measured=(True, True))
  told = lambda losses: curve_text({0.1 * i: [loss] for i, loss in enumerate(losses, 3)}, dataclasses.replace(plan, curve=curve))
  assert "band" not in told([2.0, 1.95, 1.92, 2.05]) and "band" not in told([2.0, 1.95, 1.92, 1.85])
  assert "3 of 4 measured losses lie outside the law's 95 % band: at N = " in told([1.8, 1.8, 1.8, 1.95])
  assert "it predicts losses that are 9.0% too high on average" in told([1.8, 1.8, 1.8, 1.95])


def test_without_a_recommendation_there_is_no_verdict(planned):
  assert curve_text({}) == ""
  assert len(curve_text({0.5: [1.9], 1.0: [2.0]}).splitlines()) == 1
  assert len(curve_text({0.5: [1.9]}, planned(0.5)).splitlines()) == 1
  assert len(curve_text({0.25: [1.9], 1.0: [2.0]}, planned(0.5)).splitlines()) == 1  # Its runs diverged.


def test_a_split_that_whole_steps_round_to_another_per_cent_says_so(planned):
  assert "47% seed (recommended, in whole steps) 1.9000" in curve_text({0.466: [1.9], 1.0: [2.0]}, planned(0.466, asked=0.464))
