"""The chapters of an experiment's report, each drawn from its evidence; one that lacks its evidence says so in a sentence."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxsplit.experiment.closing import closing_rows, rate_text
from jaxsplit.experiment.curve import curve_text
from jaxsplit.law import Cells
from jaxsplit.report import figures, found as found_domains, html, law_figures, style, training_figures, ways
from jaxsplit.report.album import Album
from jaxsplit.report.comparison import comparison, predictions
from jaxsplit.report.evidence import Evidence, means
from jaxsplit.report.law_text import candidates_table, law_parts, plan_parts
from jaxsplit.report.terms import terms
from jaxsplit.results.stages import totals
from jaxsplit.training.metrics import read_metrics
from jaxsplit.training.telemetry import StageTelemetry, read_telemetry

Parts = list[str]  # HTML.
_TELEMETRY = "telemetry.jsonl"
_UNTRAINED = "No training stage is finished yet, so there are neither loss curves nor a ledger."


class Missing(Exception):
  """Why a chapter cannot be written yet, in a sentence."""


def closing(evidence: Evidence, album: Album) -> Parts:
  """The closing table and the gains."""
  lines = evidence.closing()
  if lines is None:
    raise Missing("All runs of the recommended split diverged, so there is no table of results." if evidence.finished else
                  "The recommended split and the dense model that it is compared with are not both measured yet.")
  seed, expert = evidence.recommended.seed_tokens, evidence.recommended.expert_tokens
  plan, (low, high) = evidence.plan, evidence.plan.fraction_interval
  header, *rows = closing_rows(lines)
  seeds = f"a seed of {seed:,} tokens"
  if evidence.own_seeds and expert:
    seeds = f"{len(evidence.domains)} seeds of {seed:,} tokens each"
  caption = (f"Losses in nats per token on held-out text. Recommended: {plan.fraction:.0%} seed (95 % interval {low:.0%} to "
             f"{high:.0%}); trained: {seeds}, then {expert:,} tokens for each expert.")
  if "80/20" in header:
    caption += " 80/20: 80 % seed, the usual split, measured too; from 80/20: change of perplexity relative to it."
  if "dense" in header:
    caption += (" Dense: full pretraining of one model on as many tokens as each seed and expert together." if evidence.per_model else
                " Dense: full pretraining at the same compute; from dense: change of perplexity relative to it.")
  if "uneven" in header:
    caption += " Uneven: each domain's loss in the plan in which each expert has its own seed tokens D and expert tokens D′."
  rates = rate_text(evidence.proof, evidence.probe)
  table = html.table(header, rows, f"{caption} {rates[0].upper()}{rates[1:]}.", total=True)
  compared = [line for line in lines[:-1] if math.isfinite(line.perplexity_change)]
  if expert == 0 or not compared:  # The dense model is the recommendation, so there is no gain to show.
    return [table]
  words = (f"against {evidence.rival}" if evidence.per_model else
           "when the same compute is split instead of spent on one dense model")
  return [table, album.show("gains", figures.gains([*compared, lines[-1]]), (
      f"Change of perplexity on every domain {words}. Bars to the left are gains. The dashed line is the mean over domains."))]


def split(evidence: Evidence, album: Album) -> Parts:
  """The split curve."""
  plan = evidence.plan
  if plan is None:
    raise Missing("There is no plan yet, so there is no predicted split curve.")
  between = f"{'the seed' if not evidence.own_seeds else 'its seed'} and its expert" if evidence.per_model else (
      f"{plan.num_domains} seeds and their experts; at 100 % it is one dense model of them all" if evidence.own_seeds else
      f"the seed and {plan.num_domains} experts")
  figure = album.show("split_curve", figures.split_curve(evidence, plan), (
      f"Expected loss at N = {plan.params:,.0f}, a size that the law was not fitted to, for every split of "
      f"{evidence.budget_text} between {between}. The lowest point is the "
      "recommendation; where the curve is flat around it, the choice matters little; where it is dotted, no cell has "
      "so few or so many tokens, and its shape means little. Diamonds are the losses measured afterwards, means over domains "
      "(dots: each replica); the dashed line is the dense model. 19 of 20 diamonds should lie within the band."))
  measured = [html.paragraph(f"{line[0].upper()}{line[1:]}.") for line in
              curve_text(evidence.by_fraction("loss"), plan, evidence.scatter).splitlines()]
  return [figure, *measured, *plan_parts(plan)]


def measured_fractions(evidence: Evidence, album: Album) -> Parts:
  """What was measured at the target size against the split fraction."""
  if not evidence.by_fraction("loss"):
    raise Missing("At the target size, some domain diverged in every split, so there are no means over domains." if evidence.finished
                  else "No split is measured at the target size yet.")
  parts = []
  if all(cell.accuracy is not None for cell in evidence.proof):
    parts.append(album.show("accuracy", figures.measured_curve(evidence, "accuracy", "fraction of sequences recalled exactly"), (
        "Memorization: the fraction of entries that greedy decoding recalls without an error, against the seed's share of "
        "one fixed budget. Thin lines are replicas, the thick line is their mean. 100 % is one model pretrained on everything.")))
  parts.append(album.show("fractions", figures.measured_curve(evidence, "loss", style.LOSS), (
      "Mean loss over domains against the seed's share of one fixed budget. Thin lines are replicas, the thick line is their "
      "mean; 100 % is the dense model.")))
  return parts


def cells(evidence: Evidence, album: Album) -> Parts:
  """The law's data."""
  if not any(cell.expert_tokens for cell in evidence.grid):
    raise Missing("No experts of the law's grid are measured yet.")
  if not any(key[2] for key in means(evidence.grid, evidence.domains)):
    raise Missing("No split with experts has been measured on all domains, so there are no means over domains to draw.")
  drawn = "Lines are the fitted law. " if evidence.law else ""
  if any(cell.weights == "mean" for cell in evidence.grid):
    drawn = f"They are measured with the mean of their last weights at the constant rate, in place of cooldowns. {drawn}"
  return [album.show("cells", figures.cells_with_law(evidence, evidence.law), (
      f"All {len(evidence.grid):,} cells; each point is the mean over domains of one replica. {drawn}Left of the dotted line: no "
      "expert tokens, full pretraining. The further a curve falls, the more its experts gain; where curves of different D meet, "
      "a longer seed phase no longer helps."))]


