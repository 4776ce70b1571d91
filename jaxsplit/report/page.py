"""report.html: what an experiment found, on one self-contained page, from the files of its work directory alone."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Callable

import numpy as np

import jaxsplit
from jaxsplit.errors import in_the_way
from jaxsplit.experiment.curve import better_split
from jaxsplit.files import write_atomic
from jaxsplit.report import html, resilient
from jaxsplit.report.album import Album
from jaxsplit.report.chapters import Missing, chapters
from jaxsplit.report.evidence import Evidence, read_evidence

_WIDE = 0.5  # Of all splits: an interval wider than that leaves the split open.


def try_report(workdir: str | os.PathLike, log: Callable[[str], None]) -> str:
  """`write_report`, and a line on where the page is, or why there is none: what was measured does not depend on it.

  Raises:
    OSError: the disk is full or lost.
  """
  try:
    return f"report: {write_report(workdir, log)}"
  except Exception as error:
    if isinstance(error, OSError) and not in_the_way(error):
      raise
    return f"report: not written ({resilient.why(error)}); no measurement is lost, and the same command writes it again"


def write_report(workdir: str | os.PathLike, log: Callable[[str], None] = print) -> pathlib.Path:
  """Writes figures/*.svg and report.html into a work directory, as far as its experiment got, and returns the page's path.

  Where a chapter fails, the page has the reason in its place, and `log` gets it too.

  Raises:
    InputError: the directory holds no experiment, or a damaged file.
    OSError: the page cannot be written.
  """
  path = pathlib.Path(workdir)
  evidence, album = read_evidence(path), Album()
  written, missing = [], []
  for name, title, write in chapters(evidence):
    try:
      written.append((name, title, resilient.chapter(title, lambda: write(evidence, album), log, passes=Missing)))
    except Missing as reason:
      missing.append(str(reason))
  notes = []
  if missing:
    notes.append("This experiment is not finished. " * (not evidence.finished) + " ".join(dict.fromkeys(missing)))
  if evidence.diverged:
    notes.append(f"Excluded from everything below: {evidence.diverged:,} cells of runs that diverged.")
  meta = f"jaxsplit {jaxsplit.__version__} · {path.resolve().name}"
  found = resilient.sentence(lambda: answer(evidence), log)
  page = html.page(_title(evidence), meta=meta, answer=found, notes=notes, sections=written)
  write_atomic(path / "report.html", page)
  album.keep(path / "figures", log)
  return path / "report.html"


def answer(evidence: Evidence) -> str:
  """What was found, in one sentence."""
  plan, lines = evidence.plan, evidence.closing()
  if plan is None:
    return _best_measured(evidence) or f"No answer yet: {len(evidence.grid):,} cells of the law's grid are measured."
  interval = "95 % interval {:.0%} to {:.0%}".format(*plan.fraction_interval)
  advice = f"Spend {plan.fraction:.0%} ({interval}) of {'' if evidence.per_model else 'the '}{evidence.budget_text} on "
  if evidence.per_model:
    seed = "a seed of its own" if evidence.own_seeds else "a shared seed"
    advice += f"{seed} and the rest on one of {plan.num_domains} experts"
  else:
    advice += (f"{plan.num_domains} seeds, one for each domain, and the rest on their experts" if evidence.own_seeds else
               f"a shared seed and the rest on {plan.num_domains} experts")
  if plan.fraction == 1:
    advice = f"Do not split the {plan.budget_tokens:,.0f} tokens: train one dense model (a seed of 100 %, {interval})"
  if lines is None:
    unknown = "but all its runs diverged" if evidence.finished else "which is not measured yet"
    return f"{advice}: the law expects a mean loss of {plan.loss:.3f} nats per token, {unknown}."
  mean = lines[-1]
  if not math.isfinite(mean.measured):
    return f"{advice}: the law expects a mean loss of {plan.loss:.3f} nats per token, but runs of some domains diverged."
  measured = f"{advice}: the measured mean loss is {mean.measured:.3f} nats per token"
  predicted = f"the law had predicted {mean.predicted:.3f}."
  if evidence.recommended.expert_tokens == 0 or not math.isfinite(mean.perplexity_change):
    return f"{measured}; {predicted}"
  change = f"{abs(mean.perplexity_change):.1%}"
  how = "the same perplexity" if change == "0.0%" else f"{change} {'lower' if mean.perplexity_change < 0 else 'higher'} perplexity"
  return (f"{measured} against {mean.dense:.3f} for {evidence.rival}, {how} on average over domains; {predicted}"
          f"{_reservations(evidence)}")


def _reservations(evidence: Evidence) -> str:
  """What the answer must not be read without: a measured split that was better than by chance, and an interval that leaves it open."""
  plan, text = evidence.plan, ""
  better = better_split(evidence.by_fraction("loss"), plan)
  if better and better[1] >= 2 * evidence.scatter:
    text += f" Another split was measured to be better: {better[0]:.0%}, by {better[1]:.1%} of the loss."
  if plan.fraction_interval[1] - plan.fraction_interval[0] > _WIDE:
    text += " The interval is wide: this sweep leaves the split open, and a larger one tells more."
  return text


def _title(evidence: Evidence) -> str:
  experiment = evidence.experiment
  title = "Phonebook: " if experiment["data"] == "phonebook" else "The split of "
  return f"{title}{evidence.budget_text}" + (f" over {len(evidence.domains)} domains" if evidence.domains else "")


def _best_measured(evidence: Evidence) -> str | None:
  """The best of the measured splits, where no law is requested; None before there are any."""
  if not evidence.by_fraction("loss") or evidence.plans:
    return None
  exact = all(cell.accuracy is not None for cell in evidence.proof)
  means = {share: float(np.mean(values)) for share, values in evidence.by_fraction("accuracy" if exact else "loss").items()}
  best = (max if exact else min)(means, key=means.get)
  show = "{:.0%}" if exact else "{:.3f} nats per token"
  what = "of the entries recalled exactly" if exact else "mean loss"
  rival = f", against {show.format(means[1.0])} by one model pretrained on everything" if 1.0 in means and best != 1.0 else ""
  so_far = "" if evidence.stages else " so far"
  seed = "seeds of their own" if evidence.own_seeds else "the shared seed"
  return (f"Of the splits measured{so_far}, {best:.0%} of {evidence.budget_text} on {seed} did best: "
          f"{show.format(means[best])} {what}{rival}.")
