"""Baselines that a split is compared with: the usual ways to spend the same compute, from the measured cells, or noted as missing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from jaxsplit.experiment.budget import Steps
from jaxsplit.results.cells import Cell
from jaxsplit.results.plan import PlannedPoint
from jaxsplit.results.stages import Point

_NEAR = 0.1  # How far FLOPs or parameters may be from those that they are to equal.


@dataclasses.dataclass(frozen=True)
class Contender:
  """One way to spend the compute, at the target size unless said otherwise.

  Attributes:
    name: in words.
    share: the seed's share of the tokens; 1 for a dense model.
    params: N of the one model that processes a text: the cost of inference.
    total_params: parameters of all models together, with embeddings; None where nothing is measured.
    training_flops: of all of them together.
    loss: mean over domains and replicas, nats per token; None where it is not measured.
    loss_stderr: over replicas; None with one.
    perplexity_change: against full pretraining: exp(difference of losses) - 1, the mean over domains.
    note: what was measured, or what would measure it.
  """

  name: str
  share: float
  params: int | None
  total_params: int | None
  training_flops: float | None
  loss: float | None
  loss_stderr: float | None
  perplexity_change: float | None
  note: str


def contenders(cells: Iterable[Cell], params_total: int, domains: Sequence[str], budget: Steps, batch_tokens: int,
               planned: PlannedPoint | None) -> list[Contender]:
  """The recommended split, 80/20, 50/50, no seed, and the dense models that reviewers ask for.

  Args:
    cells: of a work directory; those of runs that diverged are left out.
    params_total: of the target's models, with embeddings.
    domains: K.
    budget: what is split.
    batch_tokens: tokens of a step.
    planned: the recommended split, where there is a plan.
  """
  whole = [cell for cell in cells if cell.status == "ok" and cell.role in ("split", "dense")]
  own = [cell for cell in whole if cell.params_total == params_total]
  dense = _group(own, budget.point(1.0), batch_tokens, domains)
  make = lambda name, share, point, how: _contender(name, share, _group(own, point, batch_tokens, domains), dense, budget, how)
  compare = lambda share: f"add {share:g} to Experiment.compare to have it measured"
  out = []
  if planned:
    out.append(make("recommended split", planned.fraction, Point(planned.seed_steps, planned.expert_steps, "split"),
                    "the experiment's command measures it"))
  for name, share in (("80/20", 0.8), ("50/50 (BTM)", 0.5), ("no seed (D = 0)", 0.0)):
    out.append(make(name, share, budget.point(share), compare(share)))
  out.append(make("full pretraining", 1.0, budget.point(1.0), compare(1)))
  return [*out, *_dense_models(whole, own, dense, domains, budget)]


def _dense_models(whole: Sequence[Cell], own: Sequence[Cell], dense: list[list[Cell]], domains: Sequence[str],
                  budget: Steps) -> list[Contender]:
  """The dense models at their best, at equal inference cost, and at equal total parameters."""
  flops = max((cell.flops for group in dense for cell in group), default=None)
  near = lambda value, wanted: wanted is not None and abs(value / wanted - 1) <= _NEAR
  groups: dict[tuple, list[Cell]] = {}
  for cell in own:
    if cell.role == "dense" and near(cell.flops, flops):
      groups.setdefault((cell.batch_tokens, cell.learning_rate), []).append(cell)
  complete = {key: found for key, group in groups.items() if (found := _by_replica(group, domains))}
  out, unmeasured = [], "only one batch size and rate are measured; run another work directory with another Training.batch_sequences"
  name = "dense, best batch size and rate"
  if len(complete) > 1:
    key = min(complete, key=lambda key: np.mean([cell.loss for group in complete[key] for cell in group]))
    best = _contender(name, 1.0, complete[key], dense, budget, "")
    out.append(dataclasses.replace(best, note=f"{key[0]:,} tokens a step, rate {key[1]:g}: the best of {len(complete)}"))
  else:
    out.append(_contender(name, 1.0, [], dense, budget, unmeasured))
  equal = _contender("dense, equal inference cost", 1.0, dense, dense, budget, "add 1 to Experiment.compare to have it measured")
  out.append(dataclasses.replace(equal, note="full pretraining: one expert answers, of the same N") if dense else equal)
  total = len(domains) * own[0].params_total if own else None
  others = [cell for cell in whole if cell.role == "dense" and near(cell.params_total, total) and near(cell.flops, flops)]
  what = f"; it would be a target of {total:,} parameters in total, trained on fewer tokens" if total else ""
  how = f"no dense model of that size is measured{what}"
  return [*out, _contender("dense, equal total parameters", 1.0, _by_replica(others, domains), dense, budget, how)]


def _group(cells: Sequence[Cell], point: Point, batch_tokens: int, domains: Sequence[str]) -> list[list[Cell]]:
  """Each replica's cells of one point, one a domain, at the rate of the experiment's."""
  tokens = point.seed_steps * batch_tokens, point.expert_steps * batch_tokens
  return _by_replica([cell for cell in cells if (cell.seed_tokens, cell.expert_tokens) == tokens and cell.batch_tokens == batch_tokens],
                     domains)


def _by_replica(cells: Sequence[Cell], domains: Sequence[str]) -> list[list[Cell]]:
  replicas: dict[tuple, list[Cell]] = {}
  for cell in sorted(cells, key=lambda cell: cell.domain):
    replicas.setdefault((cell.params_total, cell.learning_rate, cell.replica), []).append(cell)
  return [group for group in replicas.values() if {cell.domain for cell in group} == set(domains)]


def _contender(name: str, share: float, groups: list[list[Cell]], dense: list[list[Cell]], budget: Steps, how: str) -> Contender:
  if not groups:
    return Contender(name, share, None, None, None, None, None, None, f"not measured: {how}")
  cell, means = groups[0][0], [np.mean([cell.loss for cell in group]) for group in groups]
  models = len({cell.domain for cell in groups[0]}) if cell.expert_tokens else 1
  per_token = cell.flops / (cell.seed_tokens + cell.expert_tokens)
  flops = per_token * (budget.seeds * cell.seed_tokens + models * cell.expert_tokens) if cell.expert_tokens else cell.flops
  change = None
  if dense:
    of = lambda groups: {cell.domain: np.mean([one.loss for group in groups for one in group if one.domain == cell.domain])
                         for cell in groups[0]}
    ours, theirs = of(groups), of(dense)
    change = float(np.mean([math.exp(ours[domain] - theirs[domain]) - 1 for domain in ours]))
  spread = float(np.std(means, ddof=1) / math.sqrt(len(means))) if len(means) > 1 else None
  return Contender(name, share, cell.params, models * cell.params_total, flops, float(np.mean(means)), spread, change, "")


def contender_rows(found: Sequence[Contender]) -> list[list[str]]:
  """The table's texts, its header first."""
  show = lambda value, form: "-" if value is None else format(value, form)
  rows = [["way", "seed", "loss", "perplexity from dense", "training FLOPs", "active N", "total parameters", ""]]
  for one in found:
    loss = show(one.loss, ".4f") + (f" ± {one.loss_stderr:.4f}" if one.loss_stderr is not None else "")
    rows.append([one.name, f"{one.share:.0%}", loss, show(one.perplexity_change, "+.2%"), show(one.training_flops, ".3g"),
                 show(one.params, ","), show(one.total_params, ","), one.note])
  return rows
