"""The design entry point: a sweep for a price, as text and as a record, and the bindings that ask for it."""

import json

import pytest

from jaxsplit import cli, design
from jaxsplit.errors import InputError
from jaxsplit.experiment.settings import Experiment, Settings, budget_of
from jaxsplit.law import FitSettings
from jaxsplit.training.loop import Training

FLAGS = ["--params=8e5", "--budget_tokens=2e7", "--num_domains=10", "--sweep=0.1"]


@pytest.fixture(scope="module")
def record():
  import contextlib
  import io
  with contextlib.redirect_stdout(io.StringIO()) as out:
    assert design.main([*FLAGS, "--json"]) == 0
  return json.loads(out.getvalue())


def test_the_record_is_a_sweep_within_its_price(record):
  assert record["price"] <= 0.1 and record["price"] == pytest.approx(sum(record["prices"]))
  assert record["sizes"] == sorted(record["sizes"]) and record["sizes"][-1] < record["params"]
  assert {seed for seed, _ in record["points"]} == set(record["seed_tokens"])
  assert {expert for _, expert in record["points"]} == set(record["expert_tokens"]) and 0 in record["expert_tokens"]
  assert 0 < record["regret"] < 0.01 and record["twice"]["regret"] < record["regret"]


def test_the_bindings_ask_for_the_same_cells(record):
  settings = cli.parse("train", "", (Experiment, FitSettings), [f"--gin.{name}={value}" for name, _, value in (
      line.partition(" = ") for line in (*record["bindings"], "Experiment.budget_tokens = 20_000_000"))])
  given = settings[Experiment]
  assert given.averages and settings[FitSettings].reading == "prior"  # One size has no plain reading.
  assert [list(size) for size in given.sizes] == record["shapes"]
  line, tokens = budget_of(given, Training(), 10).line(given.line), Training().batch_tokens
  points = line.grid(given.seed_fractions, given.expert_fractions)
  assert [[point.seed_steps * tokens, point.expert_steps * tokens] for point in points] == record["points"]


def test_the_text_says_the_price_and_what_others_would_give(record, capsys):
  assert design.main(["--params=800K", "--budget_tokens=20M", *FLAGS[2:]]) == 0  # The same, as people write it.
  said = capsys.readouterr().out
  assert f"price: {record['price']:.1%} of the FLOPs" in said and "half the price: " in said and "twice the price: " in said
  assert record["unused"] == [] and "not used" not in said
  assert "\n".join(record["bindings"]) in said


def test_a_grid_that_is_not_used_is_named(capsys):
  assert design.main([*FLAGS, "--gin.Experiment.sizes=((16, 1), (32, 1), (48, 1))", "--gin.Experiment.line=0.5"]) == 0
  assert "not used: Experiment.sizes, Experiment.line;" in capsys.readouterr().out


def test_a_price_above_that_of_the_training_is_noted(record):
  assert "\nnote: 5 is 500 % of the final training; 5 % is --sweep=0.05\n" in design._text(record, 5.0)
  assert "note:" not in design._text(record, 1.0)


@pytest.mark.parametrize("more, message", [
    (["--sweep=0.001"], "--sweep = 0.001: too little for a sweep that determines a split.* the cheapest one takes"),
    (["--sweep=0"], "--sweep=0: must be positive"), (["--params=-1"], "--params=-1: must be positive"),
    (["--params=1e30"], "must be positive, and at most 1e.13"), (["--num_domains=1"], "--num_domains=1: there is nothing to split"),
    (["--params=1x"], "--params=1x: must be a number, as in 3e6 or 1.2B"),
    (["--num_domains=x"], "--num_domains"), (["--params=100"], "there is no smaller size")])
def test_what_cannot_be_is_one_line(more, message):
  with pytest.raises(InputError, match=message) as caught:
    design.main([*FLAGS, *more])
  assert "\n" not in str(caught.value)


def test_without_domains_nothing_is_designed():
  with pytest.raises(InputError, match="--num_domains is missing"):
    design.main(FLAGS[:2])


def test_many_domains_are_priced_at_once():
  """By one that stands for all: a tree of hundreds of thousands of runs is not built."""
  settings = Settings(Experiment(budget_tokens=10**10))
  few, many = (design.design_sweep(settings, domains, params=1e8, sweep=0.1) for domains in (10, 200_000))
  assert many["num_domains"] == 200_000 and 0 < many["price"] <= 0.1 and few["sizes"]
