"""A share of every expert's stream may be the mixture: exactly so many windows, recorded in each cell."""

import collections
import dataclasses
import math

import numpy as np
import pytest

from jaxsplit.data.plain_tokenizers import ByteTokenizer
from jaxsplit.data.store_writer import Document, write_store
from jaxsplit.errors import InputError
from jaxsplit.experiment import tree
from jaxsplit.experiment.cell_table import CellTable
from jaxsplit.experiment.progress import Progress
from jaxsplit.experiment.recipe import Recipe, StageSetup
from jaxsplit.experiment.runner import Runner
from jaxsplit.experiment.settings import Experiment
from jaxsplit.experiment.tree import Point, Shape
from jaxsplit.experiment.workdir import Workdir
from jaxsplit.models.config import Architecture
from jaxsplit.parallel.sharding import Layout
from jaxsplit.training.interruption import Interruption
from jaxsplit.training.loop import Training
from jaxsplit.training.optimizer import Optimizer

DOMAINS = ("a", "b")
RECIPE = Recipe(Training(sequence_length=8, batch_sequences=2, steps_per_dispatch=8), Optimizer(warmup_tokens=64), Layout(devices=1),
                {"a": 1.0, "b": 3.0}, 0, True, 64, False, replay=0.2)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  """Texts of the letters of their domain."""
  random = np.random.default_rng(0)
  texts = lambda domain, count: ["".join(random.choice(list(f"{domain}xyz"), 60)) for _ in range(count)]
  splits = [(d, split, [Document(ByteTokenizer().encode(t), len(t), t.encode()) for t in texts(d, count)])
            for d in DOMAINS for split, count in (("train", 60), ("valid", 4))]
  return write_store(tmp_path_factory.mktemp("store") / "store", ByteTokenizer(), splits, {})


def planned():
  shape = Shape("s", Architecture(head_dim=8).at(8, 1, 256, 8), DOMAINS, 1, 5e-3, 1, lambda seed, expert: expert // 2, True, False)
  return tree.build(shape, [Point(8, 8, "grid")])


def test_so_many_windows_of_an_expert_are_of_the_mixture(store):
  for recipe, expected in ((RECIPE, {"a": (850, 150), "b": (50, 950)}), (dataclasses.replace(RECIPE, replay=0.0), {"a": (1000, 0), "b": (0, 1000)})):
    setup, stages = StageSetup(store, recipe), [stage for stage in planned() if stage.forks and len(stage.runs) == 2]
    setup.settle(stages)
    for run, stream in zip(stages[0].runs, setup.streams(stages[0])):
      count = collections.Counter(domain for domain, _ in stream.origins(np.arange(1000)))
      assert (count["a"], count["b"]) == expected[run.domain]


def test_cells_say_it_and_count_the_passes_over_their_domain(store, tmp_path):
  with Workdir(tmp_path / "w", lambda line: None) as workdir, Interruption() as interruption, Progress(16) as progress:
    workdir.claim({"Experiment": {}})
    table = CellTable(tmp_path / "w" / "cells.csv")
    with Runner(store, RECIPE, workdir, progress, interruption) as runner:
      runner.run(planned(), table)
  cells = {cell.domain: cell for cell in table}
  assert {cell.replay for cell in cells.values()} == {0.2} and all(math.isfinite(cell.loss) for cell in cells.values())
  for domain, seen in (("a", 0.25 * 128 + 0.85 * 128), ("b", 0.75 * 128 + 0.95 * 128)):
    assert cells[domain].epochs == pytest.approx(seen / store.counts(domain, "train").unique_tokens)


@pytest.mark.parametrize("share", [-0.1, 1.0, 1e-6, math.nan])
def test_shares_that_cannot_be(share):
  with pytest.raises(InputError, match="Experiment.replay"):
    Experiment(replay=share)
