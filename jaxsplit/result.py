"""What an experiment has found, for Python and notebooks: read from its work directory alone."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib

import pandas as pd
from matplotlib.figure import Figure

from jaxsplit.errors import InputError
from jaxsplit.files import from_home
from jaxsplit.law import Law, Plan
from jaxsplit.report import figures, html, style
from jaxsplit.report.evidence import Evidence, read_evidence
from jaxsplit.report.page import answer
from jaxsplit.results.cells import Cell, read_cells


class Result:
  """An experiment's result, as far as it got. A notebook shows the answer, the closing table and the split curve of it.

      result = jaxsplit.Result("runs/mine")                     # also what jaxsplit.run returns
      result.cells.groupby("domain").loss.min()
      result.plan.fraction, result.law.r2
      result.plot_split().savefig("split.pdf")

  Attributes:
    workdir: where it lies.
  """

  def __init__(self, workdir: str | os.PathLike):
    """Nothing is read before it is asked for.

    Raises:
      InputError: the folder holds no experiment.
    """
    self.workdir = pathlib.Path(from_home(os.fspath(workdir), "Result"))
    if not (self.workdir / "config.json").is_file():
      raise InputError(f"{self.workdir}: holds no experiment (config.json is missing); name a work directory of train")

  @functools.cached_property
  def cells(self) -> pd.DataFrame:
    """Every measured loss, a row each, as cells.csv has them; the columns are the fields of `jaxsplit.results.cells.Cell`."""
    path = self.workdir / "cells.csv"
    rows = [dataclasses.asdict(cell) for cell in (read_cells(path) if path.exists() else ())]
    return pd.DataFrame(rows, columns=[field.name for field in dataclasses.fields(Cell)])

  @property
  def law(self) -> Law | None:
    """The fitted law; None where none is fitted (yet)."""
    return self._evidence.law

  @property
  def plan(self) -> Plan | None:
    """The recommended split; None where none is planned (yet)."""
    return self._evidence.plan

  @functools.cached_property
  def closing(self) -> pd.DataFrame:
    """A row a domain and one of their mean: predicted and measured loss in nats per token; the losses of 80/20 ("fixed") and of full
    pretraining ("dense"), with the change of perplexity from each.

    Empty before the recommended split is measured.
    """
    lines = self._evidence.closing() or []
    return pd.DataFrame([vars(line) for line in lines], columns=[
        "domain", "predicted", "measured", "fixed", "fixed_change", "dense", "perplexity_change"])

  @functools.cached_property
  def answer(self) -> str:
    """What was found, in one sentence."""
    return answer(self._evidence)

  def plot_split(self) -> Figure:
    """The split curve: expected loss against the seed's share of the budget, with what was measured. On white.

    Raises:
      InputError: nothing is planned yet.
    """
    if self.plan is None:
      raise InputError(f"{self.workdir}: no split is planned there (yet), so there is no curve to draw")
    figure = figures.split_curve(self._evidence, self.plan)
    figure.set_facecolor("white")
    return figure

  def __repr__(self) -> str:
    return f"Result({str(self.workdir)!r}): {self.answer}"

  def _repr_html_(self) -> str:
    parts = [html.paragraph(self.answer)]
    if len(self.closing):
      parts.append(self.closing.to_html(index=False, na_rep="-", float_format="{:.4f}".format,
                                        formatters=dict.fromkeys(("fixed_change", "perplexity_change"), "{:+.2%}".format)))
    if self.plan is not None:
      parts.append(f'<div style="max-width: 44rem; background: white">{style.standalone(self.plot_split())}</div>')
    return "\n".join(parts)

  @functools.cached_property
  def _evidence(self) -> Evidence:
    return read_evidence(self.workdir)
