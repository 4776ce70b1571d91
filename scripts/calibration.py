"""Measures how often the law's 95 % intervals hold the truth, in worlds whose truth is known.

    python scripts/calibration.py --out=calibration.jsonl [--worlds=200] [--minutes=60] [--resample=trunks,residuals,pairs]

Each world draws the constants of an effective-data law for every domain, and each form in turn is made the truth by fitting it
to that law: worlds that look alike but follow different forms. A grid like an experiment's is measured in it, with noise at
three levels (SIZE: what all cells of one size share, such as a learning rate a little off; TRUNK: what the cells of one
snapshot share, in every domain; CELL), and every form is fitted. Counted is how often the 95 % interval holds the true mean
loss over domains, inside the grid and at two and four times its largest size, and the true best split at twice that size (to
half a percent, the step of a plan's grid). "auto" ranks forms by held-out error, and its intervals go over the forms in play,
as in fit_law. Measured too is what a split costs, its true loss over the best split's, when it is read off the best form alone,
off the mean of the forms in play, off the mean of all their refits, or off the true form's fit. Every world is written to --out
when it is done; the next call goes on from there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import time

import numpy as np

from jaxsplit.law import Cells, FitSettings
from jaxsplit.law.fit import bootstrap, contenders, fit_form
from jaxsplit.law.fitted import Fitted
from jaxsplit.law import forms
from jaxsplit.law.law import weighted_quantile
from jaxsplit.law.member import Member

FORMS = {name: form for name, form in forms.FORMS.items() if form.plain}
SIZES = np.geomspace(1e5, 1e6, 4)
SEEDS = np.array([4e6, 8e6, 1.6e7])
EXPERTS = np.array([0, 1e6, 2e6, 4e6])
GRID = np.array([(n, d, x) for n in SIZES for d in SEEDS for x in EXPERTS])
DOMAINS = ("prose", "verse")
SIZE, TRUNK, CELL = 0.002, 0.002, 0.003  # relative noise
EXPERTS_PAID = 5  # by the planned budgets,
BUDGETS = (2e7, 1e8)  # tokens, at twice the largest size
FRACTIONS = np.linspace(0, 1, 201)
QUESTIONS = ("inside", "twice", "four times", "split")
READINGS = ("the best form", "forms in play", "their refits", "the true form")
ROOM = {"split": 0.0051}  # A plan's splits lie on a grid of half a percent.


def main() -> None:
  """Runs the study as far as it is given time, and prints the table of all worlds so far."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--worlds", type=int, default=200, help="per true form")
  parser.add_argument("--minutes", type=float, default=60, help="start no world later than this")
  parser.add_argument("--bootstrap", type=int, default=200)
  parser.add_argument("--every", type=int, default=20, help="worlds whose intervals by forms out of play are asked too")
  parser.add_argument("--resample", default="trunks,residuals,pairs", help="the first for every fit, all of them for auto")
  parser.add_argument("--out", required=True, help="one line of JSON a world and true form; resumed where it is there")
  flags = parser.parse_args()
  out, end = pathlib.Path(flags.out), time.monotonic() + 60 * flags.minutes
  records = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
  done = {(r["world"], r["truth"]) for r in records}
  settings = FitSettings(starts=16, bootstrap=flags.bootstrap)
  for world, truth in ((w, t) for w in range(flags.worlds) for t in FORMS):
    if (world, truth) in done or time.monotonic() > end:
      continue
    every = world < flags.every
    held, cost = examine(world, truth, settings, flags.resample.split(","), every)
    records.append({"world": world, "truth": truth, "held": held, "cost": cost})
    with open(out, "a") as f:
      f.write(json.dumps(records[-1]) + "\n")
  print(table(records))


def examine(world: int, truth: str, settings: FitSettings, kinds: list[str], every: bool) -> tuple[dict, dict[str, float]]:
  """By fitted form and "auto, KIND": {question: [share of points whose interval holds the truth, mean width]}; and by reading,
  what its splits cost, relative to the loss, on average over budgets."""
  random = np.random.default_rng(world)
  loss = np.concatenate([effective_law(random, GRID) for _ in DOMAINS])
  true = fit_form(FORMS[truth], cells(loss), dataclasses.replace(settings, objective="least_squares"), ())
  measured = cells(noisy(true.losses(true.theta[None])[0], random))
  answers = {name: value[0] for name, value in ask(true, true.theta[None]).items()}
  curves = answers.pop("curves")
  fits = [fit_form(form, measured, settings, ("params:1",)) for form in FORMS.values()]
  in_play = contenders(fits)
  held = {}
  for i, kind in enumerate(kinds):
    chosen = [fit for fit in fits if i == 0 and (every or fit.model.form.name == truth)
              or any(fit is other for other, _ in in_play)]
    draws = {fit.model.form.name: ask(fit, bootstrap(fit, measured, dataclasses.replace(settings, resample=kind)))
             for fit in chosen}
    if i == 0:
      held |= {name: compare(draw, np.ones(settings.bootstrap), answers) for name, draw in draws.items()}
    together = {q: np.concatenate([draws[fit.model.form.name][q] for fit, _ in in_play]) for q in QUESTIONS}
    weights = np.array([weight for _, weight in in_play])
    held[f"auto, {kind}"] = compare(together, np.repeat(weights, settings.bootstrap), answers)
    if i == 0:
      each = np.stack([ask(fit, fit.theta[None])["curves"][0] for fit, _ in in_play])
      refits = np.stack([draws[fit.model.form.name]["curves"].mean(0) for fit, _ in in_play])
      own = next(fit for fit in fits if fit.model.form.name == truth)
      readings = (each[0], np.average(each, axis=0, weights=weights), np.average(refits, axis=0, weights=weights),
                  ask(own, own.theta[None])["curves"][0])
      cost = {name: float(np.mean(np.take_along_axis(curves, read.argmin(1)[:, None], 1)[:, 0] / curves.min(1) - 1))
              for name, read in zip(READINGS, readings)}
  return held, cost


