import dataclasses
import re

import numpy as np
import pytest

from jaxsplit.law import Cells, fit_law, load_law, read_cells
from jaxsplit.report import law_figures
from jaxsplit.report.law_page import write_law_page
from jaxsplit.report.comparison import comparison, predictions
from jaxsplit.report.law_text import candidates_table, law_parts, rule_text
from tests.report.conftest import DOMAINS
from tests.report.test_page import check


@pytest.fixture(scope="module")
def fitted(finished):
  return load_law(finished / "law.json"), read_cells(finished / "cells.csv")


def test_predictions_are_those_of_each_domain(fitted):
  law, cells = fitted
  for domain in DOMAINS:
    of = cells.domain == domain
    expected = law.predict(cells.params[of], cells.seed_tokens[of], cells.expert_tokens[of], domain)
    np.testing.assert_array_equal(predictions(law, cells)[of], expected)


def test_held_out_cells_are_shown_as_a_fit_without_them_predicts_them(fitted):
  law, cells = fitted
  measured, predicted = comparison(law, cells)[0]["held out"]
  largest = cells.params == cells.params.max()
  assert measured.tolist() == cells.loss[largest].tolist() and len(measured) == law.held_out["num_points"] == 36
  assert np.abs(predicted / measured - 1).mean() == pytest.approx(law.held_out["mre"])
  alone = fit_law(cells.take(~largest), form="effective_data", starts=16, bootstrap=0, holdout="none")
  np.testing.assert_allclose(predicted, predictions(alone, cells.take(largest)), rtol=1e-4)


def test_the_page_has_every_figure(fitted, tmp_path):
  law, cells = fitted
  page = write_law_page(tmp_path / "law.html", law, cells).read_text()
  check(page)
  assert re.findall(r'<section id="(\w+)">', page) == ["law", "candidates", "agreement", "profiles", "split", "isoflops"]
  assert page.count("<svg") == 6 and f"{law.r2:.4f}" in page


@pytest.fixture(scope="module")
def table():
  """A law without experts, of known constants, and its cells."""
  params, tokens = (a.ravel() for a in np.meshgrid([1e6, 3e6, 1e7, 3e7], [1e8, 3e8, 1e9, 3e9]))
  cells = Cells.from_columns({"params": params, "seed_tokens": tokens, "loss": 1.7 + 400 * params**-0.35 + 400 * tokens**-0.3})
  return fit_law(cells, form="chinchilla", starts=8, bootstrap=0, holdout="none"), cells


def test_a_table_with_one_kind_of_tokens_has_no_split(table, tmp_path):
  law, cells = table
  page = write_law_page(tmp_path / "law.html", law, cells).read_text()
  check(page)
  assert 'id="split"' not in page and 'id="isoflops"' in page and "Nothing was held out" in page


def test_the_best_size_at_equal_compute_is_the_known_one(table):
  law, cells = table
  axes = law_figures.isoflops(law, cells).axes[0]
  dots = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
  budgets = np.geomspace(*np.quantile(6 * cells.params * cells.seed_tokens, [0.3, 0.9]), 4)
  # Where both terms change equally fast with N: 0.35 * 400 N^-0.35 = 0.3 * 400 (C / 6N)^-0.3.
  known = ((0.35 / 0.3) * (budgets / 6) ** 0.3) ** (1 / 0.65)
  inside = (known > 1.1e6) & (known < 2.8e7)
  assert inside.sum() >= 2
  np.testing.assert_allclose(dots, known[inside], rtol=0.05)


def test_the_formula_and_the_table_say_what_their_constants_mean(fitted):
  _, cells = fitted
  law = fit_law(cells, form="interaction", starts=8, bootstrap=0, holdout="none", profile=5)
  told = "".join(law_parts(law))
  assert "gamma + delta ln D), with D&#x27; + expert_offset in place of D&#x27;; Liew" in told and "expert_offset" in law.parameters
  centre = np.log([np.exp(np.log(values[values > 0]).mean()) for values in (cells.seed_tokens, cells.expert_tokens)])
  beta, gamma = (law.parameters[name] - law.parameters["delta"] * at for name, at in (("beta", centre[1]), ("gamma", centre[0])))
  assert (f"beta and gamma are those where ln N, ln D and ln D′ are 0; at the centre of the cells, where their profiles are drawn, "
          f"they are {beta:.4g} and {gamma:.4g}.") in told
  assert "at the centre" not in "".join(law_parts(fitted[0]))


def test_no_table_of_forms_is_wider_than_the_page(fitted):
  law, _ = fitted
  other = {"mre": 0.0123, "rule": "params:1+tokens:1"}
  candidates = tuple({**candidate, "form": "effective_data_by_size", "held_out": {**candidate["held_out"], "others": [other] * 6}}
                     for candidate in law.candidates)
  tables = candidates_table(dataclasses.replace(law, candidates=candidates))
  assert [head.count("<th ") for head in re.findall("<thead>.*?</thead>", tables)] == [7, 7], "which fit into 400 pixels"
  assert "by N and D + D′, the cells with the largest model size N or the largest number of tokens" in tables and "1.23%" in tables
  assert "<td>effective_<wbr>data_<wbr>by_<wbr>size</td>" in tables
  assert candidates_table(dataclasses.replace(law, candidates=())).count("<table") == 1


def test_the_best_split_is_named_where_a_panel_shows_it(fitted):
  law, cells = fitted
  legend = lambda experts: [text.get_text() for text in law_figures.contours(law, cells, experts).legends[0].get_texts()]
  assert legend(3) == ["cells", "best split of D + 3 D′"]
  assert legend(100_000) == ["cells"], "a budget is hardly ever split there"


def test_profiles_are_those_of_the_shared_constants(fitted):
  law, _ = fitted
  axes = law_figures.profiles(law).axes
  assert [a.get_xlabel() for a in axes] == ["alpha", "beta", "gamma"]
  for a in axes:
    value, deviance = a.lines[-1].get_data()
    assert len(value) == 7 and deviance.min() < 0.1
    low, high = law.profiles[a.get_xlabel()]["interval"]
    assert low < value[deviance.argmin()] < high


def test_residuals_show_each_axis_that_varies(fitted):
  _, cells = fitted
  axes = law_figures.residuals(cells, cells.loss * 1.01).axes
  assert [a.get_xlabel() for a in axes] == ["parameters N", "seed tokens D", "expert tokens D′"]
  for a in axes:
    np.testing.assert_allclose(a.lines[2].get_ydata(), 0.01)


@pytest.mark.parametrize("rule, words", [
    ("params:1", "the cells with the largest model size N"), ("compute:3", "the cells with the 3 largest values of compute"),
    ("leave_one_out", "each cell in turn")])
def test_rules_in_words(rule, words):
  assert rule_text(rule) == words
