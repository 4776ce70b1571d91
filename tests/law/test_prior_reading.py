"""The law read with priors: from few cells, of one size even, with what it does not know told, and its file whole."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import pytest

from jaxsplit.errors import InputError
from jaxsplit.law import Cells, FitSettings, fit_law, holdout, load_law, plan_split, read_cells

K, C, N = 4, 4e8, 4e7
DOMAINS = "law", "prose", "verse", "code"
FRACTIONS = np.linspace(0.02, 0.98, 193)


def truth(n, d, x, k=0):
  """Additive, with a floor and terms of each domain's own."""
  return (1 + 0.1 * k) * (1.4 + 25 * n**-0.3 + (150 + 20 * k) * d**-0.32 + 14 * (x + 2e6) ** -0.22)


def mean(fractions):
  return np.mean([truth(N, fractions * C, (1 - fractions) * C / K, k) for k in range(K)], 0)


def table(sizes=(2e6, 6e6, 2e7), noise=2e-3, domains=DOMAINS, splits=(0.1, 0.3, 0.6, 0.9)):
  random, rows = np.random.default_rng(0), []
  for n in sizes:
    of_size = 2 * noise * random.standard_normal()
    for f in splits:
      for x in (0.0, 0.3 * (1 - f) * C / K, (1 - f) * C / K):
        rows += [(n, f * C, x, truth(n, f * C, x, k) * np.exp(of_size + noise * random.standard_normal()), name)
                 for k, name in enumerate(domains)]
  return Cells.from_columns(dict(zip(("params", "seed_tokens", "expert_tokens", "loss", "domain"), map(np.array, zip(*rows)))))


@pytest.fixture(scope="module")
def law():
  return fit_law(table(), form="additive", reading="prior")


@pytest.fixture(scope="module")
def plan(law):
  return plan_split(law, params=N, budget_tokens=C)


def test_the_split_costs_little_and_its_interval_holds_the_best(plan):
  losses, (low, high) = mean(FRACTIONS), plan.fraction_interval
  assert np.interp(plan.fraction, FRACTIONS, losses) / losses.min() - 1 < 5e-4
  assert low <= FRACTIONS[losses.argmin()] <= high and high - low < 0.4
  assert 0 < plan.regret < 0.01 * plan.loss
  assert plan.loss_interval[0] < np.interp(plan.fraction, FRACTIONS, losses) < plan.loss_interval[1]


@pytest.mark.parametrize("experts", [1, 40])
def test_a_best_split_that_is_unusual_is_recommended_where_cells_tell_it(law, experts):
  curve = np.mean([truth(N, FRACTIONS * C, (1 - FRACTIONS) * C / experts, k) for k in range(K)], 0)
  plan = plan_split(law, params=N, budget_tokens=C, num_domains=experts)
  best = FRACTIONS[curve.argmin()]
  assert not 0.3 < best < 0.6
  assert plan.fraction_interval[0] <= best <= plan.fraction_interval[1]
  assert np.interp(plan.fraction, FRACTIONS, curve) / curve.min() - 1 < 1e-3


@pytest.mark.long
def test_what_cells_leave_open_goes_by_how_usual_a_split_is():
  law = fit_law(read_cells(pathlib.Path(__file__).parents[2] / "docs" / "split_curves" / "ten_short.csv"), reading="prior",
                holdout="none")
  plan = plan_split(law, params=443_296, budget_tokens=3e6)
  fractions = np.array(plan.curve.fraction)
  seed, expert = fractions * 3e6, (1 - fractions) * 3e5
  low, high = np.quantile(fractions[law.draws(443_296, seed, expert)[0].argmin(1)], (0.05, 0.95))
  assert high - low > 0.9  # Sizes of a sixtieth say next to nothing.
  assert 0.35 < plan.fraction < 0.65 and plan.fraction_interval[0] < 0.55 < plan.fraction_interval[1]  # 55 % was best.
  assert plan.loss == pytest.approx(min(plan.curve.loss))
  assert np.mean([domain.loss for domain in plan.domains]) == pytest.approx(plan.loss, rel=5e-3)


def test_domains_have_constants_of_their_own(law):
  at = N, 0.5 * C, 0.5 * C / K
  each = np.array([float(law.expect(*at, name)) for name in DOMAINS])
  np.testing.assert_allclose(each, [truth(*at, k) for k in range(K)], rtol=0.02)
  assert float(law.expect(*at)) == pytest.approx(each.mean(), rel=2e-3)
  draws, weights = law.draws(*at, "verse")
  assert weights.sum() == pytest.approx(1) and np.sqrt(weights @ (draws - weights @ draws) ** 2) > 1e-3