def agreement(evidence: Evidence, album: Album) -> Parts:
  """Predictions against measurements."""
  law = evidence.law
  if law is None:
    raise Missing("There is no law yet.")
  series, caption = comparison(law, Cells.from_records(evidence.grid))
  known = [cell for cell in evidence.proof if law.domains == ("all",) or cell.domain in law.domains]
  if known:
    proof = Cells.from_records(known)
    series["proof"] = proof.loss, predictions(law, proof)
    error = np.abs(series["proof"][1] / proof.loss - 1).mean()
    caption += f"Diamonds: models at the target size, trained after the fit; their mean error is {error:.2%}. "
  return [album.show("agreement", law_figures.agreement(series), caption + "Points on the line are predicted exactly.")]


def law(evidence: Evidence, album: Album) -> Parts:
  """The law in words and tables."""
  if evidence.law is None:
    raise Missing("There is no law yet.")
  return law_parts(evidence.law)


def candidates(evidence: Evidence, album: Album) -> Parts:
  """The forms compared."""
  if evidence.law is None:
    raise Missing("There is no law yet, so no forms are compared.")
  by = ("Splits are planned by all forms, weighted by evidence; the one that stands for them here has the most of it."
        if evidence.law.with_priors else "The form is chosen by its error on held-out cells, not by how well it fits.")
  return [html.paragraph(by), candidates_table(evidence.law)]


