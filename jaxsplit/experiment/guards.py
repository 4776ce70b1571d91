"""Guards: named checks of what must hold where a run is forked or resumed. A failed guard ends the experiment.

A snapshot's facts are in its `about` (see `describe`). At a fork they are compared with those that the tree of stages plans, and
the runs' fingerprints with those of their parents.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxsplit.data.store import Store
from jaxsplit.data.stream import Stream
from jaxsplit.errors import InputError
from jaxsplit.experiment.tree import Run, Stage
from jaxsplit.experiment.workdir import HOW
from jaxsplit.files import read_json
from jaxsplit.results.cells import Cell
from jaxsplit.training.optimizer import Schedule

About = Mapping[str, Any]


class GuardError(InputError):
  """A guard failed: to continue would measure something other than planned."""

  def __init__(self, guard: str, where: str, what: str):
    super().__init__(f"{where}: guard {guard!r} failed: {what}; nothing was trained from there")
    self.guard = guard


@dataclasses.dataclass(frozen=True)
class Identity:
  """What all stages of an experiment have in common.

  Attributes:
    data: the token store's manifest hash.
    tokenizer: the tokenizer's fingerprint.
    config: the hash of all settings.
    batch_tokens: tokens per run and step.
    provenance: versions and devices, see training.provenance.
  """

  data: str
  tokenizer: str
  config: str
  batch_tokens: int
  provenance: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class RunStatus:
  """The history of a run up to some step.

  Attributes:
    retries: how often a stage of it, or of its ancestors, was trained again.
    diverged: whether it, or an ancestor, diverged in all attempts.
  """

  retries: int = 0
  diverged: bool = False


def describe(stage: Stage, step: int, rows: int, identity: Identity, prints: Mapping[str, Sequence[str]], schedule: Schedule,
             parents: Sequence[Mapping[str, Any]], keep_moments: bool, run_status: Sequence[RunStatus]) -> dict[str, Any]:
  """The facts of a stage's snapshot `step` steps into the stage, for its `about`.

  Args:
    stage, step: which.
    rows: runs of the stack, idle ones included.
    identity: of the experiment.
    prints: the runs' fingerprints of each part of their state.
    schedule: the runs' schedules.
    parents: of each parent stage, name, step, the hash of its snapshot and its runs' fingerprints.
    keep_moments: whether the stage began with its parents' moments.
    run_status: of each run.
  """
  runs = []
  for r, run in enumerate(stage.runs):
    tokens = (run.born + step) * identity.batch_tokens
    runs.append({
        "domain": run.domain, "replica": run.replica, "steps": run.born + step, "tokens": tokens,
        "flops": tokens * stage.model.flops_per_token, "schedule": [float(schedule.peak[r]), *(int(s[r]) for s in schedule[1:])],
        **{part: prints[part][r] for part in prints},
        **dataclasses.asdict(run_status[r])})
  return {
      "stage": stage.name, "phase": stage.phase, "step": step, "rows": rows, "model": dataclasses.asdict(stage.model),
      "data": identity.data, "tokenizer": identity.tokenizer, "config": identity.config, "batch_tokens": identity.batch_tokens,
      "keep_moments": keep_moments, "parents": list(parents), "runs": runs, "provenance": dict(identity.provenance)}


def run_status(about: About) -> tuple[RunStatus, ...]:
  """The status of each run, from a snapshot's `about`."""
  return tuple(RunStatus(run["retries"], run["diverged"]) for run in about["runs"])


def inherited_status(stage: Stage, parents: Sequence[About]) -> tuple[RunStatus, ...]:
  """The status that each of the stage's runs inherits from its parent."""
  return tuple(RunStatus(parent["retries"], parent["diverged"]) for parent in _parents(stage, parents))


def check_same_inputs(stage: Stage, about: About, identity: Identity) -> None:
  """same data, same tokenizer, same model, same settings: of a snapshot that `stage` starts or resumes from."""
  for guard, there, here in (
      ("same data", about["data"], identity.data), ("same tokenizer", about["tokenizer"], identity.tokenizer),
      ("same model", _decisive(about["model"]), _decisive(_plain(dataclasses.asdict(stage.model)))),
      ("same settings", about["config"], identity.config)):
    if there != here:
      raise GuardError(guard, stage.name, f"the snapshot of {about['stage']} was made with {there}, not {here}")


