"""Several experiments on one self-contained page: what each found, their split curves, and the settings in which they differ."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

import jaxsplit
from jaxsplit.errors import InputError
from jaxsplit.report import html, style
from jaxsplit.report.album import Album
from jaxsplit.report.evidence import Evidence, read_evidence
from jaxsplit.report.law_figures import SHARE
from jaxsplit.report.page import answer
from jaxsplit.report.style import AMBER, BLUE, GREEN, MARKERS, ORANGE, PAPER, PINK, SKY
from jaxsplit.results.stages import totals

_COLORS = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY)
_LINES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))
_HIGHEST = 0.12  # Excess loss that is drawn: splits far from the best would flatten all the rest.


def compare_experiments(workdirs: Sequence[str | os.PathLike], path: str | os.PathLike) -> pathlib.Path:
  """Writes the page to `path` and returns it.

  Args:
    workdirs: of two experiments or more, as far as they got.
    path: an .html file.

  Raises:
    InputError: a folder that holds no experiment, a damaged file, or a path that cannot be written.
  """
  if len(workdirs) < 2:
    raise InputError("a comparison needs two work directories or more")
  found = _named([pathlib.Path(workdir) for workdir in workdirs])
  album, sections = Album(), [("results", "What each found", _results(found))]
  if any(evidence.plan for evidence in found.values()):
    sections.append(("curves", "Split curves", [album.show("curves", split_curves(found), (
        "Lines: the expected loss of each split, relative to that of the best split. Marks: losses measured at "
        "its target size, relative to the best of those. This makes experiments with different sizes, tokens and domains comparable; "
        "the lowest point of a line is its recommendation; where a line is dotted, no cell has so few or so many tokens."))]))
  sections.append(("domains", "Domains", [_domains(found)]))
  sections.append(("settings", "Settings that differ", [_settings(found)]))
  page = html.page("Experiments compared", meta=f"jaxsplit {jaxsplit.__version__} · {' · '.join(found)}", answer="",
                   sections=sections)
  return html.write(path, page, os.fspath(path))


@style.styled
def split_curves(found: Mapping[str, Evidence]) -> Figure:
  """Excess loss over the best split against the seed's share, a line an experiment, with marks of what was measured."""
  figure, (axes,) = style.panels(height=3.9)
  for number, (name, evidence) in enumerate(found.items()):
    look = dict(color=_COLORS[number % len(_COLORS)], label=name)
    if plan := evidence.plan:
      excess = np.array(plan.curve.loss) / min(plan.curve.loss) - 1
      axes.plot(plan.curve.fraction, np.where(plan.curve.measured, excess, np.nan), ls=_LINES[number % len(_LINES)], **look)
      axes.plot(plan.curve.fraction, excess, lw=1, ls=(0, (1, 2)), **look | {"label": f"_{name}"})
      look["label"] = f"_{name}"
    if points := {share: float(np.mean(losses)) for share, losses in evidence.by_fraction("loss").items()}:
      best = min(points.values())
      axes.plot(list(points), [loss / best - 1 for loss in points.values()], ls="", marker=MARKERS[number % len(MARKERS)], ms=6.5,
                mec=PAPER, mew=0.5, zorder=3, **look)
  axes.set(xlabel=SHARE, ylabel="loss over that of the best split", xlim=(-0.02, 1.02))
  axes.set_ylim(-0.03 * min(axes.get_ylim()[1], _HIGHEST), min(axes.get_ylim()[1], _HIGHEST))
  style.percent_axis(axes, "x")
  style.percent_axis(axes, "y", signed=True)
  figure.legend(loc="outside upper center", ncols=2)
  return figure


def _named(paths: Sequence[pathlib.Path]) -> dict[str, Evidence]:
  """The experiments by the shortest suffixes of their paths that differ."""
  whole = [path.resolve() for path in paths]
  if len(set(whole)) < len(whole):
    raise InputError(f"--workdir={next(str(p) for p, q in zip(paths, whole) if whole.count(q) > 1)}: is given twice")
  for path in paths:
    if not (path / "config.json").is_file():
      raise InputError(f"{path}: holds no experiment (config.json is missing); name a work directory of train")
  parts = next(n for n in range(1, 99) if len({path.parts[-n:] for path in whole}) == len(whole))
  return {"/".join(path.parts[-parts:]): read_evidence(path) for path in whole}


def _results(found: Mapping[str, Evidence]) -> list[str]:
  columns = [_column(evidence) for evidence in found.values()]
  rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
  answers = [f"{name}: {answer(evidence)}" for name, evidence in found.items()]
  caption = ("Losses in nats per token, means over domains at the target size. Losses of experiments with different tokenizers or "
             "held-out texts are not comparable; changes of perplexity relative to each one's dense model are.")
  return [html.bullets(answers), html.table(["", *found], rows, caption)]


def _column(evidence: Evidence) -> dict[str, str]:
  """What one experiment found, by the names of the table's rows."""
  plan, lines, spent = evidence.plan, evidence.closing(), totals(evidence.stages)
  mean = lines[-1] if lines else None
  text = lambda value, form: format(value, form) if value is not None and np.isfinite(value) else "-"
  return {
      "domains": str(len(evidence.domains)), "budget": evidence.budget_text, "N of the target": f"{plan.params:,.0f}" if plan else "-",
      "recommended seed": text(plan and plan.fraction, ".0%"),
      "its 95 % interval": "{:.0%} to {:.0%}".format(*plan.fraction_interval) if plan else "-",
      "predicted loss": text(mean and mean.predicted, ".4f"), "measured loss": text(mean and mean.measured, ".4f"),
      "dense model's loss": text(mean and mean.dense, ".4f"),
      "change of perplexity": text(mean and mean.perplexity_change, "+.1%"), "R² of the law": text(evidence.law and evidence.law.r2, ".4f"),
      "tokens trained in all": f"{sum(total.tokens for total in spent):,}",
      "FLOPs": style.scientific(sum(total.flops for total in spent)) if spent else "-"}


def _domains(found: Mapping[str, Evidence]) -> str:
  tables = {name: evidence.closing() or [] for name, evidence in found.items()}
  changes = {name: {line.domain: line.perplexity_change for line in lines} for name, lines in tables.items()}
  means = {lines[-1].domain for lines in tables.values() if lines}
  domains = sorted({domain for lines in changes.values() for domain in lines}, key=lambda domain: (domain in means, domain))
  rows = [[domain, *(f"{change:+.1%}" if (change := lines.get(domain)) is not None and np.isfinite(change) else "-"
                     for lines in changes.values())] for domain in domains]
  return html.table(["domain", *found], rows, "Change of perplexity against each experiment's dense model of the same compute.")


def _settings(found: Mapping[str, Evidence]) -> str:
  names = sorted({(part, name) for evidence in found.values() for part, fields in evidence.config.items() for name in fields})
  rows = []
  for part, name in names:
    values = [str(evidence.config.get(part, {}).get(name, "-")) for evidence in found.values()]
    if len(set(values)) > 1:
      rows.append([f"{part}.{name}", *values])
  return html.table(["setting", *found], rows) if rows else html.paragraph("None.")
