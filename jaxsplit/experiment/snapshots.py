"""An experiment's snapshots: where each stage resumes from and what it leaves behind, with every guard in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxsplit.checkpoint.checkpoints import Checkpoints
from jaxsplit.experiment import guards
from jaxsplit.experiment.guards import GuardError, Identity, RunStatus
from jaxsplit.experiment.recipe import StageSetup
from jaxsplit.experiment.tree import Stage
from jaxsplit.training import fingerprint, fork
from jaxsplit.training.metrics import Metrics
from jaxsplit.training.stack import StackSpec, State


@dataclasses.dataclass(frozen=True)
class ResumePoint:
  """Where the training of a stage starts in this process: a state, the steps of the stage already done, and its history.

  Attributes:
    state: of the stack.
    done: steps of the stage already trained.
    parents: its parents, as its snapshots record them.
    run_status: of each run.
  """

  state: State
  done: int
  parents: tuple[dict, ...]
  run_status: tuple[RunStatus, ...]


class Snapshots:
  """The snapshots of stages: what to resume from, what to save and what to remove.

  Args:
    checkpoints, metrics: of the work directory.
    setup: how stages are trained.
    identity: of the experiment.
    log: gets a line when a stage starts anew.
  """

  def __init__(self, checkpoints: Checkpoints, metrics: Metrics, setup: StageSetup, identity: Identity, log: Callable[[str], None]):
    self._checkpoints, self._metrics, self._setup = checkpoints, metrics, setup
    self._identity, self._log = identity, log

  def is_trained(self, stage: Stage) -> bool:
    """Whether the stage's final state exists, also if the stage began at another step of its trunk than is planned now."""
    step = self._checkpoints.newest(stage.name)
    about = None if step is None else self._checkpoints.about(stage.name, step)
    return about is not None and about["final"] and (
        step == stage.steps or [run["steps"] for run in about["runs"]] == [run.born + stage.steps for run in stage.runs])

  def resume_point(self, stage: Stage, stages: Mapping[str, Stage]) -> ResumePoint | None:
    """Where to resume a stage: its newest snapshot up to which metrics are complete, or its parents' last; None: initial weights.

    Raises:
      GuardError: a guard failed.
    """
    checkpoints, parents = self._checkpoints, [stages[name] for name in stage.parents]
    done = step = checkpoints.newest(stage.name, at_most=self._metrics.recorded(stage.name)) or 0
    if done:
      about = checkpoints.about(stage.name, step)
      guards.check_same_inputs(stage, about, self._identity)
      if self.is_trained(stage):
        done = stage.steps
      elif all(self.is_trained(parent) for parent in parents):  # Parents of a finished stage may have been removed.
        try:
          guards.check_parents(stage, about, [self._reference(parent) for parent in parents])
        except GuardError as error:
          self._log(f"{error}; its snapshots are removed, and it starts anew from the existing parent")
          checkpoints.discard(stage.name)
          done = 0
    if done:
      return ResumePoint(self._restore(stage.name, step, self._setup.spec(stage)), done, tuple(about["parents"]), guards.run_status(about))
    if not parents:
      return None
    abouts = [checkpoints.about(parent.name, self._last(parent)) for parent in parents]
    for about, parent in zip(abouts, parents):
      guards.check_same_inputs(parent, about, self._identity)
    guards.check_fork_point(stage, abouts, self._identity)
    guards.check_before_decay(stage, abouts)
    guards.check_schedule(stage, abouts, self._setup.schedule(stage))
    state = self._fork(stage, parents)
    guards.check_moments(stage, abouts, self._setup.keeps_moments(stage), fingerprint.fingerprint(state))
    return ResumePoint(state, 0, tuple(self._reference(parent) for parent in parents), guards.inherited_status(stage, abouts))

  def save(self, stage: Stage, step: int, state: State, prints: Mapping[str, Sequence[str]], resume: ResumePoint, final: bool) -> None:
    """Starts saving a stage's state, which must not be donated, after `step` steps.

    Args:
      stage, step, state: what to save.
      prints: the runs' fingerprints.
      resume: where this training began; its run_status is the current one.
      final: whether the stage ends here, with no run left to train again.
    """
    about = guards.describe(
        stage, step, self._setup.spec(stage).runs, self._identity, prints, self._setup.schedule(stage), resume.parents,
        self._setup.keeps_moments(stage), resume.run_status)
    self._checkpoints.save(stage.name, step, state, {**about, "final": final}, last=final, first=self._metrics.sync)

  def restore(self, stage: Stage, step: int) -> State:
    """The stage's state after `step` steps, which has been saved."""
    return self._restore(stage.name, step, self._setup.spec(stage))

  def tidy(self, stage: Stage, stages: Mapping[str, Stage], missing: set[str]) -> None:
    """Removes the snapshots that no stage will start from any more, once a stage is trained and measured."""
    retention = self._setup.recipe.training.retention
    for name in (stage.name, *stage.parents):
      one, children = stages[name], [other.name for other in stages.values() if name in other.parents]
      stays = one.keep or (children and (retention == "all" or (retention == "trunks" and one.phase == "trunk")))
      if not stays and not missing.intersection(children):
        self._checkpoints.discard(name)

  def _restore(self, name: str, step: int, spec: StackSpec) -> State:
    """A snapshot as a stack of `spec`; it may have been saved with another number of idle runs, on other devices."""
    about = self._checkpoints.about(name, step)
    count, runs = about["rows"], len(about["runs"])
    if count == spec.runs:
      state = self._checkpoints.restore(name, step, spec.abstract)
    else:
      parents = [self._checkpoints.restore(name, step, saved) for saved in fork.parents_of(spec, [count])]
      state = fork.gather(spec, parents, [*range(runs), *[0] * (spec.runs - runs)])
    guards.check_restored(name, about, fingerprint.fingerprint(state))
    return state

  def _reference(self, parent: Stage) -> dict:
    """The record of a parent in its children's snapshots."""
    name, step = parent.name, self._last(parent)
    return {"stage": name, "step": step, "digest": self._checkpoints.digest(name, step),
            "runs": [[run["params"], run["moments"]] for run in self._checkpoints.about(name, step)["runs"]]}

  def _last(self, parent: Stage) -> int:
    """The step of a trained stage's last snapshot."""
    return self._checkpoints.newest(parent.name) or parent.steps

  def _fork(self, stage: Stage, parents: Sequence[Stage]) -> State:
    """The stage's first state: rows of its parents' last states."""
    spec, specs = self._setup.spec(stage), [self._setup.spec(parent) for parent in parents]
    keep_moments = self._setup.keeps_moments(stage)
    states = [self._restore(parent.name, self._last(parent), one) for parent, one in zip(parents, specs)]
    if specs == [spec] and [run.parent for run in stage.runs] == list(range(len(stage.runs))) and keep_moments:
      return states[0]  # The parent's runs continue.
    # Where in the parents' padded stacks, one after the other, each of their runs is.
    first = np.cumsum([0, *(one.runs for one in specs)])
    rows = [start + i for parent, start in zip(parents, first) for i in range(len(parent.runs))]
    return fork.gather(spec, states, [rows[run.parent] for run in self._setup.padded_runs(stage)], keep_moments)
