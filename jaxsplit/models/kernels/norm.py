"""Root-mean-square normalization, whose backward pass needs little more than the input."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def rms_norm(x: jax.Array, scale: jax.Array, epsilon: float = 1e-6) -> jax.Array:
  """x / rms(x) * scale over the last axis, computed in float32, in x's dtype (arXiv 1910.07467).

  `scale` has the last axes of x; `epsilon` is added to the mean square. The derivative is written out: of activations it keeps x alone,
  and one number a row.
  """
  return _forward(x, scale, epsilon)[0]


def _forward(x, scale, epsilon):
  x32, across = x.astype(jnp.float32), _across(scale, x)
  inverse = _by_itself(jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + epsilon))
  return (x32 * inverse * across).astype(x.dtype), (x, inverse, scale)


def _backward(epsilon, kept, dy):
  x, inverse, scale = kept
  unit, dy32, across = x.astype(jnp.float32) * inverse, dy.astype(jnp.float32), _across(scale, x)
  along = _by_itself(jnp.mean(dy32 * across * unit, axis=-1, keepdims=True))
  dx = inverse * (dy32 * across - unit * along)
  return dx.astype(x.dtype), jnp.sum(dy32 * unit, axis=tuple(range(x.ndim - scale.ndim)))


rms_norm.defvjp(_forward, _backward)


def _across(scale: jax.Array, x: jax.Array) -> jax.Array:
  """`scale` with x's number of axes."""
  return jnp.expand_dims(scale, range(x.ndim - scale.ndim))


def _by_itself(row: jax.Array) -> jax.Array:
  """A number a row, before anything follows from it. XLA's kernel for sums on a CPU would take in all of that, element by element,
  at half the speed of a loop of its own."""
  return jax.lax.platform_dependent(row, cpu=jax.lax.optimization_barrier, default=lambda row: row)
