"""From a law and a budget to a recommended split, with its gain, its interval and its regret.

Token budgets count one shared trunk and K experts: C = D + K D' (accounting "total"), K trunks and an expert of each:
C = K D + K D' ("separate"), or what one final model has seen, C = D + D' ("per_model"). FLOP budgets are 6 N per token. The split
fraction is the trunks' share of C; at 1 it is one dense model of C tokens, whatever the accounting.

A plan is read off the law's surface (law.surface): the fraction of least expected loss, over all that the cells allow. A law with
priors has one for the best fraction too: what its cells leave open counts by how usual the best fraction is that it comes to.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxsplit.errors import InputError, nearest
from jaxsplit.law.cautions import check_reach, check_splits, plan_warnings
from jaxsplit.law.expected import USUAL
from jaxsplit.law.law import Law, weighted_quantile
from jaxsplit.law.size import FLOPS_PER_PARAM_TOKEN, best_size
from jaxsplit.law.split import Split, lowest, uneven
from jaxsplit.results.budget import Budget
from jaxsplit.results.plan import DomainPlan, Plan, SplitCurve

_FIXED = 0.8  # The rule of thumb that a plan is compared with: 80 % seed, 20 % experts.
_FARTHEST = 2.5  # Deviations of a best fraction from the usual one: those nearer to the ends, .05 and .95, are as unusual as each other.
_DIGITS = 12  # Of a fraction: those further behind are rounding, and would put a point on the curve twice.


@dataclasses.dataclass(frozen=True)
class PlanSettings:
  """What is to be split.

  Attributes:
    params: model size N; None: the best one for a FLOP budget.
    budget_tokens: C in tokens.
    budget_flops: C in FLOPs, 6 N per token; give one of the two.
    num_domains: K; None: the number of the law's domains.
    accounting: what the budget counts: "total" (the trunk and all experts), "separate" (a trunk and an expert for each domain)
      or "per_model" (the trunk and one expert).
    unique_tokens: number of distinct tokens of each domain; None: as in the table. Used if the law discounts repeats.
  """

  params: float | None = None
  budget_tokens: float | None = None
  budget_flops: float | None = None
  num_domains: int | None = None
  accounting: Literal["total", "per_model", "separate"] = "total"
  unique_tokens: float | None = None


def plan_split(law: Law, settings: PlanSettings | None = None, **overrides: Any) -> Plan:
  """The best split of a budget under a law.

  Args:
    law: a fitted law; without bootstrap its plan has no width.
    settings: see PlanSettings; `overrides` replace its fields.

  Raises:
    InputError: a law without information on splits, a budget that is missing, given twice or not positive, or no size.
  """
  settings = _settings(law, settings or PlanSettings(), overrides)
  check_splits(law)
  counted = settings.num_domains, settings.accounting
  if settings.unique_tokens is not None:
    law = law.with_unique_tokens(settings.unique_tokens, settings.num_domains)
  size, told = (settings.params, "") if settings.params else best_size(law, settings.budget_flops, *counted)
  tokens = settings.budget_tokens or settings.budget_flops / (FLOPS_PER_PARAM_TOKEN * size)
  split = Split(law, size, Budget(tokens, *counted))
  has_dense, has_seedless = (law.data["ranges"][name][0] == 0 for name in ("expert_tokens", "seed_tokens"))
  fractions = _fractions()[0 if has_seedless else 1:None if has_dense else -1]
  if not split.of_usual_kind:
    # The optimum is added to the grid, so that the recommended point is on the curve. Where the usual is known, splits are known less
    # closely than the grid's steps.
    fractions = np.unique(np.append(fractions, _refined(split, fractions, split.loss(fractions))).round(_DIGITS))
  losses, draws, weights, own = _possible(split, fractions)
  at = _best(split, fractions, losses)
  fraction = float(fractions[at])
  dense, fixed = (int(np.abs(fractions - f).argmin()) for f in (1.0, _FIXED))
  anew = law.anew(draws)
  beyond = split.beyond(fractions)
  interval = lambda values: tuple(float(weighted_quantile(values, weights, q)) for q in (0.025, 0.975))
  low, high = (weighted_quantile(anew, weights, q) for q in (0.025, 0.975))
  seed, expert = split.tokens(np.array([fraction]))
  return Plan(
      params=size, budget_tokens=tokens, budget_flops=FLOPS_PER_PARAM_TOKEN * size * tokens, num_domains=settings.num_domains,
      accounting=settings.accounting, unique_tokens=settings.unique_tokens, forms=_forms(law), seed_tokens=float(seed[0]),
      expert_tokens=float(expert[0]),
      fraction=fraction,
      fraction_interval=interval(fractions[own]), loss=float(losses[at]),
      loss_interval=(float(low[at]), float(high[at])),
      domains=_domains(split, fraction, losses[[at, dense]], has_dense), dense_loss=float(losses[dense]) if has_dense else None,
      seedless_loss=float(losses[0]) if has_seedless else None, fixed_loss=float(losses[fixed]),
      gain_over_dense=float(losses[dense] - losses[at]) if has_dense else None,
      gain_over_dense_interval=interval(draws[:, dense] - draws[:, at]) if has_dense else None,
      gain_over_fixed=float(losses[fixed] - losses[at]), gain_over_fixed_interval=interval(draws[:, fixed] - draws[:, at]),
      split_point=float(split.tokens(fractions[[_minimum_near(losses, at)]])[0][0]),
      regret=float(weights @ np.maximum(draws[:, at] - draws[np.arange(len(own)), own], 0)),
      curve=SplitCurve(*(tuple(values.tolist()) for values in (fractions, losses, low, high, beyond == 0))),
      beyond=_beyond(law, size, float(seed[0]), float(expert[0])),
      warnings=(*([told] if told else []), *plan_warnings(law, split, fraction, settings.num_domains,
                                                          settings.unique_tokens is not None)))


def _minimum_near(losses: np.ndarray, at: int) -> int:
  """The index of the minimum in whose valley `at` lies. There may be others where nothing was measured."""
  falls = lambda along: int(np.argmin(np.append(along[1:] < along[:-1], False)))  # For how many steps.
  return at + (falls(losses[at:]) or -falls(losses[at::-1]))


def _forms(law: Law) -> dict[str, float]:
  members = [one.member for one in law.surface.forms] if law.surface else law.members
  total = sum(member.weight for member in members)
  return {member.model.form.name: member.weight / total for member in members}


def _beyond(law: Law, params: float, seed: float, expert: float) -> dict[str, float]:
  """What is planned over the largest of it that was measured; 0 of a kind that there is none of."""
  planned = {"params": params, "seed_tokens": seed, "expert_tokens": expert, "tokens": seed + expert}
  return {name: value / law.data["ranges"][name][1] if value else 0.0 for name, value in planned.items()}


def _fractions() -> np.ndarray:
  """Fractions from 0 to 1, close together at both ends, where a power law bends most."""
  ends = np.geomspace(1e-3, 0.05, 18)
  return np.unique(np.concatenate([np.linspace(0, 1, 201), ends, 1 - ends]).round(_DIGITS))


def _without_one_kind(fractions: np.ndarray) -> np.ndarray:
  """[n] which fractions have no experts, or no seed."""
  return (fractions == 0) | (fractions == 1)


class _Possible(NamedTuple):
  """What the cells allow of a split curve at n fractions.

  Attributes:
    losses: [n] expected losses.
    draws, weights: [S, n] curves that may be, and how likely each is [S].
    own: [S] the index of each one's best fraction.
  """

  losses: np.ndarray
  draws: np.ndarray
  weights: np.ndarray
  own: np.ndarray


def _possible(split: Split, fractions: np.ndarray) -> _Possible:
  draws, weights = split.draws(fractions)
  own = lowest(draws, split.unfollowed(fractions), _without_one_kind(fractions))
  if not split.of_usual_kind:
    return _Possible(split.loss(fractions), draws, weights, own)
  mean, deviation = USUAL
  far = np.minimum(np.abs(fractions[own] - mean) / deviation, _FARTHEST)
  weights = weights * np.exp(-(far**2) / 2)
  weights = weights / weights.sum()
  return _Possible(weights @ draws, draws, weights, own)


def _refined(split: Split, fractions: np.ndarray, losses: np.ndarray) -> float:
  """The minimiser between the neighbours of the best grid point, or an end where that is best."""
  best = _best(split, fractions, losses)
  if best in (0, len(fractions) - 1):
    return float(fractions[best])
  inner = np.linspace(fractions[best - 1], fractions[best + 1], 256).round(_DIGITS)
  return float(inner[split.loss(inner).argmin()])


def _best(split: Split, fractions: np.ndarray, losses: np.ndarray) -> int:
  return int(lowest(losses[None], split.unfollowed(fractions), _without_one_kind(fractions))[0])


def _domains(split: Split, fraction: float, mean: np.ndarray, has_dense: bool) -> tuple[DomainPlan, ...]:
  """Every domain's own, where their mean's expected losses, [2] of the split and of full pretraining, are `mean`."""
  at = np.array([fraction, 1.0])
  seed, expert = split.tokens(at)
  own = uneven(split, fraction)
  levels = mean / split.loss(at)
  plans = []
  for name in split.law.domains:
    losses = levels * split.loss(at, name)
    draws, weights = split.draws(at, name)
    interval = tuple(levels[0] * float(weighted_quantile(draws[:, 0], weights, q)) for q in (0.025, 0.975))
    dense = float(losses[1]) if has_dense else None
    seed_tokens, expert_tokens, uneven_loss = own[name]
    plans.append(DomainPlan(name, float(seed[0]), float(expert[0]), float(losses[0]), interval, dense, seed_tokens, expert_tokens,
                            levels[0] * uneven_loss))
  return tuple(plans)


def _settings(law: Law, settings: PlanSettings, overrides: dict[str, Any]) -> PlanSettings:
  known = [f.name for f in dataclasses.fields(PlanSettings)]
  for name in overrides:
    if name not in known:
      raise InputError(f"plan_split: no setting {name!r}{nearest(name, known)}")
  settings = dataclasses.replace(settings, **overrides)
  for name in ("params", "budget_tokens", "budget_flops", "num_domains", "unique_tokens"):
    value = getattr(settings, name)
    if value is not None and not (np.isfinite(value) and value > 0):
      raise InputError(f"--{name}={value:g}: must be positive")
  check_reach(law, **{name: getattr(settings, name) for name in ("params", "budget_tokens", "budget_flops")})
  if settings.accounting not in ("total", "per_model", "separate"):
    raise InputError(f"--accounting={settings.accounting}: must be total, per_model or separate")
  if (settings.budget_tokens is None) == (settings.budget_flops is None):
    raise InputError("give one budget: --budget_tokens or --budget_flops")
  if settings.params is None and settings.budget_flops is None:
    raise InputError("--params is missing; only --budget_flops can choose the size")
  if settings.num_domains is None:
    if law.domains == ("all",):
      raise InputError("--num_domains is missing; the law knows no domains")
    settings = dataclasses.replace(settings, num_domains=len(law.domains))
  return settings
