"""Trains the stages of a tree, again where a run diverged, and measures their cells. A second run trains only what is missing."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxsplit.data.store import Store
from jaxsplit.data.stream import Batches, bytes_per_token, validation
from jaxsplit.evaluation.perplexity import compile_held_out, held_out
from jaxsplit.experiment import divergence, guards, waves
from jaxsplit.experiment.cell_table import CellTable
from jaxsplit.experiment.divergence import Divergence, Divergences
from jaxsplit.experiment.guards import Identity, RunStatus
from jaxsplit.experiment.progress import Progress
from jaxsplit.experiment.recipe import Recipe, StageSetup
from jaxsplit.experiment.scarce import window_clusters
from jaxsplit.experiment.snapshots import ResumePoint, Snapshots
from jaxsplit.experiment.tree import Run, Stage
from jaxsplit.experiment.workdir import Workdir
from jaxsplit.parallel import hosts
from jaxsplit.results.cells import Cell
from jaxsplit.training import fingerprint, fork, memory, stack
from jaxsplit.training.compiler import BackgroundCompiler
from jaxsplit.training.interruption import Interruption
from jaxsplit.training.loop import train
from jaxsplit.training.provenance import environment
from jaxsplit.training.stack import State
from jaxsplit.training.telemetry import Clock, peak_flops
from jaxsplit.training.trace import Trace


class Runner:
  """Trains and measures stages, with one token store and one work directory."""

  def __init__(self, store: Store, recipe: Recipe, workdir: Workdir, progress: Progress, interruption: Interruption):
    self._store, self._recipe, self._workdir = store, recipe, workdir
    self._progress, self._interruption = progress, interruption
    self._compiler = BackgroundCompiler()
    self._trace = Trace(workdir.path / "trace", recipe.training.trace, progress.log)
    facts = hosts.broadcast(lambda: {**environment(), "config": workdir.config_hash, "data": store.manifest_hash,
                                     **({"added": store.added} if store.added else {})})
    self._made_with = workdir.record_provenance(facts)
    self._setup = StageSetup(store, recipe, window_clusters(store, recipe, workdir, progress) if recipe.resample else None)
    identity = Identity(store.manifest_hash, store.tokenizer.fingerprint, workdir.config_hash, recipe.training.batch_tokens, facts)
    self._snapshots = Snapshots(workdir.checkpoints, workdir.metrics, self._setup, identity, progress.log)
    self._told: set[str] = set()
    self._stages: dict[str, Stage] = {}
    self._missing: set[str] = set()
    self._divergences = Divergences(workdir.path / "divergence.json")
    self._windows = {
        domain: validation(store, domain, recipe.training.sequence_length, recipe.validation_tokens) for domain in store.domains}

  def __enter__(self) -> Runner:
    return self

  def __exit__(self, raised: type[BaseException] | None, *_) -> None:
    self._compiler.close(wait=raised is None)
    if raised is None:
      self._trace.close()

  def run(self, stages: Sequence[Stage], table: CellTable, later: Sequence[Stage] = (), what: str = "training") -> None:
    """Trains those of `stages` whose cells or snapshots are missing, parents before children, in waves if they do not fit at once.

    `what` is the line of progress if any is missing. `later` are stages like those of later calls: if anything
    is trained now, they have to fit into memory too, and their programs are compiled in the background.

    Raises:
      InputError: not even one run of a stage fits into its devices' memory; nothing has been trained.
    """
    self._stages, self._missing = {}, set()  # In case this call is interrupted before they are known.
    planned, there = stages, hosts.broadcast(lambda: waves.begun(stages, self._workdir.metrics.trained()))
    stages = self._in_waves(stages, there, lambda stages: self.missing(stages, table))
    missing = self._missing = set(hosts.broadcast(lambda: sorted(self.missing(stages, table))))
    self._progress.begin(what if missing else f"{what}: done before")
    if missing:
      later = self._in_waves(later, {}, lambda stages: {stage.name for stage in stages})
      self._setup.settle([*stages, *later])
    self._stages = {stage.name: stage for stage in stages}
    keys = {stage.name: self._keys(stage) for stage in stages}
    to_train = [stage for stage in stages if stage.name in missing]
    self._progress.plan(to_train, later, sum(map(len, keys.values())),
                        sum(key in table for stage in keys for key in keys[stage] if stage not in missing))
    if missing:
      self._tell(planned, to_train)
      self._compile([*to_train, *later])
    for stage in stages:
      if stage.name in missing:
        self._progress.finish(self._complete(stage, table, missing, there))

  @property
  def trained(self) -> list[Stage]:
    """The stages of the latest call of `run` that are trained and measured so far, as waves."""
    return [stage for name, stage in self._stages.items() if name not in self._missing]

  def _complete(self, stage: Stage, table: CellTable, missing: set[str], there: Mapping[str, Sequence[int]]) -> int:
    """Trains a stage and measures its cells; returns the number of cells.

    A separate call, so that no reference to a stage's state remains while the next is trained: devices have memory for one.
    """
    resume = self._resume_point(stage)
    with self._interruption.deferred():
      state, run_status = self._train(stage, resume)
      cells = self._measure(stage, state, run_status)
      if cells:
        table.add(cells)
      missing.discard(stage.name)
      for attempt in range(1, self._recipe.training.retries + 1):
        self._workdir.checkpoints.discard(divergence.again(stage, (), attempt).name)
      self._snapshots.tidy(stage, self._stages, missing)
      self._drop_other_waves(stage, there, missing)
    return len(cells)

  def missing(self, stages: Sequence[Stage], table: CellTable) -> set[str]:
    """Names of the stages to train: for a cell, for a final state to keep, or for a stage that starts from them."""
    missing: set[str] = set()
    forked_from: set[str] = set()
    for stage in reversed(stages):
      lacks_cells = any(key not in table for key in self._keys(stage))
      lacks_state = (stage.keep or stage.name in forked_from) and not self._snapshots.is_trained(stage)
      if lacks_cells or lacks_state:
        missing.add(stage.name)
        forked_from.update(stage.parents)
    return missing

  def repairs(self, stages: Sequence[Stage]) -> list[Stage]:
    """The repeated trainings of runs of these stages, so far."""
    found = [d for d in self._divergences if d.attempt < self._recipe.training.retries]
    return [divergence.again(stage, rows, attempt + 1) for stage in stages for attempt in range(self._recipe.training.retries)
            if (rows := [d.run for d in found if (d.stage, d.attempt) == (stage.name, attempt)])]

  def _in_waves(self, stages: Sequence[Stage], there: Mapping[str, Sequence[int]],
                missing: Callable[[Sequence[Stage]], set[str]]) -> list[Stage]:
    """The stages in waves that fit into the memory of the lead's devices."""
    return waves.in_waves(stages, hosts.broadcast(lambda: waves.choose(stages, there, missing, self._setup.fits, self._setup.waves)))

  def _tell(self, planned: Sequence[Stage], to_train: Sequence[Stage]) -> None:
    """Logs, once each, the stacks whose layout differs from the settings."""
    runs = {stage.name: len(stage.runs) for stage in planned}
    for stage in to_train:
      text = waves.told(stage, runs[waves.whole(stage)[0]], self._recipe.layout, self._setup.spec(stage).layout)
      if text and text not in self._told:
        self._told.add(text)
        self._progress.log(f"  {text}")

  def _drop_other_waves(self, stage: Stage, there: Mapping[str, Sequence[int]], missing: set[str]) -> None:
    """Once all waves of a stage are trained, removes snapshots of another number of waves, begun on devices with other memory."""
    name, count = waves.whole(stage)
    if missing.isdisjoint(waves.names(name, count)):
      for other in set(there.get(name, ())) - {count}:
        for wave in waves.names(name, other):
          self._workdir.checkpoints.discard(wave)

  def _compile(self, stages: Sequence[Stage]) -> None:
    parents = {name for stage in stages for name in stage.parents}
    for stage in stages:
      spec = self._setup.spec(stage)
      if not stage.parents and not self._recipe.base:
        self._compiler.ask(("initialize", spec), functools.partial(stack.compile_initialization, spec))
      self._compiler.ask(("train", spec), functools.partial(
          stack.compile_training, spec, self._recipe.training.steps_per_dispatch))
      if stage.parents or stage.keep or stage.name in parents:  # Probes are neither forked nor saved.
        self._compiler.ask(("fingerprint", spec), functools.partial(fingerprint.compile_fingerprint, spec))
      if any(run.point for run in stage.runs):
        self._compiler.ask(("evaluate", spec), functools.partial(
            compile_held_out, spec, max(len(windows.tokens) for windows in self._windows.values()), self._recipe.exact_match))

  def _resume_point(self, stage: Stage, attempt: int = 0) -> ResumePoint:
    """Where a stage's training begins, with its state loaded."""
    spec = self._setup.spec(stage)
    hosts.broadcast(lambda: guards.check_streams(
        stage, self._setup.padded_runs(stage), self._setup.streams(stage, attempt), self._store, spec.batch,
        self._recipe.own_share))
    resume = self._snapshots.resume_point(stage, self._stages)
    if resume is None:
      self._compiler.wait(("initialize", spec))
      resume = ResumePoint(self._setup.first_state(stage), 0, (), (RunStatus(),) * len(stage.runs))
    self._workdir.metrics.rewind(stage.name, resume.done)
    return resume

  def _train(self, stage: Stage, resume: ResumePoint) -> tuple[State, tuple[RunStatus, ...]]:
    """Trains a stage to its end, repeating runs that diverge. The final state is saved if anything starts from it."""
    if resume.done == stage.steps and self._snapshots.is_trained(stage):
      return resume.state, resume.run_status
    state = self._attempt(stage, resume)
    run_status = list(resume.run_status)
    if stage.steps and stage.phase != "probe":  # A probe that diverges is a result.
      rows: Sequence[int] = range(len(stage.runs))
      for attempt in range(self._recipe.training.retries + 1):
        trained = rows
        rows = hosts.broadcast(lambda: self._diverged(stage, attempt, trained))
        if not rows:
          break
        if attempt == self._recipe.training.retries:
          for r in rows:
            run_status[r] = dataclasses.replace(run_status[r], diverged=True)
          break
        for r in rows:
          run_status[r] = dataclasses.replace(run_status[r], retries=run_status[r].retries + 1)
        # The other runs wait on disk: devices have memory for one stack in training.
        self._snapshots.save(stage, stage.steps, state, fingerprint.fingerprint(state), resume, final=False)
        del state
        repair = divergence.again(stage, rows, attempt + 1)
        self._setup.settle([repair])
        repaired = self._attempt(repair, self._resume_point(repair, attempt + 1), attempt + 1)
        spec = self._setup.spec(stage)
        state = fork.replace(spec, self._snapshots.restore(stage, stage.steps), repaired, rows)
        del repaired
    if stage.keep or any(stage.name in other.parents for other in self._stages.values()):
      ended = dataclasses.replace(resume, run_status=tuple(run_status))
      self._snapshots.save(stage, stage.steps, state, fingerprint.fingerprint(state), ended, final=True)
    self._workdir.metrics.sync()
    return state, tuple(run_status)

  def _diverged(self, stage: Stage, attempt: int, rows: Sequence[int]) -> list[int]:
    """The stage's runs that diverged in an attempt that trained `rows`; they are recorded and logged."""
    name = divergence.again(stage, rows, attempt).name if attempt else stage.name
    found = divergence.first_divergence(self._workdir.metrics.losses(name, stage.steps), self._recipe.training.spike,
                                        math.log(stage.model.vocab_size))
    if found:
      self._divergences.add(
          Divergence(stage.name, rows[i], attempt, step, what) for i, (step, what) in found.items())
      left = self._recipe.training.retries - attempt
      then = "trained again from the start of this stage, with data in another order" if left else "marked, and excluded from fits"
      for i, (step, what) in found.items():
        run = stage.runs[rows[i]]
        self._progress.log(f"  {name}: run {rows[i]} ({run.domain or 'mixture'}) diverged at step {step}: {what}; it is {then}")
    return [rows[i] for i in sorted(found)]

  def _attempt(self, stage: Stage, resume: ResumePoint, attempt: int = 0) -> State:
    """Trains a stage, once."""
    spec, metrics, clock, trained = self._setup.spec(stage), self._workdir.metrics, Clock(), 0
    self._compiler.wait(("train", spec))
    clock.lap("compiler")
    self._progress.start(stage, resume.done, peak_flops(spec))
    self._trace.begin(stage.name)

    def observe(first_step: int, values: dict[str, np.ndarray]) -> None:
      nonlocal trained
      values = {name: value[:, :len(stage.runs)] for name, value in values.items()}
      metrics.append(stage.name, first_step, values)
      trained += len(values["loss"])
      self._progress.advance(stage, len(values["loss"]), float(np.mean(values["loss"][-1])))
      self._trace.block()

    def save(step: int, state: State, prints: dict) -> None:
      self._snapshots.save(stage, step, state, fingerprint.as_text(prints), resume, final=False)

    try:
      return train(
          spec, resume.state, Batches(self._setup.streams(stage, attempt), spec.batch), self._setup.schedule(stage),
          first_batch=[run.first_batch for run in self._setup.padded_runs(stage)], done=resume.done, steps=stage.steps,
          training=self._recipe.training, observe=observe, save=save, saved=self._workdir.checkpoints.wait,
          copies=hosts.broadcast(lambda: memory.has_room_for_a_copy(spec)), interruption=self._interruption, clock=clock)
    finally:
      self._trace.end()
      if trained and hosts.is_lead():
        self._workdir.telemetry.record(
            stage.name, stage.size, spec, runs=len(stage.runs), first_step=resume.done, steps=trained, clock=clock)

  def _domains(self, run: Run) -> tuple[str, ...]:
    """What the run's cell is measured on."""
    only = run.domain or run.serves
    return (only,) if only else self._store.domains

  def _keys(self, stage: Stage) -> list[tuple]:
    return [self._cell(stage, run, domain, math.nan, None, RunStatus()).key
            for run in stage.runs if run.point for domain in self._domains(run)]

  def _measure(self, stage: Stage, state: State, run_status: Sequence[RunStatus]) -> list[Cell]:
    if not any(run.point for run in stage.runs):
      return []
    spec = self._setup.spec(stage)
    self._compiler.wait(("evaluate", spec))
    windows = [[self._windows[d] for d in self._domains(run)] for run in self._setup.padded_runs(stage)]
    values = held_out(spec, {"params": state["mean"]} if spec.averages else state, windows, self._recipe.exact_match)
    return [
        self._cell(stage, run, domain, values["loss"][r, m], values["exact"][r, m] if self._recipe.exact_match else None,
                   run_status[r])
        for r, run in enumerate(stage.runs) for m, domain in enumerate(self._domains(run))]

  def _cell(self, stage: Stage, run: Run, domain: str, loss: float, accuracy: float | None, run_status: RunStatus) -> Cell:
    batch_tokens = self._recipe.training.batch_tokens
    seed_tokens, expert_tokens = run.point.seed_steps * batch_tokens, run.point.expert_steps * batch_tokens
    unique = self._store.counts(domain, "train").unique_tokens
    return Cell(
        params=stage.model.params, params_total=stage.model.params_total, domain=domain, seed_tokens=seed_tokens,
        expert_tokens=expert_tokens, unique_tokens=unique, loss=float(loss),
        epochs=self._recipe.passes(domain, seed_tokens, expert_tokens) / unique,
        bits_per_byte=float(loss) / math.log(2) / bytes_per_token(self._store, domain),
        flops=stage.model.flops_per_token * (seed_tokens + expert_tokens), replica=run.replica, role=run.point.role,
        learning_rate=run.learning_rate, batch_tokens=batch_tokens, accuracy=accuracy,
        status="ok" if math.isfinite(loss) and not run_status.diverged else "diverged", retries=run_status.retries,
        provenance=self._made_with, replay=self._recipe.replay if run.point.expert_steps else 0.0,
        resampled=self._recipe.resample.get(domain, 0.0) if run.point.expert_steps else 0.0,
        weights="last" if run.mean_start is None else "mean")
