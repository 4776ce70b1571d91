"""What cells are expected to tell: more with more of them, less the further they lie from the question, as fits to drawn worlds do."""

import numpy as np
import pytest

from jaxsplit.law import expected

LINE = [(f, 1 - f) for f in (0.05, 0.35, 0.65, 0.95)] + [(f, 0.0) for f in (0.05, 0.35, 0.65, 0.95)]


def expect(*sizes, points=LINE, known=expected.outlook(), tokens=1.0):
  told = [expected.information(known, size, *(tokens * np.array(part) for part in zip(*points)), 5) for size in sizes]
  return expected.regret(known, expected.prior(known) + sum(told))


def test_without_cells_it_is_what_is_known_beforehand():
  known = expected.outlook()
  regret, deviation = expected.regret(known, expected.prior(known))
  assert regret > 5e-3 and deviation > 0.15


@pytest.mark.parametrize("better, worse", [
    (expect(0.1, 0.2, 0.4), expect(0.1, 0.2)),  # Another size.
    (expect(0.2, 0.3, 0.4), expect(0.002, 0.003, 0.004)),  # Nearer to the target in N.
    (expect(0.1, 0.2), expect(0.1, 0.2, tokens=0.25)),  # Nearer in tokens.
    (expect(0.1), expect(0.1, points=[(0.4, 0.6), (0.5, 0.5), (0.6, 0.4)])),  # The whole line.
    (expect(0.05, 0.05, tokens=1.0), expect(0.4, 0.4, tokens=0.2))])  # A smaller model of all tokens, of few a large one.
def test_regret_falls_with_what_cells_tell(better, worse):
  assert better[0] < worse[0] and better[1] < worse[1]


def test_draws_are_best_where_they_say():
  known = expected.outlook()
  shares = np.linspace(0.02, 0.98, 481)
  b, g = (part[:, None] for part in known.amplitudes)
  loss = b * shares ** -known.beta[:, None] / known.beta[:, None] + g * (
      1 - shares + known.offset[:, None]) ** -known.gamma[:, None] / known.gamma[:, None]
  np.testing.assert_allclose(shares[loss.argmin(1)], known.best, atol=0.002)
  bend = (np.diff(loss, 2) / (shares[1] - shares[0]) ** 2)[np.arange(len(loss)), loss.argmin(1) - 1]
  np.testing.assert_allclose(bend, known.curvature, rtol=0.02)


def test_the_deviation_is_that_of_fits_to_drawn_tables():
  """Tables drawn from the model itself, fitted by generalized least squares: the best split scatters as was expected."""
  known, random = expected.outlook((0.5, 1e-9)), np.random.default_rng(1)
  told = expected.information(known, 0.1, *zip(*LINE), 5)
  informed = expected.prior(known) + told
  _, deviation = expected.regret(known, informed)
  jacobian = expected._jacobian(known, 0.0, np.array([[0.5 + 1e-4], [0.5 - 1e-4]]).T.repeat(len(known.best), 0),
                                np.array([[0.5 - 1e-4], [0.5 + 1e-4]]).T.repeat(len(known.best), 0))
  slope = (jacobian[:, 0] - jacobian[:, 1]) / 2e-4
  found = []
  for s in range(len(known.best)):
    theta = np.linalg.cholesky(np.linalg.inv(informed[s])) @ random.standard_normal((informed.shape[-1], 400))
    found.append(np.mean((slope[s] @ theta / known.curvature[s]) ** 2))
  assert deviation == pytest.approx(np.sqrt(np.mean(found)), rel=0.1)
