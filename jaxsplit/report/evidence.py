"""The results in an experiment's work directory, complete or not: read once, for all figures and the page."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from jaxsplit.experiment.budget import uneven_points
from jaxsplit.experiment.closing import Line, closing_lines
from jaxsplit.experiment.curve import Curve, measured_curve
from jaxsplit.experiment.sizes import FILE as SIZES
from jaxsplit.experiment.sizes import read_params_total
from jaxsplit.law import Law, Plan, load_law, load_plan
from jaxsplit.results.budget import Budget, accounting_of
from jaxsplit.results.cells import BESIDE, Cell, read_cells
from jaxsplit.results.config import read_config
from jaxsplit.results.plan import PlannedPoint
from jaxsplit.results.stages import StageRecord, read_stages


@dataclasses.dataclass(frozen=True)
class Evidence:
  """An experiment's files; what does not exist (yet) is empty or None.

  Attributes:
    path: the work directory.
    config: every setting, by dataclass and field.
    domains: names of the domains that anything was measured on, without those that came later.
    grid, proof, uneven, probe, added: measured cells: the law's data; at the target size; there, of an uneven plan; of learning rates;
      of domains that came later. Diverged ones are left out.
    dense_elsewhere: measured cells of dense models of other sizes than the target's.
    diverged: how many were left out.
    stages: what was trained.
    law, plan: as fitted and read off it.
  """

  path: pathlib.Path
  config: dict[str, dict[str, Any]]
  domains: tuple[str, ...]
  grid: tuple[Cell, ...]
  proof: tuple[Cell, ...]
  uneven: tuple[Cell, ...]
  probe: tuple[Cell, ...]
  added: tuple[Cell, ...]
  dense_elsewhere: tuple[Cell, ...]
  diverged: int
  stages: tuple[StageRecord, ...]
  law: Law | None
  plan: Plan | None

  @property
  def experiment(self) -> dict[str, Any]:
    """The experiment's own settings."""
    return self.config["Experiment"]

  @property
  def batch_tokens(self) -> int:
    """Tokens per run and step."""
    return self.config["Training"]["sequence_length"] * self.config["Training"]["batch_sequences"]

  @property
  def finished(self) -> bool:
    """Whether everything that was to be trained and planned exists."""
    proven = any(stage.purpose == "proof" for stage in self.stages)
    return proven and (not self.plans or (self.law is not None and self.plan is not None))

  @property
  def plans(self) -> bool:
    """Whether a law and a plan are requested: sizes are given, or left to a sweep."""
    return self.experiment["sizes"] != []

  @property
  def per_model(self) -> bool:
    """Whether the budget is per model."""
    return self.experiment["accounting"] == "per_model"

  @property
  def own_seeds(self) -> bool:
    """Whether each domain has its own seed."""
    return self.experiment["trunk"] == "per_domain"

  @property
  def budget(self) -> Budget:
    """What is split."""
    accounting = accounting_of(self.experiment["accounting"], not self.own_seeds)
    return Budget(self.experiment["budget_tokens"], len(self.domains), accounting)

  @property
  def budget_text(self) -> str:
    """The budget in words."""
    return ("each model's " if self.per_model else "") + f"{self.experiment['budget_tokens']:,} tokens"

  @property
  def rival(self) -> str:
    """The dense model that splits are compared with, in words."""
    return "one dense model of " + ("as many tokens as each of them has seen" if self.per_model else "the same compute")

  @property
  def scatter(self) -> float:
    """Standard deviation of the relative difference between two runs of the same split, by the law; 0 without one."""
    return self.law.scatter if self.law else 0.0

  def by_fraction(self, value: str) -> Curve:
    """A column of the cells at the target size, by seed fraction."""
    return measured_curve(self.proof, self.domains, self.budget, value)

  @property
  def recommended(self) -> PlannedPoint | None:
    """What was trained for the plan; None before any of it is measured."""
    point = self.plan and self.plan.point
    measured = {(cell.seed_tokens, cell.expert_tokens) for cell in self.proof}
    return point if point and (point.seed_tokens, point.expert_tokens) in measured else None

  def closing(self) -> list[Line] | None:
    """The closing table; None before the plan and the dense model are measured."""
    if self.recommended is None or self.law is None:
      return None
    if not self.finished and not any(cell.role == "dense" for cell in self.proof):
      return None
    return closing_lines((*self.proof, *self.uneven), self.law, self.plan, self.budget, uneven_points(self.plan, self.batch_tokens))


def read_evidence(path: pathlib.Path) -> Evidence:
  """Reads a work directory. Raises InputError for a damaged file."""
  cells, probe = _cells(path / "cells.csv"), _cells(path / "probe.csv")
  whole, config = [cell for cell in cells if cell.status == "ok"], read_config(path)
  target = _target(path, config)
  return Evidence(
      path, config, tuple(sorted({cell.domain for cell in (*cells, *probe) if cell.role not in BESIDE})),
      tuple(c for c in whole if c.role == "grid"),
      tuple(c for c in whole if c.role in ("split", "dense") and target in (None, c.params_total)),
      tuple(c for c in whole if c.role == "uneven" and target in (None, c.params_total)),
      tuple(c for c in probe if c.status == "ok"),
      tuple(c for c in whole if c.role == "added"),
      tuple(c for c in whole if c.role == "dense" and target not in (None, c.params_total)),
      len(cells) - len(whole) + sum(cell.status != "ok" for cell in probe),
      read_stages(path / "ledger.json") if (path / "ledger.json").exists() else (),
      load_law(path / "law.json") if (path / "law.json").exists() else None,
      load_plan(path / "plan.json") if (path / "plan.json").exists() else None)


def _target(path: pathlib.Path, config: Any) -> int | None:
  """The parameters of the target's models, as there may be cells of earlier targets. None where they are not recorded."""
  try:
    return read_params_total(path / SIZES, tuple(config["Experiment"]["target"]))
  except (KeyError, TypeError):
    return None


def means(cells: Iterable[Cell], domains: Sequence[str], value: str = "loss") -> dict[tuple, float]:
  """(N, D, D', learning rate, replica) -> mean over domains of a column, where all of them are measured."""
  groups: dict[tuple, list[float]] = {}
  for cell in cells:
    key = (cell.params, cell.seed_tokens, cell.expert_tokens, cell.learning_rate, cell.replica)
    groups.setdefault(key, []).append(getattr(cell, value))
  return {key: sum(group) / len(group) for key, group in sorted(groups.items()) if len(group) == len(domains)}


def _cells(path: pathlib.Path) -> list[Cell]:
  return read_cells(path) if path.exists() else []
