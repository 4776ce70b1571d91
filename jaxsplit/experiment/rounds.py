"""sweep.json: the rounds in which a sweep's cells were chosen, each by the plan from the cells before it.

The first round is a design for a price (experiment.sweep). A later one adds points on the line, around the split that is
recommended so far, at existing or new sizes: greedily, among those within the allowance, the one that lowers the expected
regret most for its price. Rounds are kept: the same command requests the same cells again.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.experiment.ladder import Size
from jaxsplit.experiment.settings import Sweep
from jaxsplit.experiment.sweep import design, designs, information
from jaxsplit.experiment.task import Task
from jaxsplit.files import read_json, write_json
from jaxsplit.law import Plan, expected
from jaxsplit.parallel import hosts
from jaxsplit.results.record import parsed
from jaxsplit.results.stages import Point

FILE = "sweep.json"
_AROUND = 0.1, 0.2  # Seeds' shares on either side of the recommended one.
_LEAST_DEVIATION = 0.03  # Of the best split, whatever its interval says.
_WITHIN = 1 + 1e-9


@dataclasses.dataclass(frozen=True)
class Cells:
  """The cells that a round requests at one size."""

  size: Size
  points: tuple[Point, ...]


@dataclasses.dataclass(frozen=True)
class Round:
  """Cells that were chosen together.

  Attributes:
    target: the size that they were chosen for.
    allowance: maximum cost of all rounds up to this one, as a fraction of the final training's FLOPs.
    price: cost of this one.
    regret: expected after it, as a fraction of the loss.
    deviation: expected standard error of the best split after it.
    cells: by size.
  """

  target: Size
  allowance: float
  price: float
  regret: float
  deviation: float
  cells: tuple[Cells, ...]


class Rounds:
  """The rounds of one target's sweep.

  Args:
    path: their file.
    config: hash of the settings that it belongs to; a file of other settings is ignored.
    target: the size.
    task: the task of the sweep.
    sweep: its settings.
    log: gets a line if the file is damaged.
    keep: whether to write the file.
  """

  def __init__(self, path: pathlib.Path, config: str, target: Size, task: Task, sweep: Sweep, log: Callable[[str], None] = print,
               keep: bool = True):
    self._path, self._config, self._target, self._task, self._sweep, self._keep = path, config, target, task, sweep, keep
    self._rounds = _parsed(hosts.broadcast(lambda: _read(path, config, log)))

  def __iter__(self):
    return (one for one in self._rounds if one.target == self._target)

  @property
  def requests(self) -> dict[Size, list[tuple[Point, ...]]]:
    """The requests at each size, round by round."""
    found: dict[Size, list[tuple[Point, ...]]] = {}
    for cells in (cells for one in self for cells in one.cells):
      found.setdefault(cells.size, []).append(cells.points)
    return {size: found[size] for size in sorted(found, key=lambda size: self._task.candidates[size].params)}

  @property
  def price(self) -> float:
    """Of all rounds."""
    return sum(one.price for one in self)

  @property
  def left(self) -> float:
    """What rounds that are still to come may cost."""
    return max(self._sweep.flops - self.price, 0.0) if self._later() else 0.0

  @property
  def text(self) -> str:
    """What the last round asks, in a line."""
    *earlier, last = self
    sizes = ", ".join(f"{self._task.candidates[cells.size].params:,}" for cells in last.cells)
    splits, number = sum(len(cells.points) for cells in last.cells), f", round {len(earlier) + 1}" if earlier else ""
    more, whole = ("more ", f", {self.price:.1%} with those before") if earlier else ("", "")
    return (f"sweep{number}: N = {sizes}, {splits} {more}splits in all, for {last.price:.1%} of the final training's FLOPs{whole}; "
            f"expected regret {last.regret:.2%}")

  def begin(self) -> None:
    """Chooses the first cells, where none are.

    Raises:
      InputError: no sweep that determines a split costs so little, or its tolerance cannot be reached.
    """
    self._rounds = _parsed(hosts.broadcast(lambda: self._with(None if any(True for _ in self) else self._first())))

  def go_on(self, plan: Plan) -> bool:
    """Chooses more cells by a plan from the existing ones; returns whether there are more.

    There are none once the plan's regret is within the tolerance, or the remaining price is too low for any.
    """
    before = len(self._rounds)
    self._rounds = _parsed(hosts.broadcast(lambda: self._with(self._next(plan))))
    return len(self._rounds) > before

  def missed(self, plan: Plan) -> str:
    """That the sweep is spent and its tolerance not reached, in a line; empty where it is, or none was asked for."""
    if not self._sweep.tolerance or self._suffices(plan):
      return ""
    return (f"  Sweep.tolerance = {self._sweep.tolerance:g} is not reached: the plan's expected regret is {plan.regret / plan.loss:.2g} of "
            "the loss, and the sweep is spent; raise Sweep.flops")

  def _suffices(self, plan: Plan) -> bool:
    """Whether the plan's regret is within the tolerance."""
    return plan.regret <= self._sweep.tolerance * plan.loss

  def _with(self, one: Round | None) -> list[dict[str, Any]]:
    """All rounds and this one, as they are written, as JSON."""
    records = json.loads(json.dumps([dataclasses.asdict(each) for each in (*self._rounds, *([one] if one else []))]))
    if one and self._keep:
      write_json(self._path, {"config": self._config, "rounds": records})
    return records

  def _first(self) -> Round:
    flops, tolerance = self._sweep.flops, self._sweep.tolerance
    if tolerance and (whole := design(self._task, flops)).regret > tolerance:
      raise InputError(f"Sweep.tolerance = {tolerance:g}: all of Sweep.flops = {flops:g} is expected to leave a regret of "
                       f"{whole.regret:.2g} of the loss; give that or more, or more FLOPs")
    (*earlier, _), _ = designs(self._task, self._allowances())
    allowance, first = next(((paid, one) for paid, one in zip(self._allowances(), earlier) if one), (flops, None))
    first = first or design(self._task, flops)  # Raises.
    return Round(self._target, allowance, first.price, first.regret, first.deviation,
                 tuple(Cells(size, first.line.points) for size in first.sizes))

  def _next(self, plan: Plan) -> Round | None:
    if self._suffices(plan):
      return None
    return next(filter(None, (self._more(plan, allowance) for allowance in self._later())), None)

  def _later(self) -> list[float]:
    """The allowances of rounds to come."""
    done = max((one.allowance for one in self), default=0.0)
    return [allowance for allowance in self._allowances() if allowance > done * _WITHIN]

  def _allowances(self) -> list[float]:
    """What may be spent by the end of each round."""
    rounds = self._sweep.rounds
    return [self._sweep.flops * (number + 1) / rounds for number in range(rounds)]

  def _more(self, plan: Plan, allowance: float) -> Round | None:
    """The cells that are worth most for what is left of an allowance; None where it buys none."""
    task, requests, left = self._task, self.requests, allowance - self.price
    low, high = plan.fraction_interval
    known = expected.outlook((plan.fraction, max((high - low) / 3.92, _LEAST_DEVIATION)))
    informed = lambda asked: sum(information(task, known, size, sorted(set().union(*parts))) for size, parts in asked.items())
    regret, deviation = map(float, expected.regret(known, expected.prior(known) + informed(requests)))
    steps = functools.cache(lambda parts: task.probed_steps + task.steps(parts) if parts else 0)
    cost = lambda size, parts: task.price(task.candidates[size], steps(tuple(parts)))
    spent = {size: cost(size, requests.get(size, [])) for size in task.candidates}
    chosen: dict[Size, tuple[Point, ...]] = {}
    price = 0.0
    options = self._options(plan.fraction)
    while True:
      best = None
      for size in task.candidates:
        asked = {point for points in requests.get(size, ()) for point in points}
        for points in options:
          new = tuple(sorted(set(chosen.get(size, ())) | (set(points) - asked)))
          if not new or new == chosen.get(size):
            continue
          trial = {**chosen, size: new}
          paid = sum(cost(other, [*requests.get(other, []), some]) - spent[other] for other, some in trial.items())
          if paid <= left * _WITHIN:
            after = {**requests, **{other: [*requests.get(other, []), some] for other, some in trial.items()}}
            value, width = expected.regret(known, expected.prior(known) + informed(after))
            worth = (regret - value) / (paid - price)
            if best is None or worth > best[0]:
              best = worth, trial, paid, float(value), float(width)
      if best is None or best[3] >= regret:
        break
      _, chosen, price, regret, deviation = best
    if not chosen:
      return None
    return Round(self._target, allowance, price, regret, deviation, tuple(Cells(size, points) for size, points in chosen.items()))

  def _options(self, fraction: float) -> list[tuple[Point, ...]]:
    """Candidates to add at a size: splits of the whole budget around the recommended one, with and without experts."""
    line, warm = self._task.budget, self._task.warm_steps
    shares = np.clip([fraction, *(fraction + sign * by for by in _AROUND for sign in (-1, 1))], 0.05, 0.95)
    of = lambda shares: tuple(point for point in line.grid(sorted(set(map(float, shares))), (1.0,)) if point.seed_steps >= warm)
    return [points for points in (*(of([share]) for share in shares), of(shares[:3]), of(shares)) if points]


def _read(path: pathlib.Path, config: str, log: Callable[[str], None]) -> list[dict[str, Any]]:
  """The rounds in a file, as JSON; none if it does not exist, belongs to other settings, or is damaged."""
  try:
    content = read_json(path) if path.exists() else {"config": config, "rounds": []}
    if any(min(point.seed_steps, point.expert_steps) < 0
           for one in _parsed(content["rounds"]) for cells in one.cells for point in cells.points):
      raise ValueError("an impossible number of steps")
    return content["rounds"] if content["config"] == config else []
  except (InputError, KeyError, TypeError, ValueError) as error:
    log(f"{path}: damaged ({error}), so it is started anew; existing cells are kept")
    return []


def _parsed(records: list[dict[str, Any]]) -> tuple[Round, ...]:
  """ValueError for anything that `Rounds` would not have written."""
  return parsed(tuple[Round, ...], records)
