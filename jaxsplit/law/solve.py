"""The minimiser behind every fit: many starts, or many bootstrap refits, of one objective in one compiled loop.

minimise  F(theta) = sum_i w_i rho(r_i(theta)),   rho(r) = r^2/2 for |r| <= delta, delta (|r| - delta/2) beyond (Huber 1964),

inside bounds. A large delta is least squares; a tiny one is L1 (as rho/delta). Two ideas make it both quick and exact:

- Far away, Levenberg-Marquardt on iteratively reweighted least squares, with delta falling from the residuals' own size
  to its goal, so that early steps see a smooth bowl. The damping is a multiple of the identity: theta is scaled so that
  every constant is of order one, and Marquardt's scaling strands starts in flat valleys.
- Near the optimum most residuals lie beyond delta, where reweighting crawls. There the true Hessian of F, second
  derivatives of the model included, converges quadratically to an optimum of F itself and not of a surrogate.

With K domains, theta [P] holds shared constants and one block a domain. Domain k reads theta[index[k]] ([q], q << P), so
derivatives are taken with q constants and only their [q, q] products are added into the [P, P] system.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_REWEIGHTED_STEPS = 12  # Enough to come near from any start that will come near at all; measured on the tables of docs/law.md.
_MAX_STEPS = 150
_BATCH = 64  # Starts that share one loop: 64 x 240 doubles stay in a core's cache.


class Problem(NamedTuple):
  """What is fitted, apart from weights and targets.

  Attributes:
    cells: pytree of [K, M] arrays that the model reads.
    index: [K, q] positions in theta of each domain's constants.
    low, high: [P] bounds.
      linear: [P] which constants the model is linear in, before any logarithm.
    delta: where the Huber objective turns from square to linear.
  """

  cells: Any
  index: np.ndarray
  low: np.ndarray
  high: np.ndarray
  linear: np.ndarray
  delta: float


class Solution(NamedTuple):
  """Per start: theta [S, P], objective [S], gradient [S] (its largest free component, relative to the objective's scale)."""

  theta: np.ndarray
  objective: np.ndarray
  gradient: np.ndarray


class _State(NamedTuple):
  theta: Any
  damping: Any
  delta: Any
  done: Any


def solve(model: Callable[[Any, Any], Any], problem: Problem, theta: np.ndarray, target: np.ndarray,
          weight: np.ndarray) -> Solution:
  """Minimises from every row of `theta`.

  Args:
    model: (theta [q], one domain's cells) -> [M] predictions in the target's space. Hashable: one compilation each.
    problem: the cells and bounds.
    theta: [S, P] starts.
    target: [K, M], or [S, K, M] where each start has its own.
    weight: [K, M] or [S, K, M]; zero leaves a point out.
  """
  starts = len(theta)
  # Always whole batches: one compiled shape serves starts, hold-outs and bootstrap alike.
  rows = -(-starts // _BATCH) * _BATCH
  order = np.arange(rows) % starts
  pick = lambda a, i: a if a.ndim == 2 else a[i]
  parts = []
  with jax.enable_x64(True):
    problem = jax.tree.map(jnp.asarray, problem)
    for first in range(0, rows, _BATCH):
      i = order[first:first + _BATCH]
      shape = (_BATCH, *target.shape[-2:])
      parts.append(_solve_batch(model, problem, jnp.asarray(theta[i]), jnp.asarray(np.broadcast_to(pick(target, i), shape)),
                                jnp.asarray(np.broadcast_to(pick(weight, i), shape))))
    return Solution(*(np.concatenate([np.asarray(p) for p in part])[:starts] for part in zip(*parts)))


def sensitivities(model: Callable[[Any, Any], Any], problem: Problem, theta: np.ndarray) -> np.ndarray:
  """[K, M, P] derivatives of the predictions with respect to theta [P]."""
  with jax.enable_x64(True):
    index = jnp.asarray(problem.index)
    local = jax.vmap(jax.jacfwd(model))(jnp.asarray(theta)[index], jax.tree.map(jnp.asarray, problem.cells))
  out = np.zeros((*local.shape[:2], len(theta)))
  for k, places in enumerate(problem.index):
    out[k][:, places] = local[k]
  return out


@functools.partial(jax.jit, static_argnames="model")
def _solve_batch(model: Any, problem: Problem, theta: Any, target: Any, weight: Any) -> Solution:
  total = weight.sum((1, 2))
  weight = weight / total[:, None, None]

  def descend(system, state, shrink, goal, most, settle, tolerance):
    """Damped steps for all starts until each is done."""
    evaluate = jax.vmap(functools.partial(_objective, model, problem))
    system = jax.vmap(functools.partial(system, model, problem))

    def step(carry):
      t, state = carry
      move, promise, value = jax.vmap(functools.partial(_move, problem))(
          state.theta, state.damping, jnp.broadcast_to((t < settle) & ~problem.linear, theta.shape), *system(state.theta, target, weight, state.delta))
      new = jnp.clip(state.theta + move, problem.low, problem.high)
      better = evaluate(new, target, weight, state.delta) < value
      damping = jnp.clip(jnp.where(better, state.damping / 6, state.damping * 5), 1e-15, 1e12)
      # Converged: at the last delta a step promises less than rounding can show.
      settled = (promise < tolerance * value) | (damping > 1e10)
      done = state.done | (settled & (state.delta <= goal))
      keep = lambda new, old: jnp.where(done[:, None] if new.ndim > 1 else done, old, new)
      return t + 1, _State(keep(jnp.where(better[:, None], new, state.theta), state.theta), keep(damping, state.damping),
                           jnp.where(better | settled, jnp.maximum(goal, state.delta * shrink), state.delta), done)

    running = lambda carry: (carry[0] < most) & ~carry[1].done.all()
    return jax.lax.while_loop(running, step, (0, state))

  size = len(theta)
  start = _State(jnp.clip(theta, problem.low, problem.high), jnp.full(size, 1e-2), jnp.full(size, jnp.inf), jnp.zeros(size, bool))
  t1, near = descend(_gauss_newton, start, 1.0, jnp.inf, 40, 4, 1e-3)
  rest = jax.vmap(functools.partial(_residuals, model, problem))(near.theta, target)
  spread = jnp.sqrt((weight * rest**2).sum((1, 2)))
  delta = jnp.maximum(spread, problem.delta)
  t2, state = descend(_exact, _State(near.theta, jnp.full(size, 1e-4), delta, jnp.zeros(size, bool)), 0.5, problem.delta, 150, 0, 1e-13)
  value, slope, _ = jax.vmap(functools.partial(_exact, model, problem))(state.theta, target, weight, jnp.broadcast_to(problem.delta, size))
  slope = jnp.where(_held(problem, state.theta, slope), 0, slope)
  return Solution(state.theta, value * total, jnp.abs(slope).max(1) / jnp.minimum(problem.delta, spread))


def _residuals(model, problem, theta, target):
  return jax.vmap(model)(theta[problem.index], problem.cells) - target


def _rho(r, delta):
  size = jnp.abs(r)
  return jnp.where(size <= delta, r**2 / 2, delta * (size - delta / 2))


def _objective(model, problem, theta, target, weight, delta):
  return (weight * _rho(_residuals(model, problem, theta, target), delta)).sum()


def _gauss_newton(model, problem, theta, target, weight, delta):
  """Value, gradient [P] and J'WJ [P, P] of least squares."""
  del delta

  def domain(theta, cells, target, weight):
    r, tangent = jax.linearize(lambda theta: model(theta, cells) - target, theta)
    j = jax.vmap(tangent)(jnp.eye(theta.shape[0]))
    return (weight * r**2).sum() / 2, j @ (weight * r), (j * weight) @ j.T

  return _add_up(problem, theta, *jax.vmap(domain)(theta[problem.index], problem.cells, target, weight))


def _exact(model, problem, theta, target, weight, delta):
  """Value, gradient [P] and Hessian [P, P] of the objective."""

  def domain(theta, cells, target, weight):
    objective = jax.value_and_grad(lambda theta: (weight * _rho(model(theta, cells) - target, delta)).sum())
    (value, slope), tangent = jax.linearize(objective, theta)
    return value, slope, jax.vmap(tangent)(jnp.eye(theta.shape[0]))[1]

  return _add_up(problem, theta, *jax.vmap(domain)(theta[problem.index], problem.cells, target, weight))


def _add_up(problem, theta, value, slope, curvature):
  index, size = problem.index, theta.shape[0]
  return (value.sum(), jnp.zeros(size).at[index].add(slope),
          jnp.zeros((size, size)).at[index[:, :, None], index[:, None, :]].add(curvature))


def _held(problem, theta, slope):
  """Constants at a bound that the descent would push outward."""
  return ((theta <= problem.low) & (slope > 0)) | ((theta >= problem.high) & (slope < 0))


def _move(problem, theta, damping, fixed, value, slope, curvature):
  """The damped Newton step, the descent it promises, and the value."""
  held = _held(problem, theta, slope) | fixed
  slope = jnp.where(held, 0, slope)
  scale = jnp.abs(jnp.diagonal(curvature)).max()
  system = jnp.where(held[:, None] | held, 0, curvature) + jnp.diag(jnp.where(held, 1, damping) * scale)
  move = -jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(system), True), slope)
  return move, -slope @ move, value
