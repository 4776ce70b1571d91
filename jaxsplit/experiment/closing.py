"""The closing table: what was recommended, what the law predicted for it, and what was measured, per domain."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from jaxsplit.law import Law, Plan
from jaxsplit.results.cells import Cell
from jaxsplit.results.plan import PlannedPoint


@dataclasses.dataclass(frozen=True)
class Line:
  """One domain, or the mean over domains. Losses in nats per token, means over replicas; NaN what was not measured, or diverged.

  Attributes:
    domain: its name, or "mean"; "(mean)" where a domain has that name.
    predicted: the law's expected loss of the split that was trained.
    measured: the split's loss.
    dense: the loss of full pretraining on the budget's tokens.
    perplexity_change: exp(measured - dense) - 1; for the mean, the mean of the domains' changes.
  """

  domain: str
  predicted: float
  measured: float
  dense: float
  perplexity_change: float


def closing_lines(cells: Iterable[Cell], law: Law, point: PlannedPoint) -> list[Line]:
  """The table's lines: each domain, then their mean."""
  cells = [c for c in cells if c.params_total == point.params_total and c.role in ("split", "dense")]
  mean = lambda domain, match: _mean([c.loss for c in cells if c.domain == domain and c.status == "ok" and match(c)])
  lines = []
  for domain in sorted({c.domain for c in cells}):
    measured = mean(domain, lambda c: (c.seed_tokens, c.expert_tokens) == (point.seed_tokens, point.expert_tokens))
    dense = mean(domain, lambda c: c.role == "dense")
    params = next(c.params for c in cells)
    known = law.domains == ("all",) or domain in law.domains
    predicted = float(law.expect(params, point.seed_tokens, point.expert_tokens, domain)) if known else math.nan
    lines.append(Line(domain, predicted, measured, dense, math.exp(measured - dense) - 1))
  fields = [f.name for f in dataclasses.fields(Line) if f.name != "domain"]
  name = "(mean)" if any(line.domain == "mean" for line in lines) else "mean"
  return [*lines, Line(name, *(_mean([getattr(line, name) for line in lines]) for name in fields))]


def closing_rows(lines: Sequence[Line]) -> list[list[str]]:
  """The table's texts, its header first. Without a dense model that was measured, there are no columns for it."""
  number = lambda value, form: format(value, form) if math.isfinite(value) else "-"
  columns = {"predicted": ("predicted", ".4f"), "measured": ("measured", ".4f")}
  if any(math.isfinite(line.dense) for line in lines):
    columns |= {"dense": ("dense", ".4f"), "perplexity": ("perplexity_change", "+.2%")}
  return [["domain", *columns],
          *([line.domain, *(number(getattr(line, field), form) for field, form in columns.values())] for line in lines)]


def closing_text(lines: Iterable[Line], plan: Plan) -> str:
  """The table as text, of an experiment's plan."""
  point, (low, high) = plan.point, plan.fraction_interval
  of = "each model's " if plan.accounting == "per_model" else ""
  seeds = f"{plan.num_domains} seeds of" if plan.accounting == "separate" and point.expert_tokens else "seed"
  head = (f"recommended split of {of}{plan.budget_tokens:,.0f} tokens for {plan.num_domains} domains at N = {plan.params:,.0f}: "
          f"{plan.fraction:.0%} seed (95 % interval {low:.0%} to {high:.0%})\n"
          f"trained: {seeds} {point.seed_tokens:,} tokens, then {point.expert_tokens:,} tokens for each expert"
          f"{f'; {point.left_over:,} are left over, too few for a step of each' if point.left_over else ''}\n")
  if of:
    head += f"dense: one model of as many tokens as each of the {plan.num_domains}\n"
  rows = closing_rows(list(lines))
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  return head + "\n".join("  ".join(text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths)))
                          for row in rows)


def _mean(values: list[float]) -> float:
  return sum(values) / len(values) if values else math.nan
