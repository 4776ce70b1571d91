"""results.json: the record of an evaluation.

    models    of each its name, kind, steps, N, all parameters, and FLOPs of reading one token
    matrix    models by domains (matrix.py); null where no text was read
    tasks     by name: `num` questions, accuracies with their errors (choices.py) of the model that `model` names, and those of every
              model in `models`
    routers   by name, what each way to choose an expert comes to; empty without one
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsplit.evaluation.choices import Answers
from jaxsplit.evaluation.matrix import Matrix
from jaxsplit.training.trained import TrainedModels

VERSION = 1


def about(models: TrainedModels) -> list[dict[str, Any]]:
  """What the models are."""
  config = models.config
  return [{"name": name, "kind": kind, "steps": steps, "params": config.params, "params_total": config.params_total,
           "flops_per_token": config.flops_per_token / 3}  # Training's, of which reading is a third.
          for name, kind, steps in zip(models.names, models.kinds, models.steps)]


def of_task(models: TrainedModels, answers: Answers) -> dict[str, Any]:
  """A task's entry: first the numbers of the dense model, or of the seed, or of the first one, where there are several."""
  of = {name: answers.results(np.full(len(answers.questions), row)) for row, name in enumerate(models.names)}
  first = next((models.names[models.kinds.index(kind)] for kind in ("dense", "seed", "base") if kind in models.kinds), models.names[0])
  return {**of[first], "model": first, "truncated": answers.truncated, "headless": answers.headless, "models": of}


def results_of(models: TrainedModels, matrix: Matrix | None, tasks: Mapping[str, dict[str, Any]],
               routers: Mapping[str, Any]) -> dict[str, Any]:
  """The record."""
  return {"version": VERSION, "models": about(models), "matrix": matrix and dataclasses.asdict(matrix), "tasks": dict(tasks),
          "routers": dict(routers)}
