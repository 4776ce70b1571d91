"""What each leg trains on and how: its rows, programs, schedule and streams, by an experiment's rules."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxsplit.data.store import Store
from jaxsplit.data.stream import Stream, mixture, windows
from jaxsplit.files import content_hash
from jaxsplit.split.tree import Leg, Run
from jaxsplit.training import memory
from jaxsplit.training.loop import Training
from jaxsplit.training.optimizer import Optimizer, Schedule
from jaxsplit.training.sharding import Layout, filled
from jaxsplit.training.stack import StackSpec


@dataclasses.dataclass(frozen=True)
class Rules:
  """What every leg of an experiment shares.

  Attributes:
    training, optimizer, layout: how to train.
    weights: the mixture, a weight per domain.
    seed: of initial weights and data order.
    keep_moments: experts start with their seed's Adam moments.
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
  """The rules, applied to legs and one store. Nothing here has state."""

  def __init__(self, store: Store, rules: Rules):
    self.store, self.rules = store, rules

  def rows(self, leg: Leg) -> tuple[Run, ...]:
    """The leg's runs, filled up with idle copies of the first to as many rows as its devices share evenly."""
    return leg.runs + leg.runs[:1] * (filled(self.rules.layout, len(leg.runs)) - len(leg.runs))

  def spec(self, leg: Leg) -> StackSpec:
    """What the leg's programs are compiled for."""
    training = self.rules.training
    mask = self.store.loss_mask(training.sequence_length)
    spec = StackSpec(
        model=leg.model, optimizer=self.rules.optimizer, layout=self.rules.layout, runs=len(self.rows(leg)),
        runs_per_map=training.runs_per_map, batch=training.batch_sequences, end_of_document=self.store.end_of_document,
        loss_mask=None if mask.all() else tuple(bool(m) for m in mask), accumulation=training.accumulation or 1)
    return spec if training.accumulation else memory.in_parts(spec)

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
