"""The learning-rate probe: short runs at several rates at every size, and the rule in N that is fitted to them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.experiment.tree import Run, Stage
from jaxsplit.models.family import ModelConfig
from jaxsplit.results.cells import Cell
from jaxsplit.results.stages import Point

_NEAR = 0.1  # Nats.
_NOISE = 0.003  # Of the loss, at the least: what two replicas of a short run differ by.
_EXPONENTS = 201  # As many are compared.


@dataclasses.dataclass(frozen=True)
class Probe:
  """A stack of short runs on the mixture at every size N, at several learning rates.

  Attributes:
    rates: the learning rates tried, with at most nine digits. A single one is used as it is, without a probe.
    fractions: lengths of the probe runs, as fractions of the budget; more than one shows how the best rate depends on D.
    replicas: repetitions with different initial weights and data.
    exponent: (low, high) bounds on the exponent of the rule: the rate falls between N^-low and N^-high. In the middle is what rates in
      proportion to 1 / width give (arXiv 2203.03466), as N grows with the square of the width; probes that do not tell leave it there.
  """

  rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3, 8e-3)
  fractions: tuple[float, ...] = (0.05,)
  replicas: int = 1
  exponent: tuple[float, float] = (0.25, 0.75)

  def __post_init__(self):
    for name, most in (("rates", math.inf), ("fractions", 1)):
      values = getattr(self, name)
      if not values:
        raise InputError(f"Probe.{name} = (): give at least one")
      for value in values:
        if not 0 < value <= most or math.isinf(value):
          raise InputError(f"Probe.{name} = {values}: {value} must be positive" + (" and at most 1" if most == 1 else ""))
      if len(set(values)) < len(values):
        raise InputError(f"Probe.{name} = {values}: one is given twice; give each once")
    for rate in self.rates:
      kept = float(f"{rate:.9g}")
      if rate != kept:
        raise InputError(f"Probe.rates = {self.rates}: {rate} has more digits than the nine that cells keep; use {kept}")
    if self.replicas < 1:
      raise InputError(f"Probe.replicas = {self.replicas}: must be 1 or more")
    low, high = self.exponent
    if not -math.inf < low <= high < math.inf:
      raise InputError(f"Probe.exponent = {self.exponent}: must be two numbers, the lower first")


@dataclasses.dataclass(frozen=True)
class RateRule:
  """The learning rate for any N: rate = reference_rate * (N / reference_params)^-exponent.

  Attributes:
    reference_rate, reference_params, exponent: the rule.
    best: the best rate of each size and probe length alone, as (params, tokens, best rate, whether inside the rates tried);
      empty if the rate was given.
  """

  reference_rate: float
  reference_params: float
  exponent: float
  best: tuple[tuple[int, int, float, bool], ...] = ()

  def rate(self, params: int) -> float:
    """The learning rate for N = `params`: the one given, or the rule's to three significant digits."""
    if not self.best:
      return self.reference_rate
    return float(f"{self.reference_rate * (params / self.reference_params) ** -self.exponent:.3g}")


def probe_stages(
    probe: Probe, models: Sequence[tuple[str, ModelConfig]], lengths: Sequence[int], cooldown) -> list[Stage]:
  """One stack per size and length: all rates and replicas, trained with the cooldown of a full pretraining."""
  stages = []
  for name, model in models:
    for steps in lengths:
      runs = tuple(
          Run(i, replica, 0, None, rate, 0, 0, (steps - cooldown(steps, 0), steps), 0, Point(steps, 0, "probe"))
          for i, (rate, replica) in enumerate((rate, replica) for rate in probe.rates for replica in range(probe.replicas)))
      stages.append(Stage(f"{name}/probe/{steps}", name, "probe", model, (), runs, steps))
  return stages


