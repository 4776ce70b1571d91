"""A budget in whole steps: seed and expert steps of its fractions, and the points that spend it. Nothing here trains."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from jaxsplit.errors import InputError
from jaxsplit.results.budget import Budget
from jaxsplit.results.plan import Plan, PlannedPoint
from jaxsplit.results.stages import Point


class Steps(Budget):
  """A budget in steps of one model's batch; `amount` is the number of steps of one dense model."""

  def seed_steps(self, fraction: float) -> int:
    """D in steps, of each seed, when seeds take this fraction of the budget."""
    return max(1, round(fraction * self.amount / self.seeds)) if fraction else 0

  def expert_steps(self, fraction: float) -> int:
    """D' in steps, of each expert, when experts take this fraction of the budget."""
    return int(fraction * self.amount / self.experts + 1e-9)

  def point(self, fraction: float) -> Point:
    """The point that spends the whole budget with this fraction on seeds; no experts if less than a step of each is left.

    Steps that are too few for another one of each expert go to the seeds, so that a split trains on as many tokens as the dense model.
    """
    least = self.expert_steps(1 - fraction)
    if not least:
      return Point(self.amount, 0, "dense")
    if not fraction:
      return Point(0, least, "split")
    rest = lambda expert_steps: (self.amount - self.experts * expert_steps) // self.seeds
    nearest = round((1 - fraction) * (self.amount - self.amount % self.seeds) / self.experts)
    expert_steps = nearest if rest(nearest) > 0 else least
    return Point(rest(expert_steps), expert_steps, "split")

  def grid(self, seed_fractions: Sequence[float], expert_fractions: Sequence[float]) -> list[Point]:
    """The points of all pairs of fractions, and of all seeds without experts. Experts have at most the steps that the seed leaves, and
    all of them where that is one more than asked for."""
    points = set()
    for seed in map(self.seed_steps, seed_fractions):
      rest = max(0, self.amount - self.seeds * seed) // self.experts
      asked = [min(self.expert_steps(fraction), rest) for fraction in expert_fractions]
      points |= {Point(seed, steps, "grid") for steps in (0, *(rest if steps == rest - 1 else steps for steps in asked))}
    return sorted(point for point in points if point.seed_steps or point.expert_steps)  # A law has no place for what is not trained.

  def line(self, tokens: float) -> Steps:
    """A smaller budget, this fraction of C, for cells to split."""
    return dataclasses.replace(self, amount=max(1, round(tokens * self.amount)))

  def planned(self, fraction: float, params_total: int, batch_tokens: int) -> PlannedPoint:
    """The point of this fraction as a plan records it, for models of so many parameters and steps of so many tokens."""
    point = self.point(fraction)
    return PlannedPoint(params_total, point.seed_steps, point.expert_steps, point.seed_steps * batch_tokens,
                        point.expert_steps * batch_tokens, self.share(point), self.left_over(point) * batch_tokens)

  def share(self, point: Point) -> float:
    """The seeds' fraction of the steps that a point spends."""
    return self.fraction(point.seed_steps, point.expert_steps)

  def left_over(self, point: Point) -> int:
    """Steps that a point does not spend: too few for another one of each seed, or there are no seeds."""
    return self.amount - self.seeds * point.seed_steps - self.experts * point.expert_steps if point.expert_steps else 0

  def check_shares(self, name: str, fractions: Sequence[float]) -> None:
    """Refuses fractions of less than a step, or with the same number of steps as another.

    Args:
      name: seed_fractions or expert_fractions.
      fractions: their values.
    """
    paid, steps = self._of(name)
    taken: dict[int, float] = {}
    for fraction in fractions:
      least = paid / self.amount
      if fraction and fraction / least < 1 - 1e-9:
        raise InputError(f"Experiment.{name} = {fractions}: {fraction} is less than a step; the least that works is "
                         f"{_rounded_up(least)}, or raise Experiment.budget_tokens")
      if steps(fraction) in taken:
        raise InputError(f"Experiment.{name} = {fractions}: {taken[steps(fraction)]} and {fraction} are both "
                         f"{steps(fraction):,} steps; steps are {_rounded_up(least)} apart")
      taken[steps(fraction)] = fraction

  def check_splits(self, compare: Sequence[float]) -> None:
    """Refuses splits of the budget that leave seeds or experts less than a step."""
    for fraction in compare:
      for part, paid, what in ((fraction, self.seeds, "the seed"), (1 - fraction, self.experts, "each expert")):
        least = paid / self.amount
        if 0 < part / least < 1 - 1e-9:
          bound = f"least above 0 that works is {_rounded_up(least)}" if part == fraction else (
              f"most below 1 that works is {1 - _rounded_up(least):g}")
          raise InputError(f"Experiment.compare = {compare}: {fraction} leaves {what} less than a step; the {bound}")

  def _of(self, name: str) -> tuple[int, Callable[[float], int]]:
    return (self.seeds, self.seed_steps) if name == "seed_fractions" else (self.experts, self.expert_steps)


def uneven_points(plan: Plan, batch_tokens: int) -> dict[str, Point]:
  """The points of a plan's uneven split by domain, rounded down to whole steps."""
  steps = lambda tokens: int(tokens / batch_tokens + 1e-9)
  return {domain.domain: Point(steps(domain.best_seed_tokens), steps(domain.best_expert_tokens), "uneven") for domain in plan.domains}


def _rounded_up(share: float) -> float:
  """A fraction rounded up to three significant digits."""
  digit = 10.0 ** (math.floor(math.log10(share)) - 2)
  return float(f"{math.ceil(share / digit - 1e-9) * digit:.3g}")