def test_a_domain_of_few_cells_is_drawn_towards_the_others():
  cells = table()
  few = cells.take((cells.domain != "verse") | np.isin(np.arange(len(cells)), np.flatnonzero(cells.domain == "verse")[:3]))
  at = 2e7, 0.6 * C, 0.4 * C / K
  found = float(fit_law(few, form="additive", reading="prior", holdout="none").expect(*at, "verse"))
  assert found == pytest.approx(truth(*at, DOMAINS.index("verse")), rel=0.03), "three cells at the smallest size"


def test_one_size_is_enough_for_a_split():
  law = fit_law(table(sizes=(6e6,)), form="additive", reading="prior", holdout="none")
  losses, plan = mean(FRACTIONS), plan_split(law, params=N, budget_tokens=C)
  assert np.interp(plan.fraction, FRACTIONS, losses) / losses.min() - 1 < 1.5e-3
  told = " | ".join(plan.warnings)
  assert "one size was measured, N = 6e+06" in told and "sizes span" not in told
  assert law.diagnostics["condition"] > 1e10 and "constants" not in told, "what cells leave open is the priors'"
  far = " | ".join(plan_split(law, params=200 * 6e6, budget_tokens=C).warnings)
  assert "times the largest measured (6e+06): the law extrapolates" in told and "ever checked (160 times)" in far and "ever checked" not in told
  with pytest.raises(InputError, match="params has 1 distinct value"):
    fit_law(table(sizes=(6e6,)), form="additive")


def test_earlier_sweeps_tell_what_few_cells_do_not(law, tmp_path):
  law.save(tmp_path / "earlier.json")
  few, at = table(sizes=(2e6,), splits=(0.1, 0.3, 0.6)), (2e7, 0.3 * C, 0.5 * C / K)
  errors, widths = [], []
  for prior in ("", str(tmp_path / "earlier.json")):
    found = fit_law(few, form="additive", reading="prior", holdout="none", prior=prior)
    draws, weights = found.draws(*at)
    errors.append(abs(np.log(float(found.expect(*at)) / np.mean([truth(*at, k) for k in range(K)]))))
    widths.append(np.sqrt(weights @ np.log(draws / (weights @ draws)) ** 2))
  assert errors[1] < 0.8 * errors[0] and widths[1] < 0.8 * widths[0], (errors, widths)


def test_a_law_with_priors_comes_back_from_its_file(law, plan, tmp_path):
  law.save(tmp_path / "law.json")
  again = plan_split(load_law(tmp_path / "law.json"), params=N, budget_tokens=C)
  assert again.fraction == pytest.approx(plan.fraction, abs=2e-3) and again.regret == pytest.approx(plan.regret, rel=0.02)
  assert load_law(tmp_path / "law.json").parameters == law.parameters


@pytest.mark.parametrize("settings, said", [
    ({"prior": "law.json"}, "add reading = 'prior'"),
    ({"reading": "prior", "objective": "l1"}, "is of the plain reading"),
    ({"reading": "prior", "repeats": True}, "is of the plain reading"),
    ({"reading": "bayes"}, "must be one of plain, prior")])
def test_what_does_not_go_together_is_told(settings, said):
  with pytest.raises(InputError, match=said):
    dataclasses.replace(FitSettings(), **settings)


def test_a_rule_of_two_axes_scores_what_is_the_largest_of_both():
  cells, rule = table(), "params:1+tokens:2"
  tokens = cells.seed_tokens + cells.expert_tokens
  most = tokens >= np.unique(tokens)[-2]
  (mask,) = holdout.folds(cells, rule)
  np.testing.assert_array_equal(mask, (cells.params == 2e7) | most)
  found = holdout.score(cells, [mask], [cells.loss[mask] * np.where((most & (cells.params == 2e7))[mask], 1.01, 2.0)], rule)
  assert found["mre"] == pytest.approx(0.01) and found["num_points"] == (most & (cells.params == 2e7)).sum()
  with pytest.raises(InputError, match="or two such as"):
    FitSettings(holdout="params:1+params:1")


def test_a_plan_says_how_far_beyond_the_cells_it_stands(plan):
  assert plan.beyond["params"] == pytest.approx(N / 2e7)
  assert plan.beyond["tokens"] == pytest.approx((plan.seed_tokens + plan.expert_tokens) / (0.9 * C + 0.1 * C / K))
