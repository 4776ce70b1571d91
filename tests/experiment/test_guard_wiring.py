"""Every guard on the way of an experiment: what is wrong in a work directory, a plan or a store stops it before it trains.

Where a guard is taken out of that way, the same experiment trains on, or is stopped by another one.
"""

import contextlib
import dataclasses
import re
import shutil

import numpy as np
import pytest

from jaxsplit.checkpoint import manifest as manifests
from jaxsplit.checkpoint.manifest import MANIFEST
from jaxsplit.data.plain_tokenizers import ByteTokenizer
from jaxsplit.data.store_writer import Document, write_store
from jaxsplit.data.stream import windows
from jaxsplit.errors import InputError
from jaxsplit.experiment import experiment, guards, recipe, tree
from jaxsplit.experiment.cell_table import CellTable
from jaxsplit.experiment.guards import GuardError
from jaxsplit.experiment.probe import Probe
from jaxsplit.experiment.progress import Progress
from jaxsplit.experiment.recipe import Recipe
from jaxsplit.experiment.runner import Runner
from jaxsplit.experiment.settings import Experiment, Settings
from jaxsplit.experiment.tree import Shape
from jaxsplit.experiment.workdir import Workdir
from jaxsplit.files import read_json, write_json
from jaxsplit.models.config import Architecture
from jaxsplit.parallel.sharding import Layout
from jaxsplit.results.stages import Point
from jaxsplit.training import fork
from jaxsplit.training.interruption import Interruption
from jaxsplit.training.loop import Training
from jaxsplit.training.metrics import Metrics
from jaxsplit.training.optimizer import Optimizer

DOMAINS = ("d", "e", "f")
TRUNK, EXPERTS = "s/trunk/40", "s/experts-40/cooldown-40"
TRAINING = Training(sequence_length=8, batch_sequences=2, steps_per_dispatch=8, save_every_steps=16)


class Ended(BaseException):
  """Where a process would be gone."""


def documents(rng, domain, count):
  texts = ["".join(rng.choice(list(f"{domain}abc "), 60)) for _ in range(count)]
  return [Document(ByteTokenizer().encode(t), len(t), t.encode()) for t in texts]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  rng = np.random.default_rng(0)
  splits = [(d, split, documents(rng, d, n)) for d in DOMAINS for split, n in (("train", 60), ("valid", 8))]
  return write_store(tmp_path_factory.mktemp("store") / "store", ByteTokenizer(), splits, {})


@contextlib.contextmanager
def opened(path, log=lambda line: None):
  with Workdir(path, log) as workdir, Interruption() as interruption, Progress(TRAINING.batch_tokens) as progress:
    progress.log = log
    workdir.claim({"Experiment": {}})
    yield workdir, progress, interruption


