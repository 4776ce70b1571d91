"""What each leg trains on and how: its rows, programs, schedule and streams, by an experiment's rules."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable

import numpy as np

from jaxsplit.data.store import Store
from jaxsplit.data.stream import Stream, mixture, windows
from jaxsplit.experiment.tree import Leg, Run
from jaxsplit.files import content_hash
from jaxsplit.parallel import hosts
from jaxsplit.parallel.sharding import Layout
from jaxsplit.training import capacity
from jaxsplit.training.loop import Training
from jaxsplit.training.optimizer import Optimizer, Schedule
from jaxsplit.training.stack import StackSpec


@dataclasses.dataclass(frozen=True)
class Rules:
  """What every leg of an experiment shares.

  Attributes:
    training, optimizer, layout: how to train.
    weights: the mixture, a weight per domain.
    seed: of initial weights and data order.
    keep_moments: experts start with their seed's moments.
    validation_tokens: held-out tokens per domain that a cell's loss is measured on.
    exact_match: also measure accuracy.
  """

  training: Training
  optimizer: Optimizer
  layout: Layout
  weights: dict[str, float]
  seed: int
  keep_moments: bool
  validation_tokens: int
  exact_match: bool


class Course:
  """The rules, applied to legs and one store, and how the legs' stacks are laid out on the devices."""

  def __init__(self, store: Store, rules: Rules):
    self.store, self.rules = store, rules
    any_parts = not rules.training.accumulation
    self._fitted = functools.cache(lambda wanted: capacity.fitted(wanted, any_parts))
    self._waves = functools.cache(lambda wanted: capacity.waves(wanted, any_parts))
    self._specs: dict[StackSpec, StackSpec] = {}  # As the settings have a stack -> as it is trained.

  def settle(self, legs: Iterable[Leg]) -> None:
    """Decides how these legs' stacks are laid out, in how many parts of a batch and with how many idle rows.

    It depends on the devices' memory, of which each process sees its own: the lead decides for all, which call this at the same
    point of the program.
    """
    new = [wanted for wanted in dict.fromkeys(map(self._wanted, legs)) if wanted not in self._specs]
    decided = hosts.share(lambda: [_decisions(self._fitted(wanted) or capacity.as_given(wanted)) for wanted in new])
    self._specs |= {wanted: dataclasses.replace(wanted, runs=runs, accumulation=parts, layout=Layout(**layout))
                    for wanted, (runs, parts, layout) in zip(new, decided)}

  def rows(self, leg: Leg) -> tuple[Run, ...]:
    """The runs of a settled leg, filled up with idle copies of the first to as many rows as its stack has."""
    return leg.runs + leg.runs[:1] * (self.spec(leg).runs - len(leg.runs))

  def spec(self, leg: Leg) -> StackSpec:
    """What a settled leg's programs are compiled for."""
    return self._specs[self._wanted(leg)]

  def fits(self, leg: Leg) -> bool:
    """Whether the leg's stack fits into the devices, as this process sees them.

    Raises:
      InputError: the settings' layout is none for a leg that is no wave.
    """
    if not leg.wave:
      capacity.as_given(self._wanted(leg)).mesh  # Raises.
    return self._fitted(self._wanted(leg)) is not None

  def waves(self, leg: Leg) -> int:
    """In how many waves the leg is best trained, as this process sees the devices.

    Raises:
      InputError: not even one of its runs fits.
    """
    return self._waves(self._wanted(leg))

  def _wanted(self, leg: Leg) -> StackSpec:
    """The leg's stack as the settings have it, without idle rows."""
    training = self.rules.training
    whole = StackSpec(
        model=leg.model, optimizer=self.rules.optimizer, layout=self.rules.layout, runs=len(leg.runs),
        runs_per_map=training.runs_per_map, batch=training.batch_sequences, end_of_document=self.store.end_of_document,
        weighted=self.store.weighted, accumulation=training.accumulation or 1)
    return capacity.wave(whole, leg.wave.runs) if leg.wave else whole

  def keeps_moments(self, leg: Leg) -> bool:
    """Whether the leg begins with its parents' moments."""
    return self.rules.keep_moments or not leg.forks

  def weight_seeds(self, leg: Leg) -> list[int]:
    """Of each row, the seed of its fresh weights."""
    return [self._seed("weights", run.replica, run.seed_index) for run in self.rows(leg)]

  def schedule(self, leg: Leg) -> Schedule:
    """The rows' schedules."""
    warmup = round(self.rules.optimizer.warmup_tokens / self.rules.training.batch_tokens)
    runs = self.rows(leg)
    return Schedule(
        peak=np.array([run.learning_rate for run in runs], np.float32),
        warmup_start=np.array([run.rewarm for run in runs], np.int32),
        warmup_end=np.array([run.rewarm + warmup for run in runs], np.int32),
        decay_start=np.array([run.decay[0] for run in runs], np.int32),
        decay_end=np.array([run.decay[1] for run in runs], np.int32))

  def streams(self, leg: Leg, attempt: int = 0) -> list[Stream]:
    """What each row reads; in another order where a stretch is trained again."""
    return [self._stream(run, (attempt,) if attempt else ()) for run in self.rows(leg)]

  def _stream(self, run: Run, again: tuple[int, ...]) -> Stream:
    length = self.rules.training.sequence_length
    if run.domain is None:
      return mixture(self.store, self.rules.weights, self._seed("mixture", run.replica, run.seed_index, *again), length)
    # Experts of one domain and replica read the same order whatever snapshot they come from, so that cells differ by D alone.
    return windows(self.store, run.domain, self._seed("expert", run.replica, *again), length)

  def _seed(self, *purpose) -> int:
    return int(content_hash(str(self.rules.seed), *map(str, purpose)), 16) % (1 << 31)


def _decisions(spec: StackSpec) -> list:
  """What is decided for a stack by its devices' memory, as JSON."""
  return [spec.runs, spec.accumulation, dataclasses.asdict(spec.layout)]
