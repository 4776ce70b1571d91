"""plan.json: a recommended split."""

from __future__ import annotations

import dataclasses
import os

from jaxsplit.files import write_json
from jaxsplit.results.record import damaged, made, read_record, shape_of

VERSION = 7


@dataclasses.dataclass(frozen=True)
class DomainPlan:
  """One domain at the common split, and at an uneven one: `best_*` is its part of the best uneven split of the same budget.

  That may be less than an even one, and best_loss worse than loss, where the other domains make more of the tokens. dense_loss
  is None where no cell has D' = 0.
  """

  domain: str
  seed_tokens: float
  expert_tokens: float
  loss: float
  loss_interval: tuple[float, float]
  dense_loss: float | None
  best_seed_tokens: float
  best_expert_tokens: float
  best_loss: float


@dataclasses.dataclass(frozen=True)
class SplitCurve:
  """The mean loss against the split.

  Attributes:
    fraction: [n] the seeds' shares, rising; with both ends, where they were measured.
    loss, low, high: [n] expected, and where a model trained anew lies (95 %).
    measured: [n] whether D and D' lie within what was measured.
  """

  fraction: tuple[float, ...]
  loss: tuple[float, ...]
  low: tuple[float, ...]
  high: tuple[float, ...]
  measured: tuple[bool, ...]


@dataclasses.dataclass(frozen=True)
class PlannedPoint:
  """What an experiment trains for a plan: the split in whole steps that is nearest to the recommended one.

  Attributes:
    params_total: of the models, with embeddings.
    seed_steps, expert_steps: of each seed and each expert.
    seed_tokens, expert_tokens: D and D', the same in tokens.
    fraction: the seeds' share of these tokens.
    left_over: tokens of the budget that are too few for another step of each seed.
  """

  params_total: int
  seed_steps: int
  expert_steps: int
  seed_tokens: int
  expert_tokens: int
  fraction: float
  left_over: int


@dataclasses.dataclass(frozen=True)
class Plan:
  """A recommended split. Losses are nats per token, means over domains unless said otherwise.

  Attributes:
    params, budget_tokens, budget_flops, num_domains, accounting, unique_tokens: as planned for.
    forms: the forms that it was planned with, each with its weight; the weights sum to 1.
    seed_tokens: D, of each seed where there are several.
    expert_tokens: D' of each expert.
    fraction: the seeds' share of the budget in tokens.
    fraction_interval: 95 %, over all that the cells allow.
    loss, loss_interval: expected at the split, and where a model trained anew lies (95 %).
    domains: each domain's part.
    dense_loss: predicted where the whole budget pretrains one model (D'=0); None where no cell has D' = 0.
    seedless_loss: predicted where experts share no seed (D=0); None where no cell has D = 0.
    fixed_loss: predicted at 80/20.
    gain_over_dense, gain_over_fixed: dense_loss - loss and fixed_loss - loss, with 95 % intervals; None where one is unknown.
    split_point: D at the minimum of the expected mean loss near the split: beyond it, tokens lower it more in experts.
    regret: expected excess loss of this split over the best one.
    curve: the mean loss against the split.
    warnings: what to know before acting on the plan.
    beyond: N, D, D' and D + D' of the plan over the largest that was measured, by "params", "seed_tokens", "expert_tokens" and
      "tokens".
    point: what an experiment trains for it; None of a plan that was read off a law alone.
  """

  params: float
  budget_tokens: float
  budget_flops: float
  num_domains: int
  accounting: str
  unique_tokens: float | None
  forms: dict[str, float]
  seed_tokens: float
  expert_tokens: float
  fraction: float
  fraction_interval: tuple[float, float]
  loss: float
  loss_interval: tuple[float, float]
  domains: tuple[DomainPlan, ...]
  dense_loss: float | None
  seedless_loss: float | None
  fixed_loss: float
  gain_over_dense: float | None
  gain_over_dense_interval: tuple[float, float] | None
  gain_over_fixed: float
  gain_over_fixed_interval: tuple[float, float]
  split_point: float
  regret: float
  curve: SplitCurve
  warnings: tuple[str, ...]
  beyond: dict[str, float]
  point: PlannedPoint | None = None

  @property
  def giving(self) -> tuple[str, ...]:
    """The domains that the best uneven split leaves worse off than the common one, for the sake of the others."""
    return tuple(d.domain for d in self.domains if d.best_loss > d.loss * (1 + 1e-4))

  @property
  def better_dense(self) -> tuple[str, ...]:
    """The domains that one model of the whole budget would serve better than their part of the best uneven split."""
    return tuple(d.domain for d in self.domains if d.dense_loss is not None and d.best_loss > d.dense_loss * (1 + 1e-4))

  @property
  def unmeasured(self) -> tuple[str, ...]:
    """The domains whose part of the best uneven split has no seed, or no expert tokens, where no cell was without."""
    return tuple(d.domain for d in self.domains if self.seedless_loss is None and not d.best_seed_tokens
                 or self.dense_loss is None and not d.best_expert_tokens)

  def save(self, path: str | os.PathLike) -> None:
    """Writes plan.json."""
    write_json(path, {**dataclasses.asdict(self), "version": VERSION})


def load_plan(path: str | os.PathLike) -> Plan:
  """Reads plan.json.

  Raises:
    InputError: not a plan of this version, or damaged.
  """
  record = read_record(path, shape_of(Plan), VERSION, "a plan", "plan")
  plan = made(Plan, record)
  if len(set(map(len, vars(plan.curve).values()))) != 1 or not plan.curve.loss:
    raise damaged(path, "the lists of its curve differ in length or are empty", "plan")
  return plan
