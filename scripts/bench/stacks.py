"""What the benches of training share: sizes, stacks that train on random tokens, and timing in turns."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Mapping

import jax
import numpy as np

from jaxsplit.models.config import Architecture
from jaxsplit.parallel import sharding
from jaxsplit.parallel.sharding import Layout
from jaxsplit.training import stack
from jaxsplit.training.optimizer import Optimizer, Schedule
from jaxsplit.training.stack import StackSpec


@dataclasses.dataclass(frozen=True)
class Size:
  """A model, and the batch that it trains on: width, depth, vocabulary, T, B, head width, what is recomputed backwards, and
  whether (1 or 0) attention stays inside documents."""

  width: int
  depth: int
  vocab: int
  length: int
  batch: int
  head_dim: int = 32
  remat: str = "none"
  documents: int = 1

  def spec(self, runs: int = 1, runs_per_map: int = 1, layout: Layout = Layout(devices=1)) -> StackSpec:
    """A stack of such runs, as experiments have it: RoPE, QK-norm, SwiGLU, AdamW and clipping."""
    architecture = Architecture(head_dim=self.head_dim, remat=self.remat, document_masking=bool(self.documents))
    model = architecture.at(self.width, self.depth, self.vocab, self.length)
    return StackSpec(model, Optimizer(), layout, runs, runs_per_map, self.batch, end_of_document=0)


SIZES = {
    "tiny": Size(32, 2, 256, 128, 8),
    "0.8m": Size(128, 4, 256, 128, 8),
    "6m": Size(256, 5, 4096, 128, 8),
    "50m": Size(512, 10, 16384, 1024, 8, head_dim=64),
    "350m": Size(1024, 24, 32768, 2048, 8, head_dim=64, remat="dots"),
    "1.3b": Size(2048, 24, 32768, 2048, 8, head_dim=128, remat="dots"),
}


def size_flags(parser: argparse.ArgumentParser, default: str) -> None:
  """--size, and a flag for each of its numbers."""
  parser.add_argument("--size", choices=SIZES, default=default)
  for field in dataclasses.fields(Size):
    parser.add_argument(f"--{field.name}", type=str if field.name == "remat" else int)


def chosen_size(flags: argparse.Namespace) -> Size:
  changes = {f.name: getattr(flags, f.name) for f in dataclasses.fields(Size) if getattr(flags, f.name) is not None}
  return dataclasses.replace(SIZES[flags.size], **changes)


class Stack:
  """A stack in training. Calling it trains one block of `steps` steps by one dispatch, and gives the seconds that took."""

  def __init__(self, spec: StackSpec, steps: int):
    self.spec, self.steps = spec, steps
    shape = (steps, spec.runs, spec.batch, spec.model.sequence_length + 1)
    tokens = np.random.default_rng(0).integers(0, spec.model.vocab_size, shape).astype(np.int32)
    self._tokens = jax.device_put(tokens, sharding.batch_sharding(spec.mesh))
    self._count = jax.device_put(np.int32(steps), sharding.replicated(spec.mesh))  # As compiled for: else a call compiles again.
    self._schedule = jax.device_put(constant_rate(spec.runs, 1e-3), sharding.run_sharding(spec.mesh))
    began = time.perf_counter()
    stack.compile_training(spec, steps)
    self.compile_seconds = time.perf_counter() - began
    self._state = stack.initialize(spec, range(spec.runs))

  def __call__(self) -> float:
    began = time.perf_counter()
    self._state, metrics = stack.train_block(self.spec)(self._state, self._tokens, self._count, self._schedule)
    jax.block_until_ready((self._state, metrics))
    return time.perf_counter() - began

  @property
  def tokens(self) -> int:
    """Tokens that one call trains on, in all runs."""
    return self.steps * self.spec.runs * self.spec.batch * self.spec.model.sequence_length


def constant_rate(runs: int, rate: float) -> Schedule:
  zeros = np.zeros(runs, np.int32)
  return Schedule(np.full(runs, rate, np.float32), *[zeros] * 5)


def in_turns(sides: Mapping[str, Callable[[], float | tuple[float, ...]]], rounds: int) -> dict[str, np.ndarray]:
  """Seconds of every side in every round, or all the times that a side gives: [rounds, ...] each. All sides take a turn a round, so
  that what else the machine does falls on all; the first round warms up and is left out."""
  seconds = {name: [] for name in sides}
  for turn in range(rounds + 1):
    for name, side in sides.items() if turn % 2 else reversed(sides.items()):
      took = side()
      if turn:
        seconds[name].append(took)
  return {name: np.array(values) for name, values in seconds.items()}
