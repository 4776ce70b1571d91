"""What a law says about itself: every case that would mislead is told, and nothing is cried about that is well."""

from __future__ import annotations

import numpy as np
import pytest

from jaxsplit.law import Cells, fit_law
from jaxsplit.law.diagnostics import starts_text
from worlds import effective_cells

QUICK = dict(form="chinchilla", bootstrap=60, starts=16, holdout="none")


def world(noise=3e-3, seed=0, sizes=(1e6, 4e6, 1.6e7, 6.4e7), tokens=(1e8, 4e8, 1.6e9, 6.4e9), runs=1, spread=0.0):
  """A Chinchilla world; `runs` at each point, each worse by its settings."""
  random = np.random.default_rng(seed)
  n, d = (v.ravel() for v in np.meshgrid(sizes, tokens))
  n, d = np.repeat(n, runs), np.repeat(d, runs)
  loss = (1.8 + 480 * n**-0.35 + 2100 * d**-0.37) * np.exp(noise * random.standard_normal(len(n)) + spread * random.exponential(size=len(n)))
  return {"params": n, "seed_tokens": d, "loss": loss}


def told(columns, **settings):
  return " | ".join(fit_law(Cells.from_columns(columns), **{**QUICK, **settings}).warnings)


def test_a_sound_table_raises_no_alarm():
  law = fit_law(effective_cells(noise=2e-3, domains=("prose", "verse")), form="effective_data", bootstrap=60, starts=16, holdout="none")
  assert not [text for text in law.warnings if "condition" not in text and "fewer than 5" not in text], law.warnings


def test_losses_that_nothing_explains():
  columns = world(runs=6)
  skewed = 2 * np.exp(np.random.default_rng(1).exponential(size=len(columns["loss"])) ** 2)
  assert "R2 is -" in told({**columns, "loss": skewed}, objective="l1")
  assert "R2 is 0" in told({**columns, "loss": np.full(len(skewed), 3.0)})
  assert "R2 is" not in told(columns)


def test_sizes_that_span_little():
  assert "sizes span a factor of 2.5 only" in told(world(sizes=(1e6, 1.5e6, 2.5e6)))
  assert "sizes span" not in told(world())


def test_one_loss_ten_times_too_large_is_named():
  cells = effective_cells(noise=2e-3, domains=("prose", "verse"))
  columns = {name: getattr(cells, name) for name in ("params", "seed_tokens", "expert_tokens", "domain", "loss")}
  columns["loss"] = columns["loss"].copy()
  columns["loss"][36] *= 10
  law = fit_law(Cells.from_columns(columns, rows=range(2, 98)), form="effective_data", bootstrap=60, starts=16, holdout="none")
  (text,) = [text for text in law.warnings if "times as far off as is usual" in text]
  assert "1 of 96 rows lies" in text and "row 38 (loss " in text


@pytest.mark.parametrize("noise", [lambda random, n: 4e-3 * random.standard_t(3, n), lambda random, n: 1e-2 * random.standard_normal(n)])
def test_heavy_tails_alone_name_no_rows(noise):
  columns = world(noise=0, runs=3)
  columns["loss"] = columns["loss"] * np.exp(noise(np.random.default_rng(2), len(columns["loss"])))
  assert "times as far off" not in told(columns)


def test_runs_of_other_settings_are_told_to_be_so():
  text = told(world(runs=12, spread=0.1))
  assert "192 rows measure only 16 distinct points" in text and "--rows=best" in text
  assert "distinct points" not in told(world(runs=3)), "repetitions are no settings"


def test_domains_whose_column_is_not_mapped_are_told_and_intervals_stay_wide():
  columns = world(runs=2, noise=0.002)
  columns["loss"] = np.where(np.arange(len(columns["loss"])) % 2, 1.4, 1.0) * columns["loss"]
  law = fit_law(Cells.from_columns(columns), **{**QUICK, "bootstrap": 40})
  assert any("map the column that says which, as domain=NAME" in text for text in law.warnings)
  assert all(high > low for low, high in law.intervals.values())


def test_a_noise_free_surface_raises_no_alarm_about_starts():
  for law in (fit_law(effective_cells(), form="effective_data", bootstrap=0, starts=32, holdout="none"),
              fit_law(Cells.from_columns(world(noise=0)), **{**QUICK, "objective": "l1"})):
    assert law.r2 > 1 - 1e-9 and law.diagnostics["starts_at_optimum"] > 0.9
    assert not [text for text in law.warnings if "starts" in text]


def test_a_flat_valley_is_said_without_alarm():
  text = starts_text({"starts": 64, "starts_at_optimum": 0.016, "starts_alike": 1.0})
  assert text.startswith("2% of 64 starting points led to this optimum, 100% to it or to other constants that predict the cells alike")
  assert starts_text({"starts": 64, "starts_at_optimum": 1.0, "starts_alike": 1.0}).endswith("led to this optimum.")


def test_an_interval_as_wide_as_its_bounds_is_told():
  # Two close sizes and much noise: nothing tells E from A / N^alpha.
  text = told(world(noise=0.05, sizes=(1e6, 1.5e6, 2.2e6), tokens=(1e8, 1.5e8, 2.2e8)), resample="pairs")
  assert "the cells do not determine" in text
  assert "do not determine" not in told(world(), resample="pairs")


def test_a_domain_whose_experts_have_one_length_is_named():
  cells = effective_cells(noise=2e-3, domains=("prose", "verse", "law"))
  law = fit_law(cells.take((cells.domain != "verse") | (cells.expert_tokens == cells.expert_tokens.max())), form="additive", bootstrap=0, starts=8, holdout="none")
  assert any("cells of domain verse do not tell apart the constants of its own" in text for text in law.warnings)
