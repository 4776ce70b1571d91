"""The fit entry point: a table of measured models in, a law out.

    python -m jaxsplit.fit --cells=FILE --columns=params=N,seed_tokens=D,loss=L --out=law.json
"""

from __future__ import annotations

from jaxsplit import signals

signals.end_at_once(__name__)  # The imports below take seconds.

# ruff: noqa: E402
import dataclasses
import pathlib
from collections.abc import Sequence

from jaxsplit import cli, devices
from jaxsplit.errors import InputError, Interrupted
from jaxsplit.files import check_replaceable
from jaxsplit.law import Cells, FitSettings, Law, fit_law, read_cells
from jaxsplit.law.diagnostics import starts_text
from jaxsplit.law.mapping import parse_columns

FLAGS = {
    "cells": cli.Path("the table of measured models: .csv, .tsv, .txt, .md, .jsonl, .json or .parquet (docs/law.md); required"),
    "columns": "mapping of its columns, with units, as in params=N[M],seed_tokens=D1[B],expert_tokens=D2,loss=L,domain=set; "
               "flops=C replaces tokens; columns that have our names need not be given",
    "where": "the rows to fit, as in status=finished,split=train|valid,step>1000",
    "rows": "of the rows at the same N, D, D' and domain: best, mean or all (default)",
    "flop_factor": "training FLOPs per parameter and token, if --columns maps flops; 6 by default",
    "out": cli.Path("where to write the law; law.json by default"),
    "report": cli.Path("also write a page of figures to this .html file"),
}
SWITCHES = {"drop_missing": "leave out rows with a missing number, and count them"}
_PROFILE = 21  # Values per constant on a report's profiles.


def main(argv: Sequence[str] | None = None) -> int:
  """Reads cells, fits, prints a summary, writes the law."""
  settings = cli.parse("fit", __doc__, [FitSettings], argv, flags=FLAGS, switches=SWITCHES, fields_as_flags=True)
  if not settings.flags["cells"]:
    raise InputError("--cells is missing; give the table of measured models, as in --cells=cells.csv")
  devices.present()
  out = pathlib.Path(settings.flags["out"] or "law.json")
  flags = settings.flags
  check_replaceable(out, "--out", "num_points")
  if flags["report"]:
    check_replaceable(flags["report"], "--report", None)
  cells = read_cells(flags["cells"], parse_columns(flags["columns"]), where=flags["where"], rows=flags["rows"] or "all",
                     drop_missing=flags["drop_missing"], flop_factor=_flop_factor(flags["flop_factor"]))
  chosen = settings[FitSettings]
  if settings.flags["report"] and chosen.profile is None and chosen.reading == "plain":
    chosen = dataclasses.replace(chosen, profile=_PROFILE)
  law = fit_law(cells, chosen)
  try:
    law.save(out)
  except OSError as error:
    raise InputError(f"--out={out}: cannot be written ({error.strerror}); name a file that can be") from None
  print(_summary(law, cells))
  print(f"law: {out}")
  if settings.flags["report"]:
    # Imported here: figures are not needed to fit.
    from jaxsplit.report.law_page import write_law_page
    try:
      write_law_page(settings.flags["report"], law, cells)
    except Interrupted:
      raise Interrupted(f"{out} is written, the report is not") from None
    print(f"report: {settings.flags['report']}")
  return 0


def _flop_factor(text: str | None) -> float | None:
  try:
    return None if text is None else float(text)
  except ValueError:
    raise InputError(f"--flop_factor={text}: must be a number, as in --flop_factor=6") from None


def _summary(law: Law, cells: Cells) -> str:
  """The most important results."""
  dropped = ", ".join(f"{n} {why}" for why, n in cells.source.get("dropped", {}).items())
  within = f" ({law.r2_within_domains:.4f} within domains)" if len(law.domains) > 1 else ""
  penalty = law.objective["overestimate_penalty"]
  over = f" (x {penalty:g} where predicted too high)" if penalty != 1 else ""
  merged = cells.source.get("merged")
  chosen = f", the {merged['by']} of {merged['rows']:,} rows at each point" if merged else ""
  lines = [f"form: {law.form}{f', of {len(law.candidates)} tried' if len(law.candidates) > 1 else ''}",
           f"{len(cells)} cells{chosen}{f' (left out: {dropped})' if dropped else ''}, {len(law.domains)} domain(s), "
           f"objective {law.objective['name']}{over} {law.objective_value:.6g} in {law.objective['space']} space, "
           f"R2 {law.r2:.4f}{within}",
           f"{'form':<24}{'objective':>14}{'held-out error':>16}{'largest':>10}{'bias':>10}{'between splits':>16}"]
  for row in law.candidates:
    score = row["held_out"]
    between = f"{score['differences']:>16.3%}" if score and score["differences"] is not None else f"{'-':>16}"
    errors = f"{score['mre']:>16.3%}{score['max']:>10.3%}{score['bias']:>+10.3%}" if score else f"{'-':>16}{'-':>10}{'-':>10}"
    lines.append(f"{row['form']:<24}{row['objective_value']:>14.6g}{errors}{between}")
  skipped = law.diagnostics["skipped_forms"]
  lines += [f"not tried: {', '.join(form for form in skipped if skipped[form] == why)}: {why}" for why in dict.fromkeys(skipped.values())]
  lines.append(starts_text(law.diagnostics))
  if law.held_out:
    lines.append(f"held out by {law.held_out['rule']}: {law.held_out['num_points']} cells")
  for name, value in law.parameters.items():
    low, high = law.intervals.get(name, (None, None))
    lines.append(f"  {name:<20}{value:>14.6g}" + (f"   95 % {low:.5g} .. {high:.5g}" if low is not None else ""))
  lines += [f"warning: {text}" for text in (*(text for kind in ("notes", "remarks") for text in cells.source.get(kind, ())),
                                               *law.warnings)]
  return "\n".join(lines)


if __name__ == "__main__":
  cli.run(main)
