"""The ledger: which part of an experiment trained which stages, and what they cost."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

from jaxsplit.errors import InputError
from jaxsplit.experiment.tree import Leg
from jaxsplit.results.stages import Purpose, Stage, StageRun, read_stages


def stages(purpose: Purpose, legs: Sequence[Leg], batch_tokens: int) -> list[Stage]:
  """The records of legs that are trained."""
  out = []
  for leg in legs:
    tokens = len(leg.runs) * leg.steps * batch_tokens
    out.append(Stage(
        purpose, leg.name, leg.wave.leg if leg.wave else leg.name, leg.size, (leg.model.width, leg.model.depth), leg.phase,
        leg.model.params, leg.steps, tuple(StageRun(run.domain, run.replica, run.born, run.point) for run in leg.runs), tokens,
        tokens * leg.model.flops_per_token))
  return out


def recorded(path: pathlib.Path, say: Callable[[str], None] = print) -> tuple[Stage, ...]:
  """The stages in a file; none where it is not there, or cannot be read, which `say` is told."""
  try:
    return read_stages(path) if path.exists() else ()
  except InputError as error:
    say(f"{error}: it is begun anew, and what it said of sizes and splits that are no longer asked for is lost")
    return ()
