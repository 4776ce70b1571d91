"""The chapter that sets the recommended split beside the usual ways to spend the same compute."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from matplotlib.figure import Figure

from jaxsplit.errors import InputError
from jaxsplit.experiment.budget import Steps
from jaxsplit.experiment.contenders import Contender, contender_rows, contenders
from jaxsplit.report import html, style
from jaxsplit.report.album import Album
from jaxsplit.report.evidence import Evidence, read_evidence
from jaxsplit.report.style import BLUE, GREEN, INK, MUTED, ORANGE, PAPER

_WORTH = 3  # Measured ways that make a chapter: two are in the closing table.


def ways_of(evidence: Evidence) -> list[Contender]:
  """The ways, of an experiment's cells; none before there are any at the target size."""
  if not evidence.proof:
    return []
  budget, batch_tokens = evidence.budget, evidence.batch_tokens
  steps = Steps(budget.amount // batch_tokens, budget.num_domains, budget.accounting)
  return contenders(evidence.dense_elsewhere + evidence.proof, evidence.proof[0].params_total, evidence.domains, steps, batch_tokens,
                    evidence.plan.point if evidence.plan else None)


def contenders_of(workdir: str | os.PathLike) -> list[Contender]:
  """The recommended split and the usual ways to spend its compute, of a work directory's cells; what is not measured is among them.

  Raises:
    InputError: there is no experiment, or nothing is measured at its target size.
  """
  workdir = pathlib.Path(workdir)
  if not (workdir / "config.json").is_file():
    raise InputError(f"--workdir={workdir}: no experiment there (config.json is missing); name the work directory of one")
  found = ways_of(read_evidence(workdir))
  if not found:
    raise InputError(f"--workdir={workdir}: nothing is measured at the target size yet; continue the experiment with its command")
  return found


def is_worth_it(evidence: Evidence) -> bool:
  """Whether more ways are measured than the closing table has."""
  return len({one.loss for one in ways_of(evidence) if one.loss is not None}) >= _WORTH


def ways(evidence: Evidence, album: Album) -> list[str]:
  """The table and the figure."""
  found = ways_of(evidence)
  header, *rows = contender_rows(found)
  spent = ("Each way trains for the budget of one model" if evidence.per_model else
           "All have the same training compute unless the table shows otherwise")
  measured = [row[:-1] for row, one in zip(rows, found, strict=True) if one.loss is not None]
  notes = [f"{one.name}: {one.note}." for one in found if one.note]  # A column of sentences would be wider than the page.
  return [html.table(header[:-1], measured, f"{spent}. Losses in nats per token, means over domains on held-out text; perplexity against "
                     "full pretraining. Active N: the parameters, without embeddings, of the one model that processes a text."),
          *([html.bullets(notes)] if notes else []),
          album.show("ways", figure(found), (
              "Mean loss over domains of each measured way, with its standard error over replicas where there are several. "
              "Full pretraining is the dashed line; left of it is better."))]


@style.styled
def figure(found: Sequence[Contender]) -> Figure:
  """The loss of each way that is measured, a row each, the best on top."""
  shown = sorted((one for one in found if one.loss is not None and not one.note.startswith("full pretraining")), key=lambda one: -one.loss)
  drawn, (axes,) = style.panels(height=0.9 + 0.32 * len(shown))
  dense = next((one.loss for one in shown if one.name == "full pretraining"), None)
  if dense is not None:
    axes.axvline(dense, color=ORANGE, lw=1, ls=(0, (4, 3)))
  for row, one in enumerate(shown):
    color = GREEN if one.name == "recommended split" else INK if one.share < 1 else BLUE
    axes.errorbar(one.loss, row, xerr=one.loss_stderr or None, marker="D", ms=6.5, color=color, mec=PAPER, ecolor=MUTED, capsize=2)
  axes.set_yticks(range(len(shown)), [one.name for one in shown])
  axes.set(xlabel=style.LOSS, ylim=(-0.6, len(shown) - 0.4))
  axes.grid(False, axis="y")
  return drawn
