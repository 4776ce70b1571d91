"""Trains the legs of a tree and measures their cells. Running it again does only what is missing."""

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
from jaxsplit.experiment.guards import Health, Identity
from jaxsplit.experiment.progress import Progress
from jaxsplit.experiment.recipe import Course, Rules
from jaxsplit.experiment.snapshots import Snapshots, Start
from jaxsplit.experiment.tree import Leg, Run
from jaxsplit.experiment.workdir import Workdir
from jaxsplit.parallel import hosts
from jaxsplit.results.cells import Cell
from jaxsplit.training import fingerprint, memory, stack
from jaxsplit.training.compiler import Ahead
from jaxsplit.training.interruption import Interruption
from jaxsplit.training.loop import train
from jaxsplit.training.provenance import environment
from jaxsplit.training.stack import State
from jaxsplit.training.telemetry import Clock, peak_flops
from jaxsplit.training.trace import Trace


class Runner:
  """Runs legs against one store and one work directory."""

  def __init__(self, store: Store, rules: Rules, workdir: Workdir, progress: Progress, interruption: Interruption):
    self._store, self._rules, self._workdir = store, rules, workdir
    self._progress, self._interruption = progress, interruption
    self._course = Course(store, rules)
    self._ahead = Ahead()
    self._trace = Trace(workdir.path / "trace", rules.training.trace, progress.say)
    facts = hosts.share(lambda: {**environment(), "config": workdir.config_hash, "data": store.manifest_hash})
    self._made_with = workdir.record_provenance(facts)
    identity = Identity(store.manifest_hash, store.tokenizer.fingerprint, workdir.config_hash, rules.training.batch_tokens, facts)
    self._snapshots = Snapshots(workdir.checkpoints, workdir.metrics, self._course, identity, progress.say)
    self._told: set[str] = set()
    self._legs: dict[str, Leg] = {}
    self._missing: set[str] = set()
    self._divergences = Divergences(workdir.path / "divergence.json")
    self._windows = {
        domain: validation(store, domain, rules.training.sequence_length, rules.validation_tokens) for domain in store.domains}

  def __enter__(self) -> Runner:
    return self

  def __exit__(self, raised: type[BaseException] | None, *_) -> None:
    self._ahead.close(wait=raised is None)
    if raised is None:
      self._trace.close()

  def run(self, legs: Sequence[Leg], table: CellTable, later: Sequence[Leg] = (), what: str = "training") -> None:
    """Trains what `table` and the snapshots lack of `legs`, parents before children, in waves where they do not fit at once.

    `what` says so, in words, where anything is lacking. `later` are legs like those that will come in other calls: where anything
    is trained now, they too have to fit into memory, and their programs are compiled meanwhile.

    Raises:
      InputError: not even one run of a leg fits into its devices' memory; nothing has been trained.
    """
    self._legs, self._missing = {}, set()  # Until this call has some: it may be interrupted before.
    planned, there = legs, hosts.share(lambda: waves.begun(legs, self._workdir.metrics.trained()))
    legs = self._in_waves(legs, there, lambda legs: self.missing(legs, table))
    missing = self._missing = set(hosts.share(lambda: sorted(self.missing(legs, table))))
    self._progress.stage(what if missing else f"{what}: done before")
    if missing:
      later = self._in_waves(later, {}, lambda legs: {leg.name for leg in legs})
      self._course.settle([*legs, *later])
    self._legs = {leg.name: leg for leg in legs}
    keys = {leg.name: self._keys(leg) for leg in legs}
    to_train = [leg for leg in legs if leg.name in missing]
    self._progress.plan(to_train, later, sum(map(len, keys.values())),
                        sum(key in table for leg in keys for key in keys[leg] if leg not in missing))
    if missing:
      self._tell(planned, to_train)
      self._compile([*to_train, *later])
    for leg in legs:
      if leg.name in missing:
        self._progress.finish(self._complete(leg, table, missing, there))

  @property
  def trained(self) -> list[Leg]:
    """The legs of the latest call of `run` that are trained and measured so far, in the waves that they are trained in."""
    return [leg for name, leg in self._legs.items() if name not in self._missing]

  def _complete(self, leg: Leg, table: CellTable, missing: set[str], there: Mapping[str, Sequence[int]]) -> int:
    """Trains a leg and measures its cells, of which it returns the number.

    A call of its own, since nothing of a leg's state may be at hand while the next is trained: devices have room for one.
    """
    start = self._start(leg)
    with self._interruption.deferred():
      state, health = self._train(leg, start)
      cells = self._measure(leg, state, health)
      if cells:
        table.add(cells)
      missing.discard(leg.name)
      for attempt in range(1, self._rules.training.retries + 1):
        self._workdir.checkpoints.discard(divergence.again(leg, (), attempt).name)
      self._snapshots.tidy(leg, self._legs, missing)
      self._drop_other_waves(leg, there, missing)
    return len(cells)

  def missing(self, legs: Sequence[Leg], table: CellTable) -> set[str]:
    """Names of the legs that must be trained: for a cell, for a result to keep, or for a leg that starts from them."""
    missing: set[str] = set()
    forked_from: set[str] = set()
    for leg in reversed(legs):
      lacks_cells = any(key not in table for key in self._keys(leg))
      lacks_state = (leg.keep or leg.name in forked_from) and not self._snapshots.is_trained(leg)
      if lacks_cells or lacks_state:
        missing.add(leg.name)
        forked_from.update(leg.parents)
    return missing

  def repairs(self, legs: Sequence[Leg]) -> list[Leg]:
    """The stretches of these legs that were trained again, so far."""
    found = [d for d in self._divergences if d.attempt < self._rules.training.retries]
    return [divergence.again(leg, rows, attempt + 1) for leg in legs for attempt in range(self._rules.training.retries)
            if (rows := [d.run for d in found if (d.leg, d.attempt) == (leg.name, attempt)])]

  def _in_waves(self, legs: Sequence[Leg], there: Mapping[str, Sequence[int]],
                missing: Callable[[Sequence[Leg]], set[str]]) -> list[Leg]:
    """The legs in waves, as the lead's devices have room for them."""
    return waves.in_waves(legs, hosts.share(lambda: waves.choose(legs, there, missing, self._course.fits, self._course.waves)))

  def _tell(self, planned: Sequence[Leg], to_train: Sequence[Leg]) -> None:
    """Says which stacks are not trained as the settings have them, each once."""
    runs = {leg.name: len(leg.runs) for leg in planned}
    for leg in to_train:
      text = waves.told(leg, runs[waves.whole(leg)[0]], self._rules.layout, self._course.spec(leg).layout)
      if text and text not in self._told:
        self._told.add(text)
        self._progress.say(f"  {text}")

  def _drop_other_waves(self, leg: Leg, there: Mapping[str, Sequence[int]], missing: set[str]) -> None:
    """Once all waves of a leg are there, removes the snapshots that it has of other waves, on devices with other memory."""
    name, count = waves.whole(leg)
    if missing.isdisjoint(waves.names(name, count)):
      for other in set(there.get(name, ())) - {count}:
        for wave in waves.names(name, other):
          self._workdir.checkpoints.discard(wave)

  def _compile(self, legs: Sequence[Leg]) -> None:
    parents = {name for leg in legs for name in leg.parents}
    for leg in legs:
      spec = self._course.spec(leg)
      if not leg.parents:
        self._ahead.ask(("initialize", spec), functools.partial(stack.compile_initialization, spec))
      self._ahead.ask(("train", spec), functools.partial(
          stack.compile_training, spec, self._rules.training.steps_per_dispatch))
      if leg.parents or leg.keep or leg.name in parents:  # A probe's state is neither forked from nor to.
        self._ahead.ask(("fingerprint", spec), functools.partial(fingerprint.compile_fingerprint, spec))
      if any(run.point for run in leg.runs):
        self._ahead.ask(("evaluate", spec), functools.partial(
            compile_held_out, spec, max(len(windows.tokens) for windows in self._windows.values()), self._rules.exact_match))

  def _start(self, leg: Leg, attempt: int = 0) -> Start:
    """Where a leg's training begins, with everything at hand that it needs."""
    spec = self._course.spec(leg)
    hosts.share(lambda: guards.check_streams(
        leg, self._course.rows(leg), self._course.streams(leg, attempt), self._store, spec.batch))
    start = self._snapshots.start(leg, self._legs)
    if start is None:
      self._ahead.wait(("initialize", spec))
      start = Start(stack.initialize(spec, self._course.weight_seeds(leg)), 0, (), (Health(),) * len(leg.runs))
    self._workdir.metrics.rewind(leg.name, start.done)
    return start

  def _train(self, leg: Leg, start: Start) -> tuple[State, tuple[Health, ...]]:
    """Trains a leg to its end, with all repairs. Its last state is saved if anything starts from it."""
    if start.done == leg.steps and self._snapshots.is_trained(leg):
      return start.state, start.health
    state = self._stretch(leg, start)
    health = list(start.health)
    if leg.steps and leg.phase != "probe":  # A rate that makes a probe diverge is an answer.
      for attempt in range(self._rules.training.retries + 1):
        trained = range(len(leg.runs)) if attempt == 0 else rows
        rows = hosts.share(lambda: self._diverged(leg, attempt, trained))
        if not rows:
          break
        if attempt == self._rules.training.retries:
          for r in rows:
            health[r] = dataclasses.replace(health[r], diverged=True)
          break
        for r in rows:
          health[r] = dataclasses.replace(health[r], retries=health[r].retries + 1)
        # The runs that went well wait on disk: devices have room for one stack in training.
        self._snapshots.save(leg, leg.steps, state, fingerprint.fingerprint(state), start, final=False)
        del state
        repair = divergence.again(leg, rows, attempt + 1)
        self._course.settle([repair])
        repaired = self._stretch(repair, self._start(repair, attempt + 1), attempt + 1)
        spec = self._course.spec(leg)
        state = stack.replace(spec, self._snapshots.restore(leg, leg.steps), repaired, rows)
        del repaired
    if leg.keep or any(leg.name in other.parents for other in self._legs.values()):
      ended = dataclasses.replace(start, health=tuple(health))
      self._snapshots.save(leg, leg.steps, state, fingerprint.fingerprint(state), ended, final=True)
    self._workdir.metrics.sync()
    return state, tuple(health)

  def _diverged(self, leg: Leg, attempt: int, rows: Sequence[int]) -> list[int]:
    """Which of the leg's runs have diverged in an attempt that trained `rows`; recorded, and said."""
    name = divergence.again(leg, rows, attempt).name if attempt else leg.name
    found = divergence.first_divergence(self._workdir.metrics.losses(name, leg.steps), self._rules.training.spike,
                                        math.log(leg.model.vocab_size))
    if found:
      self._divergences.add(
          Divergence(leg.name, rows[i], attempt, step, what) for i, (step, what) in found.items())
      left = self._rules.training.retries - attempt
      then = "trained again from the start of this leg, in another order" if left else "marked, and no part of any fit"
      for i, (step, what) in found.items():
        run = leg.runs[rows[i]]
        self._progress.say(f"  {name}: run {rows[i]} ({run.domain or 'mixture'}) diverged at step {step}: {what}; it is {then}")
    return [rows[i] for i in sorted(found)]

  def _stretch(self, leg: Leg, start: Start, attempt: int = 0) -> State:
    """Trains a leg, once."""
    spec, metrics, clock, trained = self._course.spec(leg), self._workdir.metrics, Clock(), 0
    self._ahead.wait(("train", spec))
    clock.lap("compiler")
    self._progress.start(leg, start.done, peak_flops(spec))
    self._trace.begin(leg.name)

    def observe(first_step: int, values: dict[str, np.ndarray]) -> None:
      nonlocal trained
      values = {name: value[:, :len(leg.runs)] for name, value in values.items()}
      metrics.append(leg.name, first_step, values)
      trained += len(values["loss"])
      self._progress.advance(leg, len(values["loss"]), float(np.mean(values["loss"][-1])))
      self._trace.block()

    def save(step: int, state: State, prints: dict) -> None:
      self._snapshots.save(leg, step, state, fingerprint.as_text(prints), start, final=False)

    try:
      return train(
          spec, start.state, Batches(self._course.streams(leg, attempt), spec.batch), self._course.schedule(leg),
          first_batch=[run.first_batch for run in self._course.rows(leg)], done=start.done, steps=leg.steps,
          training=self._rules.training, observe=observe, save=save, saved=self._workdir.checkpoints.wait,
          copies=hosts.share(lambda: memory.has_room_for_a_copy(spec)), interruption=self._interruption, clock=clock)
    finally:
      self._trace.end()
      if trained and hosts.is_lead():
        self._workdir.telemetry.record(
            leg.name, leg.size, spec, runs=len(leg.runs), first_step=start.done, steps=trained, clock=clock)

  def _domains(self, run: Run) -> tuple[str, ...]:
    """What the run's cell is measured on."""
    only = run.domain or run.serves
    return (only,) if only else self._store.domains

  def _keys(self, leg: Leg) -> list[tuple]:
    return [self._cell(leg, run, domain, math.nan, None, Health()).key
            for run in leg.runs if run.point for domain in self._domains(run)]

  def _measure(self, leg: Leg, state: State, health: Sequence[Health]) -> list[Cell]:
    if not any(run.point for run in leg.runs):
      return []
    spec = self._course.spec(leg)
    self._ahead.wait(("evaluate", spec))
    values = held_out(spec, state, [[self._windows[d] for d in self._domains(run)] for run in self._course.rows(leg)],
                      self._rules.exact_match)
    return [
        self._cell(leg, run, domain, values["loss"][r, m], values["exact"][r, m] if self._rules.exact_match else None,
                   health[r])
        for r, run in enumerate(leg.runs) for m, domain in enumerate(self._domains(run))]

  def _cell(self, leg: Leg, run: Run, domain: str, loss: float, accuracy: float | None, health: Health) -> Cell:
    batch_tokens = self._rules.training.batch_tokens
    seed_tokens, expert_tokens = run.point.seed_steps * batch_tokens, run.point.expert_steps * batch_tokens
    unique = self._store.counts(domain, "train").unique_tokens
    share = self._rules.weights[domain] / sum(self._rules.weights.values())
    return Cell(
        params=leg.model.params, params_total=leg.model.params_total, domain=domain, seed_tokens=seed_tokens,
        expert_tokens=expert_tokens, unique_tokens=unique, epochs=(seed_tokens * share + expert_tokens) / unique, loss=float(loss),
        bits_per_byte=float(loss) / math.log(2) / bytes_per_token(self._store, domain),
        flops=leg.model.flops_per_token * (seed_tokens + expert_tokens), replica=run.replica, role=run.point.role,
        learning_rate=run.learning_rate, batch_tokens=batch_tokens, accuracy=accuracy,
        status="ok" if math.isfinite(loss) and not health.diverged else "diverged", retries=health.retries,
        provenance=self._made_with)
