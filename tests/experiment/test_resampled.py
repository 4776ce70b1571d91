"""A part of a scarce domain's expert's stream may be resampled from the other domains: so many windows, recorded in each cell."""

import collections
import dataclasses
import math

import numpy as np
import pytest

from jaxsplit.data.plain_tokenizers import ByteTokenizer
from jaxsplit.data.store_writer import Document, write_store
from jaxsplit.data.stream import windows
from jaxsplit.errors import InputError
from jaxsplit.experiment import guards, tree
from jaxsplit.experiment.cell_table import CellTable
from jaxsplit.experiment.experiment import recipe_of
from jaxsplit.experiment.guards import GuardError
from jaxsplit.experiment.progress import Progress
from jaxsplit.experiment.recipe import Recipe, StageSetup
from jaxsplit.experiment.runner import Runner
from jaxsplit.experiment.scarce import window_clusters
from jaxsplit.experiment.settings import Experiment, Settings
from jaxsplit.experiment.tree import Point, Shape
from jaxsplit.experiment.workdir import Workdir
from jaxsplit.models.config import Architecture
from jaxsplit.parallel.sharding import Layout
from jaxsplit.training.interruption import Interruption
from jaxsplit.training.loop import Training
from jaxsplit.training.optimizer import Optimizer

DOMAINS = ("a", "b", "c")
WORDS = {"a": "flour yeast dough oven", "b": "flour yeast comet lens", "c": "comet lens orbit moon"}
RECIPE = Recipe(Training(sequence_length=8, batch_sequences=10, steps_per_dispatch=8), Optimizer(warmup_tokens=80), Layout(devices=1),
                dict.fromkeys(DOMAINS, 1.0), 0, True, 64, False, replay=0.2, resample={"a": 0.5}, resample_clusters=2)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  """Texts of the words of their domain, less of the first."""
  random = np.random.default_rng(0)

  def documents(domain, count):
    texts = [" ".join(random.choice(WORDS[domain].split(), 100)) for _ in range(count)]
    return [Document(ByteTokenizer().encode(text), len(text), text.encode()) for text in texts]

  splits = [(domain, split, documents(domain, 2 if split == "valid" else 6 if domain == "a" else 30))
            for domain in DOMAINS for split in ("train", "valid")]
  return write_store(tmp_path_factory.mktemp("store") / "store", ByteTokenizer(), splits, {})


@pytest.fixture
def opened(tmp_path):
  with Workdir(tmp_path / "w", lambda line: None) as workdir, Interruption() as interruption, Progress(80) as progress:
    workdir.claim({"Experiment": {}})
    yield workdir, progress, interruption


def planned():
  shape = Shape("s", Architecture(head_dim=8).at(8, 1, 256, 8), DOMAINS, 1, 5e-3, 1, lambda seed, expert: expert // 2, True, False)
  return tree.build(shape, [Point(8, 8, "grid")])


def experts(setup):
  stages = [stage for stage in planned() if stage.forks and len(stage.runs) == 3]
  setup.settle(stages)
  return stages[0], setup.streams(stages[0])


def test_so_many_windows_are_resampled_and_the_guard_counts_them(store, opened):
  workdir, progress, _ = opened
  setup = StageSetup(store, RECIPE, window_clusters(store, RECIPE, workdir, progress))
  stage, streams = experts(setup)
  read = {run.domain: collections.Counter(domain for domain, _ in stream.origins(np.arange(3000)))
          for run, stream in zip(stage.runs, streams)}
  assert read["a"]["a"] == 3000 * (0.3 + 0.2 / 3) and read["a"]["b"] > read["a"]["c"]  # b has the more of a's words.
  assert read["b"] == {"b": 3000 * (0.8 + 0.2 / 3), "a": 200, "c": 200}
  check = lambda streams, share: guards.check_streams(stage, stage.runs, streams, store, 10, share)
  check(streams, RECIPE.own_share)
  for share in (lambda domain: 1.0, dataclasses.replace(RECIPE, resample={}).own_share):
    with pytest.raises(GuardError, match="an expert on a would read"):
      check(streams, share)
  others = [windows(store, domain, 1, 8) for domain in ("b", "c", "a")]
  with pytest.raises(GuardError, match="windows or more of a batch of 10"):
    check(others, RECIPE.own_share)


@pytest.mark.long
def test_cells_say_it_and_clusters_are_found_once(store, opened):
  workdir, progress, interruption = opened
  table = CellTable(workdir.path / "cells.csv")
  with Runner(store, RECIPE, workdir, progress, interruption) as runner:
    runner.run(planned(), table)
  cells = {cell.domain: cell for cell in table}
  assert {domain: (cell.replay, cell.resampled) for domain, cell in cells.items()} == {"a": (0.2, 0.5), "b": (0.2, 0.0), "c": (0.2, 0.0)}
  assert all(math.isfinite(cell.loss) for cell in cells.values())
  passes = 640 / 3 + (0.3 + 0.2 / 3) * 640
  assert cells["a"].epochs == pytest.approx(passes / store.counts("a", "train").unique_tokens)
  before = (workdir.path / "resampling" / "windows.npy").stat().st_mtime_ns
  window_clusters(store, RECIPE, workdir, progress)
  assert (workdir.path / "resampling" / "windows.npy").stat().st_mtime_ns == before
  with pytest.raises(InputError, match="domain a: cannot be resampled from other domains: .* take fewer clusters"):  # Each has its own.
    window_clusters(store, dataclasses.replace(RECIPE, resample_clusters=3), workdir, progress)
  assert (workdir.path / "resampling" / "windows.npy").stat().st_mtime_ns != before


def test_all_of_a_stream_may_be_resampled(store, opened):
  recipe = dataclasses.replace(RECIPE, replay=0.0, resample={"a": 1.0})
  stage, streams = experts(StageSetup(store, recipe, window_clusters(store, recipe, *opened[:2])))
  assert "a" not in {domain for domain, _ in streams[0].origins(np.arange(500))}


@pytest.mark.parametrize("settings, said", [
    ({"resample_share": 0.3}, "Experiment.resample_share = 0.3: no domain is scarce"),
    ({"resample": ("a",), "resample_share": 0.0}, "Experiment.resample_share = 0.0: must be"),
    ({"resample": ("a",), "resample_share": 0.6, "replay": 0.5}, "at most 1 together with Experiment.replay = 0.5"),
    ({"resample": ("a",), "resample_clusters": 1}, "Experiment.resample_clusters = 1: must be"),
    ({"resample": ("a",), "data": "phonebook"}, "have no topics")])
def test_settings_that_cannot_be(settings, said):
  with pytest.raises(InputError, match=said):
    Experiment(**settings)


def test_a_domain_that_is_not_there(store):
  with pytest.raises(InputError, match="no domain 'aa'"):
    recipe_of(Settings(Experiment(resample=("aa",))), store)
