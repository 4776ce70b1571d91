"""A sweep for a price: within it, outside the warm-up, on the line, and priced as its stages are."""

import dataclasses

import pytest

from jaxsplit.errors import InputError
from jaxsplit.experiment import ledger, tree
from jaxsplit.experiment.ladder import ladder, size_near
from jaxsplit.experiment.probe import Probe, probe_stages
from jaxsplit.experiment.settings import Experiment, Settings, Sweep
from jaxsplit.experiment.sweep import design, designs
from jaxsplit.experiment.task import task_of
from jaxsplit.law import FitSettings
from jaxsplit.models.config import Architecture
from jaxsplit.training.loop import Training
from jaxsplit.training.optimizer import Optimizer

K = 4


def task(**experiment):
  settings = Settings(
      Experiment(**{"budget_tokens": 4_000_000, "target": (96, 3), **experiment}), probe=Probe((1e-3, 2e-3), (0.05,)),
      architecture=Architecture(head_dim=16), training=Training(sequence_length=64, batch_sequences=8), optimizer=Optimizer(warmup_tokens=65_536))
  return task_of(settings, K, 256)


@pytest.fixture(scope="module")
def asked():
  return task()


def flops(asked, found):
  """The FLOPs of what the ledger would have."""
  domains = tuple("abcd")
  total = 0
  for size in found.sizes:
    model = asked.candidates[size]
    shape = tree.Shape("s", model, domains, 1, 1e-3, asked.seeds, asked.cooldown, True, False, asked.averaged)
    stages = [*probe_stages(asked.probe, [("s", model)], [asked.budget.seed_steps(0.05)], asked.cooldown), *tree.build(shape, found.line.points)]
    total += sum(record.flops for record in ledger.records("grid", stages, asked.batch_tokens))
  return total


@pytest.mark.parametrize("trunk", ["shared", "per_domain"])
def test_the_price_is_the_ledgers(trunk):
  asked = task(trunk=trunk)
  found = design(asked, 0.8)
  assert found.price <= 0.8
  assert found.price * asked.final_flops == pytest.approx(flops(asked, found))
  assert asked.final_flops == pytest.approx(asked.budget.amount * asked.batch_tokens * asked.target.flops_per_token, rel=1e-3)


def test_a_sweep_covers_the_line_and_leaves_out_the_warm_up(asked):
  for price in (0.1, 0.3, 2.0):
    found = design(asked, price)
    points, line = found.line.points, asked.budget.line(found.line.tokens)
    assert found.sizes and min(point.seed_steps for point in points) >= asked.warm_steps
    shares = sorted(line.fraction(p.seed_steps, p.expert_steps) for p in points
                    if p.expert_steps and p.seed_steps + K * p.expert_steps > 0.97 * line.amount)
    assert len(shares) >= 3 and shares[0] < 0.5 < 0.85 < shares[-1]
    assert {p.seed_steps for p in points if not p.expert_steps} == {p.seed_steps for p in points}
    assert all(asked.candidates[size].params < asked.target.params for size in found.sizes)


def test_more_money_tells_more_and_goes_to_tokens_before_sizes(asked):
  cheap, dear = design(asked, 0.1), design(asked, 2.0)
  assert dear.regret < cheap.regret / 3 and dear.line.tokens == 1.0
  (half, whole, twice), least = designs(asked, (0.05, 0.1, 0.2))
  assert whole == cheap and twice.regret < whole.regret and (half is None) == (least > 0.05)


def test_one_size_is_enough_where_three_cannot_be_paid_for(asked):
  (few, many), least = designs(asked, (0.02, 2.0))
  assert len(few.sizes) == 1 and len(many.sizes) >= 3 and least <= few.price <= 0.02 and few.regret > many.regret
  automatic = dataclasses.replace(Experiment(), sizes=None)
  assert Settings(automatic).law.reading == "prior", "by which cells of one size are read"
  assert Settings(dataclasses.replace(automatic, sizes=((16, 1),))).law == Settings().fit
  with pytest.raises(InputError, match="FitSettings.objective = 'l1'"):
    Settings(automatic, fit=FitSettings(objective="l1")).law  # noqa: B018


def test_a_price_that_buys_nothing_is_refused_with_the_least_that_does(asked):
  with pytest.raises(InputError, match="Sweep.flops = 0.001: .* the cheapest one takes ([0-9.]+) of") as caught:
    design(asked, 0.001)
  least = float(str(caught.value).split("takes ")[1].split()[0])
  assert "\n" not in str(caught.value) and design(asked, least).price <= least
  with pytest.raises(InputError):
    design(asked, 0.9 * least)


def test_a_target_with_too_few_models_below_it_and_a_budget_of_warm_up_are_refused(asked):
  with pytest.raises(InputError, match="there is no smaller size of such models"):
    design(task(target=(16, 1)), 1.0)
  with pytest.raises(InputError, match="leave no splits outside a warm-up of 128 steps"):
    design(task(budget_tokens=100_000), 1.0)


def test_experts_that_warm_up_again_train_longer(asked):
  found = design(task(keep_moments=False), 2.0)
  assert min(point.expert_steps for point in found.line.points if point.expert_steps) >= asked.warm_steps


def test_a_ladder_is_below_its_target_and_told_apart():
  models = ladder(Architecture(head_dim=128), (2048, 24), 32768, 2048)
  params = [model.params for model in models.values()]
  assert params == sorted(params) and params[-1] < 1.2e9 and params[0] < 2e6
  assert len({model.params_total for model in models.values()}) == len(models) >= 6


@pytest.mark.parametrize("params", [4e4, 1e6, 1.3e9])
def test_a_size_near_a_number_of_parameters(params):
  model = Architecture(head_dim=16).at(*size_near(Architecture(head_dim=16), params), 256, 64)
  assert model.params == pytest.approx(params, rel=0.35)


@pytest.mark.parametrize("settings, message", [
    ({"flops": 0.0}, "Sweep.flops = 0.0: must be positive"), ({"rounds": 0}, "Sweep.rounds = 0: must be 1 or more"),
    ({"tolerance": 1.5}, "Sweep.tolerance = 1.5: must be a fraction of the loss")])
def test_prices_that_are_none(settings, message):
  with pytest.raises(InputError, match=message):
    Sweep(**settings)


def test_a_grid_of_ones_own_needs_sizes():
  with pytest.raises(InputError, match=r"Experiment.seed_fractions = \(0.5,\): needs Experiment.sizes, so give them too"):
    Experiment(seed_fractions=(0.5,))
  assert dataclasses.replace(Experiment(), sizes=((16, 1),), seed_fractions=(0.5,)).sizes
