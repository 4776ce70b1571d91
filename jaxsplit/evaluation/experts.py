"""Models of one shape side by side, as a stack: what each of them gives to spans of text, all of them in one program.

Spans of any lengths are sorted into batches of a few fixed shapes, so that a handful of programs serves any text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.evaluation.countdown import Advance, ignore
from jaxsplit.evaluation.likelihood import score
from jaxsplit.parallel.sharding import Layout, make_mesh, padded_runs
from jaxsplit.training.optimizer import Optimizer
from jaxsplit.training.stack import StackSpec
from jaxsplit.training.trained import TrainedModels

_SHORTEST = 16  # Lengths that batches have: this, half as much more, twice as much, and so on.
_FEWEST = 2  # Targets that the sequences of a batch have room for: this, four times as many, and so on.


class Span(NamedTuple):
  """A stretch of text. `tokens`, int [n]; those from number `first` (1 or more) on are targets, the others their context."""

  tokens: np.ndarray
  first: int = 1


@dataclasses.dataclass(frozen=True)
class Scores:
  """What R models give to the targets of spans.

  Attributes:
    log_probs: float32 [R, N], of every target of every span, in their order, in nats.
    greedy: bool [R, N], whether no token is likelier than the target.
    counts: int [S], targets of each span.
  """

  log_probs: np.ndarray
  greedy: np.ndarray
  counts: np.ndarray

  @property
  def sums(self) -> np.ndarray:
    """The log-likelihood of each span's targets together, float64 [R, S]."""
    return np.add.reduceat(self.log_probs, self._starts, axis=1, dtype=np.float64)

  @property
  def all_greedy(self) -> np.ndarray:
    """Whether greedy decoding would give just the span's targets, bool [R, S]."""
    return np.logical_and.reduceat(self.greedy, self._starts, axis=1)

  def joined(self, spans: Sequence[int]) -> Scores:
    """The same where so many consecutive spans each, `spans`, are one."""
    return Scores(self.log_probs, self.greedy, np.add.reduceat(self.counts, np.cumsum(spans) - spans))

  @property
  def _starts(self) -> np.ndarray:
    return np.cumsum(self.counts) - self.counts


