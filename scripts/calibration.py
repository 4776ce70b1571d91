"""Measures how often the law's 95 % intervals hold the truth, in worlds whose truth is known.

    python scripts/calibration.py --out=calibration.jsonl [--worlds=24] [--minutes=60] [--part=0/2]

Each world draws the constants of an effective-data law for every domain, and each form in turn is made the truth by fitting it
to that law: worlds that look alike but follow different forms. The grid that experiments measure by default is measured in it, with
one of three kinds of noise (NOISES): independent cells; cells that share an error with all cells of their size, another with those
of their snapshot, and have one of their own; and independent cells with heavy tails. Counted is how often 95 % intervals hold the
truth: of the constants, by a fit of the true form (those that all domains share, and the first domain's); of mean losses, by the
forms in play (inside the grid, at two and four times its largest size, at four and sixteen times its tokens); and of the best split
at twice the largest size, by the plan. Measured too is what the plan costs: the true loss of its split over the best split's;
and, to compare with, the intervals of losses by the true form alone, which nobody knows.

`--sizes` measures constants and losses in tables without experts, of 4, 6, 8 and 20 sizes, by every way of resampling.

Every world is written to --out when it is done; the next call goes on from there. Several may share one file, each with its part.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
from study import Study

from jaxsplit.law import Cells, FitSettings, fit_law, plan_split
from jaxsplit.law.fit import bootstrap, fit_form
from jaxsplit.law.fitted import Fitted
from jaxsplit.law.forms import FORMS
from jaxsplit.law.member import Member

TRUTHS = ("additive", "additive_by_size", "interaction", "effective_data", "multiplicative", "log_quadratic")
SIZES = np.geomspace(1e5, 1e6, 4)
BUDGET, DOMAINS = 3.2e7, ("prose", "verse")
FRACTIONS = np.linspace(0.02, 0.98, 193)  # At the ends not every form has a loss.
# Standard deviations of the errors of ln L that a size's, a snapshot's, and single cells have, and the degrees of freedom of
# the last (0: normal).
NOISES = {"independent": (0, 0, 0.004, 0), "shared": (0.003, 0.002, 0.003, 0), "heavy tails": (0, 0, 0.003, 3)}
ENDS = 0.025, 0.975
HELD_OUT = "params:1"  # What forms are ranked by where four sizes were measured; further rules, which are only told, take longest.
ROOM = 0.0051  # Of a split: a plan's splits lie on a grid of half a percent.
RESAMPLINGS = ("auto", "rows", "shared", "pairs", "trunks")
Held = dict[str, list[float]]  # By question: the share of what was asked that its interval holds, and the interval's width.


def main() -> None:
  """Runs the study as far as it is given time, and prints the table of all worlds so far."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--bootstrap", type=int, default=300)
  parser.add_argument("--sizes", action="store_true", help="tables without experts, by every resampling, instead")
  study = Study(parser, 24, "per true form and noise")
  settings = FitSettings(starts=16, bootstrap=study.flags.bootstrap, holdout=HELD_OUT)
  done = {tuple(record["world"]) for record in study.records()}
  for world in itertools.product(study.numbers, (4, 6, 8, 20) if study.flags.sizes else TRUTHS, NOISES):
    if world not in done and not study.over:
      study.add({"world": world, **(examine_sizes if study.flags.sizes else examine)(*world, settings)})
  print(table(study.records()))


def examine(number: int, truth: str, noise: str, settings: FitSettings) -> dict[str, Any]:
  """What the intervals of one world hold."""
  random = np.random.default_rng((number, *truth.encode()))
  base = _cells(np.concatenate([effective_law(random, grid()) for _ in DOMAINS]))
  true = fit_form(FORMS[truth], base, dataclasses.replace(settings, objective="least_squares"), ())
  random = np.random.default_rng((number, *truth.encode(), *noise.encode()))
  measured = _cells(noisy(true.losses(true.theta[None])[0], base, NOISES[noise], random))
  held: Held = {}
  by_true_form: Held = {}
  law = fit_law(measured, settings)
  alone = next((member for member in law.members if member.model.form.name == truth), None)
  if alone is None:
    fit = fit_form(FORMS[truth], measured, settings, ())
    alone = Member(fit.model, fit.layout, fit.theta, bootstrap(fit, measured, settings), 1.0)
  held["constants"] = _constants(true, alone)
  loss = lambda n, d, x: np.mean([_of_domain(true, n, d, x, k) for k in range(len(DOMAINS))], 0)
  d, x = BUDGET / 2, BUDGET / 4
  for name, (n, more) in {"inside": (SIZES[2], 1), "2 N": (2 * SIZES[-1], 1), "4 N": (4 * SIZES[-1], 1),
                          "4 tokens": (SIZES[-1], 4), "16 tokens": (SIZES[-1], 16)}.items():
    at = n, more * d, more * x
    held[name] = _holds(law.interval(*at), loss(*at))
    draws = np.mean([alone.predict(alone.samples, *map(np.atleast_1d, at), k) for k in range(len(DOMAINS))], 0)
    by_true_form[name] = _holds(np.quantile(draws, ENDS), loss(*at))
  plan = plan_split(law, params=2 * SIZES[-1], budget_tokens=BUDGET)
  curve = loss(2 * SIZES[-1], FRACTIONS * BUDGET, (1 - FRACTIONS) * BUDGET / len(DOMAINS))
  best, (low, high) = FRACTIONS[curve.argmin()], plan.fraction_interval
  held["split"] = [float(low - ROOM <= best <= high + ROOM), high - low]
  cost = float(np.interp(plan.fraction, FRACTIONS, curve) / curve.min() - 1)
  return {"held": {"auto": held, "the true form": by_true_form}, "cost": cost}


