"""report.html: what an experiment found, on one self-contained page, from the files of its work directory alone."""

from __future__ import annotations

import os
import pathlib

import numpy as np

import jaxsplit
from jaxsplit.files import write_atomic
from jaxsplit.report import html
from jaxsplit.report.album import Album
from jaxsplit.report.chapters import Missing, chapters
from jaxsplit.report.evidence import Evidence, read_evidence


def write_report(workdir: str | os.PathLike) -> pathlib.Path:
  """Writes figures/*.svg and report.html into a work directory, as far as its experiment got, and returns the page's path.

  Raises:
    InputError: the directory holds no experiment, or a damaged file.
  """
  path = pathlib.Path(workdir)
  evidence, album = read_evidence(path), Album(path / "figures")
  written, missing = [], []
  for name, title, write in chapters(evidence):
    try:
      written.append((name, title, write(evidence, album)))
    except Missing as reason:
      missing.append(str(reason))
  experiment = evidence.experiment
  title = f"{experiment['budget_tokens']:,} tokens over {len(evidence.domains)} domains"
  title = ("Phonebook: " if experiment["data"] == "phonebook" else "The split of ") + title
  body = [f"<h1>{html.text(title)}</h1>", html.paragraph(f"jaxsplit {jaxsplit.__version__} · {path.resolve().name}", "meta"),
          html.paragraph(answer(evidence), "answer")]
  if missing:
    body.append(html.paragraph("This experiment is not finished. " + " ".join(dict.fromkeys(missing))))
  if evidence.diverged:
    body.append(html.paragraph(f"Left out of everything below: {evidence.diverged:,} cells whose loss is not finite."))
  body.append(html.links([(name, title) for name, title, _ in written]))
  body += [html.section(name, title, *parts) for name, title, parts in written]
  write_atomic(path / "report.html", html.page(title, body))
  return path / "report.html"


def answer(evidence: Evidence) -> str:
  """What was found, in one sentence."""
  plan, lines = evidence.plan, evidence.closing()
  if plan is None:
    return _best_measured(evidence) or f"No answer yet: {len(evidence.grid):,} cells of the law's grid are measured."
  low, high = plan.fraction_interval
  advice = (f"Spend {plan.fraction:.0%} (95% interval {low:.0%} to {high:.0%}) of the {plan.budget_tokens:,.0f} tokens on a shared seed "
            f"and the rest on {plan.num_domains} experts")
  if plan.fraction == 1:
    advice = (f"Do not split the {plan.budget_tokens:,.0f} tokens: one dense model is best (95% interval of the seed's share: {low:.0%} "
              f"to {high:.0%})")
  if lines is None:
    return f"{advice}: the law expects a mean loss of {plan.loss:.3f} nats per token, which is not measured yet."
  mean = lines[-1]
  if evidence.recommended()[1] == 0:
    return f"{advice}: it measured a mean loss of {mean.measured:.3f} nats per token; the law had predicted {mean.predicted:.3f}."
  side = "lower" if mean.perplexity_change < 0 else "higher"
  return (f"{advice}: this measured a mean loss of {mean.measured:.3f} nats per token against {mean.dense:.3f} for one dense model of the same "
          f"compute, which is {abs(mean.perplexity_change):.1%} {side} perplexity; the law had predicted {mean.predicted:.3f}.")


def _best_measured(evidence: Evidence) -> str | None:
  """The best of the splits measured, where no law is asked for; None before there are any."""
  if not evidence.proof or evidence.experiment["sizes"]:
    return None
  exact = all(cell.accuracy is not None for cell in evidence.proof)
  groups = evidence.by_fraction("accuracy" if exact else "loss")
  best = (max if exact else min)(groups, key=lambda fraction: np.mean(groups[fraction]))
  value = (lambda share: f"{np.mean(groups[share]):.0%}") if exact else (lambda share: f"{np.mean(groups[share]):.3f} nats per token")
  what = "of the entries recalled exactly" if exact else "mean loss"
  rival = f", against {value(1.0)} by one model pretrained on everything" if 1.0 in groups and best != 1.0 else ""
  so_far = "" if evidence.ledger else " so far"
  return (f"Of the splits measured{so_far}, {best:.0%} of {evidence.experiment['budget_tokens']:,} tokens on the shared seed did best: "
          f"{value(best)} {what}{rival}.")
