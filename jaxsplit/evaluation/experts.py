"""Models of one shape side by side, as a stack: what each of them gives to spans of text, all of them in one program."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.evaluation.batching import Span, batches
from jaxsplit.evaluation.countdown import Advance, ignore
from jaxsplit.evaluation.likelihood import score, score_trees
from jaxsplit.evaluation.trees import tree_batches, trees_of
from jaxsplit.models.kernels import blocks
from jaxsplit.parallel.sharding import Layout, make_mesh, padded_runs
from jaxsplit.training.optimizer import Optimizer
from jaxsplit.training.stack import StackSpec
from jaxsplit.training.trained import TrainedModels


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
      batch_tokens: tokens of a batch, padding included; 0: 32,768, on a CPU 1,024 for each device that shares a batch.
      context: a shorter T than the models have.

    Raises:
      InputError: a context that the models do not have.
    """
    own = models.config.sequence_length
    if context is not None and not 2 <= context <= own:
      raise InputError(f"a context of {context} tokens: these models read 2 to {own}")
    self.models, self.context = models, context or own
    runs = len(models.names)
    rows = padded_runs(Layout(), runs)
    groups = make_mesh(Layout(), rows, 1).shape["expert"]
    self._data = max(jax.device_count() // groups, 1)  # Devices that the models leave share a batch.
    self._batch_tokens = batch_tokens or (1024 * self._data if jax.default_backend() == "cpu" else 32_768)
    self._layout, self._rows = Layout(expert=groups, data=self._data, devices=groups * self._data), rows
    params = jax.tree.map(lambda x_Rx: np.concatenate([x_Rx, *[x_Rx[:1]] * (rows - runs)]), models.params)
    self._params = jax.device_put(params, self._spec(self.context, self._data).shardings["params"])

  def score(self, spans: Sequence[Span], advance: Advance = ignore, as_trees: bool = False) -> Scores:
    """What every model gives to the targets of spans.

    Args:
      spans: of at most T + 1 tokens each.
      advance: told after each batch how many tokens are read, and of how many.
      as_trees: whether what spans have in common at their beginnings is read once, as worthwhile for the answers of questions;
        otherwise, or if the models' family has no `extend`, each is read by itself.

    Raises:
      InputError: no spans, or one without a target or longer than the models read.
    """
    inputs, counts = np.array([len(span.tokens) - 1 for span in spans]), np.array([span.targets for span in spans])
    if not len(spans) or inputs.max() > self.context or counts.min() < 1 or min(span.first for span in spans) < 1:
      raise InputError(f"{len(spans)} spans: each needs a target behind its first token, and at most {self.context + 1} tokens")
    runs, starts, done = len(self.models.names), np.cumsum(counts) - counts, 0
    log_probs, greedy = np.empty((runs, counts.sum()), np.float32), np.empty((runs, counts.sum()), bool)

    def keep(found: tuple[np.ndarray, np.ndarray], span: int, row: int, first: int) -> None:
      """Takes a span's values out of a row of a batch's, [R, rows, targets], from number `first` on."""
      into, of = slice(starts[span], starts[span] + counts[span]), slice(first, first + counts[span])
      log_probs[:, into], greedy[:, into] = (value[:runs, row, of] for value in found)

    def told(read: Sequence[int]) -> None:
      nonlocal done
      done += int(inputs[list(read)].sum())
      advance(done, int(inputs.sum()))

    if as_trees and self.models.config.reads_on:
      width = None if blocks.suits() else self.models.config.width
      for of in tree_batches(trees_of(spans, self._restart), self._batch_tokens, self._data, width):
        found = score_trees(self._spec(*of.rows.tokens_BxT.shape[::-1]), self._params, of.rows)
        for span, device, first in of.places:
          keep(found, span, device, first)
        told([span for span, _, _ in of.places])
    else:
      for one in batches(spans, self.context, self._batch_tokens, self._data):
        found = score(self._spec(one.tokens_VxT.shape[1], len(one.tokens_VxT)), self._params, one.tokens_VxT, one.at_VxP, one.targets_VxP)
        for row, span in enumerate(one.spans):
          keep(found, span, row, 0)
        told(one.spans)
    return Scores(log_probs, greedy, counts)

  @property
  def _restart(self) -> int | None:
    """The token behind which attention begins anew; None where it does not."""
    return self.models.tokenizer.end_of_document if self.models.config.document_masking else None

  def _spec(self, length: int, batch: int) -> StackSpec:
    """What is compiled for sequences of `length` tokens. Kernels suit the models' own length alone, some of them."""
    config = self.models.config
    attention = config.attention if length == config.sequence_length else "dense"
    config = dataclasses.replace(config, attention=attention, remat="none")
    return StackSpec(config, Optimizer(), self._layout, self._rows, 1, batch, self.models.tokenizer.end_of_document)
