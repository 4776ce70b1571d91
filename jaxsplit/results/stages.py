"""ledger.json: every stage of training, as a record: what trained, from where to where, for what, and what it cost.

Who asks which stage made a model, or what training was spent on, reads it here; names of stages are for people.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from typing import Literal, get_args

from jaxsplit.files import write_json
from jaxsplit.results.record import made, read_record, shape_of

VERSION = 2
Purpose = Literal["probe", "grid", "proof", "retry", "added", "router"]
Phase = Literal["probe", "trunk", "full", "branch", "cooldown"]
Role = Literal["probe", "grid", "split", "dense", "uneven", "added", "router", "base"]


@dataclasses.dataclass(frozen=True, order=True)
class Point:
  """A cell that is wanted, for every domain and replica: D and D' in steps, and what it is wanted for."""

  seed_steps: int
  expert_steps: int
  role: Role


@dataclasses.dataclass(frozen=True)
class StageRun:
  """One run of a stage.

  Attributes:
    domain: what it trained on; None is the mixture.
    replica: which repetition it belongs to.
    born: steps of its life before the stage.
    point: the cell measured at the end of the stage, or None.
  """

  domain: str | None
  replica: int
  born: int
  point: Point | None


@dataclasses.dataclass(frozen=True)
class StageRecord:
  """A part of the training of one stack of runs, or one wave of it.

  Attributes:
    purpose: probe, grid or proof; retry for stages trained again because a run had diverged; added for experts on domains that
      came later; router for small models to route by.
    name: unique, by which metrics, telemetry and snapshots know it.
    whole: the name of the stage that it is a wave of; its own where it is none.
    size: name of the model's shape.
    shape: (width, depth).
    phase: probe, trunk, full (to the end of a cell on the mixture), branch (experts at constant rate) or cooldown (of experts).
    params: N of its model.
    steps: how many it trained.
    runs: of its stack, without idle rows.
    tokens, flops: of all its runs together. Training only: evaluation reads held-out text and is not part of any budget.
  """

  purpose: Purpose
  name: str
  whole: str
  size: str
  shape: tuple[int, int]
  phase: Phase
  params: int
  steps: int
  runs: tuple[StageRun, ...]
  tokens: int
  flops: float


@dataclasses.dataclass(frozen=True)
class Total:
  """What all stages of one purpose and phase cost."""

  purpose: Purpose
  phase: Phase
  tokens: int = 0
  flops: float = 0.0

  @property
  def name(self) -> str:
    """In words: "grid, trunk"."""
    return self.purpose if self.purpose == self.phase else f"{self.purpose}, {self.phase}"


@dataclasses.dataclass(frozen=True)
class _Ledger:
  totals: tuple[Total, ...]  # For people, and other programs.
  stages: tuple[StageRecord, ...]


def totals(stages: Iterable[StageRecord]) -> list[Total]:
  """What was spent, one record for each purpose and phase."""
  found: dict[tuple[str, str], Total] = {}
  for stage in stages:
    total = found.setdefault((stage.purpose, stage.phase), Total(stage.purpose, stage.phase))
    found[stage.purpose, stage.phase] = dataclasses.replace(
        total, tokens=total.tokens + stage.tokens, flops=total.flops + stage.flops)
  return list(found.values())


def write_stages(path: str | os.PathLike, stages: Iterable[StageRecord]) -> None:
  """Writes ledger.json, by purpose, otherwise in the order of training."""
  ordered = sorted(stages, key=lambda stage: get_args(Purpose).index(stage.purpose))
  write_json(path, {"version": VERSION, **dataclasses.asdict(_Ledger(tuple(totals(ordered)), tuple(ordered)))})


def read_stages(path: str | os.PathLike) -> tuple[StageRecord, ...]:
  """The stages of a work directory's ledger.json.

  Raises:
    InputError: no ledger of this version, or damaged.
  """
  return made(_Ledger, read_record(path, shape_of(_Ledger), VERSION, "a ledger", "train")).stages