def run(store, path, devices=1, keep_moments=True, plan=lambda stage: stage, log=lambda line: None):
  """A trunk of 40 steps, and three experts forked off it, of 40 more. Returns the cells by domain."""
  weights = dict.fromkeys(DOMAINS, 1.0)
  recipe = Recipe(TRAINING, Optimizer(warmup_tokens=64), Layout(devices=devices), weights, 0, keep_moments, 128, False)
  model = Architecture(head_dim=8).at(8, 1, 256, 8)
  shape = Shape("s", model, DOMAINS, 1, 5e-3, 1, lambda seed, expert: expert // 2, keep_moments, False)
  stages = [plan(stage) for stage in tree.build(shape, [Point(40, 40, "grid")])]
  with opened(path, log) as (workdir, progress, interruption):
    table = CellTable(path / "cells.csv")
    with Runner(store, recipe, workdir, progress, interruption) as runner:
      runner.run(stages, table)
      return {cell.domain: cell for cell in table}


@pytest.fixture(scope="module")
def begun(store, tmp_path_factory):
  """A work directory whose trunk is trained, and whose experts have a snapshot in the middle. Not to be changed."""
  path, append, blocks = tmp_path_factory.mktemp("begun") / "w", Metrics.append, []

  def ends(self, *arguments):
    blocks.append(arguments)
    if len(blocks) == 9:  # 5 are of the trunk; snapshots follow the second and the fourth of a stage.
      raise Ended
    append(self, *arguments)

  with pytest.MonkeyPatch.context() as patch, pytest.raises(Ended):
    patch.setattr(Metrics, "append", ends)
    patch.setattr(Runner, "_compile", lambda self, stages: None)  # BackgroundCompiler of time: some of it would not be used.
    run(store, path)
  assert sorted(str(p.parent.relative_to(path / "checkpoints")) for p in path.rglob(MANIFEST)) == [f"{EXPERTS}/16", f"{TRUNK}/40"]
  return path


def reseal(stage, change):
  """A fact of a stage's snapshots is another, and the manifest's hash is of that."""
  def tamper(path, monkeypatch):
    for file in (path / "checkpoints" / stage).rglob(MANIFEST):
      manifest = read_json(file)
      change(manifest["about"])
      del manifest["check"]
      write_json(file, {**manifest, "check": manifests._check(manifest)})
    return {}
  return tamper


def fact(stage, **facts):
  return reseal(stage, lambda about: about.update(facts))


def fact_of_a_run(stage, **facts):
  return reseal(stage, lambda about: about["runs"][0].update(facts))


def other_model(stage):
  return reseal(stage, lambda about: about["model"].update(rope_theta=5.0))


def planned(**changes):
  """The experts are planned otherwise."""
  replaced = lambda stage: dataclasses.replace(stage, runs=tuple(dataclasses.replace(run, **changes) for run in stage.runs))
  return lambda path, monkeypatch: {"plan": lambda stage: replaced(stage) if stage.forks else stage}


def forked(make, **settings):
  """Forks give what `make(gather, spec, parents, rows, keep_moments)` makes of them."""
  def tamper(path, monkeypatch):
    gather = fork.gather
    wrong = lambda spec, parents, rows, keep_moments=True: make(gather, spec, parents, rows, keep_moments)
    monkeypatch.setattr(fork, "gather", wrong)
    return settings
  return tamper


def other_parameters(fork, spec, parents, rows, keep_moments):
  state = fork(spec, parents, rows, keep_moments)
  embedding = state["params"]["embed_VxD"]
  return {**state, "params": {**state["params"], "embed_VxD": embedding.at[1].multiply(1.001)}}


def neighbours_domain(path, monkeypatch):
  monkeypatch.setattr(recipe, "windows", lambda store, domain, *rest: windows(store, DOMAINS[DOMAINS.index(domain) - 1], *rest))
  return {}


def other_tokens(path, monkeypatch):
  made = recipe.windows

  def changed(*arguments):
    stream = made(*arguments)
    rows = stream.rows
    stream.rows = lambda indices: rows(indices) ^ 1
    return stream

  monkeypatch.setattr(recipe, "windows", changed)
  return {}


def with_devices(tamper, devices):
  return lambda path, monkeypatch: {**tamper(path, monkeypatch), "devices": devices}


def other_ancestor(about):
  about["parents"][0]["runs"] = [["aaaaaaaa", "bbbbbbbb"]]


FALLING = [5e-3, 0, 4, 30, 60, 0]
CASES = {
    # What is wrong: whether the experts have a snapshot to go on from, how it comes about, the guard, and its name.
    "a parent of other data": (False, fact(TRUNK, data="other"), "check_same_inputs", "same data"),
    "a parent of another tokenizer": (False, fact(TRUNK, tokenizer="other"), "check_same_inputs", "same tokenizer"),
    "a parent of another model": (False, other_model(TRUNK), "check_same_inputs", "same model"),
    "a parent of other settings": (False, fact(TRUNK, config="other"), "check_same_inputs", "same settings"),
    "a snapshot of other data": (True, fact(EXPERTS, data="other"), "check_same_inputs", "same data"),
    "a snapshot of another tokenizer": (True, fact(EXPERTS, tokenizer="other"), "check_same_inputs", "same tokenizer"),
    "a snapshot of another model": (True, other_model(EXPERTS), "check_same_inputs", "same model"),
    "a snapshot of other settings": (True, fact(EXPERTS, config="other"), "check_same_inputs", "same settings"),
    "a parent of fewer steps": (False, fact_of_a_run(TRUNK, steps=39), "check_fork_point", "fork point"),
    "a parent of more tokens": (False, fact_of_a_run(TRUNK, tokens=641), "check_fork_point", "fork point"),
    "experts planned from another step": (False, planned(born=39), "check_fork_point", "fork point"),
    "a parent whose rate was falling": (False, fact_of_a_run(TRUNK, schedule=FALLING), "check_before_decay", "before decay"),
    "experts planned at another rate": (False, planned(learning_rate=6e-3), "check_schedule", "schedule"),
    "experts planned to fall at once": (False, planned(decay=(20, 80)), "check_schedule", "schedule"),
    "a fork that loses Adam's moments": (
        False, forked(lambda fork, spec, parents, rows, keep: fork(spec, parents, rows, False)), "check_moments", "moments"),
    "a fork that keeps moments to be reset": (
        False, forked(lambda fork, spec, parents, rows, keep: fork(spec, parents, rows, True), keep_moments=False),
        "check_moments", "moments"),
    "a fork to other parameters": (False, forked(other_parameters), "check_moments", "parameters"),
    "a parent read back otherwise": (False, fact_of_a_run(TRUNK, params="00000001"), "check_restored", "restored"),
    "moments read back otherwise": (False, fact_of_a_run(TRUNK, moments="00000001"), "check_restored", "restored"),
    "a snapshot read back otherwise": (True, fact_of_a_run(EXPERTS, params="00000001"), "check_restored", "restored"),
    "the same on other devices": (
        True, with_devices(fact_of_a_run(EXPERTS, params="00000001"), 2), "check_restored", "restored"),
    "experts that read their neighbours' domains": (False, neighbours_domain, "check_streams", "domain"),
    "going on with the neighbours' domains": (True, neighbours_domain, "check_streams", "domain"),
    "windows that the store has not": (False, other_tokens, "check_streams", "domain"),
}


def outcome(start):
  """The name of the guard that ended it, or that something was about to be trained."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Runner, "_attempt", trains)
    patch.setattr(Runner, "_compile", lambda self, stages: None)
    try:
      start()
    except GuardError as error:
      assert "\n" not in str(error) and f"guard {error.guard!r} failed" in str(error)
      return error.guard
    except Ended as end:
      return str(end)
  return "nothing to do"


def trains(self, stage, start, attempt=0):
  raise Ended(f"trains {stage.name} from {start.done}")


def left_by(begun, path, goes_on):
  shutil.copytree(begun, path)
  if not goes_on:
    shutil.rmtree(path / "checkpoints" / EXPERTS)
  return path


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_ends_the_experiment_by_the_guard_that_is_for_it(store, begun, tmp_path, monkeypatch, case):
  goes_on, tamper, check, guard = CASES[case]
  path = left_by(begun, tmp_path / "w", goes_on)
  rest = tamper(path, monkeypatch)
  before = {file: file.read_bytes() for file in path.rglob("*.json*")}
  assert outcome(lambda: run(store, path, **rest)) == guard
  assert {file: file.read_bytes() for file in before} == before  # No snapshot was touched, no step recorded.
  monkeypatch.setattr(guards, check, lambda *_: None)
  assert outcome(lambda: run(store, path, **rest)) != guard


@pytest.mark.parametrize("goes_on, from_step", [(False, 0), (True, 16)])
def test_where_nothing_is_wrong_experts_are_trained(store, begun, tmp_path, goes_on, from_step):
  path = left_by(begun, tmp_path / "w", goes_on)
  assert outcome(lambda: run(store, path)) == f"trains {EXPERTS} from {from_step}"


def test_moments_planned_to_be_reset_are(store, begun, tmp_path):
  path = left_by(begun, tmp_path / "w", goes_on=False)
  assert outcome(lambda: run(store, path, keep_moments=False)) == f"trains {EXPERTS} from 0"


def test_another_store_in_place_of_the_one_trained_on(begun, tmp_path, monkeypatch):
  rng = np.random.default_rng(1)
  splits = [(d, split, documents(rng, d, n)) for d in DOMAINS for split, n in (("train", 60), ("valid", 8))]
  other = write_store(tmp_path / "store", ByteTokenizer(), splits, {})
  for goes_on in (False, True):
    path = left_by(begun, tmp_path / f"w{goes_on}", goes_on)
    assert outcome(lambda: run(other, path)) == "same data"
    with monkeypatch.context() as patch:
      patch.setattr(guards, "check_same_inputs", lambda *_: None)
      assert outcome(lambda: run(other, path)).startswith("trains")


def test_experts_of_another_parent_start_anew_and_say_so(store, begun, tmp_path, monkeypatch):
  for guarded, from_step in ((True, 0), (False, 16)):
    path, said = left_by(begun, tmp_path / f"w{guarded}", goes_on=True), []
    reseal(EXPERTS, other_ancestor)(path, monkeypatch)
    with monkeypatch.context() as patch:
      if not guarded:
        patch.setattr(guards, "check_parents", lambda *_: None)
      assert outcome(lambda: run(store, path, log=said.append)) == f"trains {EXPERTS} from {from_step}"
    assert [bool(re.search(r"guard 'parent' failed: .* starts anew", line)) for line in said[1:]] == [True] * guarded  # After the stage's name.
    assert (path / "checkpoints" / EXPERTS / "16").exists() != guarded


def test_a_validation_document_in_the_training_set_ends_an_experiment_before_it_trains(tmp_path, monkeypatch):
  rng = np.random.default_rng(0)
  train, held_out = documents(rng, "d", 60), documents(rng, "d", 8)
  settings = Settings(
      Experiment(budget_tokens=2_000, sizes=(), target=(8, 1), validation_tokens=128), probe=Probe(rates=(5e-3,)),
      architecture=Architecture(head_dim=8), optimizer=Optimizer(warmup_tokens=64), training=TRAINING, layout=Layout(devices=1))

  def start(name):
    valid = held_out + train[7:8] if name == "leaky" else held_out
    store = write_store(tmp_path / name, ByteTokenizer(), [("d", "train", train), ("d", "valid", valid)], {})
    with opened(tmp_path / f"{name}.w") as (workdir, progress, interruption):
      experiment.run(settings, store, workdir, progress, interruption)

  assert outcome(lambda: start("clean")).startswith("trains")
  assert outcome(lambda: start("leaky")) == "disjoint"
  assert outcome(lambda: start("leaky")) == "disjoint"  # It has not passed by having been made.
  monkeypatch.setattr(guards, "check_disjoint", lambda *_: None)
  assert outcome(lambda: start("leaky")).startswith("trains")


def test_cells_of_a_corpus_that_has_changed_since_end_an_experiment_before_it_trains(tmp_path, monkeypatch):
  settings = Settings(
      Experiment(budget_tokens=2_000, sizes=(), target=(8, 1), validation_tokens=128), probe=Probe(rates=(5e-3,)),
      architecture=Architecture(head_dim=8), optimizer=Optimizer(warmup_tokens=64), training=TRAINING, layout=Layout(devices=1))

  def start(seed, end):
    rng = np.random.default_rng(seed)
    splits = [("d", split, documents(rng, "d", count)) for split, count in (("train", 60), ("valid", 8))]
    store = write_store(tmp_path / f"store{seed}", ByteTokenizer(), splits, {})
    with opened(tmp_path / "w") as (workdir, progress, interruption):
      experiment.run(settings, store, workdir, progress, interruption)
      raise Ended(end)

  with pytest.raises(Ended):
    start(0, "done")
  with pytest.raises(InputError, match="the corpus has changed since its cells were measured"):
    start(1, "done")
  monkeypatch.setattr(guards, "check_same_corpus", lambda *_: None)
  assert outcome(lambda: start(1, "done")) == "done"  # With the cells of the other corpus.


def test_every_guard_is_tried():
  # The last is tried in tests/test_adding.py.
  tried = {check for _, _, check, _ in CASES.values()} | {"check_parents", "check_disjoint", "check_same_corpus", "check_same_addition"}
  assert tried == {name for name in vars(guards) if name.startswith("check_")}
