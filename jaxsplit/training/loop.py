"""The training loop: blocks of steps in, metrics and snapshots out. One loop for seeds, experts, probes and baselines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import numpy as np

from jaxsplit.data.stream import Batches
from jaxsplit.errors import InputError
from jaxsplit.parallel import placement, sharding
from jaxsplit.training import stack
from jaxsplit.training.fingerprint import copy_with_fingerprint, fingerprints
from jaxsplit.training.interruption import Interrupted, Interruption
from jaxsplit.training.optimizer import Schedule
from jaxsplit.training.stack import StackSpec, State
from jaxsplit.training.telemetry import Clock


@dataclasses.dataclass(frozen=True)
class Training:
  """Execution settings of training, and what to do when a run diverges. Only sequence length and batch change the results.

  Attributes:
    sequence_length: T, tokens per window.
    batch_sequences: B, windows per run and step.
    accumulation: gradient accumulation: parts of a batch that are processed one after another; less memory, the same update. 0 takes
      as few as the devices' memory allows.
    steps_per_dispatch: training steps per call of the jitted program.
    runs_per_map: runs of a stack that a device trains together by vmap; groups of them follow one another. 0: all together.
    save_every_steps: steps between snapshots within a stage.
    retention: snapshots to keep once everything that starts from them is measured: trunks, all, or none but the final states of the
      models at the target size, which are always kept (results).
    spike: a run counts as diverged if its mean loss rises this many nats above its lowest, and stays there.
    retries: how often a stage in which a run diverged is trained again, with its data in another order.
    trace: profile the first blocks of the first stage whose name contains this, as in 'd64-l4/experts', to trace/ in the work
      directory; empty for no profile.
  """

  sequence_length: int = 128
  batch_sequences: int = 8
  accumulation: int = 1
  steps_per_dispatch: int = 16
  runs_per_map: int = 1
  save_every_steps: int = 2_000
  retention: Literal["trunks", "all", "results"] = "trunks"
  spike: float = 1.0
  retries: int = 1
  trace: str = ""

  def __post_init__(self):
    for name, least in (("sequence_length", 1), ("batch_sequences", 1), ("steps_per_dispatch", 1), ("runs_per_map", 0),
                        ("save_every_steps", 1), ("retries", 0)):
      if getattr(self, name) < least:
        raise InputError(f"Training.{name} = {getattr(self, name)}: must be {least} or more")
    if not self.spike > 0:
      raise InputError(f"Training.spike = {self.spike}: must be positive; a large number lets nothing count as diverged")
    if self.accumulation < 0 or (self.accumulation and self.batch_sequences % self.accumulation):
      raise InputError(f"Training.accumulation = {self.accumulation} must divide Training.batch_sequences = "
                       f"{self.batch_sequences}; or use 0")

  @property
  def batch_tokens(self) -> int:
    """Tokens per run and step."""
    return self.sequence_length * self.batch_sequences


@jax.transfer_guard("disallow")  # An implicit transfer would stall the devices in every block.
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
    saved: Callable[[], None],
    copies: bool,
    interruption: Interruption,
    clock: Clock,
) -> State:
  """Trains a stack from its step `done` to `steps`, both counted from the start of this stage.

  Args:
    spec, state: the stack; the state is donated.
    batches: each run's stream.
    schedule: [R] arrays, in steps since each run's start.
    first_batch: [R], index in its stream of each run's first batch of the stage.
    observe: called with (first step, metrics [n, R]) of every block, one block late, so that the device is never waited for.
    save: called with a step, the state after it, and its runs' fingerprints, every `training.save_every_steps` and before
      stopping on an interruption, when all metrics before that step have been observed.
    saved: returns when the state given to `save` is no longer needed. It is called before the next save, so that there are never two.
    copies: whether there is memory for a copy of the state. If so `save` is given one, a block late, without waiting for the
      device. Otherwise it is given the state itself, and training waits for `saved`.
    clock: gets the laps data, dispatch, device and other: see `telemetry.StageTelemetry`.

  Raises:
    Interrupted: the state has been handed to `save`, and every metric to `observe`.
    jax.errors.JaxRuntimeError: `observe` or `save` moved an array between host and device, but not by device_put or device_get.
  """
  program = stack.train_block(spec)
  block_steps = training.steps_per_dispatch
  starts = range(done, steps, block_steps)
  requests = (([first + start for first in first_batch], block_steps) for start in starts)
  on_mesh = sharding.batch_sharding(spec.mesh)
  lengths = {min(block_steps, steps - start) for start in starts}
  counts = {count: placement.put(np.int32(count), sharding.replicated(spec.mesh)) for count in lengths}
  schedule = placement.put(schedule, sharding.run_sharding(spec.mesh))
  pending = taken = None
  for start, block in zip(starts, placement.blocks(batches, requests, block_steps, on_mesh)):
    clock.lap("data")
    count = min(block_steps, steps - start)
    state, metrics = program(state, block.tokens, counts[count], schedule, *([] if block.weights is None else [block.weights]))
    clock.lap("dispatch")
    _hand_over(observe, pending, save, taken, clock)
    end = start + count
    pending, taken = (start, count, placement.everywhere(metrics)), None
    stopping = interruption.agreed() and end < steps
    if stopping or (end < steps and end // training.save_every_steps > start // training.save_every_steps):
      saved()
      taken = (end, *(copy_with_fingerprint(state) if copies and not stopping else (state, fingerprints(state))))
    clock.lap("dispatch")
    if taken is not None and (stopping or not copies):
      _hand_over(observe, pending, save, taken, clock)
      if stopping:
        raise Interrupted
      pending = taken = None
      saved()
  _hand_over(observe, pending, save, taken, clock)
  return state


def _hand_over(observe, pending, save, taken, clock) -> None:
  if pending is not None:
    start, count, metrics = pending
    metrics = jax.device_get(metrics)
    clock.lap("device")
    observe(start, {name: np.asarray(values)[:count] for name, values in metrics.items()})
  if taken is not None:
    save(*taken)
  clock.lap("other")