def examine_sizes(number: int, sizes: int, noise: str, settings: FitSettings) -> dict[str, Held]:
  """What the intervals of a Chinchilla world of so many sizes, six lengths each, hold, by way of resampling."""
  random = np.random.default_rng((number, sizes, *noise.encode()))
  n, d = map(np.ravel, np.meshgrid(np.geomspace(5e7, 5e9, sizes), np.geomspace(1e9, 1e11, 6), indexing="ij"))
  alpha, beta = random.uniform(0.3, 0.4, 2)
  e, a, b = random.uniform((1.5, 0.5, 0.4), (1.9, 1.0, 0.9))
  law = lambda n, d: e + a * (n / 3e8) ** -alpha + b * (d / 1e10) ** -beta
  cells = Cells.from_columns({"params": n, "seed_tokens": d, "loss": np.ones(len(n))})
  cells = dataclasses.replace(cells, loss=noisy(law(n, d), cells, NOISES[noise], random))
  truth = {"E": e, "alpha": alpha, "beta": beta}
  held = {}
  for kind in RESAMPLINGS:
    fitted = fit_law(cells, settings, form="chinchilla", holdout="none", resample=kind)
    held[kind] = {name: _holds(fitted.intervals[name], value) for name, value in truth.items()}
    for name, (params, tokens) in {"inside": (3e8, 1e10), "2 N": (1e10, 1e10), "4 N": (2e10, 1e10), "4 tokens": (1e9, 4e11),
                                   "16 tokens": (1e9, 1.6e12)}.items():
      held[kind][name] = _holds(fitted.interval(params, tokens, 0), law(params, tokens))
  return {"held": held}


def effective_law(random: np.random.Generator, points: np.ndarray) -> np.ndarray:
  """Losses of a random effective-data law; its terms have sizes like those of small language models."""
  n, d, x = points.T
  alpha, beta, gamma = random.uniform((0.2, 0.25, 0.6), (0.4, 0.45, 0.95))
  a, b = random.uniform(0.4, 1.0) * 3e5**alpha, random.uniform(0.5, 1.0) * 5e6**beta
  k = random.uniform(0.1, 0.6) * 3e6 / 1.2e7**gamma
  return random.uniform(0.8, 1.4) + a * n**-alpha + b * (x + k * d**gamma) ** -beta


def grid() -> np.ndarray:
  """[n, 3] N, D and D' of an experiment by default."""
  shares = [(seed, share) for seed in (0.05, 0.25, 0.5, 0.75, 0.95) for share in sorted({0.0, min(0.2, 1 - seed), 1 - seed})]
  return np.array([(n, seed * BUDGET, share * BUDGET / len(DOMAINS)) for n in SIZES for seed, share in shares])


def noisy(loss: np.ndarray, cells: Cells, levels: tuple[float, float, float, int], random: np.random.Generator) -> np.ndarray:
  """The losses with errors shared by size, by snapshot, and by nothing; those that are shared are so by all domains."""
  of_size, of_snapshot, of_cell, degrees = levels
  total = of_cell * (random.standard_t(degrees, len(loss)) if degrees else random.standard_normal(len(loss)))
  for columns, level in (((cells.params,), of_size), ((cells.params, cells.seed_tokens), of_snapshot)):
    _, group = np.unique(np.stack(columns), axis=1, return_inverse=True)
    total += level * random.standard_normal(group.max() + 1)[group.ravel()]
  return loss * np.exp(total)