def _decisive(model: Mapping) -> dict:
  """A model's fields except those on how it is computed, which may change when an experiment resumes."""
  return {name: value for name, value in model.items() if f"Architecture.{name}" not in HOW}


def check_fork_point(stage: Stage, parents: Sequence[About], identity: Identity) -> None:
  """fork point: every run starts from a state with exactly the planned steps and tokens."""
  for run, parent in zip(stage.runs, _parents(stage, parents)):
    steps, tokens = run.born, run.born * identity.batch_tokens
    if (parent["steps"], parent["tokens"]) != (steps, tokens):
      raise GuardError("fork point", stage.name, f"its parent was trained for {parent['steps']} steps and {parent['tokens']:,} tokens, "
                                               f"planned were {steps} and {tokens:,}")


def check_before_decay(stage: Stage, parents: Sequence[About]) -> None:
  """before decay: no parent's learning rate has begun to fall."""
  for parent in _parents(stage, parents):
    *_, decay_start, decay_end, _ = parent["schedule"]
    if decay_end > decay_start and parent["steps"] > decay_start:
      raise GuardError("before decay", stage.name, f"its parent's learning rate has been falling since step {decay_start}")


def check_schedule(stage: Stage, parents: Sequence[About], schedule: Schedule) -> None:
  """schedule: the first learning rate is the parent's next one, or the first of a new warm-up."""
  count = len(stage.runs)
  planned = Schedule(*(np.asarray(values)[:count] for values in schedule))
  before = Schedule(*(np.array(values) for values in zip(*(parent["schedule"] for parent in _parents(stage, parents)))))
  born = np.array([run.born for run in stage.runs], np.int32)
  rewarms = stage.forks & np.array([run.rewarm == run.born > 0 for run in stage.runs])
  start = np.where(rewarms, born, before.warmup_start)
  end = np.where(rewarms, born + planned.warmup_end - planned.warmup_start, before.warmup_end)
  expected = _rates(before._replace(warmup_start=start, warmup_end=end), born)
  for r, (rate, other) in enumerate(zip(_rates(planned, born), expected)):
    if abs(rate - other) > 1e-6 * other:
      raise GuardError("schedule", stage.name, f"run {r} would start at a learning rate of {rate:g}, not {other:g}")


def _rates(schedule: Schedule, steps: np.ndarray) -> np.ndarray:
  return jax.device_get(jax.jit(Schedule.rate)(*jax.device_put((schedule, steps))))


def check_moments(stage: Stage, parents: Sequence[About], keep_moments: bool, prints: Mapping[str, Sequence[str]]) -> None:
  """parameters, moments: the runs' are exactly their parents'; moments are zero if they are to be reset."""
  for r, parent in enumerate(_parents(stage, parents)):
    if prints["params"][r] != parent["params"]:
      raise GuardError("parameters", stage.name, f"run {r} did not get its parent's parameters")
    if prints["moments"][r] != (parent["moments"] if keep_moments else "00000000"):
      raise GuardError("moments", stage.name, f"run {r}'s moments were {'not kept' if keep_moments else 'not reset'}")


def check_parents(stage: Stage, about: About, parents: Sequence[Mapping[str, Any]]) -> None:
  """parent: a stage that is resumed has the parents that its snapshot recorded."""
  names = [(parent["stage"], parent["step"]) for parent in about["parents"]]
  if names != [(parent["stage"], parent["step"]) for parent in parents]:
    raise GuardError("parent", stage.name, f"its snapshot descends from {names}, not from the planned parents")
  for recorded, planned in zip(about["parents"], parents):
    if recorded["runs"] != planned["runs"]:
      raise GuardError("parent", stage.name, f"its snapshot descends from another state of {planned['stage']} than the one on disk")


def check_restored(where: str, about: About, prints: Mapping[str, Sequence[str]]) -> None:
  """restored: a snapshot was read back bit for bit, on any devices."""
  for part in prints:
    if list(prints[part])[:len(about["runs"])] != [run.get(part) for run in about["runs"]]:
      raise GuardError("restored", where, f"its {part} are not those that were saved")


