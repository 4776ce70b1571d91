"""The minimiser behind every fit: many starts, or many bootstrap refits, of one objective at once.

minimise  F(theta) = sum_i w_i rho(r_i(theta)),   rho(r) = r^2/2 for |r| <= delta, delta (|r| - delta/2) beyond (Huber 1964),

inside bounds. A large delta is least squares; a tiny one is L1 (as rho/delta). The steps are Levenberg-Marquardt's, with
three changes that together bring nearly every start to the optimum of F itself:

- Settling. The model is linear in its coefficients, so each start first fits them to the exponents it was given.
- Widths. All starts then solve least squares, a smooth bowl, and from there follow the optimum as the width falls to
  delta by halves. The damping is a multiple of the identity (theta is scaled so that every constant is of order one):
  Marquardt's own scaling strands starts in flat valleys.
- Curvature. Beyond the width rho is straight: its true curvature is 0, while reweighted least squares takes delta/|r|,
  which always descends but crawls once most residuals lie there. So that term is blended in with the damping: failed
  steps turn to reweighting, successful ones to Newton's method, which ends the search in a few steps. Starts that take
  long lie in a valley that bends; they get the model's second derivatives too.

The model and its derivatives are compiled, for a batch of starts; the steps are NumPy on small systems, so that a form
costs one short compilation and a start that has settled makes room for the next one at once.

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

_BATCH = 64  # Starts evaluated together ...
_MANY = 2000  # ... or four times as many from this number on, where it pays for another compilation.
_SETTLING_STEPS = 4
_LEAST_SQUARES_STEPS = 40
_PATIENCE = 130  # Steps at one width after which second derivatives are worth their price ...
_MOST_STEPS = 300  # ... and after which a start is given up.
_CLOSE = 1e-6  # Relative descent promised by a step, at which least squares has done its part ...
_NARROW = 1e-2  # ... at which the next width is taken up ...
_SETTLED = 1e-13  # ... and below which rounding hides any descent.
_FULL_BLEND = 1e-3  # The damping from which on the curvature is all of reweighted least squares.
_STUCK = 1e10  # The damping at which a step no longer moves theta.


class Problem(NamedTuple):
  """What is fitted, apart from weights and targets.

  Attributes:
    cells: pytree of arrays, leading axis K, that the model reads.
    index: [K, q] positions in theta of each domain's constants.
    low, high: [P] bounds, or [S, P] where each start has its own.
    linear: [P] which constants the model is linear in, before any logarithm.
    delta: where the objective turns from square to straight.
  """

  cells: Any
  index: np.ndarray
  low: np.ndarray
  high: np.ndarray
  linear: np.ndarray
  delta: float


class Solution(NamedTuple):
  """Per start: theta [S, P], objective [S] (infinite where the start failed) and gradient [S].

  The gradient is its largest free component for a total weight of 1, in units of the pull of one residual.
  """

  theta: np.ndarray
  objective: np.ndarray
  gradient: np.ndarray


def solve(model: Callable[[Any, Any], Any], problem: Problem, theta: np.ndarray, target: np.ndarray, weight: np.ndarray,
          near: bool = False) -> Solution:
  """Minimises from every row of `theta`.

  Args:
    model: (theta [q], one domain's cells) -> [M] predictions in the target's space. Hashable: one compilation each.
    problem: the cells and bounds.
    theta: [S, P] starts.
    target: [K, M], or [S, K, M] where each start has its own.
    weight: [K, M] or [S, K, M]; zero leaves a point out.
    near: the starts are optima of almost the same objective, so settling and least squares are skipped.
  """
  theta = np.asarray(theta, float)
  total = np.broadcast_to(weight.sum((-2, -1)), len(theta))
  out = Solution(theta.copy(), np.full(len(theta), np.inf), np.full(len(theta), np.inf))
  waiting = list(range(len(theta)))[::-1]
  batch = _BATCH if len(theta) < _MANY else 4 * _BATCH
  slots = _Slots(problem, batch, theta.shape, near)
  shared = target.ndim == weight.ndim == 2
  pick = lambda a, i: jnp.asarray(np.broadcast_to(a if a.ndim == 2 else a[i], (batch, *a.shape[-2:])))
  data = None
  with jax.enable_x64(True):
    cells, index = jax.tree.map(jnp.asarray, (problem.cells, problem.index))
    while True:
      loaded = slots.load(waiting, theta)
      if not slots.busy.any():
        return out
      if data is None or loaded and not shared:
        data = pick(target, slots.start), pick(weight, slots.start) / total[slots.start][:, None, None]
      patient = bool((slots.busy & (slots.age > _PATIENCE)).any())
      slots.take(*jax.device_get(_evaluate(model, patient, cells, index, slots.trial, *data, slots.width)))
      for s in np.flatnonzero(slots.busy & slots.settled):
        i = slots.start[s]
        value = slots.value[s] if slots.width[s] <= problem.delta else np.inf
        out.theta[i], out.objective[i] = slots.theta[s], value * total[i]
        out.gradient[i] = np.abs(slots.slope[s]).max() / max(min(problem.delta, np.sqrt(2 * value)), 1e-300)
        slots.busy[s] = False


class _Slots:
  """The starts in work, one a slot: where each stands, the quadratic model of F there, and what it tries next."""

  def __init__(self, problem: Problem, batch: int, shape: tuple[int, int], near: bool):
    starts, size = shape
    self.near, self.goal, self.linear = near, problem.delta, problem.linear
    self.bounds = np.broadcast_to(problem.low, (starts, size)), np.broadcast_to(problem.high, (starts, size))
    self.low, self.high = np.zeros((batch, size)), np.zeros((batch, size))
    self.start = np.zeros(batch, int)
    self.busy, self.settled, self.polishing = (np.zeros(batch, bool) for _ in range(3))
    self.age = np.zeros(batch, int)
    self.theta, self.move, self.slope = (np.zeros((batch, size)) for _ in range(3))
    self.value, self.damping, self.width, self.promise = (np.ones(batch) for _ in range(4))
    self.inside, self.beyond, self.second = (np.zeros((batch, size, size)) for _ in range(3))

  @property
  def trial(self) -> np.ndarray:
    """[B, P] where F is to be evaluated next."""
    return self.theta + self.move

  def load(self, waiting: list[int], theta: np.ndarray) -> bool:
    """Puts waiting starts into idle slots; True where any was."""
    idle = np.flatnonzero(~self.busy)[:len(waiting)]
    if not len(idle):
      return False
    self.start[idle] = [waiting.pop() for _ in idle]
    self.low[idle], self.high[idle] = (bound[self.start[idle]] for bound in self.bounds)
    self.theta[idle] = np.clip(theta[self.start[idle]], self.low[idle], self.high[idle])
    self.move[idle] = 0
    self.value[idle], self.damping[idle], self.width[idle] = np.inf, 1e-2, np.inf
    self.busy[idle], self.settled[idle], self.polishing[idle] = True, False, False
    self.age[idle] = _LEAST_SQUARES_STEPS if self.near else 0
    return True

  def take(self, value: np.ndarray, slope: np.ndarray, *curvatures: np.ndarray) -> None:
    """Takes up the evaluation at `trial`, accepting where it descends, and chooses the next move."""
    fresh = np.isinf(self.value)  # nothing to compare with: a new start, or a new width
    better = value < self.value  # False for NaN
    self.theta[better] += self.move[better]
    mine = self.value, self.slope, self.inside, self.beyond, self.second
    for old, new in zip(mine, (value, slope, *curvatures)):
      old[better] = new[better]
    factor = np.where(better, 1 / 6, 5.0)
    self.damping = np.where(fresh, self.damping, np.clip(self.damping * factor, 1e-15, 10 * _STUCK))
    self.age += 1
    stuck = self.damping > _STUCK
    self.settled |= (fresh & ~better) | (self.age > _MOST_STEPS)  # not finite at the start, or no end in sight
    # The next width is taken up only near the optimum of this one: the path of optima is smooth, shortcuts are not.
    last = self.width <= self.goal
    narrow = self.polishing & ~last & (stuck | better & ~fresh & (self.promise < _NARROW))
    self._choose_move()
    promised = self.promise < np.where(self.polishing, _SETTLED, _CLOSE)
    enough = ~narrow & (stuck | promised & (self.promise >= 0) & (self.polishing | (self.age > _SETTLING_STEPS)))
    self.settled |= self.polishing & last & enough
    turn = ~self.polishing & (enough | (self.age > _LEAST_SQUARES_STEPS))
    width = np.where(turn, np.sqrt(2 * self.value), self.width / 2)
    for changed in (narrow & ~self.settled, turn & ~self.settled):
      self.width[changed] = np.maximum(self.goal, width[changed])
      self.value[changed], self.move[changed], self.age[changed] = np.inf, 0, 0
    self.damping[turn | narrow & stuck] = 1e-4
    self.polishing |= turn

  def _choose_move(self) -> None:
    """The damped Newton step inside the bounds, and the relative descent it promises."""
    blend = np.minimum(1, self.damping / _FULL_BLEND)
    curvature = self.inside + blend[:, None, None] * self.beyond
    diagonal = np.einsum("bii->bi", curvature)
    scale = np.maximum(diagonal.max(1), 1e-300)[:, None]
    curvature += ((1 - blend) * (self.polishing & (self.age > _PATIENCE)))[:, None, None] * self.second
    diagonal += self.damping[:, None] * scale
    outward = (self.theta <= self.low) & (self.slope > 0) | (self.theta >= self.high) & (self.slope < 0)
    held = outward | ((~self.polishing & (self.age <= _SETTLING_STEPS))[:, None] & ~self.linear)
    self.slope[held] = 0
    low, high = self.low - self.theta, self.high - self.theta
    move = _minimise(curvature, self.slope, scale, held, np.zeros_like(low))
    # Constants that would leave the bounds stop there, and the others make the best of it.
    leaving = (move < low) | (move > high)
    again = np.flatnonzero(leaving.any(1))
    move = np.clip(move, low, high)
    if len(again):
      move[again] = _minimise(curvature[again], self.slope[again], scale[again], (held | leaving)[again], move[again])
    self.move = np.clip(move, low, high)
    self.promise = -(self.slope * self.move).sum(1) / np.maximum(self.value, 1e-300)


def _minimise(curvature: np.ndarray, slope: np.ndarray, scale: np.ndarray, held: np.ndarray, move: np.ndarray) -> np.ndarray:
  """[B, P] minimisers of slope.m + m'Cm/2 over the constants that are not held; those that are move as told."""
  move = np.where(held, move, 0)
  system = np.where(held[:, :, None] | held[:, None, :], 0, curvature)
  np.einsum("bii->bi", system)[held] = np.broadcast_to(scale, held.shape)[held]
  right = np.where(held, scale * move, -slope - (curvature @ move[..., None])[..., 0])
  return np.linalg.solve(system, right[..., None])[..., 0]


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.vmap, in_axes=(None, None, None, None, 0, 0, 0, 0))
def _evaluate(model, patient, cells, index, theta, target, weight, delta):
  """F, its gradient [P] and three parts of curvature [P, P].

  They are J'hJ with h = 1 inside the width and 0 beyond, J'hJ with h = 0 inside and delta/|r| beyond, and the pull of all
  residuals on the model's second derivatives (zeros unless `patient`).
  """

  def domain(theta, cells, target, weight):
    r, tangent = jax.linearize(lambda theta: model(theta, cells) - target, theta)
    j = jax.vmap(tangent)(jnp.eye(theta.shape[0]))
    size = jnp.abs(r)
    within = size <= delta
    value = (weight * jnp.where(within, r**2 / 2, delta * (size - delta / 2))).sum()
    bends = jnp.where(within, weight, 0), jnp.where(within, 0, weight * delta / size)
    pull = weight * jnp.clip(r, -delta, delta)
    bowed = jax.hessian(lambda theta: pull @ model(theta, cells))(theta) if patient else jnp.zeros((len(theta), len(theta)))
    return value, j @ pull, *((j * bend) @ j.T for bend in bends), bowed

  value, slope, *bent = jax.vmap(domain)(theta[index], cells, target, weight)
  size = theta.shape[0]
  place = lambda block: jnp.zeros((size, size)).at[index[:, :, None], index[:, None, :]].add(block)
  return value.sum(), jnp.zeros(size).at[index].add(slope), *map(place, bent)


def predictions(model: Callable[[Any, Any], Any], problem: Problem, theta: np.ndarray) -> np.ndarray:
  """[K, M] predictions in the target's space at theta [P]."""
  with jax.enable_x64(True):
    return np.asarray(_predict(model, theta[problem.index], problem.cells))


def sensitivities(model: Callable[[Any, Any], Any], problem: Problem, theta: np.ndarray) -> np.ndarray:
  """[K, M, P] derivatives of the predictions with respect to theta [P]."""
  with jax.enable_x64(True):
    local = np.asarray(_jacobian(model, theta[problem.index], problem.cells))
  out = np.zeros((*local.shape[:2], len(theta)))
  for k, places in enumerate(problem.index):
    out[k][:, places] = local[k]
  return out


@functools.partial(jax.jit, static_argnames="model")
def _predict(model, local, cells):
  return jax.vmap(model)(local, cells)


@functools.partial(jax.jit, static_argnames="model")
def _jacobian(model, local, cells):
  return jax.vmap(jax.jacfwd(model))(local, cells)
