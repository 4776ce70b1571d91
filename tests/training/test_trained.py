"""Loading what an experiment has trained: the model whose losses were measured, or a line that says why not."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
from small import arguments

import jaxsplit
from jaxsplit import prepare, train
from jaxsplit.checkpoint.checkpoints import newest_snapshot
from jaxsplit.data.store import open_store
from jaxsplit.data.stream import validation
from jaxsplit.errors import InputError
from jaxsplit.law import load_plan
from jaxsplit.results.cells import read_cells
from jaxsplit.training.trained import side_by_side


@pytest.fixture
def workdir(finished, tmp_path):
  return shutil.copytree(finished, tmp_path / "w")


def measured(model, store, domain):
  """Nats per token on what the experiment was measured on."""
  windows_VxT1 = validation(store, domain, 16, 2048).tokens
  log_VxTxV = jax.nn.log_softmax(model(windows_VxT1[:, :-1]))
  return -float(np.mean(np.take_along_axis(np.asarray(log_VxTxV), windows_VxT1[:, 1:, None], axis=2)))


def test_a_loaded_model_has_the_loss_that_was_measured(finished):
  point, store = load_plan(finished / "plan.json").point, open_store(finished / "store")
  cells = {(cell.role, cell.seed_tokens, cell.domain): cell.loss for cell in read_cells(finished / "cells.csv")}
  dense = jaxsplit.load_model(finished, "dense")
  for domain in ("latin", "numbers"):
    expert = jaxsplit.load_model(str(finished), domain)
    assert measured(expert, store, domain) == pytest.approx(cells["split", point.seed_tokens, domain], rel=1e-5)
    assert measured(dense, store, domain) == pytest.approx(cells["dense", 375 * 32, domain], rel=1e-5)
    assert expert.steps == point.seed_steps + point.expert_steps
  assert dense.steps == 375 and dense.tokenizer.decode(dense.tokenizer.encode("arma")) == "arma"


def test_models_are_shown_in_a_line(finished):
  dense = jaxsplit.load_model(finished, "dense")
  assert repr(dense) == f"TrainedModel(N = {dense.config.params:,}, 375 steps, vocabulary of 256)"
  shown = repr(side_by_side({"dense": dense, "again": dense}))
  assert shown == f"TrainedModels(N = {dense.config.params:,}, steps of dense: 375, again: 375; vocabulary of 256)"


def test_the_seed_is_what_the_experts_were_forked_from(finished):
  seed, point = jaxsplit.load_model(finished), load_plan(finished / "plan.json").point
  assert seed.steps == jaxsplit.load_model(finished, "seed").steps == point.seed_steps
  assert jax.tree.map(np.shape, seed.params) == jax.tree.map(np.shape, jaxsplit.load_model(finished, "dense").params)
  # Experts are nearer to it than to fresh weights, and no rate had fallen there: its snapshot is the one that they record.
  experts = next(path for path in (finished / "checkpoints").glob(f"d24-l1/experts-{point.seed_steps}*/*"))
  parent = newest_snapshot(experts)[1]["parents"][0]
  _, about = newest_snapshot(finished / "checkpoints" / parent["stage"])
  assert (about["phase"], about["runs"][0]["steps"], about["runs"][0]["params"]) == ("trunk", seed.steps, parent["runs"][0][0])


def test_attention_stays_inside_a_document(finished):
  model = jaxsplit.load_model(finished, "latin")
  text = model.tokenizer.encode("virumque")
  alone, behind = (np.asarray(model(np.array([[*before, model.tokenizer.end_of_document, *text]])))[0, -len(text):]
                   for before in ([], [*model.tokenizer.encode("cano.")]))
  np.testing.assert_allclose(alone, behind, atol=1e-4 * np.abs(alone).max())


@pytest.mark.parametrize("tokens", [np.zeros((1, 17), int), np.zeros(3, int), np.zeros((1, 3)), np.full((1, 2), 256), np.full((1, 2), -1)])
def test_tokens_that_it_cannot_read_are_one_line(finished, tokens):
  with pytest.raises(InputError, match="ids"):
    jaxsplit.load_model(finished, "latin")(tokens)


def refused(match, *arguments, **more):
  with pytest.raises(InputError, match=match) as caught:
    jaxsplit.load_model(*arguments, **more)
  assert "\n" not in str(caught.value)


def test_what_is_not_there_is_told(finished, tmp_path):
  refused("no domain 'latn'; .*latin, numbers; besides, 'seed' is what they .*, 'dense' is the model of full.*; did you mean latin", finished, "latn")
  refused("no replica 1; it has 1", finished, "latin", replica=1)
  for domain in (3, 0, True, ["latin"]):
    refused(rf"no domain {re.escape(repr(domain))}.*; its experts' domains: latin, numbers; besides, 'seed' is what", finished, domain)
  refused("no replica '0'; it has 1", finished, "latin", "0")
  refused(r"no experiment .* \(config.json is missing\)", tmp_path, "latin")


def test_snapshots_that_are_not_kept_say_what_keeps_them(workdir):
  point = load_plan(workdir / "plan.json").point
  shutil.rmtree(workdir / "checkpoints" / "d24-l1" / "trunk" / str(point.seed_steps))
  refused("snapshots of seeds stay with Training.retention = 'trunks'", workdir)
  jaxsplit.load_model(workdir, "latin")
  shutil.rmtree(workdir / "checkpoints" / "d24-l1")
  refused("given as before, trains it again", workdir, "latin")


def test_a_damaged_snapshot_is_told_and_left_alone(workdir):
  folder, _ = newest_snapshot(next(workdir.glob("checkpoints/d24-l1/full/*")))
  file = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
  file.write_bytes(file.read_bytes()[:-1] + b"x")
  before = sorted(workdir.rglob("*"))
  refused(r"damaged \(.*; move that folder away", workdir, "dense")
  assert sorted(workdir.rglob("*")) == before


def test_a_plan_not_to_split_has_the_dense_model_for_every_domain(workdir):
  plan = json.loads((workdir / "plan.json").read_text())
  plan["point"] |= {"seed_steps": 375, "expert_steps": 0, "expert_tokens": 0}
  (workdir / "plan.json").write_text(json.dumps(plan))
  assert jaxsplit.load_model(workdir, "latin").steps == jaxsplit.load_model(workdir).steps == 375
  plan["point"] |= {"seed_steps": 0, "expert_steps": 5}
  (workdir / "plan.json").write_text(json.dumps(plan))
  refused("the planned experts have no seed; name a domain", workdir)
  (workdir / "plan.json").unlink()
  refused("no plan of an experiment there.*'dense' needs none", workdir, "latin")
  assert jaxsplit.load_model(workdir, "dense").steps == 375


def test_without_a_plan_the_one_split_that_was_measured_is_loaded(workdir):
  point = load_plan(workdir / "plan.json").point
  expert = jaxsplit.load_model(workdir, "latin")
  (workdir / "plan.json").unlink()
  ledger = json.loads((workdir / "ledger.json").read_text())
  for stage in ledger["stages"]:
    for run in stage["runs"]:
      if run["point"] and run["point"]["role"] == "split" and run["point"]["seed_steps"] != point.seed_steps:
        run["point"] = None
  (workdir / "ledger.json").write_text(json.dumps(ledger))
  same = jaxsplit.load_model(workdir, "latin")
  assert same.steps == expert.steps and jax.tree.all(jax.tree.map(np.array_equal, same.params, expert.params))


def test_a_store_that_lies_elsewhere_is_found_or_named(corpus, tmp_path):
  prepare.main([f"--store={tmp_path / 'store'}", f"--gin.Corpus.path={corpus}"])
  argv = [flag for flag in arguments(corpus, tmp_path / "w", f"--store={tmp_path / 'store'}", "--gin.Experiment.sizes=()",
                                     "--gin.Experiment.target=(8, 1)") if "Corpus." not in flag]
  assert train.main(argv) == 0
  assert jaxsplit.load_model(tmp_path / "w", "dense").tokenizer.kind == "bytes"
  shutil.move(tmp_path / "store", tmp_path / "moved")
  refused("no token store here.*say where: --store=DIR, or store=DIR in Python", tmp_path / "w", "dense")
  assert jaxsplit.load_model(tmp_path / "w", "dense", store=tmp_path / "moved").steps == 375