def curves(evidence: Evidence, album: Album) -> Parts:
  """Loss curves."""
  if not evidence.stages:
    raise Missing(_UNTRAINED)
  lines = training_figures.read_curves(read_metrics(evidence.path / "metrics.jsonl"), evidence.stages, evidence.batch_tokens)
  if not lines:
    raise Missing("The grid's training is not finished yet, so there are no loss curves.")
  params = {stage.size: stage.params for stage in evidence.stages}
  return [album.show("loss_curves", training_figures.loss_curves(lines, params), (
      "Smoothed training loss, mean over replicas and domains. Experts are forked from the trunk at its snapshots; their loss should "
      "continue without a jump. A cell ends with a cooldown of its own, in which the loss falls further, or is measured with the mean of "
      "its last weights, whose lower loss these curves do not show."))]


def probe(evidence: Evidence, album: Album) -> Parts:
  """The learning-rate probe."""
  if not evidence.probe:
    raise Missing("The learning-rate probe has not been measured yet.")
  return [album.show("probe", training_figures.probe(evidence), (
      "Short runs on the mixture at several learning rates, mean loss over domains. Triangles on the axis mark the learning rate that "
      "each size was then trained at. If a triangle is far from its curve's minimum, or the minimum is at the lowest or highest rate, "
      "probe again with other rates."))]


def added(evidence: Evidence, album: Album) -> Parts:
  """The domains that were added later."""
  rows = [[cell.domain, f"{cell.seed_tokens:,}", f"{cell.expert_tokens:,}", f"{cell.loss:.4f}", f"{cell.bits_per_byte:.4f}"]
          for cell in sorted(evidence.added, key=lambda cell: (cell.domain, cell.seed_tokens, cell.replica))]
  names = sorted({cell.domain for cell in evidence.added})
  was = f"{names[0]} was" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} were"
  return [html.paragraph(f"{was} added later: the mixture that the seed was trained on had no such domain, and law, plan and splits above "
                         "leave it out."),
          html.table(["domain", "seed tokens", "expert tokens", "loss", "bits per byte"], rows,
                     "Experts forked from the same snapshot as the other experts. Losses in nats per token on held-out text.")]


def ledger(evidence: Evidence, album: Album) -> Parts:
  """Tokens and FLOPs by purpose."""
  if not evidence.stages:
    raise Missing(_UNTRAINED)
  spent = totals(evidence.stages)
  tokens, flops = sum(total.tokens for total in spent), sum(total.flops for total in spent)
  rows = [[name, f"{tokens:,}", style.scientific(flops)] for name, tokens, flops in (
      *((total.name, total.tokens, total.flops) for total in spent), ("all training", tokens, flops))]
  return [album.show("ledger", training_figures.spending(spent), (
      "Training by purpose: probe (learning rates), grid (the law's cells), proof (the recommended split and its baselines at "
      "the target size), added (experts on domains added later), router (small models for routing), and retry (runs that diverged and "
      "were trained again). Percentages are of all training tokens, and of all training FLOPs.")),
          html.table(["stage, phase", "tokens", "FLOPs"], rows, f"Training only; measuring losses is not counted.{_price(evidence)}",
                     total=True)]


def _price(evidence: Evidence) -> str:
  """What finding the split cost, in full pretrainings of the target."""
  whole = next((cell.flops for cell in evidence.proof if cell.role == "dense"), 0.0)
  spent = sum(total.flops for total in totals(evidence.stages) if total.purpose in ("probe", "grid"))
  return f" Probe and grid cost {spent / whole:.1%} of the FLOPs of one full pretraining." if whole and spent else ""


