"""A form at the points of a table: predictions and slopes, and the objective with its derivatives.

What is compiled is the model and its slopes at every point, for a batch of vectors: one short program a form, which starts,
refits, held-out predictions and sensitivities share. All else is NumPy. Second derivatives are differences of slopes, and taken
only of vectors that need them.

With K domains, theta [P] holds shared constants and one block a domain. Domain k reads theta[index[k]] ([q], q << P), so
derivatives are taken with q constants and only their [q, q] products are added into the [P, P] system.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplit import devices

_BATCH = 64  # Vectors evaluated together ...
_MANY = 2000  # ... or four times as many from this number on, where it pays for another compilation ...
_MOST_SLOPES = 1 << 22  # ... as long as their slopes fit in memory: that is 32 MiB of them.
_NUDGE = 1e-6  # The change of a constant over which second derivatives are taken.


@contextlib.contextmanager
def float64() -> Iterator[None]:
  """Double precision on the processor, whatever the accelerator, and only here: training keeps its own.

  All arrays here come from NumPy and go back to it, so JAX's transfer guard, if it is on, has nothing to find.
  """
  with jax.enable_x64(True), jax.default_device(_processor()), jax.transfer_guard("allow"):
    yield


@functools.cache
def _processor() -> jax.Device | None:
  try:
    return jax.local_devices(backend="cpu")[0]
  except (RuntimeError, AssertionError):  # JAX was told to use an accelerator alone, which may not be there.
    devices.present()
    return None


class Problem(NamedTuple):
  """What is fitted, apart from weights and targets.

  Attributes:
    cells: pytree of arrays that the model reads, each [K, M] or broadcast to it.
    index: [K, q] positions in theta of each domain's constants.
    low, high: [P] bounds, or [S, P] where each start has its own.
    linear: [P] which constants the model is linear in, before any logarithm.
    delta: where the objective turns from square to straight.
    over: what a prediction above the target weighs, where one below weighs 1.
  """

  cells: Any
  index: np.ndarray
  low: np.ndarray
  high: np.ndarray
  linear: np.ndarray
  delta: float
  over: float = 1.0


class Points:
  """A model at a problem's points: predictions and slopes for any number of vectors, and what they make of the objective."""

  def __init__(self, model: Callable[[Any, Any], Any], problem: Problem, starts: int):
    self._model, self._index = model, np.asarray(problem.index)
    self._over = problem.over
    self._cells = jax.tree.map(lambda a: np.reshape(a, (1,) * (3 - np.ndim(a)) + np.shape(a)), problem.cells)  # [1, K, M].
    size = np.broadcast_shapes(*(a.shape for a in jax.tree.leaves(self._cells)))
    self._size = (len(self._index), size[-1])
    self.batch = _BATCH if starts < _MANY else 4 * _BATCH
    while self.batch > 1 and self.batch * self._index.size * size[-1] > _MOST_SLOPES:
      self.batch //= 2

  def at(self, local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predictions [n, K, M] and slopes [n, K, q, M] at each domain's constants [n, K, q]."""
    blocks = []
    with float64():
      for first in range(0, len(local), self.batch):
        block = local[first:first + self.batch]
        padded = np.concatenate([block, np.repeat(block[-1:], self.batch - len(block), 0)])
        blocks.append([np.asarray(a)[:len(block)] for a in _evaluate(self._model, self._size, padded, self._cells)])
    return tuple(a[0] if len(a) == 1 else np.concatenate(a) for a in zip(*blocks))

  def objective(self, theta: np.ndarray, target: np.ndarray, weight: np.ndarray, width: np.ndarray,
                patient: np.ndarray) -> tuple[np.ndarray, ...]:
    """F [B], its gradient [B, P] and three parts of curvature [B, P, P] at theta [B, P].

    They are J'hJ with h = 1 inside the width and 0 beyond, J'hJ with h = 0 inside and delta/|r| beyond, and the pull of all
    residuals on the model's second derivatives (zeros but for `patient` starts).
    """
    local, width = theta[:, self._index], width[:, None, None]
    q, size = local.shape[2], theta.shape[1]
    predicted, slope = self.at(local)
    with np.errstate(all="ignore"):  # The width may be infinite, and a trial may be out of the model's range.
      r = predicted - target
      if self._over != 1:
        weight = weight * np.where(r > 0, self._over, 1.0)
      far = np.abs(r)
      within = far <= width
      pull = weight * np.clip(r, -width, width)
      value = ((r - np.where(within, r, np.copysign(width, r)) / 2) * pull).sum((1, 2))
      rows = np.empty((*slope.shape[:2], 2 * q + 1, slope.shape[3]))
      np.multiply(slope, np.where(within, weight, 0)[:, :, None], out=rows[:, :, :q])
      np.multiply(slope, np.where(within, 0, weight * width / far)[:, :, None], out=rows[:, :, q:-1])
      rows[:, :, -1] = pull
      products = rows @ slope.swapaxes(2, 3)
    # One product a domain holds both curvatures and the gradient; all are added to their places in theta's at once.
    everything = np.zeros((len(theta), (2 * size + 1) * size))
    for k, places in enumerate(self._index):
      rows = np.concatenate([places, size + places, [2 * size]])
      everything[:, (rows[:, None] * size + places).ravel()] += products[:, k].reshape(len(theta), -1)
    inside, beyond, gradient = np.split(everything.reshape(len(theta), 2 * size + 1, size), [size, 2 * size], 1)
    return value, gradient[:, 0], inside, beyond, self._bowed(local, slope, pull, patient, size)

  def _bowed(self, local: np.ndarray, slope: np.ndarray, pull: np.ndarray, patient: np.ndarray, size: int) -> np.ndarray:
    """[B, P, P] pull of residuals on second derivatives, by differences of slopes, where `patient`."""
    out, chosen = np.zeros((len(local), size, size)), np.flatnonzero(patient)
    if not len(chosen):
      return out
    q = local.shape[2]
    nudged = local[chosen, None] + _NUDGE * np.eye(q)[:, None]  # [n, q, K, q]: each constant in turn, in every domain
    there = self.at(nudged.reshape(-1, *local.shape[1:]))[1].reshape(len(chosen), q, *slope.shape[1:])
    with np.errstate(all="ignore"):
      change = ((there - slope[chosen, None]) @ pull[chosen, None, :, :, None])[..., 0] / _NUDGE  # [n, q, K, q]
    for k, places in enumerate(self._index):
      out[np.ix_(chosen, places, places)] += change[:, :, k]
    return (out + out.swapaxes(1, 2)) / 2


# Small programs that run a thousand times: the emitters that take longest to compile gain them nothing.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _evaluate(model, size, local, cells):
  """Predictions [B, K, M] and slopes [B, K, q, M]: points are independent, so one pullback of ones holds every slope."""
  constants = [jnp.broadcast_to(c[..., None], (len(local), *size)) for c in jnp.moveaxis(local, -1, 0)]
  predicted, pullback = jax.vjp(lambda *constants: model(constants, cells), *constants)
  return predicted, jnp.stack(pullback(jnp.ones_like(predicted)), 2)


def predictions(model: Callable[[Any, Any], Any], problem: Problem, theta: np.ndarray) -> np.ndarray:
  """[S, K, M] predictions in the target's space at theta [S, P]."""
  return Points(model, problem, 1).at(theta[:, problem.index])[0]


def sensitivities(model: Callable[[Any, Any], Any], problem: Problem, theta: np.ndarray) -> np.ndarray:
  """[K, M, P] derivatives of the predictions with respect to theta [P]."""
  (local,) = Points(model, problem, 1).at(theta[None, problem.index])[1]
  out = np.zeros((len(local), local.shape[2], len(theta)))
  for k, places in enumerate(problem.index):
    out[k][:, places] = local[k].T
  return out