def table(records: list[dict]) -> str:
  """Coverage and median width, by noise and truth, as a Markdown table; widths beside the true form's; and what the plans cost."""
  kinds = list(dict.fromkeys(kind for record in records for kind in record["held"]))
  questions = list(dict.fromkeys(q for record in records for held in record["held"].values() for q in held))
  lines = ["| intervals by | noise | truth | worlds | " + " | ".join(questions) + " | all |",
           "| --- | --- | --- | ---: |" + " ---: |" * (len(questions) + 1)]

  def line(kind: str, noise: str, truth: str, chosen: list[Held]) -> None:
    if not chosen:
      return
    cell = lambda found: f"{np.mean([f[0] for f in found]):.0%} ({np.median([f[1] for f in found]):.3g})" if found else ""
    each = [[held[q] for held in chosen if q in held] for q in questions]
    shares = np.array([np.mean([share for share, _ in held.values()]) for held in chosen])
    # What is asked of one world is held or missed together, so it is worlds that scatter.
    error = 1.96 * shares.std(ddof=1) / len(shares) ** 0.5 if len(shares) > 1 else np.nan
    lines.append(" | ".join([f"| {kind} | {noise} | {truth} | {len(chosen)}", *map(cell, each), f"{shares.mean():.1%} ± {error:.1%} |"]))

  for kind in kinds:
    of = lambda keep: [r["held"][kind] for r in records if kind in r["held"] and keep(r["world"])]
    truths = list(dict.fromkeys(r["world"][1] for r in records))
    line(kind, "any", "any", of(lambda world: True))
    for noise in NOISES:
      line(kind, noise, "any", of(lambda world: world[2] == noise))
    for truth in truths:
      line(kind, "any", truth, of(lambda world: world[1] == truth))
    for noise, truth in itertools.product(NOISES, truths):
      line(kind, noise, truth, of(lambda world: world[1:] == [truth, noise]))
  if (pairs := [(r["held"]["auto"], r["held"]["the true form"]) for r in records if "the true form" in r["held"]]):
    asked = list(pairs[0][1])
    ratio = np.array([[ours[q][1] / theirs[q][1] for q in asked] for ours, theirs in pairs])
    lines += ["", "| widths over the true form's | " + " | ".join(asked) + " |", "| --- |" + " ---: |" * len(asked)]
    lines += [f"| {name} | " + " | ".join(f"{v:.2f}" for v in values) + " |" for name, values in (
        ("median", np.median(ratio, 0)), ("geometric mean", np.exp(np.log(ratio).mean(0))), ("share above 1.5", (ratio > 1.5).mean(0)))]
  costs = collections.defaultdict(list)
  for record in records:
    if "cost" in record:
      costs[record["world"][1]].append(record["cost"])
  if costs:
    lines += ["", "| truth | a plan costs, mean | 95 % of worlds under |", "| --- | ---: | ---: |"]
    lines += [f"| {truth} | {np.mean(found):.3%} | {np.quantile(found, 0.95):.3%} |" for truth, found in costs.items()]
  return "\n".join(lines)


def _cells(loss: np.ndarray) -> Cells:
  """The grid of every domain as a table."""
  columns = dict(zip(("params", "seed_tokens", "expert_tokens"), np.tile(grid(), (len(DOMAINS), 1)).T))
  return Cells.from_columns({**columns, "loss": loss, "domain": np.repeat(DOMAINS, len(grid()))})


def _of_domain(true: Fitted, n: np.ndarray, d: np.ndarray, x: np.ndarray, domain: int) -> np.ndarray:
  n, d, x = (np.ravel(v).astype(float) for v in np.broadcast_arrays(n, d, x))
  return Member(true.model, true.layout, true.theta, true.theta[None], 1.0).predict(true.theta[None], n, d, x, domain)[0]


def _constants(true: Fitted, alone: Member) -> list[float]:
  """Of the constants that all domains share and the first domain's; widths relative to the constants."""
  intervals = {name: np.quantile(drawn, ENDS) for name, drawn in alone.layout.named(alone.model, alone.samples).items()}
  truth = {name: float(value) for name, value in true.layout.named(true.model, true.theta).items()}
  asked = [name for name in truth if "[" not in name or name.endswith(f"[{DOMAINS[0]}]")]
  found = [_holds(intervals[name], truth[name]) for name in asked]
  return [float(np.mean([f[0] for f in found])), float(np.median([f[1] for f in found]))]


def _holds(interval: Iterable[float], truth: float) -> list[float]:
  low, high = (float(np.ravel(end)[0]) for end in interval)
  truth = float(np.ravel(truth)[0])
  return [float(low <= truth <= high), (high - low) / abs(truth) if truth else high - low]


if __name__ == "__main__":
  main()
