"""The training loop: blocks of steps in, metrics and snapshots out. One loop for seeds, experts, probes and baselines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import numpy as np

from jaxsplit.data.stream import Batches
from jaxsplit.training import placement, sharding, stack
from jaxsplit.training.fingerprint import copy_with_fingerprint
from jaxsplit.training.interruption import Interrupted, Interruption
from jaxsplit.training.optimizer import Schedule
from jaxsplit.training.stack import StackSpec, State


@dataclasses.dataclass(frozen=True)
class Training:
  """How training is cut into pieces, and what is done when it fails. Only sequence length and batch change what is learned.

  Attributes:
    sequence_length: T, tokens per window.
    batch_sequences: B, windows per run and step.
    steps_per_dispatch: steps that one call of the jitted program trains.
    runs_per_map: runs of a stack trained together by vmap on a device; the rest follow one another. 0: all together.
    save_every_steps: steps between snapshots inside a leg.
    retention: snapshots that stay once all that starts from them is measured, besides the last states of the models at the
      target size: of trunks; all; or none (results).
    spike: how far, in nats, a run's mean loss must rise above its lowest, and stay, to count as diverged.
    retries: how often a stretch in which a run diverged is trained again, in another order of its data.
  """

  sequence_length: int = 128
  batch_sequences: int = 8
  steps_per_dispatch: int = 16
  runs_per_map: int = 1
  save_every_steps: int = 2_000
  retention: Literal["trunks", "all", "results"] = "trunks"
  spike: float = 1.0
  retries: int = 1

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
    save: Callable[[int, State, dict[str, jax.Array]], None],
    interruption: Interruption,
) -> State:
  """Trains a stack from its step `done` to `steps`, both counted from the start of this leg.

  Args:
    spec, state: the stack; the state is donated.
    batches: each run's stream.
    schedule: [R] arrays, in steps since each run's birth.
    first_batch: [R], where in its stream each run stood when the leg began.
    observe: called with (first step, metrics [n, R]) of every block, one block late, so that the device is never waited for.
    save: called with a step, a copy of the state after it, and its runs' fingerprints, every `training.save_every_steps` and
      before stopping on an interruption. It is called when all metrics before that step have been observed, a block late, so
      that the device is not waited for here either.

  Raises:
    Interrupted: the state has been handed to `save`, and every metric to `observe`.
  """
  program = stack.train_block(spec)
  block_steps = training.steps_per_dispatch
  starts = range(done, steps, block_steps)
  requests = (([first + start for first in first_batch], block_steps) for start in starts)
  on_mesh = sharding.batch_sharding(spec.mesh)
  schedule = placement.put(schedule, sharding.run_sharding(spec.mesh))
  pending = taken = None
  for start, tokens in zip(starts, placement.blocks(batches, requests, block_steps, on_mesh)):
    count = min(block_steps, steps - start)
    state, metrics = program(state, tokens, np.int32(count), schedule)
    _hand_over(observe, pending, save, taken)
    end = start + count
    pending, taken = (start, count, placement.everywhere(metrics)), None
    stopping = interruption.agreed() and end < steps
    if stopping or (end < steps and end // training.save_every_steps > start // training.save_every_steps):
      taken = (end, *copy_with_fingerprint(state))
    if stopping:
      _hand_over(observe, pending, save, taken)
      raise Interrupted
  _hand_over(observe, pending, save, taken)
  return state


def _hand_over(observe, pending, save, taken) -> None:
  if pending is not None:
    start, count, metrics = pending
    observe(start, {name: np.asarray(values)[:count] for name, values in jax.device_get(metrics).items()})
  if taken is not None:
    save(*taken)