def effective_law(random: np.random.Generator, grid: np.ndarray) -> np.ndarray:
  """Losses of a random effective-data law; its terms have sizes like those of small language models."""
  n, d, x = grid.T
  alpha, beta, gamma = random.uniform((0.2, 0.25, 0.6), (0.4, 0.45, 0.95))
  a, b = random.uniform(0.4, 1.0) * 3e5**alpha, random.uniform(0.5, 1.0) * 5e6**beta
  k = random.uniform(0.1, 0.6) * 3e6 / 1.2e7**gamma
  return random.uniform(0.8, 1.4) + a * n**-alpha + b * (x + k * d**gamma) ** -beta


def noisy(loss: np.ndarray, random: np.random.Generator) -> np.ndarray:
  """The losses with noise shared by size, by snapshot, and by nothing."""
  total = CELL * random.standard_normal(len(loss))
  for columns, level in ((1, SIZE), (2, TRUNK)):
    _, group = np.unique(GRID[:, :columns], axis=0, return_inverse=True)
    total += np.tile(level * random.standard_normal(group.max() + 1)[group.ravel()], len(DOMAINS))
  return loss * np.exp(total)


def cells(loss: np.ndarray) -> Cells:
  """The grid of every domain as a table."""
  columns = dict(zip(("params", "seed_tokens", "expert_tokens"), np.tile(GRID, (len(DOMAINS), 1)).T))
  return Cells.from_columns({**columns, "loss": loss, "domain": np.repeat(DOMAINS, len(GRID))})


def ask(fit: Fitted, theta: np.ndarray) -> dict[str, np.ndarray]:
  """What is asked of a law at theta [B, P], [B, points] each: mean losses inside the grid and beyond it, and best splits; and
  the mean losses of all splits, [B, budgets, fractions]."""
  member = Member(fit.model, fit.layout, fit.theta, theta, 1.0)
  largest = SIZES[-1]
  seed, expert = np.array([8e6, 1.6e7, 3.2e7]), np.array([2e6, 4e6, 8e6])
  splits = [(np.full(len(FRACTIONS), 2 * largest), FRACTIONS * c, (1 - FRACTIONS) * c / EXPERTS_PAID) for c in BUDGETS]
  points = [*((np.full(3, n), seed, expert) for n in (SIZES[-2], largest, 2 * largest, 4 * largest)), *splits]
  counts = [np.concatenate(v) for v in zip(*points)]
  loss = np.mean([member.predict(theta, *counts, k) for k in range(len(DOMAINS))], 0)
  curves = loss[:, 12:].reshape(len(theta), len(BUDGETS), len(FRACTIONS))
  return {"inside": loss[:, :6], "twice": loss[:, 6:9], "four times": loss[:, 9:12], "split": FRACTIONS[curves.argmin(2)],
          "curves": curves}


def compare(draws: dict[str, np.ndarray], weights: np.ndarray, truth: dict[str, np.ndarray]) -> dict[str, list[float]]:
  """Per question, the share of points whose interval holds the truth, and the interval's mean width (losses: relative)."""
  out = {}
  for question in QUESTIONS:
    low, high = (weighted_quantile(draws[question], weights / weights.sum(), level) for level in (0.025, 0.975))
    room, scale = ROOM.get(question, 0.0), 1.0 if question == "split" else truth[question]
    inside = (low - room <= truth[question]) & (truth[question] <= high + room)
    out[question] = [float(inside.mean()), float(((high - low) / scale).mean())]
  return out


def table(records: list[dict]) -> str:
  """Coverage and median width, by fit and truth, as a Markdown table."""
  lines = ["| fit | truth | worlds | " + " | ".join(QUESTIONS) + " |", "| --- | --- | ---: |" + " ---: |" * len(QUESTIONS)]

  def line(fit: str, truth: str, chosen: list[dict]) -> None:
    cell = lambda q: f"{np.mean([c[q][0] for c in chosen]):.0%} ({np.median([c[q][1] for c in chosen]):.1%})"
    lines.append(f"| {fit} | {truth} | {len(chosen)} | " + " | ".join(map(cell, QUESTIONS)) + " |")

  of = lambda fit, truth: [r["held"][fit] for r in records if fit in r["held"] and truth in (r["truth"], "any")]
  autos = list(dict.fromkeys(name for r in records for name in r["held"] if name.startswith("auto")))
  for fit in autos:
    line(fit, "any", of(fit, "any"))
  line("the true form", "any", [r["held"][r["truth"]] for r in records])
  for fit in (*autos[:1], *FORMS):
    for truth in FORMS:
      if of(fit, truth):
        line(fit, truth, of(fit, truth))
  lines += ["", "| split read off | mean cost | 95 % of worlds under |", "| --- | ---: | ---: |"]
  for reading in READINGS:
    costs = [r["cost"][reading] for r in records]
    lines.append(f"| {reading} | {np.mean(costs):.3%} | {np.quantile(costs, 0.95):.3%} |")
  return "\n".join(lines)


if __name__ == "__main__":
  main()
