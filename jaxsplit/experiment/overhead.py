"""What an experiment takes besides its training, timed here: snapshots, and the law with its plan."""

from __future__ import annotations

import pathlib
import tempfile
import time

import numpy as np

from jaxsplit.checkpoint.checkpoints import Checkpoints
from jaxsplit.experiment.grid import Grid
from jaxsplit.law import Cells, FitSettings, fit_law, plan_split
from jaxsplit.parallel import hosts
from jaxsplit.training import fingerprint, stack
from jaxsplit.training.stack import StackSpec

_NOISE = 0.003  # Of invented losses.
_TIMES = 3


def snapshot_seconds(spec: StackSpec, folder: pathlib.Path) -> float:
  """Seconds to save a stack in a folder and to read it back, as where a stage starts from another."""
  state, took = stack.initialize(spec, range(spec.runs)), []
  with tempfile.TemporaryDirectory(prefix=".timed.", dir=folder) as apart:
    checkpoints = Checkpoints(pathlib.Path(hosts.broadcast(lambda: apart)))
    for step in range(1, _TIMES + 1):
      began = time.perf_counter()
      prints = fingerprint.fingerprint(state)
      checkpoints.save("timed", step, state, {"runs": [], "prints": prints}, last=True)
      state = checkpoints.restore("timed", step, spec.abstract)
      fingerprint.fingerprint(state)
      took.append(time.perf_counter() - began)
    checkpoints.close()
  return float(np.median(took))


def law_seconds(grid: Grid, settings: FitSettings, domains: tuple[str, ...], replicas: int) -> float:
  """Seconds to fit the law to as many cells as the grid has, of invented losses, and to plan by it."""
  task = grid.task
  rows = [(grid.models[size].params, point.seed_steps * task.batch_tokens, point.expert_steps * task.batch_tokens, domain)
          for size in grid.requests for point in grid.points(size) for domain in domains for _ in range(replicas)]
  params, seeds, experts, names = (np.array(column) for column in zip(*rows))
  fall = lambda tokens: (1 + 20 * tokens / task.batch_tokens / task.budget.amount) ** -0.3
  losses = (1 + 0.5 * (params / task.target.params) ** -0.1 + fall(seeds) + fall(experts * len(domains))) * np.exp(
      _NOISE * np.random.default_rng(0).standard_normal(len(rows)))
  began = time.perf_counter()
  law = fit_law(Cells.from_columns({"params": params, "seed_tokens": seeds, "expert_tokens": experts, "domain": names, "loss": losses}),
                settings)
  plan_split(law, params=float(task.target.params), budget_tokens=float(task.budget.amount * task.batch_tokens), num_domains=len(domains))
  return time.perf_counter() - began
