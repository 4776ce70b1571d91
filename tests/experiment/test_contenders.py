"""What a split is compared with: found among cells whatever else is there, and said to be missing where it is."""

import dataclasses
import math

import pytest

from jaxsplit.experiment.budget import Steps
from jaxsplit.experiment.contenders import contender_rows, contenders
from jaxsplit.results.cells import Cell
from jaxsplit.results.plan import PlannedPoint

DOMAINS, BATCH = ("law", "math"), 10
BUDGET = Steps(1000, 2)


def cells(seed, expert, loss, role="split", replica=0, params=1000, **changes):
  """The cells of one split: the second domain's loss is higher by 1."""
  one = Cell(params - 100, params, "", seed, expert, 10**6, 0.1, loss, 1.0, 6.0 * params * (seed + expert), replica, role, 0.01, BATCH, None, "ok")
  return [dataclasses.replace(one, domain=domain, loss=loss + k, **changes) for k, domain in enumerate(DOMAINS)]


def found(*groups):
  planned = PlannedPoint(1000, 600, 200, 6000, 2000, 0.6, 0)
  return {one.name: one for one in contenders([cell for group in groups for cell in group], 1000, DOMAINS, BUDGET, BATCH, planned)}


FULL = cells(10_000, 0, 3.0, "dense")


def test_every_way_is_measured_or_said_to_be_missing():
  ways = found(cells(6000, 2000, 2.5), cells(6000, 2000, 2.7, replica=1), cells(0, 5000, 3.1), FULL, cells(6000, 2000, 1.0, "grid"))
  split = ways["recommended split"]
  assert split.loss == pytest.approx(3.1) and split.loss_stderr == pytest.approx(0.1) and split.perplexity_change == pytest.approx(math.exp(-0.4) - 1)
  assert split.training_flops == pytest.approx(6.0 * 1000 * 10_000) == ways["full pretraining"].training_flops
  assert split.total_params == 2000 and ways["full pretraining"].total_params == 1000
  assert ways["no seed (D = 0)"].loss == pytest.approx(3.6) and ways["dense, equal inference cost"].loss == pytest.approx(3.5)
  missing = {name: one.note for name, one in ways.items() if one.loss is None}
  assert set(missing) == {"80/20", "50/50 (BTM)", "dense, best batch size and rate", "dense, equal total parameters"}
  assert all(note.startswith("not measured: ") for note in missing.values()) and "add 0.8 to Experiment.compare" in missing["80/20"]
  assert len(contender_rows(list(ways.values()))) == 1 + len(ways)


def test_a_dense_model_of_all_parameters_and_one_at_its_best_are_found():
  large = cells(5000, 0, 2.9, "dense", params=2000)  # As many FLOPs, in a model of as many parameters as both experts.
  larger = cells(2000, 0, 2.0, "dense", params=5000)
  better = cells(10_000, 0, 2.8, "dense", learning_rate=0.02)
  ways = found(FULL, large, larger, better, cells(20_000, 0, 1.0, "dense"))
  assert ways["dense, equal total parameters"].loss == pytest.approx(3.4)
  best = ways["dense, best batch size and rate"]
  assert best.loss == pytest.approx(3.3) and "rate 0.02: the best of 2" in best.note


def test_runs_that_diverged_and_domains_that_lack_are_no_measurement():
  diverged = [dataclasses.replace(cell, status="diverged") for cell in cells(6000, 2000, 2.5)]
  ways = found(diverged, cells(8000, 1000, 2.5)[:1], FULL)
  assert ways["recommended split"].loss is None and ways["80/20"].loss is None
