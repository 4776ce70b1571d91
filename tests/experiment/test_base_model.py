"""The split from a base model: D = 0 is that model, its tokenizer and size come with it, the law has no N term."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import arguments

import jaxsplit
from jaxsplit import evaluate, export, train
from jaxsplit.data.store import open_store
from jaxsplit.data.stream import validation
from jaxsplit.data.tokenizer import ByteTokenizer
from jaxsplit.errors import InputError
from jaxsplit.experiment.base_model import base_of, from_base
from jaxsplit.experiment.checks import check
from jaxsplit.experiment.settings import Experiment, Settings
from jaxsplit.interop import huggingface
from jaxsplit.law import load_plan
from jaxsplit.models.config import Architecture
from jaxsplit.parallel.sharding import Layout
from jaxsplit.results.cells import read_cells
from jaxsplit.training import stack
from jaxsplit.training.loop import Training
from jaxsplit.training.optimizer import Optimizer
from jaxsplit.training.trained import TrainedModel


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  """A tiny model of bytes, of which experiments read 16 of 32 tokens."""
  folder = tmp_path_factory.mktemp("base")
  config = Architecture(head_dim=8, qk_norm=False, tie_embeddings=True).at(16, 1, 256, 32)
  huggingface.save(TrainedModel(config, config.initialize(jnp.uint32(3)), ByteTokenizer(), 0), folder)
  return folder


def settings(base, **fields):
  return Settings(Experiment(init_from=f"hf:{base}", **fields), training=Training(sequence_length=16))


@pytest.mark.long
def test_an_experiment_from_a_base_model(base, corpus, tmp_path, capsys):
  flags = [flag for flag in arguments(corpus, tmp_path / "w") if not any(
      name in flag for name in ("sizes", "target", "head_dim", "seed_fractions", "FitSettings.form"))]
  flags += [f"--gin.Experiment.init_from=hf:{base}", "--gin.Experiment.seed_fractions=(0, 0.3, 0.8)", "--gin.Experiment.compare=(0.0, 1.0)",
            "--gin.FitSettings.bootstrap=10"]
  assert train.main(flags) == 0
  said = capsys.readouterr().out
  assert "it has no N term" in said and f"from hf:{base}: " in said
  cells, store = read_cells(tmp_path / "w" / "cells.csv"), open_store(tmp_path / "w" / "store")
  assert len({cell.params_total for cell in cells}) == 1 and {cell.role for cell in cells} == {"grid", "split", "dense", "base"}
  assert {cell.seed_tokens for cell in cells if cell.role == "grid"} == {0, 3584, 9600}
  model = huggingface.load(base, context=16)
  model = dataclasses.replace(model, config=dataclasses.replace(model.config, document_masking=True))
  for domain in store.domains:  # D = D' = 0 is the base model itself.
    windows_VxT1 = validation(store, domain, 16, 2048).tokens
    log_VxTxV = jax.nn.log_softmax(model(windows_VxT1[:, :-1]))
    loss = -np.mean(np.take_along_axis(np.asarray(log_VxTxV), windows_VxT1[:, 1:, None], axis=2))
    assert next(cell.loss for cell in cells if (cell.role, cell.domain) == ("base", domain)) == pytest.approx(loss, rel=1e-4)
  law = (tmp_path / "w" / "law.json").read_text()
  assert '"continued"' in law and "alpha" not in law
  assert load_plan(tmp_path / "w" / "plan.json").params == cells[0].params
  before = (tmp_path / "w" / "cells.csv").read_bytes()
  assert train.main(flags) == 0 and (tmp_path / "w" / "cells.csv").read_bytes() == before
  experts_of_the_base_model_are_put_to_use(base, tmp_path)


def experts_of_the_base_model_are_put_to_use(base, tmp_path):
  """Where the plan has a seed, the base model stands beside it; where it is D = 0, their seed is the base model."""
  path, there = tmp_path / "w" / "plan.json", huggingface.load(base)
  plan, splits = load_plan(path), [cell for cell in read_cells(tmp_path / "w" / "cells.csv") if cell.role == "split"]

  def planned(cell):
    steps = cell.seed_tokens // cell.batch_tokens, cell.expert_tokens // cell.batch_tokens
    dataclasses.replace(plan, point=dataclasses.replace(
        plan.point, seed_steps=steps[0], seed_tokens=cell.seed_tokens, expert_steps=steps[1], expert_tokens=cell.expert_tokens)).save(path)
    return jaxsplit.load_models(tmp_path / "w", log=lambda line: None)

  models = planned(max(splits, key=lambda cell: cell.seed_tokens))
  assert models.names[-1] == models.kinds[-1] == "base" and models.steps[models.names.index("seed")] > models.steps[-1] == 0
  jax.tree.map(np.testing.assert_array_equal, models["base"].params, there.params)
  jax.tree.map(np.testing.assert_array_equal, jaxsplit.load_model(tmp_path / "w", "base").params, there.params)
  models, seed = planned(min(splits, key=lambda cell: cell.seed_tokens)), jaxsplit.load_model(tmp_path / "w")
  assert "base" not in models.names
  assert seed.steps == 0
  jax.tree.map(np.testing.assert_array_equal, seed.params, there.params)
  assert evaluate.main([f"--workdir={tmp_path / 'w'}", "--tokens=500", "--router=bayes@1", f"--out={tmp_path / 'r.json'}"]) == 0
  found = json.loads((tmp_path / "r.json").read_text())
  assert {one["name"]: one["steps"] for one in found["models"] if one["kind"] != "expert"} == {"seed": 0, "dense": 375, "average": 187}
  assert found["routers"]["seed"]["training_flops"] == 0 < found["routers"]["bayes@1"]["training_flops"]
  assert export.main([f"--workdir={tmp_path / 'w'}", f"--out={tmp_path / 'out'}"]) == 0
  for name in ("seed", "dense", "latin"):
    assert f"from the base model {base.name}" in (tmp_path / "out" / name / "README.md").read_text()


def test_a_stack_begins_with_the_weights_of_the_folder(base):
  folder = base_of(from_base(settings(base)))
  spec = stack.StackSpec(folder.config, Optimizer(), Layout(devices=2), 4, 1, 2, 0)
  state = stack.begin(spec, folder.part)
  jax.tree.map(lambda x_Rx, x: np.testing.assert_array_equal(x_Rx, np.stack([x] * 4)), state["params"], folder.params())
  jax.tree.map(lambda x, there: (np.testing.assert_equal(x.shape, there.shape), x.sharding.is_equivalent_to(there.sharding, x.ndim)),
               state, spec.abstract)


@pytest.mark.parametrize("fields, match", [
    (dict(init_from="x"), "Experiment.init_from = 'x': must be hf:DIR"),
    (dict(init_from="hf:x", sizes=((8, 1), (16, 1))), "there is one size, the base model's; leave it out")])
def test_what_an_experiment_cannot_ask(fields, match):
  with pytest.raises(InputError, match=match):
    Experiment(**fields)


def test_no_seed_is_for_base_models_alone():
  with pytest.raises(InputError, match="0 is a base model, which Experiment.init_from names"):
    check(Settings(Experiment(sizes=((16, 1),), seed_fractions=(0, 0.5))))


@pytest.mark.parametrize("change, match", [
    (lambda base: settings("/none"), "hf:/none: no such folder"),
    (lambda base: settings(base, sizes=((8, 1),)), r"Experiment.sizes = \(\(8, 1\),\): the base model's size is \(16, 1\)"),
    (lambda base: settings(base, target=(8, 2)), r"Experiment.target = \(8, 2\): the base model's size is \(16, 1\)"),
    (lambda base: settings(base, data="phonebook"), "a base model reads text"),
    (lambda base: Settings(Experiment(init_from=f"hf:{base}"), training=Training(sequence_length=64)), "64 tokens are to be read"),
    (lambda base: dataclasses.replace(settings(base), architecture=Architecture(qk_norm=True)),
     "Architecture.qk_norm = True: hf:.* has an architecture of its own")])
def test_what_a_base_model_decides_is_not_given_too(base, change, match):
  with pytest.raises(InputError, match=match):
    from_base(change(base))
