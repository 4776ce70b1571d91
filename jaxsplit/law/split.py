"""One budget at one size, split between seed and experts: evenly over domains, or so that each has what helps it most."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxsplit.law.law import Law
from jaxsplit.results.budget import Budget

_ROUNDING = 1.01  # Steps are whole.


@dataclasses.dataclass(frozen=True)
class Split:
  """A budget at one size, as a function of the split fraction."""

  law: Law
  params: float
  budget: Budget

  @property
  def of_usual_kind(self) -> bool:
    """Whether it is known before any cell is seen where the best fraction may be (`expected.USUAL`): of laws with priors, of models
    trained from the beginning, whose domains share one trunk."""
    return (self.law.with_priors and self.budget.accounting == "total"
            and not any(member.model.form.one_size for member in self.law.members))

  def tokens(self, fraction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """D of each seed and D' of each expert."""
    return self.budget.divided(fraction)

  def loss(self, fraction: np.ndarray, domain: str | None = None) -> np.ndarray:
    """Expected loss at each fraction; the mean over domains where none is named."""
    return self.law.expect(self.params, *self.tokens(fraction), domain)

  def beyond(self, fraction: np.ndarray) -> np.ndarray:
    """[n] how far what each fraction takes lies beyond all seed and expert tokens that were measured, as the larger of both
    logarithms: 0 where some size was measured at no fewer and no more of either. (Their sum would be least where nearly all of a
    large budget is one of the two.)"""
    furthest = np.zeros(len(fraction))
    for name, tokens in zip(("seed_tokens", "expert_tokens"), self.tokens(fraction)):
      low, high = self.law.data["ranges"][name]
      least, most = tokens * _ROUNDING, tokens / _ROUNDING
      with np.errstate(divide="ignore", invalid="ignore"):  # Of no tokens.
        under, over = np.where(least < low, np.log(low / least), 0), np.where(most > high, np.log(most / high), 0)
        furthest = np.maximum(furthest, np.maximum(under, over))
    return furthest

  def unfollowed(self, fraction: np.ndarray) -> np.ndarray:
    """[n] `beyond`, where the valleys of curves are to be followed from what was measured (`lowest`). Those of a law with priors are
    not: its sweep may be smaller than any split of the budget, and its draws know how unsure they are there."""
    return np.zeros(len(fraction)) if self.law.with_priors else self.beyond(fraction)

  def draws(self, fraction: np.ndarray, domain: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """What the losses may be, [S, n], and the weights of these possibilities [S]; see `Law.draws`."""
    return self.law.draws(self.params, *self.tokens(fraction), domain)


def lowest(losses: np.ndarray, beyond: np.ndarray, ends: np.ndarray) -> np.ndarray:
  """[S] which fraction is best on each curve: the foot of the valley that starts where fractions were measured, or the nearest one.

  Along a budget a form's loss falls to one lowest point and rises again. Where a curve rises towards the end of what was measured,
  a lower point beyond it is only what nothing there speaks against, so it is not taken; where a curve falls there, it is followed on.

  Args:
    losses: [S, n] over increasing fractions.
    beyond: [n] as `Split.beyond`.
    ends: [n] fractions of another kind, no experts or no seed, which are measured by themselves and may be best wherever they lie.
  """
  at = np.flatnonzero(beyond == beyond[~ends].min())
  best = at[losses[:, at].argmin(1)]
  rows = np.arange(len(losses))
  for end, step in ((at[0], -1), (at[-1], 1)):
    beyond = losses[:, end::step]  # From the end of what was measured outwards.
    falls = np.minimum.accumulate(beyond[:, 1:] < beyond[:, :-1], axis=1).sum(1)
    foot = end + step * falls
    best = np.where((best == end) & (losses[rows, foot] < losses[rows, best]), foot, best)
  for end in np.flatnonzero(ends):
    best = np.where(losses[:, end] < losses[rows, best], end, best)
  return best


def uneven(split: Split, even_fraction: float) -> dict[str, tuple[float, float, float]]:
  """Per domain (D_k, D'_k, loss) where experts fork from different snapshots and train for different lengths.

  per_model, separate: every domain splits its own budget. total: the trunk runs to D and the rest of the budget is shared out, so
  that one more token would help every expert equally; D is the best of a grid. An expert forks before D only where more
  seed would hurt it, since the trunk is paid for anyway.
  """
  names, budget = split.law.domains, split.budget
  forms, even = split.law.mean_of_forms, np.array([even_fraction])
  level = {name: float(split.loss(even, name)[0] / forms(split.params, *split.tokens(even), name)[0]) for name in names}
  loss = lambda name, d, e: level[name] * forms(split.params, d, e, name)
  if budget.experts == 1 or budget.seeds > 1 or len(names) == 1:
    out = {}
    # A dense model that several seeds' budgets pay for is nothing that one domain can choose alone.
    fraction = np.linspace(0, 1, 401) if budget.seeds == 1 else np.ones(1) if even_fraction == 1 else np.linspace(0, 1, 401)[:-1]
    for name in names:
      d, e = split.tokens(fraction)
      losses = loss(name, d, e)
      i = int(losses.argmin())
      out[name] = float(d[i]), float(e[i]), float(losses[i])
    return out
  # Experts' lengths as multiples of an even share; num_domains may exceed the law's domains, whose share is then scaled.
  lengths = np.unique(np.concatenate([[0, 1], np.geomspace(0.02, budget.experts, 250)]))
  fractions = np.append(np.linspace(0, 0.96, 25), even_fraction)
  forks, share = np.outer(fractions * budget.amount, np.linspace(0, 1, 5)), (1 - fractions) * budget.amount / budget.experts
  tables = np.stack([loss(name, forks[:, :, None], share[:, None, None] * lengths) for name in names], 1)
  tokens = []  # Of each candidate, D_k and D'_k: [2, k].
  for table, fork, each in zip(tables, forks, share):  # table: [k, fork, length]
    shared = lengths[_share_out(table.min(1), lengths)]
    # The grid leaves a little of the budget over: it is spent in proportion. Even lengths are always a candidate.
    for length in (np.ones(len(names)), shared / max(shared.mean(), 1e-12)):
      nearest = np.abs(lengths - length[:, None]).argmin(1)
      tokens.append((fork[table[np.arange(len(names)), :, nearest].argmin(1)], each * length))
  d, e = np.moveaxis(np.array(tokens), 0, 2)  # [k, candidate]
  losses = np.stack([loss(name, d[k], e[k]) for k, name in enumerate(names)])
  i = int(losses.sum(0).argmin())
  return {name: (float(d[k, i]), float(e[k, i]), float(losses[k, i])) for k, name in enumerate(names)}


def _share_out(losses: np.ndarray, lengths: np.ndarray) -> np.ndarray:
  """[k] choices of length, of mean at most 1, at which a unit of length is worth the same to every domain.

  Args:
    losses: [k, n] at each length; may be infinite at none.
    lengths: [n] increasing.
  """
  finite = np.where(np.isfinite(losses), losses, np.nan)
  low, high = 0.0, float(np.nanmax(np.nanmax(finite, 1) - np.nanmin(finite, 1)) / lengths[1])
  chosen = np.zeros(len(losses), int)
  for _ in range(60):
    price = (low + high) / 2
    choice = (losses + price * lengths).argmin(1)
    if lengths[choice].mean() <= 1:
      chosen, high = choice, price
    else:
      low = price
  return chosen
