"""The solver reaches the optimum of the objective it states, whatever the start."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_near
from scipy import optimize

from jaxsplit.law.points import Problem, sensitivities
from jaxsplit.law.solve import solve


class Line:
  """A straight line, whose Huber, L1 and least-squares optima have independent solvers."""

  def __call__(self, theta, x):
    return theta[0] + theta[1] * x


class Decay:
  """E + A x^-a in logarithms: theta = (E, A, a)."""

  def __call__(self, theta, x):
    return jnp.log(theta[0] + theta[1] * jnp.exp(-theta[2] * x))


LINE, DECAY = Line(), Decay()


def line_problem(delta, low=-50.0, high=50.0):
  random = np.random.default_rng(0)
  x = np.linspace(-1, 1, 41)[None]
  target = 0.7 + 2.0 * x + 0.1 * random.standard_t(2, x.shape)
  return Problem(x, np.array([[0, 1]]), np.full(2, low), np.full(2, high), np.ones(2, bool), delta), target


def huber(r, delta):
  return np.where(np.abs(r) <= delta, r**2 / 2, delta * (np.abs(r) - delta / 2)).sum()


@pytest.mark.parametrize("delta", [1e-3, 0.05, 1e8])
def test_huber_and_least_squares_optima(delta):
  problem, target = line_problem(delta)
  solution = solve(LINE, problem, np.random.default_rng(1).normal(size=(5, 2)) * 3, target, np.ones_like(target))
  value = lambda t: huber(t[0] + t[1] * problem.cells[0] - target[0], delta)
  best = min((optimize.minimize(value, solution.theta[0] + d, method="Nelder-Mead", options={"xatol": 1e-12, "fatol": 1e-16})
              for d in (0, 0.01)), key=lambda r: r.fun)
  assert solution.objective == pytest.approx(np.full(5, value(solution.theta[0])), rel=1e-9)
  assert value(solution.theta[0]) <= best.fun * (1 + 1e-9)
  assert solution.gradient.max() < 1e-5


def test_l1_is_the_linear_programme():
  delta = 1e-8
  problem, target = line_problem(delta)
  x, y = problem.cells[0], target[0]
  solution = solve(LINE, problem, np.zeros((1, 2)), target, np.ones_like(target))
  n = len(x)
  design = np.stack([np.ones(n), x], 1)
  programme = optimize.linprog(np.r_[0, 0, np.ones(n)], A_ub=np.block([[design, -np.eye(n)], [-design, -np.eye(n)]]),
                               b_ub=np.r_[y, -y], bounds=[(None, None)] * 2 + [(0, None)] * n)
  assert np.abs(design @ solution.theta[0] - y).sum() == pytest.approx(programme.fun, rel=1e-7)


def test_weights_are_repetitions_and_their_scale_is_nothing():
  problem, target = line_problem(0.05)
  weight = np.random.default_rng(2).integers(0, 3, target.shape).astype(float)
  repeated = np.repeat(np.arange(41), weight[0].astype(int))
  twice = solve(LINE, problem, np.zeros((1, 2)), target, weight)
  longer = solve(LINE, problem._replace(cells=problem.cells[:, repeated]), np.zeros((1, 2)), target[:, repeated],
                 np.ones((1, len(repeated))))
  scaled = solve(LINE, problem, np.zeros((1, 2)), target, 1e6 * weight)
  np.testing.assert_allclose(twice.theta, longer.theta, rtol=1e-7)
  np.testing.assert_allclose(twice.theta, scaled.theta, rtol=1e-7)
  assert twice.objective == pytest.approx(longer.objective, rel=1e-9)


def test_bounds_hold_and_the_others_make_the_best_of_it():
  problem, target = line_problem(1e8)
  low, high = np.array([-50.0, -50.0]), np.array([50.0, 1.5])
  solution = solve(LINE, problem._replace(low=low, high=high), np.zeros((1, 2)), target, np.ones_like(target))
  assert solution.theta[0, 1] == 1.5
  assert solution.theta[0, 0] == pytest.approx((target - 1.5 * problem.cells).mean(), rel=1e-6)


def test_domains_share_what_the_index_says():
  x = np.linspace(0, 3, 12)
  truth = [(0.5, 2.0, 0.8), (0.9, 1.1, 0.8)]
  target = np.log(np.stack([e + a * np.exp(-s * x) for e, a, s in truth]))
  problem = Problem(np.stack([x, x]), np.array([[1, 2, 0], [3, 4, 0]]), np.zeros(5), np.full(5, 9.0),
                    np.array([False, True, True, True, True]), 1e-3)
  starts = np.random.default_rng(0).uniform(0.1, 1, (70, 5))
  solution = solve(DECAY, problem, starts, target, np.ones_like(target))
  np.testing.assert_allclose(solution.theta, np.tile([0.8, 0.5, 2.0, 0.9, 1.1], (70, 1)), rtol=1e-5)


def test_a_start_walks_alone():
  problem, target = line_problem(1e-3)
  starts = np.random.default_rng(3).normal(size=(130, 2))
  together = solve(LINE, problem, starts, target, np.ones_like(target))
  alone = solve(LINE, problem, starts[-1:], target, np.ones_like(target))
  np.testing.assert_array_equal(together.theta[-1:], alone.theta)


def test_a_start_that_is_not_finite_fails_alone():
  problem, target = line_problem(1e-3)
  solution = solve(LINE, problem, np.array([[0.0, 0.0], [np.nan, 0.0]]), target, np.ones_like(target))
  assert np.isfinite(solution.objective[0]) and solution.objective[1] == np.inf


def test_sensitivities_are_derivatives():
  problem, _ = line_problem(1.0)
  assert_near(sensitivities(LINE, problem, np.zeros(2))[0], np.stack([np.ones(41), problem.cells[0]], 1), 1e-7)


def test_the_solver_leaves_precision_as_it_was():
  problem, target = line_problem(1.0)
  solve(LINE, problem, np.zeros((1, 2)), target, np.ones_like(target))
  assert not jax.config.jax_enable_x64 and jnp.ones(1).dtype == jnp.float32
