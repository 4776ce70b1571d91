"""Run stacks: R runs of one shape on a leading axis, trained by one jitted program.

A run is a dict of plain arrays, `{"params", "moments", "step"}`; a stack is the same dict with every leaf stacked to [R, ...]. Stacks
that average have "mean" too: the mean of the parameters after each step since `Schedule.mean_start`, before which it is the parameters.
The seed is a stack of one run, experts are a stack of many that is gathered from it (fork.py). Runs are independent: gradients,
clipping and skipped updates are computed within one run, and the run axis is mapped, never reduced.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from jax.sharding import AbstractMesh, Mesh, PartitionSpec as P

from jaxsplit.data.stream import Windows
from jaxsplit.models.family import ModelConfig, Params
from jaxsplit.models.loss import token_losses
from jaxsplit.parallel import placement, sharding
from jaxsplit.parallel.sharding import Layout, Machine
from jaxsplit.training.optimizer import Optimizer, Schedule, transformation

State = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class StackSpec:
  """The static configuration that a stack's programs are compiled for.

  Attributes:
    model, optimizer, layout: of every run.
    runs: R.
    runs_per_map: runs trained together by vmap on one device group; groups of them follow one another (`lax.map`). 0 is all.
    batch: sequences per run and step.
    end_of_document: the token after which attention restarts.
    weighted: whether windows have a loss weight per target; otherwise all weights are equal.
    accumulation: parts of a batch whose gradients are computed one after another and summed.
    averages: whether the state has the mean of the parameters.
    elsewhere: the machine to lower programs for, if it is not this one.
  """

  model: ModelConfig
  optimizer: Optimizer
  layout: Layout
  runs: int
  runs_per_map: int
  batch: int
  end_of_document: int
  weighted: bool = False
  accumulation: int = 1
  averages: bool = False
  elsewhere: Machine | None = None

  @property
  def transformation(self) -> optax.GradientTransformation:
    """From gradients to unit-rate descent directions."""
    return transformation(self.optimizer, self.model.param_axes)

  @property
  def microbatch(self) -> int:
    """Sequences of one run that are in memory at once."""
    return self.batch // self.accumulation

  @functools.cached_property
  def mesh(self) -> Mesh | AbstractMesh:
    return sharding.make_mesh(self.layout, self.runs, self.microbatch, self.elsewhere)

  @functools.cached_property
  def abstract(self) -> State:
    """Shapes, dtypes and shardings of the stack's state."""
    runs_of = lambda x: jax.ShapeDtypeStruct((self.runs, *x.shape), x.dtype)
    params = jax.tree.map(runs_of, self.model.abstract_params)
    state = jax.eval_shape(jax.vmap(functools.partial(_fresh, self)), params)
    shardings = sharding.stack_shardings(self.mesh, self.layout, self.model, state)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)

  @property
  def shardings(self) -> State:
    return jax.tree.map(lambda x: x.sharding, self.abstract)


def initialize(spec: StackSpec, seeds: Sequence[int]) -> State:
  """A stack of newly initialized runs at step 0, one per random seed, created with its sharding."""
  return _compiled_initialize(spec)(placement.put(np.array(seeds, np.uint32), sharding.replicated(spec.mesh)))


def begin(spec: StackSpec, part: Callable[[str, tuple[slice, ...]], np.ndarray]) -> State:
  """A stack of runs at step 0 that all begin with the same weights, each device's part of them read for it alone.

  Args:
    spec: of the stack.
    part: gives a part of a parameter, by its path, as in "layers.mlp.out_FxD", and a slice for each axis.
  """
  def read(path: str, whole: jax.ShapeDtypeStruct) -> jax.Array:
    def of_device(index):
      one = part(path, index[1:])
      return np.broadcast_to(one, (len(range(*index[0].indices(spec.runs))), *one.shape))

    return jax.make_array_from_callback(whole.shape, whole.sharding, of_device)

  flat = traverse_util.flatten_dict(spec.abstract["params"], sep=".")
  return _compiled_begin(spec)(traverse_util.unflatten_dict({path: read(path, x) for path, x in flat.items()}, sep="."))


@functools.cache
def _compiled_begin(spec: StackSpec):
  return jit(jax.vmap(functools.partial(_fresh, spec)), donate_argnums=0, out_shardings=spec.shardings)