def check_same_corpus(cells: Iterable[Cell], workdir: pathlib.Path, store: Store) -> None:
  """same corpus: existing cells were measured with this store's tokens, as far as provenance.json has their hash."""
  made_with = _made_with(workdir)
  theirs = {made_with[cell.provenance].get("data") for cell in cells if isinstance(made_with.get(cell.provenance), dict)}
  if theirs - {None, store.manifest_hash}:
    raise InputError(f"--workdir={workdir}: the corpus has changed since its cells were measured (tokens "
                     f"{', '.join(sorted(theirs - {None, store.manifest_hash}))} then, {store.manifest_hash} now); name "
                     "another folder, restore the corpus, or give the --store that they were made with")


def check_same_addition(workdir: pathlib.Path, domain: str, manifest_hash: str) -> None:
  """same addition: a domain added later has the tokens that its expert was trained on, as far as provenance.json has their hash."""
  added = [facts.get("added") for facts in _made_with(workdir).values() if isinstance(facts, dict)]
  theirs = {one.get(domain) for one in added if isinstance(one, dict)}
  if theirs - {None, manifest_hash}:
    raise InputError(f"--workdir={workdir}: the texts of the domain {domain} have changed since its expert was trained; restore them, "
                     "or give another --name")


def _made_with(workdir: pathlib.Path) -> dict[str, Any]:
  """Provenance by name; empty if the file is missing or damaged (a work directory rewrites it)."""
  try:
    return dict(read_json(workdir / "provenance.json")["made_with"])
  except (InputError, KeyError, TypeError, ValueError):
    return {}


def check_streams(stage: Stage, runs: Sequence[Run], streams: Sequence[Stream], store: Store, batch: int,
                  own_share: Callable[[str], float] = lambda domain: 1.0) -> None:
  """domain: the first batch of expert k is from domain k, that of a run on the mixture from the mixture's domains.

  Where replay or resampling makes up a part of an expert's stream, that is interleaved evenly: of a batch of B windows at least
  the whole part of B * `own_share(domain)` are of its own domain.
  """
  for run, stream in zip(runs, streams, strict=True):
    indices = run.first_batch * batch + np.arange(batch)
    others = 0
    for window, (domain, number) in zip(stream.rows(indices), stream.origins(indices)):
      others += run.domain not in (None, domain)
      if others and others > batch - math.floor(batch * own_share(run.domain)):
        mixed = "" if own_share(run.domain) == 1 else f", {others} windows or more of a batch of {batch}"
        raise GuardError("domain", stage.name, f"an expert on {run.domain} would read {domain}{mixed}")
      if not np.array_equal(window, store.windows(domain, "train", stream.window_length - 1)[number]):
        raise GuardError("domain", stage.name, f"window {number} of {domain} is not what the store holds there")


def check_disjoint(store: Store) -> None:
  """disjoint: no document of any validation set is in any training set, as a seed is trained on all domains. Not checked for
  records, which are to be memorized."""
  if store.record:
    return
  valid = {document: domain for domain in store.domains for document in _documents(store, domain, "valid")}
  for domain in store.domains:
    found = [valid[document] for document in _documents(store, domain, "train") if document in valid]
    if found:
      held_out = ", ".join(sorted({f"that of {other}" if other != domain else "its own" for other in found}))
      raise GuardError("disjoint", str(store.directory), f"{len(found):,} training documents of {domain} are in a validation set "
                                                         f"({held_out}); remove them from one of the two")


def _documents(store: Store, domain: str, split: str):
  """A hash of each document's tokens; empty documents are left out."""
  tokens = store.tokens(domain, split)
  ends = np.flatnonzero(tokens == store.end_of_document)
  for start, end in zip(np.concatenate([[0], ends[:-1] + 1]), ends):
    if end > start:
      yield hashlib.blake2b(tokens[start:end], digest_size=16).digest()


def _parents(stage: Stage, parents: Sequence[About]) -> list[Mapping[str, Any]]:
  """The parent of each run, an index into the concatenated runs of the parent stages."""
  runs = [run for about in parents for run in about["runs"]]
  return [runs[run.parent] for run in stage.runs]


def _plain(value: Any) -> Any:
  """The value after a round trip through JSON."""
  if isinstance(value, dict):
    return {str(k): _plain(v) for k, v in value.items()}
  return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
