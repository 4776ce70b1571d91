"""What splits cost on experiments whose whole split curve was then measured at a target that their sweeps lack.

    python scripts/curves.py --out=curves.jsonl [--tables=../shared/data/law_tables/split_curves] [--readings=prior,plain] [--sizes]

Reads docs/split_curves and, where they are there, the tables of --tables, and plans the target's budget from each sweep by each
reading. Single points of a curve scatter by .2 to .5 %, so a split's true loss is that of a cubic through those from 10 to 80 % seed;
outside of them it lies between the points that were measured.
`--sizes` plans from each single size of every sweep as well, by the reading with priors: the plain one needs three. Every line is
written to --out when it is done; the next call goes on from there.
"""

from __future__ import annotations

import argparse
import csv
import json
import pathlib
import time

import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.law import Cells, FitSettings, fit_law, plan_split, read_cells

OURS = pathlib.Path(__file__).parents[1] / "docs" / "split_curves"
# Sweep, curve, C, K and N of the target.
CASES = {"seven": ("seven", "seven", 1_200_000, 7, 39_912), "six_bpe": ("six_bpe", "six_bpe", 800_000, 6, 55_568),
         "bundled": ("bundled", "bundled", 750_000, 5, 39_912), "bundled_wide": ("bundled_wide", "bundled", 750_000, 5, 39_912),
         "ten": ("ten", "ten", 12_000_000, 10, 804_032), "ten_tenth to ten": ("ten_tenth", "ten", 12_000_000, 10, 804_032),
         "ten_small": ("ten_small", "ten_small", 12_000_000, 10, 443_296),
         "ten_short": ("ten_short", "ten_short", 3_000_000, 10, 443_296),
         "wide_long": ("wide_long", "wide_long", 12_000_000, 10, 804_032),
         "wide_short": ("wide_short", "wide_short", 3_000_000, 10, 804_032),
         "narrow_long": ("narrow_long", "narrow_long", 12_000_000, 10, 443_296),
         "narrow_short": ("narrow_short", "narrow_short", 3_000_000, 10, 443_296),
         "ten_cpu": ("ten_cpu", "ten_cpu", 2_000_000, 10, 238_688),
         "eleven": ("eleven", "eleven", 5_000_000, 11, 221_728),
         "eleven_short to eleven": ("eleven_short", "eleven", 5_000_000, 11, 221_728)}


def main() -> None:
  """Plans whatever is not in --out yet, and prints the table of all."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--out", required=True)
  parser.add_argument("--tables", type=pathlib.Path, default=pathlib.Path(__file__).parents[2] / "shared/data/law_tables/split_curves")
  parser.add_argument("--readings", default="prior,plain")
  parser.add_argument("--sizes", action="store_true")
  flags = parser.parse_args()
  out = pathlib.Path(flags.out)
  read = lambda: [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
  done = {(r["sweep"], r["size"], r["reading"]) for r in read()}
  for name, (sweep, curve, budget, domains, target) in CASES.items():
    path = next((p for p in (folder / f"{sweep}.csv" for folder in (OURS, flags.tables)) if p.exists()), None)
    if path is None:
      print(f"not there: {sweep}.csv")
      continue
    cells = read_cells(path)
    share, loss = measured(path.with_name(f"{curve}.csv"), domains)
    sizes = [None, *(np.unique(cells.params).tolist() if flags.sizes else [])]
    for size in sizes:
      for reading in flags.readings.split(",") if size is None else ["prior"]:
        if (name, size, reading) not in done:
          mine = cells if size is None else cells.take(cells.params == size)
          try:
            found = examine(mine, reading, budget, domains, target, share, loss)
          except InputError as error:  # The plain reading needs more sizes than some sweeps have.
            print(error)
            continue
          with open(out, "a") as f:
            f.write(json.dumps({"sweep": name, "size": size, "reading": reading, **found}) + "\n")
  print(table(read()))


def measured(path: pathlib.Path, domains: int) -> tuple[np.ndarray, np.ndarray]:
  """Seed shares and mean losses of the curve that was measured at the target."""
  losses: dict[float, list[float]] = {}
  with open(path) as f:
    for row in csv.DictReader(f):
      if row["role"] in ("split", "dense"):
        seed, expert = float(row["seed_tokens"]), float(row["expert_tokens"])
        losses.setdefault(round(seed / (seed + domains * expert), 4), []).append(float(row["loss"]))
  return tuple(np.array([(f, np.mean(v)) for f, v in sorted(losses.items())]).T)


def examine(cells: Cells, reading: str, budget: float, domains: int, target: float, share: np.ndarray, loss: np.ndarray) -> dict:
  """The plan beside what was measured."""
  settings = FitSettings(reading="prior", holdout="none") if reading == "prior" else FitSettings(starts=16, bootstrap=100)
  start = time.process_time()
  plan = plan_split(fit_law(cells, settings), params=target, budget_tokens=budget, num_domains=domains)
  seconds, inside = time.process_time() - start, (share > 0.09) & (share < 0.81)
  cubic, fine = np.polyfit(share[inside], loss[inside], 3), np.linspace(0.1, 0.8, 701)
  curve = np.polyval(cubic, fine)
  shares, losses = (np.concatenate([outside[share < fine[0]], middle, outside[share > fine[-1]]])
                    for outside, middle in ((share, fine), (loss, curve)))
  at = lambda fraction: float(np.interp(fraction, shares, losses) / curve.min() - 1)
  low, middle, high = (np.interp(share[share > 0.09], plan.curve.fraction, values) for values in (
      plan.curve.low, plan.curve.loss, plan.curve.high))
  loss = loss[share > 0.09]
  return {"fraction": plan.fraction, "low": plan.fraction_interval[0], "high": plan.fraction_interval[1],
          "best": float(fine[curve.argmin()]), "cost": at(plan.fraction), "said": plan.regret / plan.loss, "half": at(0.5),
          "four_fifths": at(0.8), "off": [float((middle / loss - 1).min()), float((middle / loss - 1).max())],
          "band": int(((low < loss) & (loss < high)).sum()), "points": len(loss), "forms": plan.forms, "seconds": round(seconds, 1)}


def table(records: list[dict]) -> str:
  """One row a plan."""
  lines = ["| sweep | reading | recommended (95 %) | best | costs | said | 50/50 | curve in the band | predicted |",
           "| --- | --- | --- | ---: | ---: | ---: | ---: | --- | --- |"]
  for r in records:
    size = "" if r["size"] is None else f", N = {r['size']:,.0f} alone"
    lines.append(f"| {r['sweep']}{size} | {r['reading']} | {r['fraction']:.2f} ({r['low']:.2f} to {r['high']:.2f}) | {r['best']:.2f} | "
                 f"{r['cost']:.2%} | {r['said']:.2%} | {r['half']:.2%} | {r['band']} of {r['points']} | {r['off'][0]:+.1%} to "
                 f"{r['off'][1]:+.1%} |")
  return "\n".join(lines)


if __name__ == "__main__":
  main()
