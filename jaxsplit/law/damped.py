"""Damped least squares of whitened residuals and of priors, which are more residuals: from many starts, and for many draws, at once.

minimise  |R (ln f(theta) - y)|^2 + |(theta - c) / w|^2

R whitens the residuals of the n points, y are ln L, c and w are the means and standard deviations of normal priors on the q
constants. The whole solve is one program in double precision: Levenberg's damping, in units of the priors' widths, of all problems
of a batch side by side (Levenberg 1944; Marquardt 1963). A batch always has the same shape, so that starts, refits without some
cells, draws and domains share one compilation a form and number of points.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplit.law.points import float64
from jaxsplit.law.problem import Counts, Layout, Model

ROOTS, EACH = 8, 32  # Of a batch: whitening matrices, and problems with each.
_POINTS = 16  # Numbers of points are rounded up to a multiple of this.
_STEPS = 80
_CLOSE = 1e-6  # Widths of priors: a step below this ends the search, ...
_STUCK = 1e9  # ... and so does a damping above this.


class Points(NamedTuple):
  """Where a form is evaluated: the points in table units, padded, and how many they are."""

  x: Counts
  count: int


def place(layout: Layout, params: np.ndarray, seed: np.ndarray, expert: np.ndarray) -> Points:
  """N, D and D' [n] each, of the law's first domain, for `minimise`."""
  count = len(params)
  padded = [np.append(v, np.full(-count % _POINTS, v[-1])) for v in (params, seed, expert)]
  facts = layout.unique_tokens[0], layout.shares[0], layout.rest_tokens[0]
  x = layout.points(*padded, *(np.full(len(padded[0]), fact) for fact in facts))
  return Points(x._replace(unique=None, mixed=None, rest=None), count)


def minimise(model: Model, points: Points, root: np.ndarray, target: np.ndarray, centre: np.ndarray, width: np.ndarray,
             low: np.ndarray, high: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The optima of a batch, theta [B, q], and their sums of squares [B].

  Args:
    model: the form in log space.
    points: where it was measured.
    root: [n, n] or [ROOTS, n, n], then of each EACH problems in turn; rows of zeros leave points out.
    target: [n] or [B, n] with B at most ROOTS * EACH; ln L.
    centre, start: [q] or [B, q].
    width, low, high: [q].
  """
  most = ROOTS * EACH
  count = max([len(a) for a in (target, centre, start) if a.ndim == 2], default=1)
  full = lambda a: np.broadcast_to(a, (count, a.shape[-1])) if a.ndim == 1 else a
  batch = lambda a: np.resize(full(a), (most, a.shape[-1])).reshape(ROOTS, EACH, -1)
  more = len(points.x.params) - points.count
  root = np.pad(np.broadcast_to(root, (ROOTS, *root.shape[-2:])), ((0, 0), (0, more), (0, more)))
  target = np.pad(batch(target), ((0, 0), (0, 0), (0, more)))
  with float64():
    theta, value = _solve(model, points.x, root, target, batch(centre), width, low, high, batch(start))
  return np.asarray(theta).reshape(most, -1)[:count], np.asarray(value).reshape(most)[:count]


@functools.partial(jax.jit, static_argnames="model")
def _solve(model: Model, x: Counts, root: Any, target: Any, centre: Any, width: Any, low: Any, high: Any, start: Any) -> Any:
  """root [m, n, n], target [m, s, n], centre and start [m, s, q] -> theta [m, s, q] and sums of squares [m, s]."""
  # In widths of the priors, so that every constant is of order one and the priors' own slopes are the unit matrix.
  least, most, unit = (low - centre) / width, (high - centre) / width, jnp.eye(len(width))

  def at(u):
    theta = centre + u * width
    constants = [jnp.broadcast_to(theta[..., i, None], target.shape) for i in range(len(width))]
    # Points are independent, so one pullback of ones holds every slope.
    predicted, pullback = jax.vjp(lambda *constants: model(constants, x), *constants)
    slopes = jnp.stack(pullback(jnp.ones_like(predicted)), -1) * width
    r, slopes = jnp.einsum("mij,msj->msi", root, predicted - target), jnp.einsum("mij,msjq->msiq", root, slopes)
    value, slope = (r**2).sum(-1) + (u**2).sum(-1), jnp.einsum("msiq,msi->msq", slopes, r) + u
    curvature = jnp.einsum("msip,msiq->mspq", slopes, slopes) + unit
    whole = jnp.isfinite(value) & jnp.isfinite(curvature).all((-2, -1))
    return jnp.where(whole, value, jnp.inf), slope, curvature

  def step(state):
    u, value, slope, curvature, damping, count, done = state
    held = (u <= least) & (slope > 0) | (u >= most) & (slope < 0)
    system = jnp.where(held[..., None] | held[..., None, :], 0, curvature) + (damping[..., None] + held)[..., None] * unit
    move = jnp.linalg.solve(system, jnp.where(held, 0, slope)[..., None])[..., 0]
    move = jnp.where(done[..., None], 0, jnp.clip(u - move, least, most) - u)
    there = at(u + move)
    better = there[0] < value
    pick = lambda new, old: jnp.where(better.reshape(better.shape + (1,) * (new.ndim - 2)), new, old)
    kept = jax.tree.map(pick, (u + move, *there), (u, value, slope, curvature))
    # A short step ends the search where it is short by itself, not for its damping.
    done = done | (jnp.abs(move).max(-1) < _CLOSE) & (damping < 1e-2) | (damping > _STUCK)
    return *kept, jnp.where(better, damping / 6, damping * 4), count + 1, done

  first = jnp.clip((start - centre) / width, least, most)
  fresh = jnp.full(first.shape[:2], 1e-2), 0, jnp.zeros(first.shape[:2], bool)
  u, value, *_ = jax.lax.while_loop(lambda state: ~state[-1].all() & (state[-2] < _STEPS), step, (first, *at(first), *fresh))
  return centre + u * width, value
