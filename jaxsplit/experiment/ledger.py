"""The ledger: the trained stages of an experiment by purpose, with their tokens and FLOPs."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

from jaxsplit.errors import InputError
from jaxsplit.experiment.tree import Stage
from jaxsplit.results.stages import Purpose, StageRecord, StageRun, read_stages, write_stages


def records(purpose: Purpose, stages: Sequence[Stage], batch_tokens: int) -> list[StageRecord]:
  """The records of stages that are trained."""
  out = []
  for stage in stages:
    tokens = len(stage.runs) * stage.steps * batch_tokens
    out.append(StageRecord(
        purpose, stage.name, stage.wave.stage if stage.wave else stage.name, stage.size, (stage.model.width, stage.model.depth),
        stage.phase, stage.model.params, stage.steps,
        tuple(StageRun(run.domain, run.replica, run.born, run.point) for run in stage.runs), tokens,
        tokens * stage.model.flops_per_token))
  return out


def recorded(path: pathlib.Path, log: Callable[[str], None] = print) -> tuple[StageRecord, ...]:
  """The stages in a file; none if it does not exist, or is damaged, which is logged."""
  try:
    return read_stages(path) if path.exists() else ()
  except InputError as error:
    log(f"{error}: it is started anew, without the records of sizes and splits that are no longer requested")
    return ()


def add(path: pathlib.Path, purpose: Purpose, trained: Sequence[Stage], repairs: Sequence[Stage], batch_tokens: int,
        log: Callable[[str], None] = print) -> None:
  """Adds trained stages, and those of their runs that were trained again, to a file."""
  found = {stage.name: stage for stage in recorded(path, log)}
  for part, stages in ((purpose, trained), ("retry", repairs)):
    found |= {stage.name: stage for stage in records(part, stages, batch_tokens)}
  write_stages(path, found.values())
