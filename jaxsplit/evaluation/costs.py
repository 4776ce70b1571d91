"""What training an experiment's models took, by its ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jaxsplit.results.stages import StageRecord


def of_run(stages: Iterable[StageRecord], domain: str | None, steps: int) -> tuple[float, float] | None:
  """Training FLOPs of one model's life: those before its fork, and those behind it.

  Args:
    stages: of the ledger, of models of one shape.
    domain: what the model is an expert on; None for one that read the mixture alone.
    steps: of its whole life.

  Returns:
    None where no stage ends with such a run.
  """
  for stage in stages:
    for run in stage.runs:
      if run.domain == domain and run.born + stage.steps == steps and (stage.tokens or not steps):
        per_step = stage.flops / (stage.steps * len(stage.runs)) if steps else 0.0  # A base model has no steps.
        seed = run.point.seed_steps if domain is not None and run.point else 0
        return per_step * seed, per_step * (steps - seed)
  return None


def of_experts(stages: Sequence[StageRecord], steps: dict[str, int], shared_seed: bool) -> float | None:
  """Training FLOPs of the experts on these domains, `steps` of each in its whole life, and of their seed, or seeds; None where the
  ledger does not have one of them."""
  found = [of_run(stages, domain, one) for domain, one in steps.items()]
  if not found or None in found:
    return None
  seeds = [seed for seed, _ in found]
  return (max(seeds) if shared_seed else sum(seeds)) + sum(own for _, own in found)
