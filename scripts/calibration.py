"""Measures how often the law's 95 % intervals hold the truth, in worlds whose truth is known.

    python scripts/calibration.py [--worlds=20] [--bootstrap=200] [--sizes=4] [--out=calibration.json]

Each world draws the constants of an effective-data law, and each form in turn is made the truth by fitting it to that law:
worlds that look alike but follow different forms. A grid like an experiment's is measured in it, with noise at three
levels (SIZE: what all cells of one size share, such as a learning rate a little off; TRUNK: what the cells of one snapshot
share; CELL), and every form is fitted. Counted is how often the 95 % interval holds the true loss, at points inside the
grid and at two and four times its largest size, and the true best split there (to half a percent). "auto" takes the form
with the least held-out error, and its intervals go over the forms in play, as in fit_law.
"""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np

from jaxsplit.files import write_json
from jaxsplit.law import Cells, FitSettings
from jaxsplit.law.fit import bootstrap, contenders, fit_form
from jaxsplit.law.forms import FORMS
from jaxsplit.law.law import Member, weighted_quantile

TRUTHS = ("additive", "interaction", "effective_data", "multiplicative")
SIZES = np.geomspace(1e5, 1e6, 4)
SEEDS = np.array([4e6, 8e6, 1.6e7, 3.2e7])
EXPERTS = np.array([0, 1e6, 2e6, 4e6, 8e6])
SIZE, TRUNK, CELL = 0.002, 0.002, 0.003  # relative noise
DOMAINS = 5  # experts that the planned budget pays for
BUDGETS = (2e7, 1e8)  # tokens, at twice the largest size
FRACTIONS = np.linspace(0, 1, 201)
RULES = ("params:1", "compute:4")


