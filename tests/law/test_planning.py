"""Plans find the optimum of a law that is known, at the ends too, and keep the budget."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from scipy import optimize

from jaxsplit.errors import InputError
from jaxsplit.law import Cells, fit_law, load_plan, plan_split
from jaxsplit.law.reading import read_cells
from jaxsplit.law.size import best_size
from jaxsplit.law.split import Split, _share_out, lowest
from jaxsplit.results.budget import Budget
from worlds import effective_cells, effective_loss

N, C, K = 2e6, 4e7, 9


@pytest.fixture(scope="module")
def law():
  return fit_law(effective_cells(noise=1e-3, domains=("prose", "verse")), form="effective_data", bootstrap=100)


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


def test_a_flop_budget_chooses_the_size(law):
  plan = plan_split(law, budget_flops=6 * N * C)
  neighbours = [plan_split(law, params=plan.params * f, budget_flops=6 * N * C).loss for f in (0.8, 1.25)]
  assert plan.loss <= min(neighbours)


def test_a_size_far_beyond_the_measured_ones_is_found_and_told():
  n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1.6e10, 6), np.geomspace(1e9, 3e11, 8)))
  share = np.tile([0.2, 0.5, 0.8, 1.0], len(n) // 4)
  truth = lambda n, t: 1.8172 + 477.83 * n**-0.3473 + 2143.4 * t**-0.3672
  cells = Cells.from_columns({"params": n, "seed_tokens": share * d, "expert_tokens": (1 - share) * d, "loss": truth(n, d)})
  law = fit_law(cells, form="chinchilla", bootstrap=0, starts=8, holdout="none")
  for flops in (1e21, 2e25, 1e27):
    size, told = best_size(law, flops, 1, "total")
    sizes = np.geomspace(1e7, 1e14, 20001)
    assert size == pytest.approx(sizes[truth(sizes, flops / (6 * sizes)).argmin()], rel=0.02) and not told
  flat = Cells.from_columns({"params": n, "seed_tokens": d, "loss": 1 + 30 * n**-0.3 + 1e-9 * d**-0.3})
  size, told = best_size(fit_law(flat, form="chinchilla", bootstrap=0, starts=8, holdout="none"), 1e21, 1, "total")
  assert "no size is best under this budget" in told and "--params" in told


def test_the_split_point_is_right_near_the_end_of_the_curve():
  # Where experts gain a fiftieth of what the seed does, the best split is 97 or 98 % seed, and D there is the split point.
  rows = [(n, d, x, 1.2 + 20 * n**-0.3 + 150 * d**-0.35 + 1.5 * x**-0.35) for n in (1e5, 3e5, 1e6) for d in (1e6, 4e6, 1.6e7)
          for x in (1e4, 1e5, 1e6)]
  cells = Cells.from_columns(dict(zip(("params", "seed_tokens", "expert_tokens", "loss"), zip(*rows))))
  law = fit_law(cells, form="additive", bootstrap=0, starts=8, holdout="none")
  for domains in (1, 5):
    plan = plan_split(law, params=1e6, budget_tokens=1e7, num_domains=domains)
    assert 0.95 < plan.fraction < 1 and plan.split_point == pytest.approx(plan.seed_tokens, rel=1e-9)
    assert np.diff(plan.curve.fraction).min() > 1e-9
  # On the way to full pretraining as the best split, no token ever helps experts more.
  dense = plan_split(fit_law(effective_cells(), form="effective_data", bootstrap=0, starts=8, holdout="none"), params=N,
                     budget_tokens=C, num_domains=40)
  assert dense.fraction == 1 and dense.split_point == dense.seed_tokens


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


def test_a_budget_far_beyond_all_cells_stays_in_their_valley(law):
  fractions = np.linspace(0.01, 0.99, 197)
  truth = effective_loss(N, fractions * 8 * C, (1 - fractions) * 8 * C / K, e=1.2, k=3.0)
  beyond = plan_split(law, params=N, budget_tokens=8 * C, num_domains=K)
  assert not any(beyond.curve.measured)
  assert abs(beyond.fraction - fractions[truth.argmin()]) < 0.1
  assert any("no split of this budget" in text for text in beyond.warnings)


@pytest.mark.parametrize("expert_scale, best", [(8, (0.4, 0.6)), (0.4, (0.85, 0.99))])
def test_a_budget_far_beyond_all_cells_has_no_end_of_the_line_for_its_best(expert_scale, best):
  """Both kinds of tokens are beyond what was measured, but where one of them is nearly all: that is not nearer to the cells."""
  rows = np.array([(n, d, x) for n in (1e6, 3e6, 1e7, 3e7) for d in (1e7, 1e8, 1e9) for x in (1e6, 1e7, 1e8, 1e9)])
  n, d, x = rows.T
  noise = np.exp(np.random.default_rng(0).normal(0, 2e-3, len(n)))
  loss = lambda n, d, x: 1.7 + 120 / n**0.3 + 60 / d**0.28 + expert_scale / x**0.2
  law = fit_law(Cells.from_columns({"params": n, "seed_tokens": d, "expert_tokens": x, "loss": loss(n, d, x) * noise}), form="additive",
                bootstrap=50, starts=16, holdout="none")
  fractions = np.linspace(0.001, 0.999, 999)
  for tokens in (1e10, 1e11, 1e12):
    truth = fractions[loss(1e7, fractions * tokens, (1 - fractions) * tokens / 3).argmin()]
    found = plan_split(law, params=1e7, budget_tokens=tokens, num_domains=3)
    assert best[0] < truth < best[1] and abs(found.fraction - truth) < 0.1
    beyond = Split(law, 1e7, Budget(tokens, 3)).beyond(fractions)
    assert 0.2 < fractions[beyond.argmin()] < 0.3  # D = D', as both were measured up to 1e9.


def test_a_free_size_is_the_best_by_the_loss_that_the_plan_states():
  cells = read_cells(pathlib.Path(__file__).parents[2] / "docs" / "split_curves" / "seven.csv", {"role": "role", "status": "status"})
  law = fit_law(cells, form="additive", bootstrap=20, starts=8, holdout="none")
  flops = 6 * 20_000 * 1.2e6
  plan = plan_split(law, budget_flops=flops, num_domains=7)
  around = plan.params * np.array([0.6, 0.8, 1.25, 1.6])
  assert all(plan_split(law, params=n, budget_flops=flops, num_domains=7).loss > plan.loss * (1 - 1e-4) for n in around)


def test_one_loss_ten_times_too_large_does_not_move_the_split():
  cells = read_cells(pathlib.Path(__file__).parents[2] / "docs" / "split_curves" / "seven.csv", {"role": "role", "status": "status"})
  wrong = np.array(cells.loss)
  wrong[57] *= 10
  settings = dict(form="additive", bootstrap=20, starts=8, holdout="none")
  clean, spoilt = (fit_law(dataclasses.replace(cells, loss=loss), **settings) for loss in (cells.loss, wrong))
  assert any("splits are planned without it): row" in text for text in spoilt.warnings)
  plans = [plan_split(law, params=39_912, budget_tokens=1.2e6, num_domains=7) for law in (clean, spoilt)]
  assert abs(plans[0].fraction - plans[1].fraction) < 0.02
  assert np.allclose(plans[0].fraction_interval, plans[1].fraction_interval, rtol=0, atol=0.03)


def test_a_plan_comes_back_from_its_file(plan, tmp_path):
  plan.save(tmp_path / "plan.json")
  assert load_plan(tmp_path / "plan.json") == plan
  for version, message in ((7, "damaged"), (6, "version 6 of a plan is not 7; write it again with python -m jaxsplit.plan")):
    (tmp_path / "plan.json").write_text(json.dumps({"params": 1, "version": version}))
    with pytest.raises(InputError, match=message):
      load_plan(tmp_path / "plan.json")


def test_what_is_extrapolated_is_told(law):
  plan = plan_split(law, params=1e8, budget_tokens=1e10)
  assert any("N = 1e+08 is 33.3 times the largest measured" in text and "further than its intervals were ever checked (4 times)" in text
             for text in plan.warnings)
  assert not any("ever checked" in text for text in plan_split(law, params=6e6, budget_tokens=C).warnings)


@pytest.mark.parametrize("settings, message", [
    ({}, "give one budget"), ({"params": N, "budget_tokens": C, "budget_flops": C}, "give one budget"),
    ({"budget_tokens": C}, "--params is missing"), ({"params": -1.0, "budget_tokens": C}, "--params=-1"),
    ({"params": N, "budget_tokens": C, "accounting": "all"}, "--accounting"), ({"parms": N}, "did you mean params"),
])
def test_settings_are_checked(law, settings, message):
  with pytest.raises(InputError, match=message):
    plan_split(law, **settings)


def test_tokens_are_shared_out_where_none_would_cost_everything():
  lengths = np.linspace(0, 4, 401)
  with np.errstate(divide="ignore"):
    losses = np.stack([weight / lengths for weight in (1.0, 4.0)])  # Their best lengths are as the roots of the weights.
  chosen = lengths[_share_out(losses, lengths)]
  np.testing.assert_allclose(chosen, [2 / 3, 4 / 3], atol=0.02)


def test_the_best_split_lies_in_the_valley_that_was_measured():
  fractions = np.linspace(0, 1, 11)
  measured, ends = (fractions > 0.15) & (fractions < 0.85), (fractions == 0) | (fractions == 1)
  inside = (fractions - 0.4) ** 2
  lost = np.where(fractions == 0.1, -1, inside)  # Rises to .2, and is low at .1, where nothing was measured.
  down = (fractions - 0.1) ** 2  # Falls on beyond what was measured.
  up = (fractions - 0.9) ** 2
  dense = np.where(fractions == 1, -1, inside)  # Of another kind: it may be best, whatever lies between.
  best = lambda *curves, measured=measured: fractions[lowest(np.array(curves), 1.0 - measured, ends)].round(2).tolist()
  assert best(inside, lost, down, up, dense) == [0.4, 0.4, 0.1, 0.9, 1.0]
  nearest = np.abs(fractions - 0.7) + 0.1  # Nothing was measured: the valley nearest to it.
  assert fractions[lowest(np.array([lost, down]), nearest, ends)].round(2).tolist() == [0.4, 0.1]
  assert best(inside, down, up, measured=fractions == 0.7) == [0.4, 0.1, 0.9]  # One was measured: both ways are open.