@functools.cache
def _compiled_initialize(spec: StackSpec):
  return jit(functools.partial(_new_stack, spec), out_shardings=spec.shardings)


def train_block(spec: StackSpec):
  """The jitted training program of a stack: `(state, tokens, num_steps, schedule[, weights]) -> (state, metrics)`.

  tokens: int32 [S, R, B, T + 1]; the first `num_steps` <= S of the block are trained on, so that a stage may end at any
  step without compiling another program. schedule: `Schedule` of [R] arrays. weights: float32 [S, R, B, T], the loss weight of each
  target, for `weighted` stacks; the sum over a batch must be positive. metrics: float32 [S, R] each: `loss`
  (nats, the weighted mean over a batch's targets), `gradient_norm` (before clipping), `learning_rate`, `skipped` (1 where the
  loss or gradient was not finite and the update was left out); entries past `num_steps` are zero. The state is donated.
  """
  return _compiled_train_block(spec)


@functools.cache
def _compiled_train_block(spec: StackSpec):
  mapped = jax.shard_map(
      lambda state, windows, num_steps, schedule: map_runs(
          spec, lambda run: _train_run(spec, run[0], run[1], num_steps, run[2]),
          (state, jax.tree.map(lambda of_steps: jnp.swapaxes(of_steps, 0, 1), windows), schedule)),
      mesh=spec.mesh, in_specs=(P("expert"), P(None, "expert"), P(), P("expert")), out_specs=P("expert"),
      axis_names={"expert"}, check_vma=False)

  def block(state, tokens, num_steps, schedule, weights=None):
    state, metrics = mapped(state, Windows(tokens, weights), num_steps, schedule)
    return state, jax.tree.map(lambda m_RxS: m_RxS.T, metrics)

  return jit(block, donate_argnums=0, out_shardings=(spec.shardings, None))


def compile_initialization(spec: StackSpec) -> None:
  """Compiles the initialization of a stack, so that `initialize` need not."""
  seeds = jax.ShapeDtypeStruct((spec.runs,), jnp.uint32, sharding=sharding.replicated(spec.mesh))
  _compiled_initialize(spec).lower(seeds).compile()


def compile_training(spec: StackSpec, block_steps: int) -> None:
  """Compiles the training program for blocks of `block_steps` steps, so that its first call need not."""
  train_block(spec).lower(*_training_arguments(spec, block_steps)).compile()


def lower_training(spec: StackSpec, block_steps: int) -> str:
  """The training program for blocks of `block_steps` steps as StableHLO, lowered for `spec.elsewhere`."""
  lowered = train_block(spec).trace(*_training_arguments(spec, block_steps)).lower(lowering_platforms=(spec.elsewhere.platform,))
  return lowered.as_text()


def _training_arguments(spec: StackSpec, block_steps: int) -> tuple:
  mesh, length = spec.mesh, spec.model.sequence_length
  of_windows = lambda each, dtype: jax.ShapeDtypeStruct(
      (block_steps, spec.runs, spec.batch, each), dtype, sharding=sharding.batch_sharding(mesh))
  per_run = lambda dtype: jax.ShapeDtypeStruct((spec.runs,), dtype, sharding=sharding.run_sharding(mesh))
  schedule = Schedule(per_run(jnp.float32), *[per_run(jnp.int32)] * 5)
  num_steps = jax.ShapeDtypeStruct((), jnp.int32, sharding=sharding.replicated(mesh))
  weights = [of_windows(length, jnp.float32)] if spec.weighted else []
  return spec.abstract, of_windows(length + 1, jnp.int32), num_steps, schedule, *weights


def jit(program, **options):
  """`jax.jit`, on a CPU with LLVM's first level of optimization: programs run as fast and compile in two thirds of the time.

  A level in XLA_FLAGS wins.
  """
  name = "xla_backend_optimization_level"
  chosen = jax.default_backend() != "cpu" or name in os.environ.get("XLA_FLAGS", "")
  return jax.jit(program, compiler_options=None if chosen else {name: 1}, **options)


