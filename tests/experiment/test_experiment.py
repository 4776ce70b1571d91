"""From settings to points and back: what is planned, what is trained and what is asked for are one budget."""

import pytest

from jaxsplit.data.plain_tokenizers import ByteTokenizer
from jaxsplit.data.store_writer import Document, write_store
from jaxsplit.errors import InputError
from jaxsplit.experiment import tree
from jaxsplit.experiment.probe import Probe
from jaxsplit.experiment.progress import Progress
from jaxsplit.experiment.settings import Experiment, Settings
from jaxsplit.experiment.story import Story
from jaxsplit.experiment.workdir import Workdir
from jaxsplit.law import Cells, fit_law
from jaxsplit.models.config import Architecture
from jaxsplit.models.family import ModelConfig
from jaxsplit.training.loop import Training

DOMAINS, BATCH, STEPS = ("d", "e"), 16, 1000


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  documents = lambda text: [Document(ByteTokenizer().encode(text), len(text), text.encode())]
  splits = [(d, split, documents(f"{d} {split} " * 9)) for d in DOMAINS for split in ("train", "valid")]
  return write_store(tmp_path_factory.mktemp("store") / "store", ByteTokenizer(), splits, {})


@pytest.fixture(scope="module")
def law():
  """Two domains that do best with a short seed."""
  rows = [(n, d, x, 1.2 + 20 * n**-0.3 + 90 * (x + 1e3 * d**0.2) ** -0.35, name) for name in DOMAINS for n in (1e3, 3e3, 1e4)
          for d in (2e3, 4e3, 8e3) for x in (0.0, 1e3, 3e3, 8e3)]
  names = ("params", "seed_tokens", "expert_tokens", "loss", "domain")
  return fit_law(Cells.from_columns(dict(zip(names, zip(*rows)))), form="effective_data", bootstrap=0, starts=16, holdout="none")


def story(store, path, **experiment):
  settings = Settings(
      Experiment(**{"budget_tokens": STEPS * BATCH, "sizes": ((8, 1), (16, 1), (16, 2)), "target": (24, 1), **experiment}), probe=Probe(rates=(1e-3,)),
      architecture=Architecture(head_dim=8), training=Training(sequence_length=8, batch_sequences=2))
  return Story(settings, store, Workdir(path, lambda line: None), Progress(BATCH), runner=None)


@pytest.mark.parametrize("accounting, trunk, seeds, experts", [
    ("total", "shared", 1, 2), ("total", "per_domain", 2, 2), ("per_model", "shared", 1, 1), ("per_model", "per_domain", 1, 1)])
def test_what_is_planned_is_what_is_trained(store, law, tmp_path, accounting, trunk, seeds, experts):
  told = story(store, tmp_path, accounting=accounting, trunk=trunk)
  plan = told.plan(law)
  assert 0.02 < plan.fraction < 0.9 and plan.budget_tokens == STEPS * BATCH
  assert seeds * plan.seed_tokens + experts * plan.expert_tokens == pytest.approx(STEPS * BATCH)
  point = told._budget.point(plan.fraction)
  assert (point.seed_steps * BATCH, point.expert_steps * BATCH) == pytest.approx((plan.seed_tokens, plan.expert_tokens), abs=BATCH)
  points, target = told._proof_points(point), (24, 1)
  told._sizes.decide(told._grid.models, lambda model: 1e-3)
  for number, some in told._by_seeds(points):
    told._sizes.ask(target, number, some)
  stages = tree.needed(told._trees.stages(target), points)
  assert len({stage.name for stage in stages}) == len(stages)
  dense = [run for stage in stages for run in stage.runs if run.point and run.point.role == "dense"]
  assert [(run.point.seed_steps, run.serves) for run in dense] == [(STEPS, None)], "one dense model of all tokens, for all domains"
  assert law.expect(plan.params, STEPS * BATCH, 0) == pytest.approx(plan.dense_loss)


@pytest.mark.parametrize("compare, likely", [((1.0,), 0.5), ((0.3, 0.5), 0.45), ((0.45, 0.5), 0.55)])
def test_the_proof_that_is_foreseen_has_a_split_beside_those_that_are_compared(store, tmp_path, compare, likely):
  told = story(store, tmp_path, compare=compare)
  points = {run.point for stage in told.outline()["proof"] for run in stage.runs if run.point}
  assert told.likely_split == likely
  assert points == {told._budget.point(fraction) for fraction in (*compare, likely, 0.8, 1.0)}
  assert story(store, tmp_path / "no_law", compare=compare, sizes=()).likely_split is None


@pytest.mark.parametrize("experiment, message, works", [
    ({"expert_fractions": (0.5, 0.001)}, "expert_fractions.*: 0.001 is less than a step; the least that works is 0.002", (0.5, 0.002)),
    ({"seed_fractions": (0.0004, 0.5, 0.8)}, "seed_fractions.*: 0.0004 is less than a step; the least that works is 0.001", (0.001, 0.5, 0.8)),
    ({"seed_fractions": (0.2, 0.5, 0.5004, 0.8)}, "seed_fractions.*: 0.5 and 0.5004 are both 500 steps; steps are 0.001 apart", (0.2, 0.5, 0.501, 0.8)),
    ({"expert_fractions": (0.3, 0.301, 0.6)}, "expert_fractions.*: 0.3 and 0.301 are both 150 steps; steps are 0.002 apart", (0.3, 0.302, 0.6)),
    ({"compare": (0.0005, 1.0)}, "compare.*: 0.0005 leaves the seed less than a step; the least above 0 that works is 0.001", (0.001, 1.0)),
    ({"compare": (0.999,)}, "compare.*: 0.999 leaves each expert less than a step; the most below 1 that works is 0.998", (0.998,)),
])
def test_shares_that_are_no_steps_of_their_own_are_refused(store, tmp_path, experiment, message, works):
  with pytest.raises(InputError, match=message) as caught:
    story(store, tmp_path / "w", **experiment)
  assert "\n" not in str(caught.value)
  story(store, tmp_path / "v", **{name: works for name in experiment})


def test_sizes_of_as_many_parameters_are_refused(store, tmp_path, monkeypatch):
  monkeypatch.setattr(ModelConfig, "params_total", 5)
  with pytest.raises(InputError, match=r"\(8, 1\) and \(24, 1\) have 5 parameters each"):
    story(store, tmp_path)
