"""Warnings about a plan: how far it extrapolates, and whether it can be made at all."""

from __future__ import annotations

import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.law.design import no_split, one_kind
from jaxsplit.law.law import Law
from jaxsplit.law.split import Split

_MOST_PASSES = 4  # Over its data that a model makes without much loss: Muennighoff et al. 2023.
_REACH = 1e9  # Sizes and tokens this many times the largest measured are no question to a law.
_CHECKED = {"params": 4, "seed_tokens": 16, "expert_tokens": 16}  # Times the largest measured, as far as docs/calibration.md goes.
_CHECKED_WITH_PRIORS = {"params": 160, "seed_tokens": 5, "expert_tokens": 5}  # The same of laws that were read with priors.
_MANY_DOMAINS = 2  # A number of domains this many times that of the measured ones is remarked.


def check_splits(law: Law) -> None:
  """Refuses laws that know nothing of splits.

  Raises:
    InputError: seeds or experts were hardly measured, or the law's forms take their tokens for the same.
  """
  reason = unplannable(law)
  if reason:
    raise InputError(f"{law.data.get('file', 'the law')}: {reason}")


def check_reach(law: Law, **asked: float | None) -> None:
  """Refuses counts so far beyond all that was measured that they are slips of the pen, and overflow.

  Args:
    law: as it was fitted.
    asked: by their flags: params, or tokens of any kind, or budget_flops; None is not asked.

  Raises:
    InputError: naming the first of them.
  """
  ranges = law.data["ranges"]
  size, tokens = ranges["params"][1], ranges["seed_tokens"][1] + ranges["expert_tokens"][1]
  for flag, value in asked.items():
    largest, reach = {"params": (size, _REACH), "budget_flops": (6 * size * tokens, _REACH**2)}.get(flag, (tokens, _REACH))
    if value is not None and value > reach * largest:
      raise InputError(f"--{flag}={value:g}: {value / largest:.1g} times the most that was measured ({largest:.3g}); the law is asked "
                       f"for at most {reach:g} times that")


def unplannable(law: Law) -> str:
  """Why no split can be read off a law, and what to do; empty where one can."""
  ranges = law.data["ranges"]
  unmeasured = no_split(law.data["levels"], ranges)
  if unmeasured:
    return unmeasured
  size, total = ranges["params"][1], ranges["seed_tokens"][1] + ranges["expert_tokens"][1]
  share = np.array([0.2, 0.4, 0.6, 0.8])
  losses = [[m.predict(m.theta[None], *(np.broadcast_to(v, 4) for v in (size, share * total, (1 - share) * total)), k)[0]
             for k in range(len(law.domains))] for m in law.members]
  if np.ptp(losses, axis=-1).max() < 1e-9 * np.max(losses):
    return one_kind(law.form)
  return ""


def plan_warnings(law: Law, split: Split, fraction: float, num_domains: int, given_unique: bool) -> tuple[str, ...]:
  """Sentences for whoever will act on the plan, the law's own last.

  Args:
    law: as it was fitted.
    split: the budget at its size.
    fraction: the recommended split.
    num_domains: K.
    given_unique: the plan was told the domains' distinct tokens.
  """
  seed, expert = (float(v[0]) for v in split.tokens(np.array([fraction])))
  ranges, checked = law.data["ranges"], _CHECKED_WITH_PRIORS if law.with_priors else _CHECKED
  found = []
  for name, label, value in (("params", "N", split.params), ("seed_tokens", "D", seed), ("expert_tokens", "D'", expert)):
    low, high = ranges[name]
    if value > high * 1.001 and high > 0:
      far = value > checked[name] * high
      found.append(f"{label} = {value:.3g} is {value / high:.1f} times the largest measured ({high:.3g}): the law extrapolates"
                   f"{f', further than its intervals were ever checked ({checked[name]} times): take them for too narrow' if far else ''}")
    elif value < low * 0.999:
      found.append(f"{label} = {value:.3g} is below the smallest measured ({low:.3g}): the law extrapolates")
  if split.beyond(np.linspace(0.005, 0.995, 199)).all():
    found.append("no split of this budget has as many seed and expert tokens as were measured: taken is the lowest point of the "
                 "valley that lies nearest to the cells")
  largest = ranges["seed_tokens"][1]
  if split.budget.seeds > 1 and fraction < 1 and split.budget.amount > largest > 0:
    found.append(f"one dense model of the whole budget has {split.budget.amount / largest:.1f} times the most seed tokens measured "
                 f"({largest:.3g}): what it would reach is extrapolated")
  if ranges["expert_tokens"][0] > 0:
    found.append("no measured cell has D' = 0: what full pretraining would reach is not known")
  known = len(law.domains)
  if law.domains != ("all",) and not known / _MANY_DOMAINS <= num_domains <= known * _MANY_DOMAINS:
    found.append(f"K = {num_domains}, but {known} domain{'s were' if known > 1 else ' was'} measured: their mean stands for all "
                 f"{num_domains}, and nothing says that the others are like them")
  found += _passes(split, seed, expert, given_unique)
  if fraction in (0.0, 1.0):
    found.append(f"the best split is at an end: {'no shared seed' if fraction == 0 else 'full pretraining, no experts'}")
  if not law.members[0].samples.size:
    found.append("the law has no bootstrap, so the intervals have no width: fit it with --bootstrap=1000")
  return (*found, *law.warnings)


def _passes(split: Split, seed: float, expert: float, given: bool) -> list[str]:
  """Whether the plan reads some domain's data more often than is good."""
  member = split.law.members[0]
  layout = member.layout
  times = [(share * seed + expert) / unique for share, unique in zip(layout.shares, layout.unique_tokens)]
  worst = int(np.argmax(times))
  if times[worst] <= _MOST_PASSES:
    return []
  of = "" if given or layout.domains == ("all",) else f" of domain {layout.domains[worst]}"
  counts = "discounts them" if member.model.repeats else "counts repeated tokens as fresh ones: fit it with --repeats"
  return [f"seed and expert together pass {times[worst]:.3g} times over the {layout.unique_tokens[worst]:.3g} distinct tokens"
          f"{of}, and the law {counts}"]
