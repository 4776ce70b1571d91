"""The ledger: which part of an experiment spent which tokens and FLOPs."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Sequence

from jaxsplit.errors import InputError
from jaxsplit.files import read_json
from jaxsplit.split.tree import Leg


_STAGES = ("probe", "grid", "proof", "retry")


@dataclasses.dataclass(frozen=True)
class Entry:
  """One leg's spending, with all that a report has to know of the leg: names are for people.

  Attributes:
    stage: probe, grid or proof; retry for stretches trained again because a run had diverged.
    leg: its name, by which metrics and telemetry know it.
    whole: the name of the leg that it is a wave of; its own where it is none.
    size, phase, params: of the leg's model, and what kind of leg it is.
    runs, steps: of its stack.
    begins: of each run, the steps of its life before the leg.
    tokens, flops: of all its runs together.
  """

  stage: str
  leg: str
  whole: str
  size: str
  phase: str
  params: int
  runs: int
  steps: int
  begins: tuple[int, ...]
  tokens: int
  flops: float


def entries(stage: str, legs: Sequence[Leg], batch_tokens: int) -> list[Entry]:
  """The spending of a stage's legs. Training only: evaluation reads held-out text and is not part of any budget."""
  out = []
  for leg in legs:
    tokens = len(leg.runs) * leg.steps * batch_tokens
    whole = leg.wave.leg if leg.wave else leg.name
    out.append(Entry(stage, leg.name, whole, leg.size, leg.phase, leg.model.params, len(leg.runs), leg.steps,
                     tuple(run.born for run in leg.runs), tokens, tokens * leg.model.flops_per_token))
  return out


def read(path: pathlib.Path, say: Callable[[str], None] = print) -> list[Entry]:
  """The entries in a file; none where it is not there, or damaged, which `say` is told."""
  try:
    records = read_json(path)["entries"] if path.exists() else []
    entries = [Entry(**{**record, "begins": tuple(record["begins"])}) for record in records]
    as_json(entries)
    return entries
  except (InputError, KeyError, TypeError, ValueError) as error:
    say(f"{path}: damaged ({error}), and begun anew; what it said of sizes and splits that are no longer asked for is lost")
    return []


def as_json(ledger: Iterable[Entry]) -> dict:
  """The ledger with its totals, one record for each stage and phase."""
  ledger = sorted(ledger, key=lambda entry: _STAGES.index(entry.stage))  # Otherwise in the order of training.
  totals: dict[tuple[str, str], dict] = {}
  for entry in ledger:
    total = totals.setdefault((entry.stage, entry.phase), {"stage": entry.stage, "phase": entry.phase, "tokens": 0, "flops": 0.0})
    total["tokens"] += entry.tokens
    total["flops"] += entry.flops
  return {"totals": list(totals.values()), "entries": [dataclasses.asdict(entry) for entry in ledger]}
