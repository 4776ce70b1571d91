"""law.html: one law on one self-contained page, from the law and the cells that it was fitted to."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator

import numpy as np

import jaxsplit
from jaxsplit.law import Cells, Law, plan_split
from jaxsplit.law.cautions import unplannable
from jaxsplit.report import html, law_figures, resilient
from jaxsplit.report.album import Album
from jaxsplit.report.comparison import comparison
from jaxsplit.report.law_text import candidates_table, law_parts, rule_text


def write_law_page(path: str | os.PathLike, law: Law, cells: Cells, log: Callable[[str], None] = print) -> pathlib.Path:
  """Writes the page to `path` and returns it. Figures whose axes the cells do not vary are left out.

  Where a chapter fails, the page has the reason in its place, and `log` gets it too.

  Raises:
    InputError: `path` cannot be written.
  """
  album = Album()
  chapters = [("law", "The law", lambda: law_parts(law)), ("candidates", "Forms compared", lambda: [candidates_table(law)]),
              ("agreement", "Predicted and measured", lambda: _agreement(law, cells, album)),
              ("profiles", "How sure the constants are", lambda: [_profiles(law, album)])]
  if all(len(np.unique(tokens[tokens > 0])) > 1 for tokens in (cells.seed_tokens, cells.expert_tokens)):
    chapters.append(("split", "Splitting tokens", lambda: _splits(law, cells, album)))
  if len(np.unique(cells.params)) > 2:
    chapters.append(("isoflops", "Sizes at equal compute", lambda: [_isoflops(law, cells, album)]))
  sections = [(name, title, resilient.chapter(title, write, log)) for name, title, write in chapters]
  source = cells.source.get("file", "cells")
  title = f"The split law of {pathlib.Path(source).name}"
  page = html.page(title, meta=f"jaxsplit {jaxsplit.__version__} · {source}", answer=_answer(law), sections=sections)
  return html.write(path, page, f"--report={path}")


def _answer(law: Law) -> str:
  held_out = law.held_out
  error = f" and predicts {rule_text(held_out['rule'])}, held out, with an error of {held_out['mre']:.2%}" if held_out else ""
  choice = f"Of {len(law.candidates)} forms, {law.form} is the best: it" if len(law.candidates) > 1 else f"Form {law.form}"
  return f"{choice} fits {law.num_points:,} cells with R² = {law.r2:.4f}{error}.{''.join(_better_elsewhere(law))}"


def _better_elsewhere(law: Law) -> Iterator[str]:
  """A sentence for each other rule of holding out by which another form errs half as much as the law's or less."""
  scored = [candidate for candidate in law.candidates if candidate["held_out"]]
  for number, own in enumerate((law.held_out or {}).get("others", ())):
    error = lambda candidate, number=number: candidate["held_out"]["others"][number]["mre"]
    best = min((one for one in scored if len(one["held_out"]["others"]) > number), key=error, default=None)
    if best and error(best) <= own["mre"] / 2:
      yield (f" Where {rule_text(own['rule'])} are held out, {best['form']} errs by {error(best):.2%} and {law.form} by {own['mre']:.2%}: "
             f"for such extrapolation compare both (--form={best['form']}).")


def _agreement(law: Law, cells: Cells, album: Album) -> list[str]:
  series, caption = comparison(law, cells)
  return [album.show("agreement", law_figures.agreement(series), caption + "Points on the line are predicted exactly."),
          album.show("residuals", law_figures.residuals(cells, series["fitted"][1]), (
              "Errors of the fitted cells against each axis; diamonds are their means. A mean that bends away from "
              "zero shows what the form cannot follow, and what to expect beyond the last value."))]


def _profiles(law: Law, album: Album) -> str:
  if not any("[" not in name for name in law.profiles):
    return html.paragraph("Not computed: --profile=21 refits all other constants at 21 values of each constant.")
  return album.show("profiles", law_figures.profiles(law), (
      "Profile likelihood: how much worse the fit gets as one constant changes and all others are refitted. Shaded: the 95 % interval, "
      "where the deviance is below the dashed line. A steep valley is a constant that the cells determine; a flat one is a constant "
      "that they do not, or that other constants compensate. Values are relative to the centre of the table: coefficients are "
      "multiples of the typical loss there, and exponents that interact are those at the centre."))


def _splits(law: Law, cells: Cells, album: Album) -> list[str]:
  experts = len(law.domains)
  parts = [album.show("contours", law_figures.contours(law, cells, experts), (
      "Lines of equal loss, the mean over domains, over seed and expert tokens, at the smallest and the largest size. "
      f"A thick line is the best split of growing budgets {law_figures.budget_text(experts)}, where that lies within the limits of the "
      "cells' tokens. Away from the cells, the law extrapolates."))]
  if law.members[0].samples.size and not unplannable(law):
    size, budget = cells.params.max(), float(np.max(cells.seed_tokens + experts * cells.expert_tokens))
    plan = plan_split(law, params=float(size), budget_tokens=budget, num_domains=experts, accounting="total")
    parts.append(album.show("split_curve", law_figures.split_curve(plan), (
        f"The largest budget that the cells hold, {budget:,.0f} tokens, split between a seed and {experts} "
        f"expert{'s' * (experts > 1)} of {size:,.0f} parameters. Where the curve is flat around its lowest point, the choice "
        "matters little.")))
  return parts


def _isoflops(law: Law, cells: Cells, album: Album) -> str:
  return album.show("isoflops", law_figures.isoflops(law, cells), (
      "Loss against size when one model's training FLOPs, 6 N (D + D′), are held fixed and the tokens are split as well as they "
      "can be, within the shares that were measured. Dots are the best sizes. Dashes: more or fewer tokens than any cell has."))
