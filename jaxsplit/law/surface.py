"""The loss surface that plans are read off: every form with a smooth discrepancy around it, weighed by its evidence.

No form is the truth, and where one bends away from the cells its best split follows. So each is read as

    ln L = ln f(theta; N, D, D') + g(ln N, ln D, ln D') + size + snapshot + cell

with f a form, g a Gaussian process (what f does not contain), and normal errors that all cells of one size, of one snapshot, and
of nothing else share: universal kriging (Matheron 1969; Rasmussen & Williams 2006, section 2.7). L is the mean over domains, which
is all that a common split asks for. Constants have weak normal priors, scales (of g, its reach, and the errors) have log-normal
ones, and their most probable values are taken; a form's weight is its evidence, by Laplace's method. Since what a size's cells
share is an error of its own, evidence goes by differences within sizes, as a split does. Inside the measured cells g follows them
whatever the form; beyond them the form leads, and the uncertainty grows with the distance.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxsplit.law.kriging import SCALES, Counted, Measured, sloped, smooth
from jaxsplit.law.member import MOST_REFITS, Member, read_member, rounded
from jaxsplit.law.problem import Model

_DRAWS = 400
_JITTER = 1e-9  # Of a variance, so that rounding leaves it positive.
POINTS = "params", "seed", "expert", "replica", "loss"  # What is kept of the points that were measured.


@dataclasses.dataclass(frozen=True)
class Posterior:
  """One form's reading.

  Attributes:
    member: the form in log space, with one domain; its weight is its share of all forms' evidence, and they sum to 1.
    covariance: [P, P] of its constants, given the cells.
    scales: [5] as SCALES.
    drawn_scales: [M, 5] draws of the scales; none of a reading whose draws are normal, at the likeliest scales.
    drawn: [M * s, P] constants drawn with each of these in turn.
  """

  member: Member
  covariance: np.ndarray
  scales: np.ndarray
  drawn_scales: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, len(SCALES))))
  drawn: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))


@dataclasses.dataclass(frozen=True)
class Surface:
  """Mean losses over domains as a function of N, D and D'.

  Attributes:
    params, seed, expert: [n] of the measured points.
    replica: [n] which repetition of the trunk.
    loss: [n] means over domains.
    forms: the readings.
  """

  params: np.ndarray
  seed: np.ndarray
  expert: np.ndarray
  replica: np.ndarray
  loss: np.ndarray
  forms: tuple[Posterior, ...]

  def expect(self, params: np.ndarray, seed: np.ndarray, expert: np.ndarray) -> np.ndarray:
    """[m] expected losses in nats per token at m points, over all that the cells allow."""
    total = np.zeros(len(params))
    for one in self.forms:
      if len(one.drawn):
        parts = [np.exp(log + variance / 2) for _, log, variance in self._each(one, (params, seed, expert))]
        total += one.member.weight * np.mean(parts, axis=(0, 1))
        continue
      at = self._kriged(one, (params, seed, expert))
      variance = one.scales[list(SCALES).index("discrepancy")] ** 2 - (at.weights * at.shared).sum(1)
      variance += ((at.slopes @ one.covariance) * at.slopes).sum(1)
      with np.errstate(over="ignore"):  # Far beyond the cells everything is possible.
        total += one.member.weight * np.exp(at.log + variance / 2)
    return total

  def draws(self, params: np.ndarray, seed: np.ndarray, expert: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Losses that the cells allow, drawn together at all m points: [S, m], and the draws' weights [S], which sum to 1."""
    places, found = self._measured.place(params, seed, expert), []
    for number, one in enumerate(self.forms):
      if len(one.drawn):
        found.append(np.exp(self._drawn(one, (params, seed, expert), np.random.default_rng(number))))
        continue
      random, at = np.random.default_rng(number), self._kriged(one, (params, seed, expert))
      covariance = smooth(places, places, one.scales) - at.weights @ at.shared.T + at.slopes @ one.covariance @ at.slopes.T
      spread, axes = np.linalg.eigh(covariance)
      found.append(np.exp(at.log + random.standard_normal((_DRAWS, len(params))) @ (axes * np.sqrt(np.maximum(spread, 0))).T))
    return np.concatenate(found), np.concatenate([np.full(len(f), one.member.weight / len(f)) for f, one in zip(found, self.forms)])

  def anew(self, draws: np.ndarray) -> np.ndarray:
    """[S, m] draws with the errors of models that are trained anew. Each draw has the same one at all points, of the size that a single
    model has: bands along a curve ask for no more, and are as smooth as it is."""
    random = np.random.default_rng(len(self.forms))
    scales = [np.repeat(one.drawn_scales, len(one.drawn) // len(one.drawn_scales), 0) if len(one.drawn) else
              np.tile(one.scales, (_DRAWS, 1)) for one in self.forms]
    cell, size, snapshot, *_ = np.concatenate(scales).T
    errors = np.sqrt(cell**2 + size**2 + snapshot**2) * random.standard_normal(len(draws))
    return draws * np.exp(errors)[:, None]

  @property
  def scatter(self) -> float:
    """Standard deviation of the difference between two splits' losses, relative to them, that is chance: another run has another."""
    cell, snapshot = (list(SCALES).index(name) for name in ("cell", "snapshot"))
    return float(2**0.5 * sum(one.member.weight * np.hypot(one.scales[cell], one.scales[snapshot]) for one in self.forms))

  def record(self) -> dict[str, Any]:
    """As it is written into law.json; `read_surface_record` makes it again."""
    return {"points": {name: getattr(self, name) for name in POINTS},
            "forms": [{"member": one.member.record(), "covariance": one.covariance, "scales": one.scales,
                       "drawn_scales": one.drawn_scales, "drawn": rounded(one.drawn)} for one in self.forms]}

  def _kriged(self, one: Posterior, counts: Counted) -> _Kriged:
    """What a form and the measured points say of others."""
    solved, (log, slopes) = self._solved[one.member.model], sloped(one.member, counts)
    shared = smooth(self._measured.place(*counts), self._measured.places, one.scales)
    weights = shared @ solved.inverse
    return _Kriged(log + shared @ solved.pull, shared, weights, slopes - weights @ solved.slopes)

  def _drawn(self, one: Posterior, counts: Counted, random: np.random.Generator) -> np.ndarray:
    """[M * s, m] draws of ln L of a form whose constants and scales were drawn."""
    places, found = self._measured.place(*counts), []
    for (scales, weights, shared), (_, log, _) in zip(self._weighed(one, counts), self._each(one, counts)):
      covariance = smooth(places, places, scales) - weights @ shared.T
      factor = np.linalg.cholesky(covariance + (_JITTER + scales[3] ** 2 * _JITTER) * np.eye(len(places)))
      found.append(log + random.standard_normal(log.shape) @ factor.T)
    return np.concatenate(found)

  def _each(self, one: Posterior, counts: Counted) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each draw of the scales: them, ln L [s, m] that its constants and the cells around expect, and the variance [m] left."""
    log_losses = np.log(one.member.predict(one.drawn, *counts, 0)).reshape(len(one.drawn_scales), -1, len(counts[0]))
    for log, left, (scales, weights, shared) in zip(log_losses, self._left[one.member.model], self._weighed(one, counts)):
      variance = np.maximum(scales[3] ** 2 - (weights * shared).sum(1), 0)
      yield scales, log + left @ weights.T, variance

  def _weighed(self, one: Posterior, counts: Counted) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each draw of the scales: them, how the n measured points weigh at m others, and what those share, [m, n] each."""
    places = self._measured.place(*counts)
    for scales, inverse in zip(one.drawn_scales, self._inverses[one.member.model]):
      shared = smooth(places, self._measured.places, scales)
      yield scales, shared @ inverse, shared

  @functools.cached_property
  def _left(self) -> dict[Model, np.ndarray]:
    """[M, s, n] of the measured ln L, what the drawn constants leave."""
    at = self.params, self.seed, self.expert
    return {one.member.model: (np.log(self.loss) - np.log(one.member.predict(one.drawn, *at, 0))).reshape(
        len(one.drawn_scales), -1, len(self.loss)) for one in self.forms if len(one.drawn)}

  @functools.cached_property
  def _inverses(self) -> dict[Model, list[np.ndarray]]:
    """Of the measured points, the inverse covariance [n, n] at every draw of the scales."""
    return {one.member.model: [np.linalg.inv(self._measured.covariance(scales)) for scales in one.drawn_scales]
            for one in self.forms}

  @functools.cached_property
  def _measured(self) -> Measured:
    return Measured(self.params, self.seed, self.expert, self.replica)

  @functools.cached_property
  def _solved(self) -> dict[Model, _Solved]:
    """What each reading needs of the measured points."""
    solved = {}
    for one in self.forms:
      log, slopes = sloped(one.member, (self.params, self.seed, self.expert))
      inverse = np.linalg.inv(self._measured.covariance(one.scales))
      solved[one.member.model] = _Solved(inverse, inverse @ (np.log(self.loss) - log), slopes)
    return solved


class _Solved(NamedTuple):
  """Of the n measured points: their inverse covariance [n, n], it times their residuals [n], and a form's slopes there [n, P]."""

  inverse: np.ndarray
  pull: np.ndarray
  slopes: np.ndarray


class _Kriged(NamedTuple):
  """Of m points: expected ln L [m], what they share with the n measured ones and how those weigh there, [m, n] each, and what the
  constants then still add [m, P]."""

  log: np.ndarray
  shared: np.ndarray
  weights: np.ndarray
  slopes: np.ndarray


def read_surface_record(record: dict[str, Any]) -> Surface:
  """A surface from its record's shape.

  Raises:
    ValueError: numbers that no surface writes.
    InputError: a form of it is not there, or not what it was.
  """
  points = {name: np.array(record["points"][name], float) for name in POINTS}
  if len(set(map(len, points.values()))) != 1 or not len(points["loss"]):
    raise ValueError("the points of its surface differ in length, or are none")
  if min(points["loss"].min(), points["params"].min()) <= 0:
    raise ValueError("its surface has a loss or a size that is not positive")
  forms = []
  for one in record["forms"]:
    member = read_member(one["member"])
    covariance, scales = np.array(one["covariance"], float), np.array(one["scales"], float)
    if covariance.shape != (len(member.theta),) * 2 or scales.shape != (len(SCALES),) or scales.min() <= 0:
      raise ValueError(f"covariance or scales of its surface's {member.model.form.name} are not those of a reading")
    drawn_scales = np.array(one["drawn_scales"], float).reshape(-1, len(SCALES))
    drawn = np.array(one["drawn"], float).reshape(-1, len(member.theta))
    if len(drawn) > MOST_REFITS or len(drawn) and (not len(drawn_scales) or len(drawn) % len(drawn_scales)):
      raise ValueError(f"draws of its surface's {member.model.form.name} are not as many with each of its scales")
    if (drawn_scales <= 0).any():
      raise ValueError(f"drawn scales of its surface's {member.model.form.name} are not all positive")
    forms.append(Posterior(member, covariance, scales, drawn_scales, drawn))
  if not forms:
    raise ValueError("its surface has no forms")
  return Surface(**points, forms=tuple(forms))