def map_runs(spec: StackSpec, run, arguments):
  """Maps over this device group's runs: `runs_per_map` at once, group after group."""
  here = spec.runs // spec.mesh.shape["expert"]
  together = spec.runs_per_map or here
  if together >= here:
    return jax.vmap(run)(arguments)
  return jax.lax.map(run, arguments, batch_size=together if together > 1 else None)


def _new_stack(spec: StackSpec, seeds_R: jax.Array) -> State:
  return jax.vmap(lambda seed: _fresh(spec, spec.model.initialize(seed)))(seeds_R)


def _fresh(spec: StackSpec, params: Params) -> State:
  """The state of a run that starts with these parameters."""
  mean = {"mean": params} if spec.averages else {}
  return {"params": params, "moments": spec.transformation.init(params), "step": jnp.zeros((), jnp.int32), **mean}


def _train_run(spec: StackSpec, state: State, windows_SxB: Windows, num_steps: jax.Array, schedule: Schedule):
  """Trains one run on the first `num_steps` batches of a block."""
  steps = windows_SxB.tokens.shape[0]
  metrics = {name: jnp.zeros((steps,), jnp.float32) for name in ("loss", "gradient_norm", "learning_rate", "skipped")}

  def body(i, carry):
    state, metrics = carry
    state, values = _step(spec, state, jax.tree.map(lambda of_steps: of_steps[i], windows_SxB), schedule)
    return state, {name: metrics[name].at[i].set(values[name]) for name in metrics}

  return jax.lax.fori_loop(0, num_steps, body, (state, metrics))


def _step(spec: StackSpec, state: State, windows_B: Windows, schedule: Schedule):
  """One update of one run."""
  value, gradient = _loss_and_gradient(spec, state["params"], windows_B)
  norm = optax.tree.norm(gradient)
  rate = schedule.rate(state["step"])
  direction, moments = spec.transformation.update(gradient, state["moments"], state["params"])
  finite = jnp.isfinite(value) & jnp.isfinite(norm)
  keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)
  params = jax.tree.map(lambda p, d: p - rate * d, state["params"], direction)
  params, step = keep(params, state["params"]), state["step"] + 1
  mean = {"mean": _mean(state["mean"], params, step - schedule.mean_start)} if spec.averages else {}
  state = {"params": params, "moments": keep(moments, state["moments"]), "step": step, **mean}
  return state, {"loss": value, "gradient_norm": norm, "learning_rate": rate, "skipped": 1.0 - finite.astype(jnp.float32)}


def _mean(before: Params, params: Params, count: jax.Array) -> Params:
  """The mean of `count` steps' parameters, of which these are the last; these alone where there are no others."""
  share = 1.0 / jnp.maximum(count, 1).astype(jnp.float32)
  return jax.tree.map(lambda mean, new: jnp.where(count > 1, mean + share * (new - mean), new), before, params)


def _loss_and_gradient(spec: StackSpec, params: Params, windows_B: Windows):
  """A batch's weighted mean loss and its gradient. A target's weight does not depend on the part of the batch that it is in."""
  targets = None if windows_B.weights is None else jnp.sum(windows_B.weights) / spec.accumulation

  @jax.value_and_grad
  def loss_and_gradient(params, windows_M):
    tokens_MxT1, weights_MxT = windows_M
    x_MxTxD, unembed_DxV = spec.model.apply(params, tokens_MxT1[:, :-1], spec.end_of_document)
    losses_MxT = token_losses(x_MxTxD, unembed_DxV, tokens_MxT1[:, 1:])
    return jnp.mean(losses_MxT) if targets is None else jnp.sum(losses_MxT * weights_MxT) / targets

  if spec.accumulation == 1:
    return loss_and_gradient(params, windows_B)
  # Part j takes sequences j, j + A, ...: some of every device's shard of the batch, so that none has to move.
  windows_AxM = jax.tree.map(
      lambda of_B: of_B.reshape(spec.microbatch, spec.accumulation, *of_B.shape[1:]).swapaxes(0, 1), windows_B)
  add = lambda total, windows_M: (jax.tree.map(jnp.add, total, loss_and_gradient(params, windows_M)), None)
  total, _ = jax.lax.scan(add, (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)), windows_AxM)
  return jax.tree.map(lambda x: x / spec.accumulation, total)