def main() -> None:
  """Runs the study and prints its table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--worlds", type=int, default=20, help="per true form")
  parser.add_argument("--bootstrap", type=int, default=200)
  parser.add_argument("--resample", default=FitSettings.resample)
  parser.add_argument("--sizes", type=int, default=4, help="measured sizes, the last of four")
  parser.add_argument("--out", help="also write every count to this .json file")
  flags = parser.parse_args()
  grid = np.array([(n, d, x) for n in SIZES[-flags.sizes:] for d in SEEDS for x in EXPERTS])
  settings = FitSettings(starts=16, bootstrap=flags.bootstrap, resample=flags.resample)
  records = []
  for world in range(flags.worlds):
    random = np.random.default_rng(world)
    loss = effective_law(random, grid)
    for truth in TRUTHS:
      true = fit_form(FORMS[truth], cells(grid, loss), dataclasses.replace(settings, objective="least_squares"), ())
      measured = cells(grid, noisy(true.predict(true.theta, cells(grid, loss)), grid, random))
      answers = questions(grid, true.model, true.layout, true.theta[None])
      records += [{"world": world, "truth": truth, "fit": fit, **counted}
                  for fit, counted in examine(measured, grid, settings, answers).items()]
      print(f"world {world} {truth}", flush=True)
      if flags.out:
        write_json(flags.out, records)
  print(table(records))


def effective_law(random: np.random.Generator, grid: np.ndarray) -> np.ndarray:
  """Losses of a random effective-data law; its terms have sizes like those of small language models."""
  n, d, x = grid.T
  alpha, beta, gamma = random.uniform((0.2, 0.25, 0.6), (0.4, 0.45, 0.95))
  a, b = random.uniform(0.4, 1.0) * 3e5**alpha, random.uniform(0.5, 1.0) * 5e6**beta
  k = random.uniform(0.1, 0.6) * 3e6 / 1.2e7**gamma
  return random.uniform(0.8, 1.4) + a * n**-alpha + b * (x + k * d**gamma) ** -beta


def noisy(loss: np.ndarray, grid: np.ndarray, random: np.random.Generator) -> np.ndarray:
  """The losses with noise shared by size, by snapshot, and by nothing."""
  total = np.zeros(len(loss))
  for columns, level in ((grid[:, :1], SIZE), (grid[:, :2], TRUNK), (grid, CELL)):
    _, group = np.unique(columns, axis=0, return_inverse=True)
    total += level * random.standard_normal(group.max() + 1)[group.ravel()]
  return loss * np.exp(total)


def cells(grid: np.ndarray, loss: np.ndarray) -> Cells:
  """The grid as a table."""
  return Cells.from_columns({**dict(zip(("params", "seed_tokens", "expert_tokens"), grid.T)), "loss": loss})


def questions(grid: np.ndarray, model, layout, theta: np.ndarray) -> dict[str, np.ndarray]:
  """What is asked of a law, [B, points] each: losses inside the grid and beyond it, and best splits."""
  member = Member(model, layout, theta[0], theta, 1.0)
  at = lambda n: member.predict(theta, np.full(3, n), np.array([8e6, 1.6e7, 3.2e7]), np.array([2e6, 4e6, 8e6]), 0)
  largest = grid[:, 0].max()
  curves = [member.predict(theta, np.full(len(FRACTIONS), 2 * largest), FRACTIONS * c, (1 - FRACTIONS) * c / DOMAINS, 0)
            for c in BUDGETS]
  return {"inside": np.concatenate([at(SIZES[-2]), at(largest)], 1), "twice": at(2 * largest), "four times": at(4 * largest),
          "split": np.stack([FRACTIONS[curve.argmin(1)] for curve in curves], 1)}


def examine(measured: Cells, grid: np.ndarray, settings: FitSettings, answers: dict[str, np.ndarray]) -> dict[str, dict]:
  """By fitted form, and for "auto": {question: [held, width]} averaged over its points."""
  fits = [fit_form(form, measured, settings, RULES) for form in FORMS.values()]
  draws = {fit.model.form.name: questions(grid, fit.model, fit.layout, bootstrap(fit, measured, settings)) for fit in fits}
  weights = {name: np.full(settings.bootstrap, 1.0) for name in draws}
  in_play = contenders(fits)
  names = [fit.model.form.name for fit, _ in in_play]
  draws["auto"] = {question: np.concatenate([draws[name][question] for name in names]) for question in answers}
  weights["auto"] = np.repeat([weight for _, weight in in_play], settings.bootstrap)
  return {name: {question: count(draw[question], weights[name], answers[question][0], question) for question in answers}
          for name, draw in draws.items()}


def count(draws: np.ndarray, weights: np.ndarray, truth: np.ndarray, question: str) -> list[float]:
  """The share of points whose interval holds the truth, and the interval's mean width (losses: relative)."""
  low, high = (weighted_quantile(draws, weights / weights.sum(), level) for level in (0.025, 0.975))
  room = 0.005 if question == "split" else 0.0
  scale = 1.0 if question == "split" else truth
  return [float(((low - room <= truth) & (truth <= high + room)).mean()), float(((high - low) / scale).mean())]


def table(records: list[dict]) -> str:
  """Coverage and width by fitted form: where the fit is the truth's form, where it is another, and auto."""
  lines = [f"{'fit':<30}{'truth':<16}" + "".join(f"{q:>20}" for q in ("inside", "twice", "four times", "split"))]

  def line(fit, truth, chosen):
    cell = lambda q: f"{np.mean([r[q][0] for r in chosen]):>10.0%} ({np.median([r[q][1] for r in chosen]):>6.2%})"
    return f"{fit:<30}{truth:<16}" + "".join(f"{cell(q):>20}" for q in ("inside", "twice", "four times", "split"))

  for form in FORMS:
    for truth in TRUTHS:
      lines.append(line(form, truth, [r for r in records if r["fit"] == form and r["truth"] == truth]))
  for truth in TRUTHS:
    lines.append(line("auto", truth, [r for r in records if r["fit"] == "auto" and r["truth"] == truth]))
  lines.append(line("the true form", "all", [r for r in records if r["fit"] == r["truth"]]))
  lines.append(line("auto", "all", [r for r in records if r["fit"] == "auto"]))
  return "\n".join(lines)


if __name__ == "__main__":
  main()
