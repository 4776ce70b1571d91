"""A domain that comes later: its expert is the one that would have been forked beside the others, and nothing else changes."""

import csv
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from small import arguments

import jaxsplit
from jaxsplit import evaluate, train
from jaxsplit.data.joined import join_all
from jaxsplit.data.store import open_store
from jaxsplit.errors import InputError
from jaxsplit.experiment import tree
from jaxsplit.experiment.cell_table import CellTable
from jaxsplit.experiment.experiment import recipe_of
from jaxsplit.experiment.progress import Progress
from jaxsplit.experiment.runner import Runner
from jaxsplit.experiment.settings import kept_settings
from jaxsplit.experiment.sizes import Sizes
from jaxsplit.experiment.trees import Trees
from jaxsplit.experiment.workdir import Workdir
from jaxsplit.law import load_plan
from jaxsplit.results.cells import read_cells
from jaxsplit.results.stages import Point, read_stages
from jaxsplit.running import claimed
from jaxsplit.training.interruption import Interruption


@pytest.fixture(scope="module")
def chess(tmp_path_factory):
  """Texts of a domain of its own, named for splits."""
  folder, rng = tmp_path_factory.mktemp("texts") / "chess", np.random.default_rng(5)
  folder.mkdir()
  moves = [f"{piece}{file}{rank}" for piece in "NBRQK" for file in "abcdefgh" for rank in range(1, 9)]
  for name, count in (("train", 300), ("valid", 60)):
    (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": " ".join(rng.choice(moves, 30))}) + "\n" for _ in range(count)))
  return folder


@pytest.fixture(scope="module")
def added(finished, chess, tmp_path_factory):
  """A work directory before and after."""
  after = tmp_path_factory.mktemp("added") / "w"
  shutil.copytree(finished, after)
  assert train.main([f"--workdir={after}", f"--add_domain={chess}"]) == 0
  return finished, after


def _files(folder, pattern):
  return {path.relative_to(folder): path.read_bytes() for path in folder.glob(pattern) if path.is_file()}


def _rows(path):
  return set(map(tuple, csv.reader(path.open())))


def test_nothing_that_was_there_changes_and_tables_gain_rows(added):
  before, after = added
  for pattern in ("checkpoints/**/*", "store/**/*", "law.json", "plan.json", "sizes.json", "config.json", "config.gin", "probe.csv"):
    there = _files(before, pattern)
    assert there and there.items() <= _files(after, pattern).items() or pattern == "probe.csv"
  new = _rows(after / "cells.csv") - _rows(before / "cells.csv")
  assert _rows(before / "cells.csv") < _rows(after / "cells.csv") and len(new) == 1
  assert (after / "metrics.jsonl").read_bytes().startswith((before / "metrics.jsonl").read_bytes())
  assert set(read_stages(before / "ledger.json")) < set(read_stages(after / "ledger.json"))
  cell, = (cell for cell in read_cells(after / "cells.csv") if cell.role == "added")
  point = load_plan(after / "plan.json").point
  assert (cell.domain, cell.seed_tokens, cell.expert_tokens) == ("chess", point.seed_tokens, point.expert_tokens)
  assert cell.epochs == pytest.approx(cell.expert_tokens / cell.unique_tokens)  # Of its text, the seed has seen nothing.
  page = (after / "report.html").read_text()
  assert "chess was added later" in page and "chess was added" not in (before / "report.html").read_text()


def test_it_equals_an_expert_that_is_forked_beside_the_others(added, tmp_path):
  before, after = added
  workdir = shutil.copytree(before, tmp_path / "w")
  settings = kept_settings(workdir)
  store = join_all(open_store(workdir / "store"), after / "added")
  point = load_plan(workdir / "plan.json").point
  wanted = Point(point.seed_steps, point.expert_steps, "added")
  with Workdir(workdir, lambda line: None) as opened, Interruption() as interruption, Progress(settings.training.batch_tokens) as progress:
    opened.claim(claimed(settings))
    sizes = Sizes(workdir / "sizes.json", opened.config_hash)
    target = settings.experiment.target
    there = Trees(settings, open_store(workdir / "store").domains, store.vocab_size, sizes).stages(target)
    shape = Trees(settings, store.domains, store.vocab_size, sizes).shape(target, 1, keep=True)
    together = tree.build(shape, [wanted], tree.trunk_of(there, rows=1), "+together")
    recipe = recipe_of(settings, open_store(workdir / "store"))
    recipe = dataclasses.replace(recipe, weights={"chess": 0.0, **recipe.weights})
    table = CellTable(tmp_path / "cells.csv")
    with Runner(store, recipe, opened, progress, interruption) as runner:
      runner.run(tree.needed([*there, *together], [wanted]), table)
  losses = {cell.domain: cell.loss for cell in table}
  assert len(losses) == 3
  cells = [cell for cell in read_cells(after / "cells.csv") if cell.role == "added" or
           cell.role == "split" and (cell.seed_tokens, cell.expert_tokens) == (point.seed_tokens, point.expert_tokens)]
  assert {cell.domain: cell.loss for cell in cells} == pytest.approx(losses, rel=1e-6)


def test_again_it_recomputes_nothing_and_the_experiment_goes_on(added, chess, corpus, tmp_path, capsys):
  after = shutil.copytree(added[1], tmp_path / "w")
  before = _files(after, "**/*")
  capsys.readouterr()
  cell, = jaxsplit.add_domain(after, chess)
  assert "done before" in capsys.readouterr().out and cell.role == "added"
  kept = ("cells.csv", "metrics.jsonl", "ledger.json", "plan.json", "law.json")
  assert all((after / name).read_bytes() == before[(after / name).relative_to(after)] for name in kept)
  assert train.main(arguments(corpus, after)) == 0
  assert all((after / name).read_bytes() == before[(after / name).relative_to(after)] for name in kept)
  model = jaxsplit.load_model(after, "chess")
  assert model.steps == jaxsplit.load_model(after, "latin").steps


def test_the_matrix_and_the_routers_gain_it(added, tmp_path):
  out = tmp_path / "r.json"
  assert evaluate.main([f"--workdir={added[1]}", "--tokens=600", "--router=centroid@1,bayes@1", "--context_tokens=8", f"--out={out}"]) == 0
  found = json.loads(out.read_text())
  assert found["matrix"]["domains"] == ["chess", "latin", "numbers"]
  losses = np.array([row["loss"] for row in found["matrix"]["rows"] if row["kind"] == "expert"])
  assert losses.argmin(0).tolist() == [0, 1, 2]
  assert all(found["routers"][name]["chosen"]["chess"]["chess"] > 0.8 for name in ("centroid@1", "bayes@1"))


@pytest.mark.parametrize("flags, message", [
    (["--name=latin"], "has a domain latin already; take another name"), (["--name=../x"], "cannot name a domain"), (["--name=dense"], "as another model of each experiment is called that"),
    (["--name=chess "], "cannot name a domain"), ([f"--name={'x' * 101}"], "100 of all of these at most"),
    (["--name=Latin"], "differ in upper and lower case only"),
    (["--gin.Training.batch_sequences=4"], "Training.batch_sequences is given with --add_domain"),
    (["--gin.Experiment.resample=('chess',)"], "Experiment.resample is given with --add_domain, whose expert reads no text that is resampled .* in another --workdir"),
    (["--seed_tokens=7"], "--seed_tokens=7: no split with that D is trained"), (["--seed_tokens=x"], "--seed_tokens = 'x'"),
    (["--store=elsewhere"], "--store=elsewhere: the tokens of .* are in")])
def test_what_cannot_be_added_is_refused(added, chess, flags, message, tmp_path):
  after = added[1]
  before = _files(after, "added/**/*")
  with pytest.raises(InputError, match=message) as caught:
    train.main([f"--workdir={after}", f"--add_domain={chess}", *flags])
  assert "\n" not in str(caught.value) and _files(after, "added/**/*") == before


def test_texts_that_have_changed_are_refused(added, chess, tmp_path):
  after, other = shutil.copytree(added[1], tmp_path / "w"), shutil.copytree(chess, tmp_path / "chess")
  (other / "more.jsonl").write_text('{"text": "Nf3 and other moves"}\n' * 3)
  with pytest.raises(InputError, match="the texts of the domain chess have changed since its expert was trained"):
    train.main([f"--workdir={after}", f"--add_domain={other}"])


def test_there_must_be_an_experiment_and_texts(finished, chess, tmp_path):
  with pytest.raises(InputError, match="no experiment there .config.json is missing"):
    train.main([f"--workdir={tmp_path}", f"--add_domain={chess}"])
  with pytest.raises(InputError, match="no such folder"):
    train.main([f"--workdir={finished}", f"--add_domain={tmp_path / 'gone'}"])
  with pytest.raises(InputError, match="--name needs --add_domain, which is missing"):
    train.main([f"--workdir={finished}", "--name=x"])
  shutil.copytree(finished, tmp_path / "w")
  shutil.rmtree(next((tmp_path / "w" / "checkpoints").glob("d24*/trunk")))
  with pytest.raises(InputError, match="that the others were forked from is missing; snapshots of seeds are kept with"):
    train.main([f"--workdir={tmp_path / 'w'}", f"--add_domain={chess}"])
  assert not (tmp_path / "w" / "added" / "chess").exists(), "a domain without an expert would be a column without a row"


def test_no_added_domain_reads_what_another_is_validated_on(added, chess, tmp_path, capsys):
  workdir, peek = shutil.copytree(added[1], tmp_path / "w"), tmp_path / "peek"
  peek.mkdir()
  shutil.copy(chess / "valid.jsonl", peek / "train.jsonl")
  shutil.copy(chess / "train.jsonl", peek / "valid.jsonl")
  with pytest.raises(InputError, match="training documents of .* are in a validation set"):
    train.main([f"--workdir={workdir}", f"--add_domain={peek}"])
  said = capsys.readouterr().out
  assert re.search("60 of the 60 training documents are held out, whole or in part, in domain chess of .*: its expert's loss there", said)
  assert re.search("300 of the 300 validation documents are trained on, whole or in part, in domain chess of .*: losses on them", said)
  assert not (workdir / "added" / "peek").exists()


def test_texts_that_others_know_are_told_and_the_card_says_what_the_expert_is(added, corpus, chess, tmp_path, capsys):
  workdir = shutil.copytree(added[1], tmp_path / "w")
  again = shutil.copytree(chess, tmp_path / "again")
  for name in ("train", "valid"):
    shutil.copy(corpus / "latin" / f"{name}.txt", again)
  assert train.main([f"--workdir={workdir}", f"--add_domain={again}"]) == 0
  said = capsys.readouterr().out
  assert "1 of the 301 training documents are in domain latin" in said and "the seed has been trained on them" in said
  assert "300 of the 301 training documents are in domain chess" in said and "their experts will be alike in them" in said
  written = jaxsplit.export_models(workdir, tmp_path / "out", log=print)
  cards = {folder.name: (folder / "README.md").read_text() for folder in written}
  assert "on the domains below together; this one was added later" in cards["again"] and "D', tokens of the expert" in cards["again"]
  assert all("| domains | latin, numbers |" in card for card in cards.values())
