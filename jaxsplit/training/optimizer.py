"""AdamW with per-run clipping, and a learning rate read off an explicit step counter.

The schedule is data, not code: a row of numbers per run, compared with the step counter that is kept in the run's state. No
count inside the optimizer's state decides a learning rate, so a fork or a resume cannot shift one silently.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsplit.errors import InputError


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """AdamW (arXiv 1711.05101) and the trapezoidal schedule (arXiv 2106.04560, 2405.18392).

  Attributes:
    b1, b2, eps: Adam's constants.
    weight_decay: decoupled decay of matrices, multiplied by the learning rate; norms and other vectors are left alone.
    clip_norm: bound on the global norm of one run's gradient.
    warmup_tokens: the learning rate rises linearly over this many tokens of a run that starts from fresh moments.
    moments: dtype that Adam's moments are kept in between steps. bfloat16 takes 4 bytes a parameter less; its steps of 0.4 %
      stall an average longer than some hundred steps, so b2 may then be 0.99 at most.
  """

  b1: float = 0.9
  b2: float = 0.98
  eps: float = 1e-8
  weight_decay: float = 0.1
  clip_norm: float = 1.0
  warmup_tokens: int = 65_536
  moments: Literal["float32", "bfloat16"] = "float32"

  def __post_init__(self):
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
  """When one run (or, with leading axis R, each run of a stack) learns how fast. Steps count from the run's birth.

  Attributes:
    peak: the constant learning rate, float32.
    warmup_start, warmup_end: linear rise from 0 between these steps.
    decay_start, decay_end: linear fall to 0 between these steps; equal when the run never decays.
  """

  peak: jax.Array
  warmup_start: jax.Array
  warmup_end: jax.Array
  decay_start: jax.Array
  decay_end: jax.Array

  def rate(self, step: jax.Array) -> jax.Array:
    """The learning rate of the update that takes the run from `step` to `step + 1`."""
    rise = (step + 1 - self.warmup_start) / jnp.maximum(self.warmup_end - self.warmup_start, 1)
    fall = (self.decay_end - step) / jnp.maximum(self.decay_end - self.decay_start, 1)
    fall = jnp.where(self.decay_end > self.decay_start, fall, 1.0)
    return self.peak * jnp.clip(rise, 0.0, 1.0) * jnp.clip(fall, 0.0, 1.0)


def transformation(optimizer: Optimizer) -> optax.GradientTransformation:
  """Everything of AdamW but the learning rate: clipped gradients in, unit-rate descent directions (to subtract) out."""
  return optax.chain(
      optax.clip_by_global_norm(optimizer.clip_norm),
      _kept_as(jnp.dtype(optimizer.moments), optax.scale_by_adam(b1=optimizer.b1, b2=optimizer.b2, eps=optimizer.eps)),
      optax.add_decayed_weights(optimizer.weight_decay, mask=_decays),
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


def _decays(params):
  """Matrices decay. A norm's scale does not, also where layers are stacked on a leading axis."""
  return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key != "scale", params)
