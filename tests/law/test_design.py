"""Nothing is recommended that was not measured: tables, domains and laws that cannot say are refused, with what is missing."""

from __future__ import annotations

import numpy as np
import pytest

from jaxsplit.errors import InputError
from jaxsplit.law import Cells, fit_law, plan_split
from jaxsplit.law.design import levels
from worlds import SIZES, effective_cells, effective_loss

QUICK = dict(bootstrap=10, starts=4, holdout="none")


def fitted(experts, seeds=(4e6, 8e6, 1.6e7), form="chinchilla", domains=("prose",)):
  rows = [(n, d, x, effective_loss(n, d, x), name) for name in domains for n in SIZES for d in seeds for x in experts]
  return fit_law(Cells.from_columns(dict(zip(("params", "seed_tokens", "expert_tokens", "loss", "domain"), zip(*rows)))), form=form,
                 **QUICK)


@pytest.mark.parametrize("experts, seeds, message", [
    ((0.0,), (4e6, 8e6, 1.6e7), r"experts were never measured \(every cell has D' = 0\)"),
    ((0.0, 2e6), (4e6, 8e6, 1.6e7), r"experts were hardly measured \(D' has 2 levels, and a split needs 3\)"),
    ((2e6,), (4e6, 8e6, 1.6e7), "experts were hardly measured .D' has 1 level,"),
    ((0.0, 2e6, 2.02e6), (4e6, 8e6, 1.6e7), "experts were hardly measured .D' has 2 levels"),
    ((1e6, 2e6, 4e6), (0.0,), "seeds were never measured"),
    ((1e6, 2e6, 4e6), (4e6, 8e6), "seeds were hardly measured .D has 2 levels"),
])
def test_a_split_that_was_not_measured_is_not_recommended(experts, seeds, message):
  law = fitted(experts, seeds)
  with pytest.raises(InputError, match=message + ".*measure") as error:
    plan_split(law, params=1e6, budget_tokens=2e7, num_domains=5)
  assert "\n" not in str(error.value)
  assert any("nothing is known of how to split" in text for text in law.warnings)


def test_a_domain_without_experts_is_named():
  cells = effective_cells(domains=("prose", "verse", "law"))
  law = fit_law(cells.take((cells.domain != "verse") | (cells.expert_tokens == 0)), form="effective_data", **QUICK)
  with pytest.raises(InputError, match="hardly measured in domain verse"):
    plan_split(law, params=1e6, budget_tokens=2e7)


def test_a_form_that_takes_all_tokens_for_the_same_plans_nothing():
  with pytest.raises(InputError, match="form chinchilla takes seed and expert tokens for the same"):
    plan_split(fitted((0.0, 1e6, 4e6)), params=1e6, budget_tokens=2e7, num_domains=5)


@pytest.mark.parametrize("kept, form, share, message", [
    (2, "auto", "exponents", "domain verse lacks them: verse has 2 distinct cells and lacks 2;"),
    (2, "effective_data", "exponents", "verse has 2 distinct cells and lacks 2;"),
    (2, "chinchilla", "exponents", "needs 3 cells for its own constants .form chinchilla.*verse has 2 distinct cells and lacks 1;"),
    (0, "effective_data", "exponents", None), (4, "effective_data", "exponents", None), (2, "effective_data", "everything", None)])
def test_a_domain_with_fewer_cells_than_constants_is_refused_by_name(kept, form, share, message):
  cells = effective_cells(noise=2e-3, domains=("prose", "verse", "law"))
  verse = np.flatnonzero(cells.domain == "verse")
  cells = cells.take(np.setdiff1d(np.arange(len(cells)), np.delete(verse, np.arange(0, 12 * kept, 12)) if kept else verse))
  settings = dict(QUICK, form=form, share=share) | (dict(holdout="params:1") if form == "auto" else {})
  if message is None:
    fit_law(cells, **settings)
    return
  with pytest.raises(InputError, match=message) as error:
    fit_law(cells, **settings)
  assert "\n" not in str(error.value)


def test_a_domain_of_one_size_among_others_is_refused_by_name():
  cells = effective_cells(noise=2e-3, domains=("prose", "verse", "law"))
  with pytest.raises(InputError, match="domain verse lacks them: verse is measured at one size N; measure them, leave it out"):
    fit_law(cells.take((cells.domain != "verse") | (cells.params == cells.params.min())), form="effective_data", **QUICK)


def test_experts_of_one_length_for_each_seed_tell_nothing_of_splits():
  cells = effective_cells()
  rows = np.flatnonzero(cells.expert_tokens > 0)
  columns = {name: getattr(cells, name)[rows] for name in ("params", "seed_tokens", "loss", "domain")}
  law = fit_law(Cells.from_columns({**columns, "expert_tokens": 0.2 * columns["seed_tokens"]}), **QUICK)
  assert any("expert_tokens is 0.2 times seed_tokens in every row" in reason for reason in law.diagnostics["skipped_forms"].values())
  with pytest.raises(InputError, match="takes seed and expert tokens for the same"):
    plan_split(law, params=1e6, budget_tokens=2e7, num_domains=5)


def test_copies_and_rows_without_weight_are_no_cells():
  cells = effective_cells(noise=2e-3, domains=("prose", "verse"))
  verse = np.flatnonzero(cells.domain == "verse")
  copies = np.concatenate([np.flatnonzero(cells.domain == "prose"), np.repeat(verse[:3], 20)])
  with pytest.raises(InputError, match="verse has 3 distinct cells and lacks 1"):
    fit_law(cells.take(copies), form="effective_data", **QUICK)
  columns = {name: getattr(cells, name) for name in ("params", "seed_tokens", "expert_tokens", "loss", "domain")}
  weight = np.ones(len(cells))
  weight[verse[1:]] = 0
  with pytest.raises(InputError, match="verse has 1 distinct cell and lacks 3"):
    fit_law(Cells.from_columns({**columns, "weight": weight}), form="effective_data", **QUICK)


def test_a_single_isoflop_profile_is_told_what_it_can_give():
  n = np.geomspace(1e7, 1e9, 9)
  d = 6e18 / (6 * n)
  loss = 1.8 + 480 * n**-0.35 + 2100 * d**-0.37
  dense = np.geomspace(1e7, 1e9, 2001)
  best = dense[(1.8 + 480 * dense**-0.35 + 2100 * (1e18 / dense) ** -0.37).argmin()]
  with pytest.raises(InputError, match="one isoFLOP profile: it gives that budget's best size, N = ") as error:
    fit_law(Cells.from_columns({"params": n, "seed_tokens": d, "loss": loss}))
  told = str(error.value)
  assert float(told.split("N = ")[1].split()[0]) == pytest.approx(best, rel=0.2)
  assert "6e+18 FLOPs" in told and "nor anything about other budgets; measure" in told and "\n" not in told
  with pytest.raises(InputError, match="has no minimum"):
    fit_law(Cells.from_columns({"params": n, "seed_tokens": d, "loss": 1 + n**-0.1}))


def test_levels_lie_apart():
  assert levels(np.array([0, 0, 1e6, 1.001e6, 2e6])) == 3
  assert levels(np.linspace(1, 2, 1000)) > 10, "a continuum has many"
