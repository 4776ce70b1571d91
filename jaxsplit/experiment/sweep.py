"""The design of a sweep: the sizes and splits to measure that determine the best split best for a given number of FLOPs.

The best split depends on the budget in tokens and little on N (docs/sweep.md), so every size is measured on the whole line
D + K D' = C, and a smaller price is met by smaller sizes, or fewer: one size is enough for the reading with priors, by which such
cells are read. Candidates are a ladder of models below the target, one, three or four at a time, and grids of three to five seeds.
Each is priced by its tree of stages, probe included, and scored by the expected regret of its plan (law.expected).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.experiment.ladder import Size
from jaxsplit.experiment.task import Task
from jaxsplit.law import expected
from jaxsplit.results.stages import Point

_COUNTS = 1, 3, 4  # Sizes. Two were read worse than the larger of them alone, in worlds of known truth (docs/sweep.md).
_SEEDS = 3, 4, 5  # On a line.
_ENDS = (0.05, 0.95), (0.1, 0.9)  # Of the line.
_SHORT = (0.1,), (0.2,)  # The experts' fractions in cells that do not spend the whole line ...
_ALONG = (*_SHORT, (0.1, 0.4), (0.2, 0.5))  # ... also where a branch measures what it passes at no cost.
_LINES = 1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.125  # Tokens of a line over C.
_WORTH = 0.6  # Of the allowance: cheaper candidates are considered only if there are no others.


@dataclasses.dataclass(frozen=True)
class Line:
  """The splits measured at every size.

  Attributes:
    tokens: fraction of C that is split.
    seed_fractions, expert_fractions: fractions of that, as in `Experiment`.
    points: the same in whole steps.
  """

  tokens: float
  seed_fractions: tuple[float, ...]
  expert_fractions: tuple[float, ...]
  points: tuple[Point, ...]


@dataclasses.dataclass(frozen=True)
class Design:
  """A sweep.

  Attributes:
    sizes: (width, depth), from small to large.
    line: measured at each of them.
    price: fraction of the final training's FLOPs.
    regret: expected regret of a plan, as a fraction of the loss.
    deviation: expected standard error of the best split.
  """

  sizes: tuple[Size, ...]
  line: Line
  price: float
  regret: float
  deviation: float

  @property
  def width(self) -> float:
    """Expected half width of the best split's 95 % interval."""
    return 1.96 * self.deviation

  @property
  def bindings(self) -> dict[str, Any]:
    """The settings of `Experiment` that request it."""
    return {"sizes": self.sizes, "line": self.line.tokens, "seed_fractions": self.line.seed_fractions,
            "expert_fractions": self.line.expert_fractions}


def lines(task: Task) -> list[Line]:
  """Candidates for what is measured at every size. No cell of them lies within the warm-up."""
  warm = task.warm_steps
  found: dict[tuple[Point, ...], Line] = {}
  for tokens, count, (low, high), short in itertools.product(_LINES, _SEEDS, _ENDS, _ALONG if task.averaged else _SHORT):
    of = task.budget.line(tokens)
    least_expert = (warm if task.rewarms else 1) * of.experts / of.amount
    low, high = max(low, warm * of.seeds / of.amount), min(high, 1 - least_expert)
    if high - low < 0.3 or short[0] < least_expert:
      continue
    seeds, experts = tuple(float(f"{share:.3g}") for share in np.linspace(low, high, count)), (*short, 1.0)
    points = tuple(of.grid(seeds, experts))
    if len({point.seed_steps for point in points}) == count:  # Steps are whole.
      found.setdefault(points, Line(tokens, seeds, experts, points))
  return list(found.values())


def design(task: Task, flops: float) -> Design:
  """The sweep of least expected regret among those that cost at most a fraction `flops` of the final training.

  Raises:
    InputError: no sweep that determines a split costs so little.
  """
  (found,), least = designs(task, (flops,))
  if found is None:
    raise no_design("Sweep.flops", flops, least)
  return found


def no_design(setting: str, flops: float, least: float) -> InputError:
  """The error for a price below that of every sweep; `least` is the lowest price of one."""
  return InputError(f"{setting} = {flops:g}: too little for a sweep that determines a split; the cheapest one takes "
                    f"{least:g} of the final training's FLOPs. Give that or more, fewer Probe.rates, or a larger target, relative to "
                    "which small models cost less")


def designs(task: Task, budgets: Sequence[float]) -> tuple[list[Design | None], float]:
  """The best sweep for each of some prices, None where there is none; and the lowest price of a sweep, rounded up.

  Raises:
    InputError: there is no sweep at any price.
  """
  if not task.candidates:
    raise InputError(f"Experiment.target = {(task.target.width, task.target.depth)}: there is no smaller size of such models to sweep; "
                     "give Experiment.sizes, a smaller Architecture.head_dim, or a larger target")
  if not (found := lines(task)):
    raise InputError(f"Experiment.budget_tokens: {task.budget.amount:,} steps leave no splits outside a warm-up of {task.warmup_steps:,} "
                     "steps; give more tokens, or a smaller Optimizer.warmup_tokens")
  known, least = expected.outlook(), math.inf
  best: list[Design | None] = [None] * len(budgets)
  for line in found:
    steps = task.probed_steps + task.steps([line.points])
    prices = {size: task.price(model, steps) for size, model in task.candidates.items()}
    every = [(sum(map(prices.get, sizes)), sizes) for count in _COUNTS for sizes in itertools.combinations(task.candidates, count)]
    least = min(least, *(price for price, _ in every))
    information_of = functools.cache(lambda size, line=line: information(task, known, size, line.points))
    for i, flops in enumerate(budgets):
      paid = [one for one in every if one[0] <= flops]
      paid = [one for one in paid if one[0] >= _WORTH * flops] or paid
      if paid:
        informed = expected.prior(known) + np.stack([sum(map(information_of, sizes)) for _, sizes in paid])
        regrets, deviations = expected.regret(known, informed)
        at = int(regrets.argmin())
        if best[i] is None or regrets[at] < best[i].regret:
          best[i] = Design(paid[at][1], line, paid[at][0], float(regrets[at]), float(deviations[at]))
  return best, rounded_up(least)


def information(task: Task, known: expected.Outlook, size: Size, points: Sequence[Point]) -> np.ndarray:
  """The information of the points at one size."""
  budget = task.budget
  return expected.information(known, task.candidates[size].params / task.target.params,
                              [budget.seeds * point.seed_steps / budget.amount for point in points],
                              [budget.experts * point.expert_steps / budget.amount for point in points], budget.num_domains)


def rounded_up(share: float) -> float:
  """A fraction rounded up to two significant digits."""
  digit = 10.0 ** (math.floor(math.log10(share)) - 1)
  return float(f"{math.ceil(share / digit - 1e-9) * digit:.2g}")
