"""A finished experiment whose losses follow a known law, without training anything."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest

from jaxsplit.experiment.budget import Steps
from jaxsplit.experiment.cell_table import CellTable
from jaxsplit.files import write_json
from jaxsplit.law import Plan, fit_law, plan_split, read_cells
from jaxsplit.results.cells import Cell
from jaxsplit.results.plan import PlannedPoint
from jaxsplit.results.stages import StageRecord, StageRun, write_stages
from jaxsplit.training.metrics import Metrics
from jaxsplit.training.telemetry import StageTelemetry

DOMAINS = ("<b>&prose", "$code$", "law")
SIZES = (5_000, 10_000, 30_000, 90_000)
TARGET = 200_000
BATCH = 1000
BUDGET = 1_000_000


def loss(params: float, seed: float, expert: float, domain: str, replica: int = 0) -> float:
  """The known law: effective data, with a floor of its own for every domain and 0.2 % of noise."""
  noise = np.random.default_rng([int(params), int(seed), int(expert), DOMAINS.index(domain), replica]).normal(0, 0.002)
  return (1.0 + 0.2 * DOMAINS.index(domain) + 8 * params**-0.3 + 60 * (expert + 12 * seed**0.75) ** -0.4) * float(np.exp(noise))


def cell(params: int, seed: int, expert: int, domain: str, role: str, replica: int = 0, **changes) -> Cell:
  flops = 6.0 * params * (seed + expert)
  value = Cell(params, params + 5000, domain, seed, expert, 400_000, (seed / 3 + expert) / 400_000,
               loss(params, seed, expert, domain, replica), 1.0, flops, replica, role, 0.004, BATCH, None, "ok")
  return dataclasses.replace(value, **changes)


def record(stage: str, steps: int, runs: int, **changes) -> StageTelemetry:
  """Training at 1,000 tokens/s, half of the time spent waiting for the devices."""
  seconds = steps * runs * BATCH / 1000
  value = StageTelemetry(
      stage, stage.split("/")[0], 0, steps, runs, 10_000, steps * runs * BATCH, 1000.0, 6e7, None, "cpu", 2, 0.1 * seconds,
      0.25 * seconds, 0.5 * seconds, 0.15 * seconds, 3.0, 2, 1, 4.0, None, 5 * 10**8)
  return dataclasses.replace(value, **changes)


def save_planned(path: pathlib.Path, plan: Plan, accounting: str) -> PlannedPoint:
  """Writes a plan as an experiment does, and gives what is trained for it."""
  point = Steps(BUDGET // BATCH, len(DOMAINS), accounting).planned(plan.fraction, TARGET + 5000, BATCH)
  dataclasses.replace(plan, point=point).save(path / "plan.json")
  return point


def stage(purpose: str, name: str, phase: str, steps: int, begins: list[int], tokens: int, flops: float) -> StageRecord:
  runs = tuple(StageRun(None, 0, born, None) for born in begins)
  return StageRecord(purpose, name, name, name.split("/")[0], (16, 2), phase, 10_000, steps, runs, tokens, flops)


def config(**experiment) -> dict:
  settings = {"data": "text", "budget_tokens": BUDGET, "accounting": "total", "target": [64, 4], "trunk": "shared",
              "sizes": [[16, 2], [32, 2], [48, 3]], "compare": [1.0], **experiment}
  return {"Experiment": settings, "Training": {"sequence_length": 100, "batch_sequences": 10},
          "Probe": {"rates": [0.002, 0.004, 0.008]}}


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> pathlib.Path:
  """The work directory of a finished experiment. Do not write to it: see `workdir`."""
  path = tmp_path_factory.mktemp("finished")
  write_json(path / "config.json", config())
  CellTable(path / "cells.csv").add(
      cell(params, seed, expert, domain, "grid") for params in SIZES for seed in (250_000, 500_000, 900_000)
      for expert in (0, 30_000, 90_000, 240_000) for domain in DOMAINS)
  law = fit_law(read_cells(path / "cells.csv"), form="effective_data", starts=16, bootstrap=30, profile=7, holdout="params:1")
  law.save(path / "law.json")
  plan = plan_split(law, params=float(TARGET), budget_tokens=float(BUDGET), num_domains=len(DOMAINS), accounting="total")
  point = save_planned(path, plan, "total")
  CellTable(path / "cells.csv").add(
      cell(TARGET, *tokens, domain, role, replica)
      for tokens, role in (((point.seed_tokens, point.expert_tokens), "split"), ((BUDGET, 0), "dense"))
      for domain in DOMAINS for replica in range(2))
  CellTable(path / "probe.csv").add(
      cell(params, 200_000, 0, domain, "probe", learning_rate=rate, loss=3.0 + (np.log(rate / 0.004)) ** 2)
      for params in SIZES for rate in (0.002, 0.004, 0.008) for domain in DOMAINS)
  stages = [stage("probe", "d16-l2/probe/200", "probe", 200, [0] * 3, 600_000, 2e10),
            stage("grid", "d16-l2/trunk/250", "trunk", 250, [0], 400_000, 1e10),
            stage("grid", "d16-l2/trunk/500", "trunk", 250, [250], 200_000, 1e10),
            stage("grid", "d16-l2/full/250", "full", 50, [200], 100_000, 2e9),
            stage("grid", "d16-l2/experts-250-500/branch-72", "branch", 72, [250] * 3 + [500] * 3, 100_000, 4e9),
            stage("grid", "d16-l2/experts-250-500/cooldown-90", "cooldown", 18, [322] * 3 + [572] * 3, 100_000, 4e9)]
  write_stages(path / "ledger.json", [*stages, stage("proof", "d64-l4/experts-500/cooldown-9", "cooldown", 9, [500] * 3, 400_000, 4e10),
                                      stage("retry", "d16-l2/experts-250-500/branch-72~1", "branch", 72, [250], 100_000, 1e10)])
  metrics = Metrics(path / "metrics.jsonl")
  for one in stages:
    metrics.append(one.name, 0, {"loss": 3 - np.linspace(0, 1, one.steps)[:, None] + 0.1 * np.arange(len(one.runs))})
  metrics.close()
  (path / "telemetry.jsonl").write_text(
      "".join(json.dumps(vars(record(one.name, one.steps, len(one.runs)))) + "\n" for one in stages))
  return path


@pytest.fixture
def workdir(finished, tmp_path) -> pathlib.Path:
  """A copy of the finished experiment to take things away from."""
  return pathlib.Path(shutil.copytree(finished, tmp_path / "experiment"))


@pytest.fixture
def phonebook(tmp_path) -> pathlib.Path:
  """A phonebook experiment: accuracies of three replicas at three shares, best in the middle."""
  write_json(tmp_path / "config.json", config(data="phonebook", sizes=[]))
  CellTable(tmp_path / "cells.csv").add(
      cell(TARGET, seed, expert, domain, "split" if expert else "dense", replica, accuracy=accuracy + 0.01 * replica)
      for seed, expert, accuracy in ((0, 333_000, 0.0), (600_000, 133_000, 0.7), (1_000_000, 0, 0.1))
      for domain in DOMAINS for replica in range(3))
  return tmp_path


def rewrite(path: pathlib.Path, change) -> None:
  """Applies `change` to the value in a JSON file."""
  value = json.loads(path.read_text())
  change(value)
  write_json(path, value)
