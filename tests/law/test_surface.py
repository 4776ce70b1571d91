"""The surface that plans are read off: right whatever form it stands on, unsure where nothing was measured."""

from __future__ import annotations

import csv
import pathlib

import numpy as np
import pytest

from jaxsplit.law import Cells, fit_law, load_law, plan_split, read_cells
from jaxsplit.law.forms import FORMS
from jaxsplit.law.law import weighted_quantile
from jaxsplit.law.surface_fit import pool, read_surface
from worlds import TABLES, needs_tables

THEIRS, OURS = TABLES / "split_curves", pathlib.Path(__file__).parents[2] / "docs" / "split_curves"
SIZES, K, C = (2e6, 6e6, 2e7), 5, 4e8
SPLITS = (0.1, 0.25, 0.5, 0.75, 0.9)


def truth(n, d, x):
  return 1.4 + 25 * n**-0.3 + 180 * d**-0.32 + 14 * (x + 2e6) ** -0.22


def table(noise=1e-3, domains=("law", "prose"), splits=SPLITS):
  """Cells along the line D + K D' = C and its dense ends, of a truth that only `additive` contains."""
  rows = [(n, f * C, x) for n in SIZES for f in splits for x in (0.0, (1 - f) * C / K)]
  random = np.random.default_rng(0)
  common = dict(zip(SIZES, 3 * noise * random.standard_normal(len(SIZES))))
  columns = {name: [] for name in ("params", "seed_tokens", "expert_tokens", "loss", "domain")}
  for number, domain in enumerate(domains):
    for n, d, x in rows:
      error = common[n] + noise * random.standard_normal()
      for name, value in zip(columns, (n, d, x, (1 + 0.1 * number) * truth(n, d, x) * np.exp(error), domain)):
        columns[name].append(value)
  return Cells.from_columns(columns)


def best(surface, n=4e7):
  fractions = np.linspace(0.02, 0.98, 193)
  return fractions[surface.expect(np.full(193, n), fractions * C, (1 - fractions) * C / K).argmin()]


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if "expert_tokens" in form.needs])
def test_the_split_is_right_whatever_form_it_is_read_with(name):
  fractions = np.linspace(0.02, 0.98, 193)
  true = fractions[truth(4e7, fractions * C, (1 - fractions) * C / K).argmin()]
  assert 0.2 < true < 0.8, "the test needs an optimum inside"
  found = best(read_surface(table(), [FORMS[name]]))
  cost = truth(4e7, found * C, (1 - found) * C / K) / truth(4e7, true * C, (1 - true) * C / K) - 1
  assert cost < 5e-4, f"{found:.2f} instead of {true:.2f}"


def test_forms_weigh_as_their_evidence():
  surface = read_surface(table(noise=3e-4), [FORMS[name] for name in ("additive", "multiplicative", "effective_data")])
  weights = {one.member.model.form.name: one.member.weight for one in surface.forms}
  assert max(weights, key=weights.get) == "additive" and sum(weights.values()) == pytest.approx(1)


def test_new_models_lie_in_the_band_and_far_points_are_less_sure():
  surface = read_surface(table(), [FORMS["additive"], FORMS["interaction"]])
  fractions = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
  counts = np.full(5, 3e7), fractions * C, (1 - fractions) * C / K
  draws, weights = surface.draws(*counts)
  draws = surface.anew(draws)
  assert weights.sum() == pytest.approx(1) and len(weights) == len(draws)
  order = np.sort(draws, axis=0)
  expected = 1.05 * truth(*counts)
  assert (order[int(0.025 * len(order))] < expected).all() and (expected < order[int(0.975 * len(order))]).all()
  spread = lambda n, f: np.log(surface.draws(*(np.array([v]) for v in (n, f * C, (1 - f) * C / K)))[0]).std()
  assert spread(1e9, 0.5) > 2 * spread(2e7, 0.5) and spread(2e7, 0.001) > 2 * spread(2e7, 0.1)


def test_what_a_domain_lacks_is_as_its_ratio_elsewhere():
  cells = table(noise=0)
  whole, lacking = pool(cells), pool(cells.take(np.arange(len(cells)) != 3))
  np.testing.assert_allclose(lacking.loss, whole.loss, rtol=1e-6)
  assert len(whole) == len(cells) // 2


def test_a_surface_comes_back_from_its_file(tmp_path):
  law = fit_law(table(), form="additive", bootstrap=0, holdout="none", starts=4)
  law.save(tmp_path / "law.json")
  again = load_law(tmp_path / "law.json")
  assert plan_split(again, params=4e7, budget_tokens=C, num_domains=K) == plan_split(law, params=4e7, budget_tokens=C, num_domains=K)


def test_a_plan_says_which_fractions_were_measured():
  law = fit_law(table(splits=(0.25, 0.5, 0.75)), form="additive", bootstrap=0, holdout="none", starts=4)
  curve = plan_split(law, params=4e7, budget_tokens=C, num_domains=K).curve
  measured = np.array(curve.fraction)[np.array(curve.measured)]
  assert 0.24 < measured.min() <= 0.25 and 0.75 <= measured.max() < 0.76


@pytest.mark.long
@pytest.mark.parametrize("grid, proof, budget, domains, size", [
    pytest.param(THEIRS / "bundled.csv", THEIRS / "bundled.csv", 750_000, 5, 39_912, id="bundled", marks=needs_tables),
    pytest.param(THEIRS / "bundled_wide.csv", THEIRS / "bundled.csv", 750_000, 5, 39_912, id="bundled_wide", marks=needs_tables),
    pytest.param(THEIRS / "eleven.csv", THEIRS / "eleven.csv", 5_000_000, 11, 221_728, id="eleven", marks=needs_tables),
    pytest.param(OURS / "six_bpe.csv", OURS / "six_bpe.csv", 800_000, 6, 55_568, id="six_bpe"),
    pytest.param(OURS / "seven.csv", OURS / "seven.csv", 1_200_000, 7, 39_912, id="seven")])
def test_measured_split_curves(grid, proof, budget, domains, size):
  surface = read_surface(read_cells(grid),
                         [form for form in FORMS.values() if "expert_tokens" in form.needs])
  points = lambda fraction: (np.full(len(fraction), float(size)), fraction * budget, (1 - fraction) * budget / domains)
  with open(proof) as f:
    rows = [row for row in csv.DictReader(f) if row["role"] in ("split", "dense")]
  losses = {}
  for row in rows:
    seed, expert = (float(row[name]) for name in ("seed_tokens", "expert_tokens"))
    losses.setdefault(seed / (seed + domains * expert), []).append(float(row["loss"]))
  share, loss = np.array([(f, np.mean(v)) for f, v in sorted(losses.items()) if f > 0.09]).T
  inside = share < 0.81
  cubic, fine = np.polyfit(share[inside], loss[inside], 3), np.linspace(0.1, 0.8, 701)
  curve = np.polyval(cubic, fine)
  wide = np.linspace(0.02, 0.98, 193)
  planned = wide[surface.expect(*points(wide)).argmin()]
  assert np.polyval(cubic, planned) / curve.min() - 1 < 1.5e-3
  (draws, weights), anew = surface.draws(*points(wide)), surface.anew(surface.draws(*points(share))[0])
  interval = [weighted_quantile(wide[draws.argmin(1)], weights, level) for level in (0.025, 0.975)]
  assert interval[0] <= fine[curve.argmin()] <= interval[1]
  band = [weighted_quantile(anew, weights, level) for level in (0.025, 0.975)]
  assert (band[0] < loss).all() and (loss < band[1]).all()
