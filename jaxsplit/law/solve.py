"""The minimiser behind every fit: many starts, or many bootstrap refits, of one objective at once.

minimise  F(theta) = sum_i w_i rho(r_i(theta)),   rho(r) = r^2/2 for |r| <= delta, delta (|r| - delta/2) beyond (Huber 1964),

inside bounds; where r > 0, rho may count more or less than where r < 0. A large delta is least squares; a tiny one is L1 (as
rho/delta). The steps are Levenberg-Marquardt's, with three changes that together bring nearly every start to the optimum of F
itself:

- Settling. The model is linear in its coefficients, so each start first fits them to the exponents it was given.
- Widths. All starts then solve least squares, a smooth bowl, and from there follow the optimum as the width falls to
  delta by halves. The damping is a multiple of the identity (theta is scaled so that every constant is of order one):
  Marquardt's own scaling strands starts in flat valleys.
- Curvature. Beyond the width rho is straight: its true curvature is 0, while reweighted least squares takes delta/|r|,
  which always descends but crawls once most residuals lie there. So that term is blended in with the damping: failed
  steps turn to reweighting, successful ones to Newton's method, which ends the search in a few steps. Starts that take
  long lie in a valley that bends; they get the model's second derivatives too.

A start that has settled makes room for the next one at once: the steps are NumPy on small systems (see law.points for what is
compiled).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxsplit.law.points import Points, Problem

_SETTLING_STEPS = 4
_LEAST_SQUARES_STEPS = 40
_PATIENCE = 130  # Steps at one width after which second derivatives are worth their price, ...
_RENEWAL = 4  # ... once in so many steps, ...
_MOST_STEPS = 300  # ... and after which a start is given up.
_MOST_STEPS_NEAR = 60  # Steps at one width that a refit of resampled cells gets: flat valleys, which cost more, move no prediction.
_CLOSE = 1e-6  # Relative descent promised by a step, at which least squares has done its part ...
_NARROW = 1e-2  # ... at which the next width is taken up ...
_SETTLED = 1e-13  # ... and below which rounding hides any descent.
_SETTLED_NEAR = 1e-8  # What a refit of resampled cells may leave: a thousandth of the standard errors that it shows.
_FULL_BLEND = 1e-3  # The damping from which on the curvature is all of reweighted least squares.
_STUCK = 1e10  # The damping at which a step no longer moves theta.


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
    model: (q constants, cells) -> predictions in the target's space, elementwise over arrays that broadcast to [..., K, M].
      Hashable: one compilation each.
    problem: the cells and bounds.
    theta: [S, P] starts.
    target: [K, M], or [S, K, M] where each start has its own.
    weight: [K, M] or [S, K, M]; zero leaves a point out.
    near: the starts are optima of almost the same objective, so settling and least squares are skipped, and the last
      digits of the optimum are not waited for.
  """
  theta = np.asarray(theta, float)
  total = np.broadcast_to(weight.sum((-2, -1)), len(theta))
  out = Solution(theta.copy(), np.full(len(theta), np.inf), np.full(len(theta), np.inf))
  waiting = list(range(len(theta)))[::-1]
  points = Points(model, problem, len(theta))
  slots = _Slots(problem, points.batch, theta.shape, near)
  pick = lambda a: a if a.ndim == 2 else a[slots.start]
  data = None
  while True:
    loaded = slots.load(waiting, theta)
    if not slots.busy.any():
      return out
    if data is None or loaded:
      data = pick(target), pick(weight) / (total[0] if weight.ndim == 2 else total[slots.start][:, None, None])
    busy = np.flatnonzero(slots.busy)
    renewed = (slots.polishing & (slots.age > _PATIENCE) & ((slots.age - _PATIENCE) % _RENEWAL == 1))[busy]
    each = (slots.trial[busy], *(a if a.ndim == 2 else a[busy] for a in data), slots.width[busy], renewed)
    slots.take(busy, renewed, *points.objective(*each))
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
    self.value[idle], self.damping[idle], self.width[idle], self.second[idle] = np.inf, 1e-2, np.inf, 0
    self.busy[idle], self.settled[idle], self.polishing[idle] = True, False, False
    self.age[idle] = _LEAST_SQUARES_STEPS if self.near else 0
    return True

  def take(self, busy: np.ndarray, renewed: np.ndarray, value: np.ndarray, slope: np.ndarray, inside: np.ndarray,
           beyond: np.ndarray, second: np.ndarray) -> None:
    """Takes up the evaluation of the `busy` slots' trials, accepting where it descends, and chooses the next move.

    `second` is new where it is `renewed`.
    """
    fresh = np.isinf(self.value)  # nothing to compare with: a new start, or a new width
    kept = value < self.value[busy]  # False for NaN
    better = np.zeros(len(fresh), bool)
    better[busy] = kept
    self.theta[better] += self.move[better]
    for old, new in zip((self.value, self.slope, self.inside, self.beyond), (value, slope, inside, beyond)):
      old[better] = new[kept]
    self.second[busy[kept & renewed]] = second[kept & renewed]
    factor = np.where(better, 1 / 6, 5.0)
    self.damping = np.where(fresh, self.damping, np.clip(self.damping * factor, 1e-15, 10 * _STUCK))
    self.age += 1
    stuck = self.damping > _STUCK
    last = self.width <= self.goal
    overdue = self.age > (_MOST_STEPS_NEAR if self.near else _MOST_STEPS)
    self.settled |= (fresh & ~better) | overdue & (last | (not self.near))  # not finite at the start, or no end in sight
    # The next width is taken up only near the optimum of this one: the path of optima is smooth, shortcuts are not.
    narrow = self.polishing & ~last & (stuck | overdue | better & ~fresh & (self.promise < _NARROW))
    self._choose_move()
    promised = self.promise < np.where(self.polishing, _SETTLED_NEAR if self.near else _SETTLED, _CLOSE)
    enough = ~narrow & (stuck | promised & (self.promise >= 0) & (self.polishing | (self.age > _SETTLING_STEPS)))
    self.settled |= self.polishing & last & enough
    turn = ~self.polishing & (enough | (self.age > _LEAST_SQUARES_STEPS))
    width = np.where(turn, np.sqrt(2 * self.value), self.width / 2)
    for changed in (narrow & ~self.settled, turn & ~self.settled):
      self.width[changed] = np.maximum(self.goal, width[changed])
      self.value[changed], self.move[changed], self.second[changed], self.age[changed] = np.inf, 0, 0, 0
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
