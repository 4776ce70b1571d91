"""Plans find the optimum of a law that is known, at the ends too, and keep the budget."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy import optimize

from jaxsplit.errors import InputError
from jaxsplit.law import Cells, fit_law, load_plan, plan_split
from worlds import BUDGET as C, DOMAINS as K, SIZE as N, effective_cells, effective_loss


@pytest.fixture(scope="module")
def plan(law):
  return plan_split(law, params=N, budget_tokens=C, num_domains=K)


def true_curve(fraction):
  d, x = fraction * C, (1 - fraction) * C / K
  return (effective_loss(N, d, x, e=1.2, k=3.0) + effective_loss(N, d, x, e=1.3, k=4.0)) / 2


def test_the_true_optimum_is_found(plan):
  best = optimize.minimize_scalar(true_curve, bounds=(1e-6, 1), method="bounded")
  low, high = plan.fraction_interval
  assert 0.05 < best.x < 0.95, "the test needs an optimum inside"
  assert plan.fraction == pytest.approx(best.x, abs=0.02) and low <= plan.fraction <= high
  assert true_curve(plan.fraction) - best.fun < 1e-4
  assert plan.loss == pytest.approx(best.fun, rel=2e-3)
  assert plan.dense_loss == pytest.approx(true_curve(1.0), rel=5e-3)
  assert plan.fixed_loss == pytest.approx(true_curve(0.8), rel=5e-3)
  assert plan.seedless_loss is None, "no cell has D = 0"
  assert plan.gain_over_dense == pytest.approx(plan.dense_loss - plan.loss)
  assert 0 <= plan.regret < 1e-3


def test_intervals_of_the_split_hold_the_truth_in_most_tables():
  # Of ten 95 % intervals, fewer than eight hold the truth in 1 of 90 worlds of tables; these ten tables are fixed.
  curve = lambda f: effective_loss(N, f * C, (1 - f) * C / K)
  best = optimize.minimize_scalar(curve, bounds=(1e-6, 1), method="bounded").x
  held = 0
  for seed in range(10):
    law = fit_law(effective_cells(noise=3e-3, seed=seed), form="effective_data", bootstrap=60, starts=8, holdout="none")
    low, high = plan_split(law, params=N, budget_tokens=C, num_domains=K).fraction_interval
    assert high - low < 0.3, "an interval that says nothing holds everything"
    held += low <= best <= high
  assert held >= 8


def test_a_plan_goes_by_the_surface():
  law = fit_law(effective_cells(noise=2e-2, domains=("prose", "verse")), bootstrap=0, starts=8)
  plan = plan_split(law, params=N, budget_tokens=C, num_domains=K)
  weights = {one.member.model.form.name: one.member.weight for one in law.surface.forms}
  assert plan.forms == pytest.approx(weights, rel=1e-12) and len(plan.forms) > 1
  assert sum(plan.forms.values()) == pytest.approx(1)
  fractions = np.linspace(0.01, 0.99, 981)
  expected = law.surface.expect(np.full(981, N), fractions * C, (1 - fractions) * C / K)
  assert plan.fraction == pytest.approx(fractions[expected.argmin()], abs=2e-3)
  assert plan.loss == pytest.approx(expected.min(), rel=1e-6)


def test_one_form_alone_is_read_alone(law, plan):
  assert plan.forms == {"effective_data": 1.0}
  assert law.mean_of_forms(N, 1e7, 2e6) == law.predict(N, 1e7, 2e6)


def test_the_budget_is_kept(plan, law):
  assert plan.num_domains == K and plan.budget_flops == pytest.approx(6 * N * C)
  assert plan.seed_tokens + K * plan.expert_tokens == pytest.approx(C)
  own = max(d.best_seed_tokens for d in plan.domains) + K * np.mean([d.best_expert_tokens for d in plan.domains])
  assert own <= C * (1 + 1e-9)
  single = plan_split(law, params=N, budget_flops=6 * N * C, accounting="per_model")
  assert single.seed_tokens + single.expert_tokens == pytest.approx(C)


@pytest.fixture(scope="module")
def steep():
  """A law under which the seed soon says little more, so that two domains do best with a short seed each."""
  table = [(n, d, x, effective_loss(n, d, x, e=1.2 + i / 10, k=6.5e5, gamma=0.2), name) for i, name in enumerate(("prose", "verse"))
           for n in (1e5, 3e5, 1e6) for d in (1e6, 3e6, 1e7) for x in (0.0, 1e6, 3e6, 1e7)]
  names = ("params", "seed_tokens", "expert_tokens", "loss", "domain")
  cells = Cells.from_columns(dict(zip(names, map(np.array, zip(*table)))))
  return fit_law(cells, form="effective_data", bootstrap=20, starts=16, holdout="none")


def test_seeds_of_their_own_share_the_budget_with_their_experts(steep):
  plan = plan_split(steep, params=N, budget_tokens=2e7, accounting="separate")
  assert 0.1 < plan.fraction < 0.9 and plan.fraction == pytest.approx(2 * plan.seed_tokens / 2e7)
  assert 2 * (plan.seed_tokens + plan.expert_tokens) == pytest.approx(2e7)
  each = plan_split(steep, params=N, budget_tokens=1e7, accounting="per_model")
  assert (plan.fraction, plan.loss) == pytest.approx((each.fraction, each.loss), rel=1e-2)
  # The rival is one model of the whole budget, and so is the end of the curve.
  assert plan.dense_loss == plan.curve.loss[-1] == pytest.approx(float(steep.expect(N, 2e7, 0)))
  assert np.mean([d.dense_loss for d in plan.domains]) == pytest.approx(plan.dense_loss) and plan.dense_loss < each.dense_loss
  for d in plan.domains:
    assert d.best_seed_tokens + d.best_expert_tokens == pytest.approx(1e7) and d.best_loss <= d.loss + 1e-5
  assert any("one dense model of the whole budget has 2.0 times the most seed tokens measured" in text for text in plan.warnings)
  sized = plan_split(steep, budget_flops=6 * N * 2e7, accounting="separate")
  assert 2 * (sized.seed_tokens + sized.expert_tokens) == pytest.approx(sized.budget_tokens) or sized.fraction == 1


def test_where_nothing_beats_the_dense_model_it_is_the_plan(law):
  plan = plan_split(law, params=N, budget_tokens=C, num_domains=5000, accounting="separate")
  assert plan.fraction == 1 and (plan.seed_tokens, plan.expert_tokens) == (C, 0)
  assert plan.loss == plan.dense_loss and all(d.best_loss == pytest.approx(d.dense_loss) for d in plan.domains)


def test_a_domain_may_be_named_all():
  plan = lambda name: plan_split(
      fit_law(effective_cells(noise=1e-3, domains=(name, "prose")), form="effective_data", bootstrap=20, starts=8, holdout="none"),
      params=N, budget_tokens=C)
  (one, other), (named, prose) = plan("alls").domains, plan("all").domains
  assert (named.domain, prose) == ("all", other)
  assert dataclasses.replace(named, domain="alls") == one and named.loss != other.loss


def test_own_splits_are_no_worse_than_the_common_one(plan):
  assert sum(d.best_loss for d in plan.domains) <= sum(d.loss for d in plan.domains) + 1e-12


def test_the_curve_holds_both_ends_and_the_optimum(plan):
  curve = {name: np.array(values) for name, values in vars(plan.curve).items()}
  assert curve["fraction"][0] == 0.001, "no cell has D = 0"
  assert curve["fraction"][-1] == 1 and plan.fraction in curve["fraction"]
  assert curve["loss"].min() == plan.loss and (curve["low"] <= curve["high"]).all()
  assert np.isfinite(curve["loss"]).all()
  assert plan.split_point == pytest.approx(plan.seed_tokens)


def test_ends_can_win(law):
  # One model alone has nothing to share a seed with: all of its budget goes to its own domain.
  plan = plan_split(law, params=N, budget_tokens=1e5, num_domains=1, accounting="per_model")
  assert plan.fraction == pytest.approx(plan.curve.fraction[int(np.argmin(plan.curve.loss))])
  # With very many domains each expert gets next to nothing, and full pretraining is best or nearly so.
  many = plan_split(law, params=N, budget_tokens=C, num_domains=5000)
  assert many.fraction > 0.5


def test_many_more_domains_than_were_measured_are_remarked(law):
  remark = lambda k: [text for text in plan_split(law, params=N, budget_tokens=C, num_domains=k).warnings if text.startswith("K = ")]
  assert remark(2) == remark(4) == []
  assert "2 domains were measured: their mean stands for all 16" in remark(16)[0]


def test_ends_that_no_cell_supports_are_no_numbers(law):
  cells = effective_cells(noise=1e-3)
  both = fit_law(Cells.from_columns({name: np.append(getattr(cells, name), extra) for name, extra in (
      ("params", [1e5, 1e6]), ("seed_tokens", [0, 0]), ("expert_tokens", [1e6, 4e6]),
      ("loss", effective_loss(np.array([1e5, 1e6]), 0, np.array([1e6, 4e6]))))}), form="effective_data", bootstrap=10, starts=8,
                 holdout="none")
  plan = plan_split(both, params=N, budget_tokens=C, num_domains=K)
  assert plan.seedless_loss == pytest.approx(plan.curve.loss[0]) and plan.seedless_loss > plan.loss
  within = fit_law(cells.take(cells.expert_tokens > 0), form="effective_data", bootstrap=10, starts=8, holdout="none")
  plan = plan_split(within, params=N, budget_tokens=C, num_domains=K)
  assert plan.dense_loss is plan.gain_over_dense is plan.gain_over_dense_interval is None
  assert all(d.dense_loss is None for d in plan.domains)


def test_distinct_tokens_are_a_setting():
  rows = [(n, d, x, 4e5, (d + x) / 4e5) for n in (1e5, 3e5, 1e6) for d in (1e5, 4e5, 1.6e6) for x in (0.0, 2e5, 8e5, 3.2e6)]
  columns = dict(zip(("params", "seed_tokens", "expert_tokens", "unique_tokens", "epochs"), map(np.array, zip(*rows))))
  worth = lambda t: np.where(t > 4e5, 4e5 * (1 + 5 * -np.expm1(-(t / 4e5 - 1) / 5)), t)
  d, x = columns["seed_tokens"], columns["expert_tokens"]
  cells = Cells.from_columns({**columns, "loss": effective_loss(columns["params"], worth(d), worth(d + x) - worth(d))})
  asked = dict(params=1e6, budget_tokens=4e6, num_domains=1)
  law = fit_law(cells, form="effective_data", repeats=True, bootstrap=0, starts=8, holdout="none")
  assert law.parameters["R_star"] == pytest.approx(5, rel=1e-2)
  scarce, measured, plenty = (plan_split(law, **asked, unique_tokens=u) for u in (1e5, 4e5, 1e9))
  assert scarce.loss > measured.loss > plenty.loss and measured.unique_tokens == 4e5
  assert measured.loss == pytest.approx(plan_split(law, **asked).loss)
  assert any("pass 40 times over the 1e+05 distinct tokens, and the law discounts them" in text for text in scarce.warnings)
  assert not any("distinct tokens" in text for text in plenty.warnings)


def test_a_plan_comes_back_from_its_file(plan, tmp_path):
  plan.save(tmp_path / "plan.json")
  assert load_plan(tmp_path / "plan.json") == plan
  for version, message in ((7, "damaged"), (6, "version 6 of a plan is not 7; write it again with python -m jaxsplit.plan")):
    (tmp_path / "plan.json").write_text(json.dumps({"params": 1, "version": version}))
    with pytest.raises(InputError, match=message):
      load_plan(tmp_path / "plan.json")


@pytest.mark.parametrize("settings, message", [
    ({}, "give one budget"), ({"params": N, "budget_tokens": C, "budget_flops": C}, "give one budget"),
    ({"budget_tokens": C}, "--params is missing"), ({"params": -1.0, "budget_tokens": C}, "--params=-1"),
    ({"params": N, "budget_tokens": C, "accounting": "all"}, "--accounting"), ({"parms": N}, "did you mean params"),
])
def test_settings_are_checked(law, settings, message):
  with pytest.raises(InputError, match=message):
    plan_split(law, **settings)
