"""The closing table: what was recommended, what the law predicted for it, and what was measured, per domain."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from jaxsplit.columns import aligned
from jaxsplit.experiment.probe import doubts
from jaxsplit.law import Law, Plan
from jaxsplit.results.budget import Budget
from jaxsplit.results.cells import Cell
from jaxsplit.results.stages import Point

USUAL = 0.8  # The seeds' share of the usual split, which every plan is compared with.
_STEPS = 0.02  # How far whole steps may take it off.


@dataclasses.dataclass(frozen=True)
class Line:
  """One domain, or the mean over domains. Losses in nats per token, means over replicas; NaN what was not measured, or diverged.

  Attributes:
    domain: its name, or "mean"; "(mean)" where a domain has that name.
    predicted: the plan's expected loss of the split that was trained.
    measured: the split's loss.
    fixed: the loss of the usual split, 80 % seed and 20 % experts.
    dense: the loss of full pretraining on the budget's tokens.
    uneven: the loss in the uneven plan.
    fixed_change, perplexity_change: exp(measured - fixed) - 1, exp(measured - dense) - 1; for the mean, the mean of the domains'.
  """

  domain: str
  predicted: float
  measured: float
  fixed: float
  dense: float
  fixed_change: float
  perplexity_change: float
  uneven: float = math.nan


def closing_lines(cells: Iterable[Cell], law: Law, plan: Plan, budget: Budget, uneven: Mapping[str, Point] = {}) -> list[Line]:
  """The table's lines: each domain, then their mean. Cells are splits of the budget, and of the uneven plan's points."""
  point, planned = plan.point, {d.domain: d.loss for d in plan.domains}
  cells = [c for c in cells if c.params_total == point.params_total and c.role in ("split", "dense", "uneven")]
  usual = {(c.seed_tokens, c.expert_tokens) for c in cells
           if c.role == "split" and abs(budget.fraction(c.seed_tokens, c.expert_tokens) - USUAL) < _STEPS}
  mean = lambda domain, match: _mean([c.loss for c in cells if c.domain == domain and c.status == "ok" and match(c)])
  lines = []
  for domain in sorted({c.domain for c in cells}):
    measured = mean(domain, lambda c: c.role != "uneven" and (c.seed_tokens, c.expert_tokens) == (point.seed_tokens, point.expert_tokens))
    fixed = mean(domain, lambda c: (c.seed_tokens, c.expert_tokens) in usual)
    dense = mean(domain, lambda c: c.role == "dense")
    own = uneven.get(domain)
    apart = mean(domain, lambda c: own and c.role == own.role and (c.seed_tokens, c.expert_tokens) == (
        own.seed_steps * c.batch_tokens, own.expert_steps * c.batch_tokens))
    params = next(c.params for c in cells)
    known = law.domains == ("all",) or domain in law.domains
    expected = lambda seed, expert, params=params, domain=domain: float(law.expect(params, seed, expert, domain))
    # The plan's expectation, which counts what cells leave open by how usual it is, at the whole steps that were trained.
    predicted = expected(point.seed_tokens, point.expert_tokens) * planned[domain if domain in planned else "all"] / expected(
        plan.seed_tokens, plan.expert_tokens) if known else math.nan
    change = lambda other, measured=measured: math.exp(measured - other) - 1
    lines.append(Line(domain, predicted, measured, fixed, dense, change(fixed), change(dense), apart))
  fields = [f.name for f in dataclasses.fields(Line) if f.name != "domain"]
  name = "(mean)" if any(line.domain == "mean" for line in lines) else "mean"
  return [*lines, Line(name, *(_mean([getattr(line, name) for line in lines]) for name in fields))]


def closing_rows(lines: Sequence[Line]) -> list[list[str]]:
  """The table's texts, header first. Columns for the 80/20 split, the dense model and the uneven plan only if they were measured."""
  number = lambda value, form: format(value, form) if math.isfinite(value) else "-"
  columns = {"predicted": ("predicted", ".4f"), "measured": ("measured", ".4f")}
  if any(math.isfinite(line.fixed) for line in lines):
    columns |= {"80/20": ("fixed", ".4f"), "from 80/20": ("fixed_change", "+.2%")}
  if any(math.isfinite(line.dense) for line in lines):
    columns |= {"dense": ("dense", ".4f"), "from dense": ("perplexity_change", "+.2%")}
  if any(math.isfinite(line.uneven) for line in lines):
    columns |= {"uneven": ("uneven", ".4f")}
  return [["domain", *columns],
          *([line.domain, *(number(getattr(line, field), form) for field, form in columns.values())] for line in lines)]


def closing_text(lines: Iterable[Line], plan: Plan, warnings: Iterable[str] = ()) -> str:
  """The table as text, of an experiment's plan, and below it the warnings of the law that it rests on."""
  point, (low, high) = plan.point, plan.fraction_interval
  of = "each model's " if plan.accounting == "per_model" else ""
  seeds = f"{plan.num_domains} seeds of" if plan.accounting == "separate" and point.expert_tokens else "seed"
  head = (f"recommended split of {of}{plan.budget_tokens:,.0f} tokens for {plan.num_domains} domains at N = {plan.params:,.0f}: "
          f"{plan.fraction:.0%} seed (95 % interval {low:.0%} to {high:.0%})\n"
          f"trained: {seeds} {point.seed_tokens:,} tokens, then {point.expert_tokens:,} tokens for each expert"
          f"{f'; {point.left_over:,} tokens are unused, too few for another step of each' if point.left_over else ''}\n")
  if of:
    head += f"dense: one model trained on as many tokens as each of the {plan.num_domains} models\n"
  return head + "\n".join([*aligned(closing_rows(list(lines))), *(f"warning: {text}" for text in warnings)])


def rate_text(proof: Iterable[Cell], probe: Iterable[Cell]) -> str:
  """In words, the learning rate of the models at the target size, and where it comes from; empty where nothing is measured there."""
  proof, probe = list(proof), list(probe)
  if not proof:
    return ""
  rates = ", ".join(f"{rate:g}" for rate in sorted({cell.learning_rate for cell in proof}))
  if not probe:
    of = "as given"
  elif any(cell.params_total == proof[0].params_total for cell in probe):
    of = "from a rule fitted to probes, including full pretraining at that size"
  else:
    of = f"from a rule fitted to probes of smaller sizes, the largest of N = {max(cell.params for cell in probe):,}"
  text = f"all models of N = {proof[0].params:,} train at learning rate {rates}, {of}, in batches of {proof[0].batch_tokens:,} tokens"
  return "; ".join([text, *doubts(probe)])


def _mean(values: list[float]) -> float:
  return sum(values) / len(values) if values else math.nan
