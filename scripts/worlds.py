"""Measures what a small sweep's split costs, in worlds of known truth: by the plain reading and by the one with priors.

    python scripts/worlds.py --out=worlds.jsonl [--worlds=96] [--minutes=60] [--readings=prior] [--designs=5%,10%] [--part=0/2]

A world is a law of K = 5 domains, a size N* and a budget C that is to be split there, and errors: .2 % of the loss that all cells of
a size share, .2 % those of a snapshot, .3 % a cell and domain; in every fourth world the last is Student's t of 3 degrees of freedom.
Truths are the forms that are read, and two that no form contains: exponents of each domain's own, and a transient at few tokens. Their
constants are drawn half again as wide as the forms' priors (law.forms), until the best fraction falls into the range that is its
turn: eight ranges from .1 to .9. The designs are those that `python -m jaxsplit.design` makes for N*, C and K at a share of the FLOPs,
as in "5%"; "box 5%" and "box 10%" are grids of few tokens at larger sizes, which a study of designs had found, and `default` is the grid
that experiments measure by default, without a budget of its own. `original` are the truths of scripts/calibration.py, whose
experts gain so fast that the best fraction lies near 0. `--neighbours=0.65` is the correlation of the last error between a cell and the one
before it on a branch, which is none otherwise (docs/sweep.md has what it is in trained models).

What is told of each: the true loss of the recommended split over the best one's, what the plan said that would be, how far the
fraction is off, and whether its 95 % interval holds the best. Every world is written to --out when it is done; the next call goes on
from there, and several may share one file, each with its part.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable

import jax
import numpy as np
from study import Study

from jaxsplit.design import design_sweep
from jaxsplit.experiment.settings import Settings
from jaxsplit.law import Cells, FitSettings, fit_law, plan_split
from jaxsplit.law.forms import FORMS, Form, Point
from jaxsplit.law.points import float64

TARGET, BUDGET, DOMAINS = 1e8, 1e10, tuple("abcde")
TRUTHS = ("additive", "effective_data", "interaction", "log_quadratic", "own_exponents", "effective_data_by_size",
          "additive_by_size", "transient")
ORIGINAL = "original"
BINS = np.linspace(0.1, 0.9, 9)
FRACTIONS = np.linspace(0.01, 0.99, 393)
WIDER = 1.5  # Than the priors.
_POINTS = 400  # Evaluated together, so that one compilation a form serves all.
SIZE, SNAPSHOT, CELL, DEGREES = 0.002, 0.002, 0.003, 3
# Sizes over N*, D over C, K D' over C.
BOXES = {"box 5%": ((1 / 64, 1 / 45, 1 / 32, 1 / 23), (1 / 128, 1 / 32, 1 / 8), (0, 1 / 64, 1 / 16)),
         "box 10%": ((1 / 64, 1 / 45, 1 / 32, 1 / 16), (1 / 128, 1 / 32, 1 / 8), (0, 1 / 32, 1 / 16, 1 / 8)),
         "default": (tuple(np.geomspace(0.05, 0.5, 4)), (0.05, 0.25, 0.5, 0.75, 0.95), None)}
Curve = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # N, D and D' [n] -> [K, n] losses of the domains.


def main() -> None:
  """Runs the study as far as it is given time, and prints the table of all worlds so far."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--readings", default="prior", help="prior, plain or both, with commas")
  parser.add_argument("--designs", default="5%,10%", help=f"any per cent, {', '.join(BOXES)}".replace("%", "%%"))
  parser.add_argument("--original", action="store_true", help="worlds of scripts/calibration.py's constants instead")
  parser.add_argument("--neighbours", type=float, default=0, help="correlation of the errors of neighbouring cells on a branch")
  study = Study(parser, 96)
  done = {(r["world"], r["truth"], r["design"], r["reading"]) for r in study.records()}
  for number in study.numbers:
    # Each truth meets each range of best fractions and each kind of noise.
    truth = ORIGINAL if study.flags.original else TRUTHS[number % len(TRUTHS)]
    for design, reading in itertools.product(study.flags.designs.split(","), study.flags.readings.split(",")):
      if (number, truth, design, reading) not in done and not study.over:
        study.add({"world": number, "truth": truth, "design": design, "reading": reading,
                   **examine(number, truth, design, reading, study.flags.neighbours)})
  print(table(study.records()))


