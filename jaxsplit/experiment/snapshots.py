"""An experiment's snapshots: where each leg starts from and what it leaves behind, with every guard in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxsplit.checkpoint.checkpoints import Checkpoints
from jaxsplit.experiment import guards
from jaxsplit.experiment.guards import GuardError, Health, Identity
from jaxsplit.experiment.recipe import Course
from jaxsplit.experiment.tree import Leg
from jaxsplit.training import fingerprint, stack
from jaxsplit.training.metrics import Metrics
from jaxsplit.training.stack import StackSpec, State


@dataclasses.dataclass(frozen=True)
class Start:
  """Where the training of a leg begins in this process: a state, the steps of the leg that it has behind it, and its past.

  Attributes:
    state: of the stack.
    done: steps of the leg.
    parents: what it descends from, as its snapshots record it.
    health: of each run.
  """

  state: State
  done: int
  parents: tuple[dict, ...]
  health: tuple[Health, ...]


class Snapshots:
  """The snapshots of legs, by what they are for.

  Args:
    checkpoints, metrics: of the work directory.
    course: how legs are trained.
    identity: of the experiment.
    say: told when a leg starts anew.
  """

  def __init__(self, checkpoints: Checkpoints, metrics: Metrics, course: Course, identity: Identity, say: Callable[[str], None]):
    self._checkpoints, self._metrics, self._course = checkpoints, metrics, course
    self._identity, self._say = identity, say

  def is_trained(self, leg: Leg) -> bool:
    """Whether the leg's last state is there, whole and final, also if it was cut off its trunk elsewhere than is planned now."""
    step = self._checkpoints.newest(leg.name)
    about = self._checkpoints.about(leg.name, step) if step else None
    return about is not None and about["final"] and (
        step == leg.steps or [run["steps"] for run in about["runs"]] == [run.born + leg.steps for run in leg.runs])

  def start(self, leg: Leg, legs: Mapping[str, Leg]) -> Start | None:
    """Where to go on with a leg: its newest snapshot that the metrics lead up to, or its parents' last; None: fresh weights.

    Raises:
      GuardError: a guard has tripped.
    """
    checkpoints, parents = self._checkpoints, [legs[name] for name in leg.parents]
    done = step = checkpoints.newest(leg.name, at_most=self._metrics.recorded(leg.name)) or 0
    if done:
      about = checkpoints.about(leg.name, step)
      guards.check_same_inputs(leg, about, self._identity)
      if self.is_trained(leg):
        done = leg.steps
      elif all(self.is_trained(parent) for parent in parents):  # Those of a finished leg may be gone.
        try:
          guards.check_parents(leg, about, [self._reference(parent) for parent in parents])
        except GuardError as error:
          self._say(f"{error}; its snapshots are dropped, and it starts anew from the parent that is there")
          checkpoints.discard(leg.name)
          done = 0
    if done:
      return Start(self._restore(leg.name, step, self._course.spec(leg)), done, tuple(about["parents"]), guards.health(about))
    if not parents:
      return None
    abouts = [checkpoints.about(parent.name, self._last(parent)) for parent in parents]
    for about, parent in zip(abouts, parents):
      guards.check_same_inputs(parent, about, self._identity)
    guards.check_fork_point(leg, abouts, self._identity)
    guards.check_before_decay(leg, abouts)
    guards.check_schedule(leg, abouts, self._course.schedule(leg))
    state = self._fork(leg, parents)
    guards.check_moments(leg, abouts, self._course.keeps_moments(leg), fingerprint.fingerprint(state))
    return Start(state, 0, tuple(self._reference(parent) for parent in parents), guards.inherited_health(leg, abouts))

  def save(self, leg: Leg, step: int, state: State, prints: Mapping[str, Sequence[str]], start: Start, final: bool) -> None:
    """Starts saving a leg's state, which must not be donated, after `step` steps.

    Args:
      leg, step, state: what.
      prints: the rows' fingerprints.
      start: where this stretch began; its health is the runs' health now.
      final: the leg ends here, with all repairs.
    """
    about = guards.describe(
        leg, step, self._course.spec(leg).runs, self._identity, prints, self._course.schedule(leg), start.parents,
        self._course.keeps_moments(leg), start.health)
    self._checkpoints.save(leg.name, step, state, {**about, "final": final}, last=final, first=self._metrics.sync)

  def restore(self, leg: Leg, step: int) -> State:
    """The leg's state after `step` steps, which has been saved."""
    return self._restore(leg.name, step, self._course.spec(leg))

  def tidy(self, leg: Leg, legs: Mapping[str, Leg], missing: set[str]) -> None:
    """Removes the snapshots that nothing will start from any more, once a leg and its cells are there."""
    retention = self._course.rules.training.retention
    for name in (leg.name, *leg.parents):
      one, children = legs[name], [other.name for other in legs.values() if name in other.parents]
      stays = one.keep or (children and (retention == "all" or (retention == "trunks" and one.phase == "trunk")))
      if not stays and not missing.intersection(children):
        self._checkpoints.discard(name)

  def _restore(self, name: str, step: int, spec: StackSpec) -> State:
    """A snapshot as a stack of `spec`; it may have been saved with other idle rows, for other devices."""
    about = self._checkpoints.about(name, step)
    count, runs = about["rows"], len(about["runs"])
    if count == spec.runs:
      state = self._checkpoints.restore(name, step, spec.abstract)
    else:
      parents = [self._checkpoints.restore(name, step, saved) for saved in stack.parents_of(spec, [count])]
      state = stack.fork(spec, parents, [*range(runs), *[0] * (spec.runs - runs)])
    guards.check_restored(name, about, fingerprint.fingerprint(state))
    return state

  def _reference(self, parent: Leg) -> dict:
    """What a child records of its parent."""
    name, step = parent.name, self._last(parent)
    return {"leg": name, "step": step, "digest": self._checkpoints.digest(name, step),
            "runs": [[run["params"], run["moments"]] for run in self._checkpoints.about(name, step)["runs"]]}

  def _last(self, parent: Leg) -> int:
    """The step of a trained leg's last snapshot."""
    return self._checkpoints.newest(parent.name) or parent.steps

  def _fork(self, leg: Leg, parents: Sequence[Leg]) -> State:
    """The leg's first state: rows of its parents' last states."""
    spec, specs = self._course.spec(leg), [self._course.spec(parent) for parent in parents]
    keep_moments = self._course.keeps_moments(leg)
    states = [self._restore(parent.name, self._last(parent), one) for parent, one in zip(parents, specs)]
    if specs == [spec] and [run.parent for run in leg.runs] == list(range(len(leg.runs))) and keep_moments:
      return states[0]  # The parent's runs go on.
    # Where in the parents' filled stacks, one after the other, each of their runs is.
    first = np.cumsum([0, *(one.runs for one in specs)])
    rows = [start + i for parent, start in zip(parents, first) for i in range(len(parent.runs))]
    return stack.fork(spec, states, [rows[run.parent] for run in self._course.rows(leg)], keep_moments)
