"""The closing table: what was not measured is no number, and the last row is the mean whatever the domains are called."""

import dataclasses
import math

import pytest

from jaxsplit.experiment.closing import closing_lines, closing_text
from jaxsplit.law import Cells, fit_law, plan_split
from jaxsplit.results.budget import Budget
from jaxsplit.results.cells import Cell
from jaxsplit.results.plan import PlannedPoint

SEED, EXPERT, DENSE = 4000, 2000, 8000
BUDGET = Budget(DENSE, 2)
POINT = PlannedPoint(20, 125, 62, SEED, EXPERT, 0.5, 0)


@pytest.fixture(scope="module")
def law():
  rows = [(n, d, x, 1.2 + 20 * n**-0.3 + 90 * (x + 1e3 * d**0.2) ** -0.35) for n in (1e3, 3e3, 1e4)
          for d in (2e3, 4e3, 8e3) for x in (0.0, 1e3, 3e3)]
  return fit_law(Cells.from_columns(dict(zip(("params", "seed_tokens", "expert_tokens", "loss"), zip(*rows)))),
                 form="effective_data", bootstrap=0, starts=8, holdout="none")


def cells(*domains, dense=True):
  points = [(SEED, EXPERT, "split", 2.0), *([(DENSE, 0, "dense", 2.1)] if dense else [])]
  return [Cell(10, 20, name, seed, expert, 100, 1.0, loss, 1.0, 1e9, 0, role, 1e-3, 32, None, "ok") for name in domains
          for seed, expert, role, loss in points]


def planned(law, accounting="total"):
  return dataclasses.replace(plan_split(law, params=10.0, budget_tokens=DENSE, num_domains=2, accounting=accounting), point=POINT)


def text(law, found, accounting="total"):
  plan = planned(law, accounting)
  return closing_text(closing_lines(found, law, plan, BUDGET), plan)


def test_what_is_predicted_is_what_the_plan_expects(law):
  plan = planned(law)
  (domain,) = plan.domains
  higher = dataclasses.replace(plan, domains=(dataclasses.replace(domain, loss=1.1 * domain.loss),))
  line, raised = (closing_lines(cells("a"), law, one, BUDGET)[0] for one in (plan, higher))
  assert line.predicted == pytest.approx(float(law.expect(10.0, SEED, EXPERT)), rel=1e-9)
  assert raised.predicted == pytest.approx(1.1 * line.predicted, rel=1e-9)


def test_a_domain_may_be_named_mean(law):
  lines = closing_lines(cells("mean", "other"), law, planned(law), BUDGET)
  assert [line.domain for line in lines] == ["mean", "other", "(mean)"]
  assert [line.domain for line in closing_lines(cells("a"), law, planned(law), BUDGET)] == ["a", "mean"]


def test_without_a_dense_model_there_are_no_columns_for_it(law):
  assert text(law, cells("a", "b")).splitlines()[-1].split()[2:] == ["2.0000", "2.1000", "-9.52%"]
  table = text(law, cells("a", "b", dense=False)).splitlines()[2:]
  assert table[0].split() == ["domain", "predicted", "measured"] and "nan" not in "".join(table)


def test_the_usual_split_stands_beside_the_recommended_one(law):
  usual = [dataclasses.replace(cell, seed_tokens=6390, expert_tokens=805, loss=2.05) for cell in cells("a", dense=False)]
  other = [dataclasses.replace(cell, seed_tokens=6000, expert_tokens=1000, loss=2.03) for cell in cells("a", dense=False)]
  table = text(law, cells("a") + usual + other).splitlines()
  assert table[2].split()[3:] == ["80/20", "from", "80/20", "dense", "from", "dense"]
  assert table[3].split()[3:] == ["2.0500", "-4.88%", "2.1000", "-9.52%"]


def test_a_domain_that_diverged_has_no_number_and_neither_has_the_mean(law):
  found = [dataclasses.replace(c, status="diverged", loss=math.nan) if (c.domain, c.role) == ("b", "split") else c for c in cells("a", "b")]
  a, b, mean = [line.split() for line in text(law, found).splitlines()[-3:]]
  assert a[2:] == ["2.0000", "2.1000", "-9.52%"] and b[2:] == ["-", "2.1000", "-"] and mean[2:] == ["-", "2.1000", "-"]


def test_warnings_of_the_law_stand_below_the_table(law):
  plan = planned(law)
  told = closing_text(closing_lines(cells("a"), law, plan, BUDGET), plan, ("E[a] reached 0: the cells show no floor",))
  assert told.splitlines()[-2].startswith("mean") and told.endswith("\nwarning: E[a] reached 0: the cells show no floor")


def test_the_head_says_whose_the_budget_is(law):
  assert "recommended split of 8,000 tokens for 2 domains" in text(law, cells("a"))
  assert "trained: 2 seeds of 4,000 tokens, then 2,000 tokens for each expert" in text(law, cells("a"), "separate")
  own = text(law, cells("a"), "per_model")
  assert "split of each model's 8,000 tokens" in own and "dense: one model trained on as many tokens as each of the 2 models" in own
