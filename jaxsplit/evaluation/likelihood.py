"""Log-probabilities of given targets, for all runs of a stack in one program. Every other measure is a sum over them.

Perplexity sums them over held-out text, exact match and multiple choice over an answer, routers over a prompt. What a target
counts in a sum is its weight: 0 for a prompt, for padding, and for windows that only fill up a part. Padding belongs after the
text: no position sees the tokens behind it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxsplit.errors import InputError
from jaxsplit.evaluation.trees import PARTS, TreeRows
from jaxsplit.models import cache as caches
from jaxsplit.models.cache import Tree
from jaxsplit.models.family import Params
from jaxsplit.models.loss import most_likely, scores, token_losses
from jaxsplit.parallel import placement, sharding
from jaxsplit.training import stack
from jaxsplit.training.stack import StackSpec

Measure = Literal["targets", "windows", "greedy", "total"]


def log_probabilities(
    spec: StackSpec, params: Params, tokens: np.ndarray, weights: np.ndarray | None = None,
    measures: Sequence[Measure] = ("targets", "windows")) -> dict[str, np.ndarray]:
  """What every run of a stack gives to the targets `tokens[..., 1:]`.

  A program is compiled for each number of windows, rounded up to whole parts, each length T and each choice of measures.

  Args:
    spec, params: the stack; its parameters have the leading axis R.
    tokens: int [R, V, T + 1], windows of each run's own, or [1, V, T + 1], windows that all runs read. T is at most the model's
      sequence length.
    weights: what each target counts, of any shape that broadcasts to [R or 1, V, T]; None where all count 1.
    measures: which of the values below to return.

  Returns:
    `targets`: float32 [R, V, T], the log-probability of each target in nats, whatever its weight.
    `windows`: float32 [R, V], their weighted sum in each window.
    `greedy`: bool [R, V], whether each target of positive weight is the most likely token: where those close the window, greedy
      decoding finds them all, as it errs first where the most likely token is first wrong.
    `total`: float32 [R], the sum of `windows`.

  Raises:
    InputError: shapes that do not fit, windows longer than the model's, or tokens outside its vocabulary.
  """
  tokens, length = np.asarray(tokens), spec.model.sequence_length
  if tokens.ndim != 3 or tokens.shape[0] not in (1, spec.runs) or not 2 <= tokens.shape[2] <= length + 1 or not tokens.shape[1]:
    raise InputError(f"windows of shape {list(tokens.shape)}: must be [{spec.runs} or 1, 1 or more, 2 to {length + 1}], for "
                     f"{spec.runs} runs of models that read {length} tokens")
  if tokens.min() < 0 or tokens.max() >= spec.model.vocab_size:
    raise InputError(f"tokens from {tokens.min()} to {tokens.max()}: the model's vocabulary is 0 to {spec.model.vocab_size - 1}")
  runs, windows, targets = *tokens.shape[:2], tokens.shape[2] - 1
  weights = np.ones((1, 1, 1), np.float32) if weights is None else np.asarray(weights, np.float32)
  try:
    weights = np.broadcast_to(weights, (runs, windows, targets if weights.shape[-1:] != (1,) else 1))
  except ValueError:
    raise InputError(f"weights of shape {list(weights.shape)}: must broadcast to {[runs, windows, targets]}") from None
  on_mesh = sharding.windows_sharding(spec.mesh, shared=runs != spec.runs)
  fill = [(0, 0), (0, _filled(spec, windows) - windows), (0, 0)]
  program = _program(spec, tuple(measures))
  there = placement.put((np.pad(tokens.astype(np.int32), fill), np.pad(weights, fill)), on_mesh)
  found = placement.fetch(program(params, *there))
  return {name: value[:, :windows] if value.ndim > 1 else value for name, value in found.items()}


def score(spec: StackSpec, params: Params, tokens_VxT: np.ndarray, at_VxP: np.ndarray,
          targets_VxP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """What every run of a stack gives to chosen targets of sequences that all runs read. Logits are computed for these alone.

  Compiled for once a shape; V is as many as the stack's spec has in memory at once (`microbatch`).

  Args:
    spec, params: the stack; its parameters have the leading axis R.
    tokens_VxT: int, sequences; what pads them stands behind.
    at_VxP: int, the positions that foretell the targets, 0 to T - 1; where there are fewer than P, any.
    targets_VxP: int, the targets.

  Returns:
    float32 [R, V, P], log-probabilities in nats, and bool [R, V, P], whether no token is likelier.
  """
  shared = sharding.windows_sharding(spec.mesh, shared=True)
  there = placement.put(tuple(np.asarray(a, np.int32)[None] for a in (tokens_VxT, at_VxP, targets_VxP)), shared)
  return placement.fetch(_scoring(spec)(params, *there))


def score_trees(spec: StackSpec, params: Params, rows: TreeRows) -> tuple[np.ndarray, np.ndarray]:
  """What every run of a stack gives to the targets of spans that share their beginnings.

  Compiled for once a shape; B is as for V of `score`.

  Args:
    spec, params: the stack; its parameters have the leading axis R.
    rows: int arrays.

  Returns:
    float32 [R, G, P], log-probabilities of the targets in nats, and bool [R, G, P], whether no token is likelier.
  """
  arrays = jax.tree.map(lambda a: np.asarray(a, np.int32)[None], rows)
  split, whole = sharding.windows_sharding(spec.mesh, shared=True), sharding.replicated(spec.mesh)
  there = TreeRows(*placement.put(arrays[:-1], split), placement.put(arrays.parts, whole))
  return placement.fetch(_scoring_trees(spec)(params, *there))


@functools.cache
def _scoring(spec: StackSpec):
  """The jitted program of `score`: (params, tokens [1, V, T], at [1, V, P], targets [1, V, P]) -> the two values."""
  def of_run(params, tokens_VxT, at_VxP, targets_VxP):
    x_VxTxD, unembed_DxV = spec.model.apply(params, tokens_VxT, spec.end_of_document)
    x_VxPxD = jnp.take_along_axis(x_VxTxD, at_VxP[..., None], axis=1)
    return scores(x_VxPxD, unembed_DxV.T, targets_VxP)

  return _of_every_run(spec, of_run, 3)


@functools.cache
def _scoring_trees(spec: StackSpec):
  """The jitted program of `score_trees`: (params, *rows) -> the two values."""
  def of_run(params, *rows):
    rows = TreeRows(*rows)
    cache = caches.for_tree(spec.model, Tree(rows.depth_BxT, rows.first_BxT, rows.end_BxT))
    x_BxTxD, unembed_DxV, _ = spec.model.extend(params, rows.tokens_BxT, spec.end_of_document, cache)
    size, unembed_VxD = rows.at_GxP.shape[1] // PARTS, unembed_DxV.T
    x_GxPxD = x_BxTxD.reshape(*rows.at_GxP.shape, -1)

    def part(i, found):
      own = lambda a_GxP: jax.lax.dynamic_slice_in_dim(a_GxP, i * size, size, axis=1)
      x_GxpxD = jnp.take_along_axis(x_GxPxD, own(rows.at_GxP)[..., None], axis=1)
      measured = scores(x_GxpxD, unembed_VxD, own(rows.targets_GxP))
      return tuple(jax.lax.dynamic_update_slice_in_dim(all_GxP, one_Gxp, i * size, axis=1) for all_GxP, one_Gxp in zip(found, measured))

    nothing = jnp.zeros(rows.at_GxP.shape, jnp.float32), jnp.zeros(rows.at_GxP.shape, bool)
    return jax.lax.fori_loop(0, rows.parts, part, nothing)

  return _of_every_run(spec, of_run, len(TreeRows._fields))


def _of_every_run(spec: StackSpec, of_run, arguments: int):
  """`of_run(params, *arguments)` jitted for all runs, of arguments [1, ...] that all share."""
  def program(params, *shared):
    return jax.shard_map(
        lambda params, *own: stack.map_runs(spec, lambda run: of_run(run, *own), params), mesh=spec.mesh,
        in_specs=(P("expert"), *[P()] * arguments), out_specs=P("expert"), axis_names={"expert"}, check_vma=False)(
            params, *(one_1x[0] for one_1x in shared))

  return stack.jit(program)


def compile_log_probabilities(spec: StackSpec, windows: int, measures: Sequence[Measure]) -> None:
  """Compiles the program for `windows` windows of each run's own, of the model's length, with weights as the stack has them."""
  _program(spec, tuple(measures)).lower(*_arguments(spec, windows)).compile()


def _arguments(spec: StackSpec, windows: int) -> tuple:
  length, filled = spec.model.sequence_length, _filled(spec, windows)
  of_windows = lambda each, dtype: jax.ShapeDtypeStruct(
      (spec.runs, filled, each), dtype, sharding=sharding.windows_sharding(spec.mesh))
  return (spec.abstract["params"], of_windows(length + 1, jnp.int32), of_windows(length if spec.weighted else 1, jnp.float32))


def _filled(spec: StackSpec, windows: int) -> int:
  """The windows that the program takes for so many: as many as fill whole parts of a training batch."""
  return -(-windows // spec.microbatch) * spec.microbatch


@functools.cache
def _program(spec: StackSpec, measures: tuple[Measure, ...]):
  """The jitted program (params, tokens int32 [R or 1, V, T + 1], weights float32 [R or 1, V, T or 1]) -> {measure: value}."""
  def program(params, tokens_RxVxT1, weights_RxVxT):
    shared = tokens_RxVxT1.shape[0] != spec.runs
    windows = (tokens_RxVxT1[0], weights_RxVxT[0]) if shared else (tokens_RxVxT1, weights_RxVxT)

    def of_group(params, windows):
      if shared:
        return stack.map_runs(spec, lambda params: _of_run(spec, measures, params, *windows), params)
      return stack.map_runs(spec, lambda run: _of_run(spec, measures, run[0], *run[1]), (params, windows))

    return jax.shard_map(
        of_group, mesh=spec.mesh, in_specs=(P("expert"), P() if shared else P("expert")), out_specs=P("expert"),
        axis_names={"expert"}, check_vma=False)(params, windows)

  return stack.jit(program)


def _of_run(spec: StackSpec, measures: tuple[Measure, ...], params: Params, tokens_VxT1: jax.Array,
            weights_VxT: jax.Array) -> dict[str, jax.Array]:
  """The measures of one run, whose windows are taken a training batch's part at a time to bound memory."""
  # Part j takes windows j, j + A, ...: some of every device's share of the windows, so that none has to move.
  in_parts = lambda a_Vx: a_Vx.reshape(spec.microbatch, -1, *a_Vx.shape[1:]).swapaxes(0, 1)
  joined = lambda a_AxBx: a_AxBx.swapaxes(0, 1).reshape(-1, *a_AxBx.shape[2:])

  def of_part(part):
    tokens_BxT1, weights_BxT = part
    x_BxTxD, unembed_DxV = spec.model.apply(params, tokens_BxT1[:, :-1], spec.end_of_document)
    targets_BxT = tokens_BxT1[:, 1:]
    log_probs_BxT = -token_losses(x_BxTxD, unembed_DxV, targets_BxT)
    measured = {
        "targets": lambda: log_probs_BxT,
        "windows": lambda: jnp.sum(log_probs_BxT * weights_BxT, axis=1),
        "greedy": lambda: jnp.all(most_likely(x_BxTxD, unembed_DxV, targets_BxT) | (weights_BxT <= 0), axis=1),
        "total": lambda: jnp.sum(log_probs_BxT * weights_BxT)}
    return {name: measured[name]() for name in measures}

  found = jax.lax.map(of_part, (in_parts(tokens_VxT1), in_parts(weights_VxT)))
  return {name: jnp.sum(value) if name == "total" else joined(value) for name, value in found.items()}
