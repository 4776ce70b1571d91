"""From raw text to checkpoints: configs/clustered.gin, shortened, then evaluate with a router, then export."""

import json
import pathlib

import jax
import numpy as np
import pytest

import jaxsplit
from jaxsplit import evaluate, export, train
from jaxsplit.interop import huggingface

CONFIG = pathlib.Path(__file__).parent.parent / "configs" / "clustered.gin"
SHORT = {"Experiment.budget_tokens": "60_000", "Experiment.sizes": "((8, 1), (16, 1), (16, 2))", "Experiment.target": "(24, 1)",
         "Experiment.seed_fractions": "(0.25, 0.5, 0.9)", "Experiment.expert_fractions": "(0.2, 0.5)", "Experiment.compare": "(1.0,)",
         "Experiment.validation_tokens": "2048", "Probe.rates": "(8e-3,)", "Optimizer.warmup_tokens": "2048",
         "FitSettings.form": "'effective_data'", "FitSettings.holdout": "'none'", "FitSettings.bootstrap": "10", "Clustering.k": "3"}


@pytest.mark.long
def test_raw_text_becomes_clusters_experts_a_matrix_and_checkpoints(tmp_path):
  work, out = tmp_path / "work", tmp_path / "out"
  assert train.main([f"--gin_file={CONFIG}", f"--workdir={work}", *(f"--gin.{name}={value}" for name, value in SHORT.items())]) == 0
  assert evaluate.main([f"--workdir={work}", "--tokens=1500", "--router=centroid@1,bayes@1", f"--out={tmp_path / 'r.json'}"]) == 0
  found = json.loads((tmp_path / "r.json").read_text())
  experts = [one["name"] for one in found["models"] if one["kind"] == "expert"]
  assert len(experts) == 3 and found["matrix"]["domains"] == experts
  assert {"centroid@1", "bayes@1", "seed", "dense"} <= found["routers"].keys()
  assert export.main([f"--workdir={work}", f"--out={out}"]) == 0
  assert sorted(path.name for path in out.iterdir()) == sorted([*experts, "seed", "dense"])
  for name in experts:
    here, there = jaxsplit.load_model(work, name), huggingface.load(out / name)
    jax.tree.map(np.testing.assert_array_equal, there.params, here.params)
