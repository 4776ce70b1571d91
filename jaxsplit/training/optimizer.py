"""Optimizers by name, with per-run clipping, and a learning rate that is a function of an explicit step counter.

The schedule is data: a few numbers per run, compared with the step counter in the run's state. The learning rate does not
depend on a count inside the optimizer's state, so a fork or a resume cannot shift it silently.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from jaxsplit.errors import InputError
from jaxsplit.models.family import Params, is_axes, is_matrix
from jaxsplit.registry import Registry

NEVER = 2**31 - 1  # A step that no run has.
_MOMENTUM = 0.95  # Muon's.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # The coefficients of its iteration.


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """The optimizer, and the trapezoidal schedule (arXiv 2106.04560, 2405.18392).

  Attributes:
    name: adamw (arXiv 1711.05101), muon (arXiv 2502.16982: orthogonal updates of layers' matrices, as large as Adam's; AdamW for
      the rest), or one that an extension adds.
    b1, b2, eps: Adam's constants.
    weight_decay: decoupled decay of matrices, multiplied by the learning rate; norms and other vectors are not decayed.
    clip_norm: bound on the global norm of one run's gradient.
    warmup_tokens: the learning rate rises linearly over this many tokens of a run that starts from fresh moments.
    moments: dtype of the moments between steps. bfloat16 takes 4 bytes per parameter less; its relative precision of 0.4 %
      is too low for averages over more than some hundred steps, so b2 may then be 0.99 at most.
  """

  name: str = "adamw"
  b1: float = 0.9
  b2: float = 0.98
  eps: float = 1e-8
  weight_decay: float = 0.1
  clip_norm: float = 1.0
  warmup_tokens: int = 65_536
  moments: Literal["float32", "bfloat16"] = "float32"

  def __post_init__(self):
    OPTIMIZERS[self.name]  # Raises.
    for name, fits, must in (
        ("b1", 0 <= self.b1 < 1, "from 0 to less than 1"), ("b2", 0 <= self.b2 < 1, "from 0 to less than 1"),
        ("eps", 0 < self.eps < 1, "positive, and small"), ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more"),
        ("clip_norm", self.clip_norm > 0, "positive; a large number clips nothing"),
        ("warmup_tokens", self.warmup_tokens >= 0, "0 or more")):
      if not fits:
        raise InputError(f"Optimizer.{name} = {getattr(self, name)}: must be {must}")
    if self.moments == "bfloat16" and self.b2 > 0.99:
      raise InputError(f"Optimizer.b2 = {self.b2}: Optimizer.moments = 'bfloat16' cannot follow so long an average; use b2 = 0.99 "
                       "at most, or float32")


class Schedule(NamedTuple):
  """The schedule of one run (or, with leading axis R, of each run of a stack). Steps count from the run's start.

  Attributes:
    peak: the constant learning rate, float32.
    warmup_start, warmup_end: linear rise from 0 between these steps.
    decay_start, decay_end: linear fall to 0 between these steps; equal when the run never decays.
    mean_start: weights are averaged from this step on, in stacks that average (`StackSpec.averages`); `NEVER` elsewhere.
  """

  peak: jax.Array
  warmup_start: jax.Array
  warmup_end: jax.Array
  decay_start: jax.Array
  decay_end: jax.Array
  mean_start: jax.Array

  def rate(self, step: jax.Array) -> jax.Array:
    """The learning rate of the update that takes the run from `step` to `step + 1`."""
    rise = (step + 1 - self.warmup_start) / jnp.maximum(self.warmup_end - self.warmup_start, 1)
    fall = (self.decay_end - step) / jnp.maximum(self.decay_end - self.decay_start, 1)
    fall = jnp.where(self.decay_end > self.decay_start, fall, 1.0)
    return self.peak * jnp.clip(rise, 0.0, 1.0) * jnp.clip(fall, 0.0, 1.0)


def transformation(optimizer: Optimizer, axes: Params) -> optax.GradientTransformation:
  """Everything but the learning rate: gradients in, unit-rate descent directions (to subtract) out.

  Args:
    axes: the logical axes of the parameters (`ModelConfig.param_axes`), by which matrices differ from vectors.
  """
  return optax.chain(
      optax.clip_by_global_norm(optimizer.clip_norm),
      _kept_as(jnp.dtype(optimizer.moments), OPTIMIZERS[optimizer.name](optimizer, axes)),
      optax.add_decayed_weights(optimizer.weight_decay, mask=jax.tree.map(is_matrix, axes, is_leaf=is_axes)),
  )


def _kept_as(dtype: jnp.dtype, inner: optax.GradientTransformation) -> optax.GradientTransformation:
  """`inner` with its state's floats rounded to `dtype` between updates, which are computed in float32.

  Optax raises a float to the power of its counter, which JAX's strict promotion would refuse: there it has the standard one.
  """
  cast = lambda state, to: jax.tree.map(lambda x: x.astype(to) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)

  def update(gradient, state, params=None):
    with jax.numpy_dtype_promotion("standard"):
      direction, state = inner.update(gradient, cast(state, jnp.float32), params)
    return direction, cast(state, dtype)

  return optax.GradientTransformation(lambda params: cast(inner.init(params), dtype), update)


def _adam(optimizer: Optimizer, axes: Params) -> optax.GradientTransformation:
  return optax.scale_by_adam(b1=optimizer.b1, b2=optimizer.b2, eps=optimizer.eps)


def _muon(optimizer: Optimizer, axes: Params) -> optax.GradientTransformation:
  """Muon for the matrices of layers, each orthogonalized by itself, and Adam for the rest.

  An orthogonal update is scaled to the size of Adam's usual one, so that one learning rate serves both.
  """
  sides = jax.tree.map(_sides, axes, is_leaf=is_axes)  # Masked nodes elsewhere, as optax.partition has them.
  is_sides = lambda x: isinstance(x, optax.contrib.MuonDimensionNumbers)
  size = lambda x, side: math.prod(x.shape[axis] for axis in side)
  scaled = lambda sides, x: 0.2 * max(size(x, side) for side in sides) ** 0.5 * x
  inner = optax.partition({
      "muon": optax.chain(
          optax.contrib.scale_by_muon(_NEWTON_SCHULZ, beta=_MOMENTUM, weight_dimension_numbers=sides),
          optax.stateless(lambda updates, _: jax.tree.map(scaled, sides, updates, is_leaf=is_sides))),
      "adam": _adam(optimizer, axes),
  }, jax.tree.map(lambda axes: "muon" if is_sides(_sides(axes)) else "adam", axes, is_leaf=is_axes))
  # Optax keeps the iteration's coefficients among the moments. Those may be rounded, and are zero where nothing was trained.
  holding = lambda state, coefficients: optax.tree.set(state, ns_coeffs=jnp.array(coefficients))

  def update(gradient, state, params=None):
    direction, state = inner.update(gradient, holding(state, _NEWTON_SCHULZ), params)
    return direction, holding(state, (0.0,) * 3)

  return optax.GradientTransformation(lambda params: holding(inner.init(params), (0.0,) * 3), update)


def _sides(axes: tuple[str | None, ...]) -> optax.contrib.MuonDimensionNumbers | optax.MaskedNode:
  """Which axes are the two sides of a layer's matrix; the others number matrices. Tables and vectors have none."""
  if not is_matrix(axes) or "layers" not in axes:
    return optax.MaskedNode()
  others = tuple(i for i, axis in enumerate(axes) if axis not in (None, "layers", "embed"))
  return optax.contrib.MuonDimensionNumbers((axes.index("embed"),), others)


# By name: from settings and the parameters' axes to a transformation of gradients into unit-rate descent directions, without
# clipping and decay. Its state's floats are moments: zero before the first step, and kept in the dtype that the settings have.
OPTIMIZERS: Registry[Callable[[Optimizer, Params], optax.GradientTransformation]] = Registry("Optimizer.name")
OPTIMIZERS.add("adamw", _adam)
OPTIMIZERS.add("muon", _muon)