class Experts:
  """Models of one shape, on the devices.

  Attributes:
    models: what they are.
    context: T, the tokens that they read at most.
  """

  def __init__(self, models: TrainedModels, batch_tokens: int = 0, context: int | None = None):
    """Places the models.

    Args:
      models: the models, in the order of the rows of all that is measured.
      batch_tokens: tokens of a batch, padding included; 0: 2,048 on a CPU, 32,768 elsewhere.
      context: a shorter T than the models have.

    Raises:
      InputError: a context that the models do not have.
    """
    own = models.config.sequence_length
    if context is not None and not 2 <= context <= own:
      raise InputError(f"a context of {context} tokens: these models read 2 to {own}")
    self.models, self.context = models, context or own
    self._batch_tokens = batch_tokens or (2048 if jax.default_backend() == "cpu" else 32_768)
    runs = len(models.names)
    rows = padded_runs(Layout(), runs)
    groups = make_mesh(Layout(), rows, 1).shape["expert"]
    self._data = max(jax.device_count() // groups, 1)  # Devices that the models leave share a batch.
    self._layout, self._rows = Layout(expert=groups, data=self._data, devices=groups * self._data), rows
    params = jax.tree.map(lambda x_Rx: np.concatenate([x_Rx, *[x_Rx[:1]] * (rows - runs)]), models.params)
    self._params = jax.device_put(params, self._spec(self.context, self._data).shardings["params"])

  def score(self, spans: Sequence[Span], advance: Advance = ignore) -> Scores:
    """What every model gives to the targets of spans.

    Args:
      spans: of at most T + 1 tokens each.
      advance: told after each batch how many tokens are read, and of how many.

    Raises:
      InputError: no spans, or one without a target or longer than the models read.
    """
    inputs, targets = (np.array(x, np.int64) for x in zip(*((len(s.tokens) - 1, len(s.tokens) - s.first) for s in spans))) if spans else (
        np.zeros(0), np.zeros(0))
    if not len(inputs) or inputs.max() > self.context or targets.min() < 1 or min(s.first for s in spans) < 1:
      raise InputError(f"{len(spans)} spans: each needs a target behind its first token, and at most {self.context + 1} tokens")
    starts, runs = np.cumsum(targets) - targets, len(self.models.names)
    log_probs, greedy = np.empty((runs, targets.sum()), np.float32), np.empty((runs, targets.sum()), bool)
    done = 0
    for rows, length, room, size in self._batches(inputs, targets):
      found = score(self._spec(length, size), self._params, *_filled([spans[i] for i in rows], length, room, size))
      for place, i in enumerate(rows):
        into = slice(starts[i], starts[i] + targets[i])
        log_probs[:, into], greedy[:, into] = (value_RxVxP[:runs, place, :targets[i]] for value_RxVxP in found)
      done += int(inputs[rows].sum())
      advance(done, int(inputs.sum()))
    return Scores(log_probs, greedy, targets)

  def _spec(self, length: int, batch: int) -> StackSpec:
    """What is compiled for sequences of `length` tokens. Kernels suit the models' own length alone, some of them."""
    config = self.models.config
    attention = config.attention if length == config.sequence_length else "dense"
    config = dataclasses.replace(config, attention=attention, remat="none")
    return StackSpec(config, Optimizer(), self._layout, self._rows, 1, batch, self.models.tokenizer.end_of_document)

  def _batches(self, inputs: np.ndarray, targets: np.ndarray) -> Iterator[tuple[np.ndarray, int, int, int]]:
    """Batches: the spans in each, and its shape: sequences' length T, room for targets P, sequences V.

    What is left when the spans of one length have filled whole batches is padded to the next length, or, where that is less,
    filled up to a batch.
    """
    lengths = _ladder(_SHORTEST, (1.5, 4 / 3), self.context)
    rooms = _ladder(_FEWEST, (4,), self.context)
    length_of = np.searchsorted(lengths, inputs)
    waiting = np.zeros(0, np.int64)
    for number, length in enumerate(lengths):
      waiting = np.concatenate([waiting, np.flatnonzero(length_of == number)])
      waiting = waiting[np.argsort(targets[waiting], kind="stable")]
      size = self._size(length)
      left, last = len(waiting) % size, number == length_of.max()
      if not last and (left == len(waiting) or left * (lengths[number + 1] - length) <= (size - left) * length):
        now, waiting = waiting[:len(waiting) - left], waiting[len(waiting) - left:]
      else:
        now, waiting = waiting, waiting[:0]
      for at in range(0, len(now), size):
        rows = now[at:at + size]
        # A batch that is the only one of its shape need not be a full one.
        fewest = size if len(now) > size else min(size, self._data * _power(-(-len(rows) // self._data)))
        yield rows, length, min(length, rooms[np.searchsorted(rooms, targets[rows].max())]), fewest
      if last:
        return

  def _size(self, length: int) -> int:
    """Sequences of a batch: as many as its tokens allow, a power of two for each device that shares it."""
    each = max(self._batch_tokens // (length * self._data), 1)
    return self._data * (1 << (each.bit_length() - 1))


def _ladder(first: int, factors: Sequence[float], last: int) -> list[int]:
  """Whole numbers from `first` to `last`, each as many times the one before as the factors say in turn."""
  steps = [first]
  while steps[-1] < last:
    steps.append(round(steps[-1] * factors[(len(steps) - 1) % len(factors)]))
  return [*(step for step in steps if step < last), last]


def _power(least: int) -> int:
  """The least power of two that is `least` or more."""
  return 1 << (least - 1).bit_length()


def _filled(spans: Sequence[Span], length: int, room: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """A batch: tokens [V, T], positions that foretell targets [V, P], and targets [V, P]; what fills it up is zeros."""
  tokens, at, targets = np.zeros((size, length), np.int32), np.zeros((size, room), np.int32), np.zeros((size, room), np.int32)
  for row, (ids, first) in enumerate(spans):
    count = len(ids) - first
    tokens[row, :len(ids) - 1], targets[row, :count] = ids[:-1], ids[first:]
    at[row, :count] = np.arange(first - 1, len(ids) - 1)
  return tokens, at, targets