def fit_rates(probe: Probe, cells: Sequence[Cell]) -> RateRule:
  """Fits the rule to the probe's cells.

  Near its minimum, the mean loss of one size and length is a parabola in the log of the rate: c + k (x - a + e z)^2 with
  z = log N and e the exponent. For a given e it is linear in c', k and ka, and one k and a are fitted to all sizes together by
  least squares, so that noise at one size has little influence. Rates more than `_NEAR` nats above their size's best are left out, as
  the parabola does not hold there. The exponent is the most probable one under a normal prior with the bounds two standard deviations
  from its mean: probes of one size, or whose losses still fall at the highest rate, say nothing of it, and the rates of models a
  hundred times larger depend on it. The reference rate is always within the rates tried.
  """
  if len(probe.rates) == 1:
    return RateRule(probe.rates[0], 1.0, 0.0)
  series = _series(cells)
  for (params, tokens), (rates, _) in series.items():
    if not len(rates):
      raise InputError(f"Probe.rates = {probe.rates}: all of them diverged at N = {params:,} within {tokens:,} tokens; "
                       "give lower ones, and a new --workdir")
  best = tuple((params, tokens, *_best_rate(*curve)) for (params, tokens), curve in series.items())
  center = float(np.mean([math.log(params) for params, *_ in best]))
  points = [(index, math.log(params) - center, math.log(rate), mean) for index, ((params, _), curve) in enumerate(series.items())
            for rate, mean in zip(*curve) if mean <= curve[1].min() + _NEAR]
  index, z, x, losses = map(np.array, zip(*points))
  own = np.equal.outer(index, np.arange(len(series))).astype(float)
  low, high = probe.exponent
  middle, deviation = (low + high) / 2, (high - low) / 4
  exponents = np.linspace(low, high, _EXPONENTS) if high > low else np.array([low])
  fits = []
  for exponent in exponents:
    shifted = x + exponent * z
    design = np.column_stack([own, shifted ** 2, -2 * shifted])
    solution = np.linalg.lstsq(design, losses)[0]
    fits.append((*solution[-2:], float(np.sum((losses - design @ solution) ** 2))))
  k, ka, squares = np.array(fits).T
  with_minimum = k > 0
  if not with_minimum.any():  # The losses fall, or rise, over all the rates tried: take the best rate of each size.
    a, exponent = float(np.mean([math.log(rate) for _, _, rate, _ in best])), middle
  else:
    freedom = len(losses) - len(series) - 3
    variance = max(squares.min() / freedom if freedom > 0 else 0.0, (_NOISE * losses.mean()) ** 2)
    unlikely = squares / variance + (((exponents - middle) / deviation) ** 2 if deviation else 0.0)
    chosen = int(np.argmin(np.where(with_minimum, unlikely, np.inf)))
    a, exponent = ka[chosen] / k[chosen], float(exponents[chosen])
  reference = float(np.clip(a, math.log(min(probe.rates)), math.log(max(probe.rates))))
  return RateRule(math.exp(reference), math.exp(center), exponent, best)


def doubts(cells: Sequence[Cell]) -> list[str]:
  """A line where the best rate of the largest size probed is the lowest or the highest tried: larger ones' is uncertain then."""
  largest = max((cell.params for cell in cells), default=0)
  series = _series([cell for cell in cells if cell.params == largest])
  at = {rate for rate, inside in (_best_rate(*curve) for curve in series.values() if len(curve[0])) if not inside}
  rates = sorted({cell.learning_rate for cell in cells})
  length = max((tokens for _, tokens in series), default=0)
  what = {"lowest": "lower ones may be better, and the rates of larger models are uncertain; add lower ones to Probe.rates",
          "highest": f"higher ones may be better, or its {length:,} tokens be too few to tell, as short runs like high rates, so the "
                     "rates of larger models are uncertain; raise Probe.fractions, then add higher ones to Probe.rates"}
  return [f"the {name} learning rate that was tried, {tried:g}, is the best at N = {largest:,}, the largest size probed: {what[name]}"
          for name, tried in (("lowest", rates[0]), ("highest", rates[-1])) if tried in at] if rates[1:] else []


def _series(cells: Sequence[Cell]) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
  """(N, tokens) -> rates and mean losses, in the order of the rates; a rate that diverged anywhere is left out."""
  groups: dict[tuple[int, int], dict[float, list[float]]] = {}
  for cell in cells:
    groups.setdefault((cell.params, cell.seed_tokens), {}).setdefault(cell.learning_rate, []).append(cell.loss)
  series = {}
  for key, losses in sorted(groups.items()):
    means = sorted((rate, float(np.mean(values))) for rate, values in losses.items() if np.all(np.isfinite(values)))
    series[key] = (np.array([r for r, _ in means]), np.array([m for _, m in means]))
  return series


def _best_rate(rates: np.ndarray, losses: np.ndarray) -> tuple[float, bool]:
  """The minimum of the parabola in log rate through the best point and its neighbours; whether it lies inside the rates."""
  least = int(np.argmin(losses))
  if least in (0, len(rates) - 1):
    return float(rates[least]), False
  x, y = np.log(rates[least - 1:least + 2]), losses[least - 1:least + 2]
  curvature, slope, _ = np.polyfit(x - x[1], y, 2)
  return float(np.exp(x[1] + np.clip(-slope / (2 * curvature), x[0] - x[1], x[2] - x[1]))), True