def speed(evidence: Evidence, album: Album) -> Parts:
  """Training speed, and where the time was spent."""
  records = sorted(read_telemetry(evidence.path / _TELEMETRY), key=lambda s: (s.params, s.size))
  total = lambda name: sum(getattr(record, name) for record in records)
  peak = lambda name: max(getattr(record, name) or 0 for record in records)
  groups = [(size, list(group)) for size, group in itertools.groupby(records, key=lambda s: s.size)]
  rows = [_speeds(size, group) for size, group in (*groups, ("all", records))]
  columns = [name for name in rows[0] if name != "MFU" or any(row["MFU"] for row in rows)]
  kinds = " and ".join(f"{count:,} x {kind}" for kind, count in sorted(
      {kind: max(s.devices for s in records if s.device == kind) for kind in {s.device for s in records}}.items()))
  memory = f"{peak('host_peak_bytes') / 1e9:.2f} GB of one process"
  if peak("device_peak_bytes"):
    memory += f", {peak('device_peak_bytes') / 1e9:.2f} GB of one device"
  mfu = " MFU: model FLOPs utilization, the fraction of the devices' peak in bfloat16." if "MFU" in columns else ""
  caption = (f"Training on {kinds}. FLOPs are model FLOPs, without recomputation.{mfu} Columns on the right: fractions of the time spent "
             "waiting for data, dispatching work, waiting for the devices, and on metrics and snapshots. Waiting for the compiler took "
             f"another {total('compiler_wait_seconds'):,.0f} s; {total('compiled'):,} programs were compiled and {total('loaded'):,} "
             f"loaded from the cache, in {total('compile_seconds'):,.0f} s, partly while other stages trained. Peak memory: {memory}.")
  return [html.table(columns, [[row[name] for name in columns] for row in rows], caption, total=True)]


def _speeds(name: str, records: Sequence[StageTelemetry]) -> dict[str, str]:
  """A row of the table."""
  seconds, tokens = (sum(getattr(s, name) for s in records) for name in ("seconds", "tokens"))
  flops = sum(s.flops_per_second * s.seconds for s in records)
  mfu = None if any(s.mfu is None for s in records) else sum(s.mfu * s.seconds for s in records) / seconds
  params = {s.params for s in records}
  shares = {part: f"{sum(getattr(s, f'{part}_seconds') for s in records) / seconds:.0%}"
            for part in ("data", "dispatch", "device", "other")}
  return {"size": name, "N": f"{params.pop():,}" if len(params) == 1 else "", "tokens": f"{tokens:,}",
          "seconds": f"{seconds:,.1f}", "tokens/s": f"{tokens / seconds:,.0f}", "FLOP/s": style.scientific(flops / seconds),
          "MFU": "" if mfu is None else f"{mfu:.1%}", **shares}


def settings(evidence: Evidence, album: Album) -> Parts:
  """Every setting, those of the fit as the law was fitted by."""
  blocks, law = [], evidence.law.settings if evidence.law else {}
  for name, fields in ((name, fields) for name, fields in evidence.config.items() if fields):
    fields = {key: law.get(key, value) if name == "FitSettings" else value for key, value in fields.items()}
    blocks.append(f"<section><h3>{html.text(name)}</h3>" + html.table([], [[key, _plain(value)] for key, value in fields.items()])
                  + "</section>")
  return ['<div class="settings">' + "\n".join(blocks) + "</div>"]


def chapters(evidence: Evidence) -> list[tuple[str, str, Callable[[Evidence, Album], Parts]]]:
  """(name, title, writer) of the chapters that this kind of experiment has."""
  found = [("closing", "What was found", closing), ("split", "The split curve", split), ("cells", "The cells and the law", cells),
           ("agreement", "Predicted and measured", agreement), ("law", "The law", law),
           ("candidates", "Forms compared", candidates)]
  if not evidence.plans:
    found = [("fractions", "Measured against the split", measured_fractions)]
  probed = [("probe", "Learning rates", probe)] if len(evidence.config["Probe"]["rates"]) > 1 else []
  beside = [("ways", "Compared with the usual ways", ways.ways)] if ways.is_worth_it(evidence) else []
  found_in_text = [("domains", "Domains found in the text", found_domains.found)] if found_domains.is_worth_it(evidence) else []
  later = [("added", "Domains added later", added)] if evidence.added else []
  timed = [("speed", "Speed", speed)] if read_telemetry(evidence.path / _TELEMETRY) else []
  return [*found, *beside, *found_in_text, *later, ("curves", "Loss curves", curves), *probed,
          ("ledger", "Tokens and FLOPs", ledger), *timed, ("settings", "All settings", settings), ("terms", "Terms", terms)]


def _plain(value: Any) -> str:
  """A setting as one would write it in gin."""
  if isinstance(value, list):
    return f"({', '.join(map(_plain, value))}{',' * (len(value) == 1)})"
  return f"{value:g}" if isinstance(value, float) else str(value)
