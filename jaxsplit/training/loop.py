"""The training loop: blocks of steps in, metrics and snapshots out. One loop for seeds, experts, probes and baselines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from jaxsplit.data.stream import Batches
from jaxsplit.training import sharding, stack
from jaxsplit.training.interruption import Interrupted, Interruption
from jaxsplit.training.optimizer import Schedule
from jaxsplit.training.stack import StackSpec, State


@dataclasses.dataclass(frozen=True)
class Training:
  """How training is cut into pieces; none of it changes what is learned, but for sequence length and batch.

  Attributes:
    sequence_length: T, tokens per window.
    batch_sequences: B, windows per run and step.
    steps_per_dispatch: steps that one call of the jitted program trains.
    runs_per_map: runs of a stack trained together by vmap on a device; the rest follow one another. 0: all together.
    save_every_steps: steps between snapshots inside a leg.
  """

  sequence_length: int = 128
  batch_sequences: int = 8
  steps_per_dispatch: int = 16
  runs_per_map: int = 1
  save_every_steps: int = 2_000

  @property
  def batch_tokens(self) -> int:
    """Tokens per run and step."""
    return self.sequence_length * self.batch_sequences


def train(
    spec: StackSpec,
    state: State,
    batches: Batches,
    schedule: Schedule,
    *,
    first_batch: Sequence[int],
    done: int,
    steps: int,
    training: Training,
    observe: Callable[[int, dict[str, np.ndarray]], None],
    save: Callable[[int, State], None],
    interruption: Interruption,
) -> State:
  """Trains a stack from its step `done` to `steps`, both counted from the start of this leg.

  Args:
    spec, state: the stack; the state is donated.
    batches: each run's stream.
    schedule: [R] arrays, in steps since each run's birth.
    first_batch: [R], where in its stream each run stood when the leg began.
    observe: called with (first step, metrics [n, R]) of every block, one block late, so that the device is never waited for.
    save: called with (step, state) every `training.save_every_steps`, and before stopping on an interruption.

  Raises:
    Interrupted: the state has been handed to `save`, and every metric to `observe`.
  """
  program = stack.train_block(spec)
  block_steps = training.steps_per_dispatch
  starts = range(done, steps, block_steps)
  requests = (([first + start for first in first_batch], block_steps) for start in starts)
  on_mesh = sharding.batch_sharding(spec.mesh)
  schedule = jax.device_put(schedule, sharding.run_sharding(spec.mesh))
  pending = None
  for start, tokens in zip(starts, batches.blocks(requests)):
    count = min(block_steps, steps - start)
    state, metrics = program(state, jax.device_put(tokens, on_mesh), np.int32(count), schedule)
    if pending is not None:
      _observe(observe, *pending)
    pending = (start, count, metrics)
    end = start + count
    stopping = interruption.requested and end < steps
    if stopping or (end < steps and end // training.save_every_steps > start // training.save_every_steps):
      _observe(observe, *pending)
      pending = None
      save(end, state)
    if stopping:
      raise Interrupted
  if pending is not None:
    _observe(observe, *pending)
  return state


def _observe(observe, start: int, count: int, metrics) -> None:
  observe(start, {name: np.asarray(values)[:count] for name, values in jax.device_get(metrics).items()})
