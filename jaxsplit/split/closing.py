"""The closing table: what was recommended, what the law predicted for it, and what was measured, per domain."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from jaxsplit.law import Law, Plan
from jaxsplit.split.cells import Cell


@dataclasses.dataclass(frozen=True)
class Line:
  """One domain, or the mean over domains. Losses in nats per token, means over replicas.

  Attributes:
    domain: its name, or "mean".
    predicted: the law's expected loss of the split that was trained.
    measured: the split's loss.
    dense: the loss of full pretraining at the same compute.
    perplexity_change: exp(measured - dense) - 1; for the mean, the mean of the domains' changes.
  """

  domain: str
  predicted: float
  measured: float
  dense: float
  perplexity_change: float


def closing_lines(cells: Iterable[Cell], law: Law, seed_tokens: int, expert_tokens: int, params_total: int) -> list[Line]:
  """The table's lines: each domain, then their mean."""
  cells = [c for c in cells if c.params_total == params_total and c.status == "ok" and c.role in ("split", "dense")]
  mean = lambda domain, match: _mean([c.loss for c in cells if c.domain == domain and match(c)])
  lines = []
  for domain in sorted({c.domain for c in cells}):
    measured = mean(domain, lambda c: (c.seed_tokens, c.expert_tokens) == (seed_tokens, expert_tokens))
    dense = mean(domain, lambda c: c.role == "dense")
    params = next(c.params for c in cells)
    lines.append(Line(domain, float(law.expect(params, seed_tokens, expert_tokens, domain)), measured, dense,
                      math.exp(measured - dense) - 1))
  fields = [f.name for f in dataclasses.fields(Line) if f.name != "domain"]
  return [*lines, Line("mean", *(_mean([getattr(line, name) for line in lines]) for name in fields))]


def closing_text(lines: Iterable[Line], plan: Plan, seed_tokens: int, expert_tokens: int) -> str:
  """The table as text."""
  low, high = plan.fraction_interval
  head = (f"recommended split of {plan.budget_tokens:,.0f} tokens for {plan.num_domains} domains at N = {plan.params:,.0f}: "
          f"{plan.fraction:.0%} seed (95 % interval {low:.0%} to {high:.0%})\n"
          f"trained: seed {seed_tokens:,} tokens, then {expert_tokens:,} tokens for each expert\n")
  rows = [("domain", "predicted", "measured", "dense", "perplexity")]
  rows += [(l.domain, f"{l.predicted:.4f}", f"{l.measured:.4f}", f"{l.dense:.4f}", f"{l.perplexity_change:+.2%}") for l in lines]
  widths = [max(len(row[i]) for row in rows) for i in range(5)]
  return head + "\n".join("  ".join(text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths)))
                          for row in rows)


def _mean(values: list[float]) -> float:
  return sum(values) / len(values) if values else math.nan
