"""Matrix products of activations and weights, and splitting of their outputs, with memory-saving backward passes."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def project(x: jax.Array, weights: jax.Array, axes: int = 1, dtype: DTypeLike | None = None) -> jax.Array:
  """Contracts the last `axes` axes of x with the first of the weights: [..., I], [I, O] -> [..., O].

  The result has x's dtype, or `dtype`, in which it is then summed up as well.
  """
  return _project_forward(x, weights, axes, dtype)[0]


def _project_forward(x, weights, axes, dtype):
  # Not by `project`, inside of which jax.checkpoint would not see the product that its policy may save.
  return _contract(x, weights, range(x.ndim - axes, x.ndim), range(axes), dtype or x.dtype), (x, weights)


def _project_backward(axes, _, kept, dy):
  x, weights = kept
  rows = x.ndim - axes
  dx = _contract(dy, weights, range(rows, dy.ndim), range(axes, weights.ndim), x.dtype)
  on = {"default": _weight_gradient, "cpu": _weight_gradient_on_cpu}
  return dx, jax.lax.platform_dependent(
      x, dy, **{platform: functools.partial(gradient, rows, weights.dtype) for platform, gradient in on.items()})


project.defvjp(_project_forward, _project_backward)


def _weight_gradient(rows: int, dtype: DTypeLike, x: jax.Array, dy: jax.Array) -> jax.Array:
  return _contract(x, dy, range(rows), range(rows), dtype)


def _weight_gradient_on_cpu(rows: int, dtype: DTypeLike, x: jax.Array, dy: jax.Array) -> jax.Array:
  """The same, for kernels that want their first factor transposed: x or dy, whichever is narrower, is, and nothing else with it.

  Left alone, XLA transposes what it likes, and computes it anew while it does, in an order that suits no cache.
  """
  shape = x.shape[rows:] + dy.shape[rows:]
  x_NxI, dy_NxO = x.reshape(-1, math.prod(x.shape[rows:])), dy.reshape(-1, math.prod(dy.shape[rows:]))
  alone = jax.lax.optimization_barrier
  if x_NxI.shape[1] <= dy_NxO.shape[1]:
    return _contract(alone(alone(x_NxI).T), dy_NxO, (1,), (0,), dtype).reshape(shape)
  return alone(_contract(alone(alone(dy_NxO).T), x_NxI, (1,), (0,), dtype)).T.reshape(shape)


def _contract(a: jax.Array, b: jax.Array, axes_a: Sequence[int], axes_b: Sequence[int], dtype: DTypeLike) -> jax.Array:
  return jax.lax.dot_general(a, b, ((tuple(axes_a), tuple(axes_b)), ((), ())), preferred_element_type=dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def split_last(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
  """x without its last slice along an axis, and that slice. The derivative joins the two, instead of adding them padded."""
  first, last = jnp.split(x, [x.shape[axis] - 1], axis)
  return first, jnp.squeeze(last, axis)


split_last.defvjp(
    lambda x, axis: (split_last(x, axis), None),
    lambda axis, _, d: (jnp.concatenate([d[0], jnp.expand_dims(d[1], axis)], axis),))