def examine(number: int, truth: str, design: str, reading: str, neighbours: float = 0) -> dict[str, float | bool]:
  """One world, read off one design."""
  random = np.random.default_rng((20_260, number))
  curve = original(random) if truth == ORIGINAL else drawn(truth, number // len(TRUTHS) + number, random)
  heavy = number // 2 % 4 == 0
  cells = measured(curve, design, np.random.default_rng((20_261, number, *design.encode())), heavy, neighbours)
  settings = FitSettings(reading=reading, holdout="none") if reading == "prior" else FitSettings(starts=16, bootstrap=100)
  start = time.process_time()
  plan = plan_split(fit_law(cells, settings), params=TARGET, budget_tokens=BUDGET)
  seconds = time.process_time() - start
  losses = line(curve, FRACTIONS)
  best, (low, high) = FRACTIONS[losses.argmin()], plan.fraction_interval
  cost = lambda fraction: float(np.interp(fraction, FRACTIONS, losses) / losses.min() - 1)
  return {"heavy": bool(heavy), "best": float(best), "fraction": plan.fraction, "low": low, "high": high,
          "cost": cost(plan.fraction), "stated": plan.regret / plan.loss, "half": cost(0.5), "four_fifths": cost(0.8),
          "loss": float(plan.loss / np.interp(plan.fraction, FRACTIONS, losses) - 1), "seconds": round(seconds, 1)}


def line(curve: Curve, fractions: np.ndarray) -> np.ndarray:
  """Mean losses over domains along the budget at the target."""
  return curve(np.full(len(fractions), TARGET), fractions * BUDGET, (1 - fractions) * BUDGET / len(DOMAINS)).mean(0)


def measured(curve: Curve, design: str, random: np.random.Generator, heavy: bool, neighbours: float) -> Cells:
  """The cells of a design, with their errors."""
  points, experts = grid(design), len(DOMAINS)
  n, d, x = points.T
  total = CELL * (random.standard_t(DEGREES, (experts, len(n))) if heavy else random.standard_normal((experts, len(n))))
  for before, at in itertools.pairwise(np.lexsort((x, d, n))):
    if (n[before], d[before]) == (n[at], d[at]):
      total[:, at] = neighbours * total[:, before] + np.sqrt(1 - neighbours**2) * total[:, at]
  for level, columns in ((SIZE, (n,)), (SNAPSHOT, (n, d))):
    _, group = np.unique(np.stack(columns), axis=1, return_inverse=True)
    total += level * random.standard_normal(group.max() + 1)[group.ravel()]
  every = {name: np.tile(value, experts) for name, value in zip(("params", "seed_tokens", "expert_tokens"), (n, d, x))}
  return Cells.from_columns({**every, "loss": (curve(n, d, x) * np.exp(total)).ravel(), "domain": np.repeat(DOMAINS, len(n))})


@functools.cache
def grid(design: str) -> np.ndarray:
  """[n, 3] N, D and D' of a design."""
  if design not in BOXES:
    experiment = dataclasses.replace(Settings().experiment, budget_tokens=int(BUDGET))
    chosen = design_sweep(dataclasses.replace(Settings(), experiment=experiment), len(DOMAINS), params=TARGET,
                          sweep=float(design.removesuffix("%")) / 100)
    return np.array([(size / chosen["params"] * TARGET, *point) for size in chosen["sizes"] for point in chosen["points"]])
  sizes, seeds, experts = BOXES[design]
  rows = [(size * TARGET, seed * BUDGET, share * BUDGET / len(DOMAINS)) for size in sizes for seed in seeds
          for share in (sorted({0.0, min(0.2, 1 - seed), 1 - seed}) if experts is None else experts)]
  return np.array(rows)


def drawn(truth: str, turn: int, random: np.random.Generator) -> Curve:
  """A law of this kind whose best fraction lies in the range whose turn it is."""
  low, high = BINS[turn % 8], BINS[turn % 8 + 1]
  form = FORMS[{"own_exponents": "additive", "transient": ("effective_data", "additive")[turn // 8 % 2]}.get(truth, truth)]
  while True:
    curve = _curve(truth, form, random)
    with np.errstate(all="ignore"):
      losses = line(curve, FRACTIONS)
      whole = np.concatenate([curve(*grid(design).T).ravel() for design in BOXES])
    if not (np.isfinite(losses).all() and np.isfinite(whole).all()):
      continue
    best, largest = FRACTIONS[losses.argmin()], whole.max() / losses.min()
    falls = all((np.diff(curve(np.full(9, TARGET / 20), d, x).mean(0)) < 0).all() for d, x in (
        (np.geomspace(0.01, 1, 9) * BUDGET, np.full(9, 0.01 * BUDGET)), (np.full(9, 0.05 * BUDGET), np.geomspace(2e-3, 0.2, 9) * BUDGET)))
    # What language models do: losses fall with tokens of either kind, and from the smallest cell to the target by 1.2 to 5 times.
    if low <= best < high and falls and 1.2 < largest < 5 and losses[0] / losses.min() < 2:
      return curve


def _curve(truth: str, form: Form, random: np.random.Generator) -> Curve:
  """Constants at the middle of a sweep, where they are of order one, and a little else in every domain."""
  units = Point(*np.log([TARGET / 30, BUDGET / 30, BUDGET / 30 / len(DOMAINS), BUDGET / 20]))
  constants = {}
  for q in form.parameters:
    centre, width = q.normal
    while True:
      value = centre + WIDER * width * random.standard_normal()
      value = np.exp(value) if q.kind == "positive" else value
      if max(q.low, 0.02 if q.kind == "coefficient" else q.low) <= value <= q.high and not (q.name in ("alpha", "beta") and value < 0.05):
        break
    constants[q.name] = value
  scale = random.uniform(2, 4) / sum(constants[q.name] for q in form.parameters if q.kind == "coefficient")
  domains = []
  for _ in DOMAINS:
    own = {q.name: constants[q.name] * (scale * np.exp(0.2 * random.standard_normal()) if q.kind == "coefficient" else 1)
           for q in form.parameters}
    if truth == "own_exponents":
      own |= {q.name: own[q.name] * np.exp(0.2 * random.standard_normal()) for q in form.parameters if q.kind == "exponent"}
    domains.append(own)
  offsets = [random.uniform(0.002, 0.1) if name in form.diverges else 0 for name in ("seed_tokens", "expert_tokens")]
  transient = (random.uniform(0.1, 0.5), BUDGET * np.exp(random.uniform(*np.log([1 / 400, 1 / 100])))) if truth == "transient" else (0, 1)

  def curve(n: np.ndarray, d: np.ndarray, x: np.ndarray) -> np.ndarray:
    seed, expert = d + offsets[0] * np.exp(units.seed), x + offsets[1] * np.exp(units.expert)
    logs = [np.log(np.maximum(v, 1e-290)) - u for v, u in zip((n, seed, expert, d + x), units)]
    padded = [np.append(v, np.full(-len(v) % _POINTS, v[-1])) for v in logs]
    with float64():
      loss = np.stack([np.asarray(_losses(form.name, own, Point(*padded)))[:len(n)] for own in domains])
    return loss * (1 + transient[0] / (1 + ((d + x) / transient[1]) ** 2))

  return curve


@functools.partial(jax.jit, static_argnums=0)
def _losses(name: str, constants: dict[str, float], x: Point) -> jax.Array:
  return FORMS[name].loss(constants, x)


def original(random: np.random.Generator) -> Curve:
  """The law of scripts/calibration.py: k as it is there, in proportion to this size and budget."""
  worlds = []
  for _ in DOMAINS:
    alpha, beta, gamma = random.uniform((0.2, 0.25, 0.6), (0.4, 0.45, 0.95))
    a, b, k = random.uniform((0.4, 0.5, 0.1), (1.0, 1.0, 0.6))
    worlds.append((random.uniform(0.8, 1.4), a, alpha, b, beta, k, gamma))
  n0, d0, x0, c0 = TARGET / 7, 1.2e7 / 3.2e7 * BUDGET, 3e6 / 3.2e7 * BUDGET, 5e6 / 3.2e7 * BUDGET
  return lambda n, d, x: np.stack([e + a * (n / n0) ** -alpha + b * ((x + k * x0 * (d / d0) ** gamma) / c0) ** -beta
                                   for e, a, alpha, b, beta, k, gamma in worlds])


def table(records: list[dict]) -> str:
  """Costs in per cent of the loss, by design and reading, of all worlds and of kinds of them; and the worst worlds."""
  lines = ["| design | reading | worlds | kind | mean / median / 90th percentile cost | said | median error of the fraction | covered "
           "| median width | 50/50 | 80/20 |", "| --- | --- | ---: | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |"]
  percent = lambda value: f"{100 * value:.3f}"

  def row(design: str, reading: str, kind: str, chosen: list[dict]) -> None:
    of = lambda name: np.array([r[name] for r in chosen])
    held = (of("low") - 0.005 <= of("best")) & (of("best") <= of("high") + 0.005)
    lines.append(f"| {design} | {reading} | {len(chosen)} | {kind} | " + " / ".join(map(percent, (
        of("cost").mean(), np.median(of("cost")), np.quantile(of("cost"), 0.9)))) + f" | {percent(of('stated').mean())} | "
        f"{np.median(np.abs(of('fraction') - of('best'))):.2f} | {held.mean():.2f} | {np.median(of('high') - of('low')):.2f} | "
        f"{percent(of('half').mean())} | {percent(of('four_fifths').mean())} |")

  for design, reading in dict.fromkeys((r["design"], r["reading"]) for r in records):
    for original_ones in (False, True):
      mine = [r for r in records if (r["design"], r["reading"], r["truth"] == ORIGINAL) == (design, reading, original_ones)]
      if not mine:
        continue
      row(design, reading, ORIGINAL if original_ones else "all", mine)
      if not original_ones:
        for truth in dict.fromkeys(r["truth"] for r in mine):
          row(design, reading, truth, [r for r in mine if r["truth"] == truth])
        for kind, heavy in (("heavy tails", True), ("normal errors", False)):
          if some := [r for r in mine if r["heavy"] == heavy]:
            row(design, reading, kind, some)
      for r in sorted(mine, key=lambda r: -r["cost"])[:3]:
        lines.append(f"| {design} | {reading} | 1 | worst: world {r['world']}, {r['truth']}, best {r['best']:.2f}, recommended "
                     f"{r['fraction']:.2f} ({r['low']:.2f} to {r['high']:.2f}) | {percent(r['cost'])} | {percent(r['stated'])} | | | | "
                     f"{percent(r['half'])} | {percent(r['four_fifths'])} |")
  return "\n".join(lines)


if __name__ == "__main__":
  main()
