"""Rounds of a sweep: within their allowances, around what is recommended, remembered, and no more of them than are asked for."""

import dataclasses

import pytest
from test_sweep import K, task

from jaxsplit.errors import InputError
from jaxsplit.experiment.rounds import Rounds
from jaxsplit.experiment.settings import Sweep
from jaxsplit.law import Cells, fit_law, plan_split

TARGET = (96, 3)


@pytest.fixture(scope="module")
def asked():
  return task()


@pytest.fixture(scope="module")
def plan(asked):
  rows = [(n, d, x, 1.2 + 20 * n**-0.3 + 60 * d**-0.35 + 25 * (x + 1e4) ** -0.3) for n in (3e3, 1e4, 3e4)
          for d in (2e5, 1e6, 3e6) for x in (0.0, 2e5, 6e5)]
  law = fit_law(Cells.from_columns(dict(zip(("params", "seed_tokens", "expert_tokens", "loss"), zip(*rows)))),
                form="additive", bootstrap=20, starts=8, holdout="none")
  return plan_split(law, params=float(asked.target.params), budget_tokens=4e6, num_domains=K)


def rounds(tmp_path, asked, sweep, config="c", target=TARGET):
  return Rounds(tmp_path / "sweep.json", config, target, asked, sweep)


def test_later_rounds_add_splits_around_the_recommended_one_for_what_is_left(tmp_path, asked, plan):
  told = rounds(tmp_path, asked, Sweep(1.0, rounds=2))
  told.begin()
  first, price = told.requests, told.price
  assert 0 < price <= 0.5
  assert told.left == pytest.approx(1.0 - price)
  assert told.go_on(plan) and not told.go_on(plan) and told.left == 0
  *_, last = told
  assert price < told.price <= 1.0 and last.regret < 0.02
  assert told.text.startswith("sweep, round 2: N = ") and "more splits" in told.text
  assert f"for {last.price:.1%} of the final training's FLOPs, {told.price:.1%} with those before" in told.text
  for cells in last.cells:
    assert not set(cells.points) & {point for points in first.get(cells.size, ()) for point in points}
    shares = {asked.budget.fraction(p.seed_steps, p.expert_steps) for p in cells.points if p.expert_steps}
    assert shares and all(abs(share - plan.fraction) < 0.21 for share in shares)
  spent = sum(asked.price(asked.candidates[size], asked.probed_steps + asked.steps(parts)) for size, parts in told.requests.items())
  assert told.price == pytest.approx(spent)


def test_a_tolerance_that_is_not_reached_is_told(tmp_path, asked, plan):
  regret = plan.regret / plan.loss
  reached = [rounds(tmp_path, asked, Sweep(1.0, tolerance=tolerance)).missed(plan) for tolerance in (0.0, 2 * regret)]
  assert regret > 0 and reached == ["", ""]
  assert "is not reached: the plan's expected regret is" in rounds(tmp_path, asked, Sweep(1.0, tolerance=regret / 2)).missed(plan)


def test_what_was_chosen_stays_chosen(tmp_path, asked, plan):
  told = rounds(tmp_path, asked, Sweep(0.5))
  told.begin()
  chosen = told.requests
  again = rounds(tmp_path, asked, Sweep(0.5))
  again.begin()
  assert again.requests == chosen and not again.go_on(plan)
  raised = rounds(tmp_path, asked, Sweep(1.5))
  raised.begin()
  assert raised.requests == chosen and raised.go_on(plan) and raised.price > again.price
  assert not [*rounds(tmp_path, asked, Sweep(0.5), target=(64, 3))], "another target has a sweep of its own"
  assert not [*rounds(tmp_path, asked, Sweep(0.5), config="other")]


@pytest.mark.parametrize("text", ["{", '{"config": "c", "rounds": [{"target": [1]}]}'])
def test_a_damaged_file_is_begun_anew(tmp_path, asked, text):
  (tmp_path / "sweep.json").write_text(text)
  said = []
  told = Rounds(tmp_path / "sweep.json", "c", TARGET, asked, Sweep(0.5), said.append)
  assert "damaged" in said[0] and not [*told]


def test_a_tolerance_ends_the_rounds_and_is_refused_where_it_cannot_be_reached(tmp_path, asked, plan):
  with pytest.raises(InputError, match="Sweep.tolerance = 1e-06: all of Sweep.flops = 0.5 is expected to leave a regret of"):
    rounds(tmp_path, asked, Sweep(0.5, tolerance=1e-6)).begin()
  assert not (tmp_path / "sweep.json").exists()
  told = rounds(tmp_path, asked, Sweep(0.5, rounds=2, tolerance=0.01))
  told.begin()
  assert not told.go_on(dataclasses.replace(plan, regret=0.009 * plan.loss))
