"""One budget: what it pays for, and the way from a share to tokens and back."""

import numpy as np
import pytest

from jaxsplit.results.budget import Budget, accounting_of


@pytest.mark.parametrize("accounting, seeds, experts", [("total", 1, 5), ("separate", 5, 5), ("per_model", 1, 1)])
def test_a_share_is_what_its_tokens_say(accounting, seeds, experts):
  budget = Budget(1e6, 5, accounting)
  assert (budget.seeds, budget.experts) == (seeds, experts)
  for share in (0.0, 0.25, 0.9):
    seed, expert = budget.divided(np.float64(share))
    assert seeds * seed + experts * expert == pytest.approx(1e6) and budget.fraction(seed, expert) == pytest.approx(share)


def test_all_of_a_budget_is_one_dense_model_however_many_seeds_it_pays_for():
  seed, expert = Budget(1e6, 5, "separate").divided(np.array([1.0, 0.5]))
  assert seed.tolist() == [1e6, 1e5] and expert.tolist() == [0, 1e5]
  assert Budget(1e6, 5, "separate").fraction(1_000_000, 0) == 1


def test_budgets_may_be_many():
  seed, expert = Budget(np.array([[1e6], [2e6]]), 4).divided(np.array([0.5, 1.0]))
  assert seed.tolist() == [[5e5, 1e6], [1e6, 2e6]] and expert.tolist() == [[1.25e5, 0], [2.5e5, 0]]


def test_a_seed_for_each_domain_has_an_accounting_of_its_own():
  assert [accounting_of(name, shared) for name in ("total", "per_model") for shared in (True, False)] == [
      "total", "separate", "per_model", "per_model"]
