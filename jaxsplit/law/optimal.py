"""Compute-optimal allocation under a law: size, tokens and split as functions of FLOPs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.law.cautions import check_reach, unplannable
from jaxsplit.law.law import Law, weighted_quantile
from jaxsplit.law.plan import plan_split
from jaxsplit.law.size import FLOPS_PER_PARAM_TOKEN, best_size
from jaxsplit.results.budget import Budget

_MOST_REFITS = 200  # Of a form, whose own best sizes give the intervals.
_SIZES, _AROUND = 33, 8.0  # Sizes that each is sought among, as far as this factor around the law's.
_ALL_SEED = np.ones(1)


@dataclasses.dataclass(frozen=True)
class Optimum:
  """The best use of one compute budget. Losses are nats per token, means over domains.

  Attributes:
    budget_flops: 6 N a token.
    params, params_interval: N, and the 95 % interval of the best N over refits and forms in play, as far as N where that is outside.
    budget_tokens: what the budget pays for at that size.
    seed_tokens, expert_tokens: D and D' of each expert; 0 where the law knows of no experts.
    fraction, fraction_interval: the seed's share of the tokens; None where the law knows of no experts.
    loss, loss_interval: predicted there.
    beyond: how many times the largest measured size, and the most tokens that one model was measured at.
    remarks: what to know of it alone.
  """

  budget_flops: float
  params: float
  params_interval: tuple[float, float]
  budget_tokens: float
  seed_tokens: float
  expert_tokens: float
  fraction: float | None
  fraction_interval: tuple[float, float] | None
  loss: float
  loss_interval: tuple[float, float]
  beyond: tuple[float, float]
  remarks: tuple[str, ...]


def compute_optimal(law: Law, budgets_flops: Sequence[float], num_domains: int | None = None,
                    accounting: Literal["total", "per_model", "separate"] = "total") -> tuple[Optimum, ...]:
  """The best size, tokens and split for each compute budget.

  Args:
    law: a fitted law. One that knows nothing of experts gives dense models.
    budgets_flops: training FLOPs, 6 N a token.
    num_domains: K; None takes the law's domains, or one expert where it knows none.
    accounting: what a budget counts, as in PlanSettings.

  Raises:
    InputError: a budget or a number of domains that is not positive.
  """
  for flops in budgets_flops:
    if not (np.isfinite(flops) and flops > 0):
      raise InputError(f"--budget_flops={flops:g}: must be positive")
    check_reach(law, budget_flops=flops)
  if num_domains is None:
    num_domains = len(law.domains)
  splits = not unplannable(law)
  law = dataclasses.replace(law, members=tuple(dataclasses.replace(m, samples=m.samples[:_MOST_REFITS]) for m in law.members))
  return tuple(_optimum(law, float(flops), num_domains, accounting, splits) for flops in budgets_flops)


def exponents(optima: Sequence[Optimum]) -> tuple[float, float]:
  """a and b of N ~ C^a and tokens ~ C^b over the budgets, of which there are two or more."""
  compute = np.log([o.budget_flops for o in optima])
  slope = lambda values: float(np.polyfit(compute, np.log(values), 1)[0])
  return slope([o.params for o in optima]), slope([o.budget_tokens for o in optima])


def _optimum(law: Law, flops: float, num_domains: int, accounting: str, splits: bool) -> Optimum:
  counted = (num_domains, accounting) if splits else (1, "total")
  fractions = np.linspace(0, 1, 21) if splits else _ALL_SEED
  if splits:
    plan = plan_split(law, budget_flops=flops, num_domains=num_domains, accounting=accounting)
    size, seed, expert, loss = plan.params, plan.seed_tokens, plan.expert_tokens, plan.loss
    fraction, between, loss_between = plan.fraction, plan.fraction_interval, plan.loss_interval
    remarks = tuple(text for text in plan.warnings if text.startswith("no size is best"))
  else:
    size, told = best_size(law, flops, *counted, _ALL_SEED)
    seed, expert, fraction, between = flops / (FLOPS_PER_PARAM_TOKEN * size), 0.0, None, None
    loss, remarks = float(law.mean_of_forms(size, seed, 0)), (told,) * bool(told)
    loss_between = tuple(map(float, law.interval(size, seed, 0))) if law.members[0].samples.size else (loss, loss)
  ranges = law.data["ranges"]
  most = ranges["seed_tokens"][1] + ranges["expert_tokens"][1]
  low, high = _sizes(law, flops, size, counted, fractions)
  return Optimum(flops, size, (min(low, size), max(high, size)), flops / (FLOPS_PER_PARAM_TOKEN * size), seed,
                 expert, fraction, between, loss, loss_between, (size / ranges["params"][1], (seed + expert) / most), remarks)


def _sizes(law: Law, flops: float, size: float, counted: tuple[int, str], fractions: np.ndarray) -> tuple[float, float]:
  """Where 95 % of the refits have their own best size."""
  if not law.members[0].samples.size:
    return size, size
  sizes = size * np.geomspace(1 / _AROUND, _AROUND, _SIZES)
  budget = Budget(flops / (FLOPS_PER_PARAM_TOKEN * sizes[:, None]), *counted)
  draws, weights = law.samples(sizes[:, None], *budget.divided(fractions))
  losses = draws.min(2)
  at = np.clip(losses.argmin(1), 1, _SIZES - 2)
  left, middle, right = (losses[np.arange(len(at)), at + side] for side in (-1, 0, 1))
  bend = np.maximum(left - 2 * middle + right, 1e-300)
  # The lowest point of the parabola through the best size and its neighbours, in log N.
  best = sizes[at] * (sizes[1] / sizes[0]) ** np.clip((left - right) / (2 * bend), -1, 1)
  return tuple(float(weighted_quantile(best, weights, level)) for level in (0.025, 0.975))
