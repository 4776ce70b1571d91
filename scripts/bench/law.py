"""Measures the law's fitter against scipy on the same machine in the same run.

    python scripts/bench/law.py [--tables=../shared/data/law_tables] [--points=FILE]

Speed: 2,048 starts and 4,000 bootstrap refits of the Chinchilla form on 240 points, against scipy's BFGS with analytic
gradients from the same starts. FILE is a CSV of N, D, loss (such as the points that Besiroglu et al. 2024, arXiv 2404.10102,
read off Hoffmann's figure 4); without it the points are drawn from the law that they fitted.
Exactness: the lowest objective of every table and form, against scipy from many starts of its own.
"""

from __future__ import annotations

import argparse
import csv
import functools
import os
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from jaxsplit.law import Cells, FitSettings, read_cells
from jaxsplit.law.design import skip_reason
from jaxsplit.law.fit import fit_form
from jaxsplit.law.fitted import Fitted
from jaxsplit.law.forms import FORMS, Form, Parameter, coefficient, exponent
from jaxsplit.law.problem import draw_starts
from jaxsplit.law.solve import solve

STARTS, REFITS, SCIPY_STARTS = 2048, 4000, 48

RECTIFIED = Form(
    "rectified", (coefficient("E"), coefficient("B"), Parameter("d", "positive", 1e-6, 1e6, (0.01, 1.0)), exponent("beta")),
    lambda p, x: p["E"] + p["B"] / (p["d"] + jnp.exp(p["beta"] * x.expert)),
    lambda p, u: dict(p, B=p["B"] * u.expert ** p["beta"], d=p["d"] * u.expert ** p["beta"]),
    ("expert_tokens",), (), "L = E + B/(d + D'^beta); Lin et al. 2024, arXiv 2402.02314")


def main() -> None:
  """Prints both comparisons."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--tables", default="../shared/data/law_tables")
  parser.add_argument("--points")
  flags = parser.parse_args()
  print(f"{os.cpu_count()} cores, jax {jax.__version__}")
  compare_speed(flags.points)
  if pathlib.Path(flags.tables).is_dir():
    compare_objectives(pathlib.Path(flags.tables))


def compare_speed(path: str | None) -> None:
  """2,048 starts, 4,000 refits, and scipy's BFGS a start."""
  cells = read_cells(path, {"params": "N", "seed_tokens": "D", "loss": "loss"}) if path else synthetic_points()
  settings = FitSettings(starts=64)
  fit = fit_form(FORMS["chinchilla"], cells, settings, ())
  starts = draw_starts(fit.model, fit.layout, STARTS, 0)
  random = np.random.default_rng(0)
  weights = random.multinomial(len(cells), np.full(len(cells), 1 / len(cells)), REFITS)[:, None, :].astype(float)
  refit = lambda count: solve(fit.model, fit.problem, np.tile(fit.theta, (count, 1)), fit.target, weights[:count], near=True)
  refit(STARTS)  # compiles
  solution, seconds = timed(lambda: solve(fit.model, fit.problem, starts, fit.target, fit.weight))
  _, refit_seconds = timed(lambda: refit(REFITS))
  least = solution.objective.min()
  share = np.mean(solution.objective <= least * (1 + 1e-8))
  print(f"\n{len(cells)} points, Chinchilla form, Huber 1e-3 in log space")
  print(f"  {STARTS} starts: {seconds:.2f} s, {share:.2%} within 1e-8 of the lowest objective {least:.9e}")
  print(f"  {REFITS} bootstrap refits: {refit_seconds:.2f} s")
  print("  " + ", ".join(f"{k} {float(v):.6g}" for k, v in fit.layout.named(fit.model, fit.theta).items()))
  results, scipy_seconds = timed(lambda: [bfgs_by_hand(cells, s) for s in hoffmann_starts(SCIPY_STARTS)])
  per_start = scipy_seconds / SCIPY_STARTS
  close = np.mean([r <= least * (1 + 1e-8) for r in results])
  print(f"  scipy BFGS, analytic gradient: {per_start * 1e3:.1f} ms a start against {seconds / STARTS * 1e3:.2f} ms: "
        f"{per_start * STARTS / seconds:.0f} times; {close:.0%} within 1e-8; "
        f"its lowest is {min(results) / least - 1:+.1e} of ours")


def synthetic_points() -> Cells:
  """240 points of the law fitted by Besiroglu et al., over its ranges, with heavy-tailed noise of its size."""
  random = np.random.default_rng(0)
  n, d = np.exp(random.uniform(np.log([[5e7], [1e9]]), np.log([[1.6e10], [3e11]]), (2, 240)))
  loss = (1.8172 + 477.83 * n**-0.3473 + 2143.4 * d**-0.3672) * np.exp(0.004 * random.standard_t(3, 240))
  return Cells.from_columns({"params": n, "seed_tokens": d, "loss": loss})


def hoffmann_starts(count: int) -> np.ndarray:
  """Starts (ln A, ln B, ln E, alpha, beta) from the grid of Hoffmann et al. 2022, appendix D.3."""
  random = np.random.default_rng(0)
  return np.stack([random.choice(v, count) for v in (
      np.arange(0, 30, 5.0), np.arange(0, 30, 5.0), np.arange(-1, 1.5, 0.5), np.arange(0, 2.5, 0.5), np.arange(0, 2.5, 0.5))], 1)


def bfgs_by_hand(cells: Cells, start: np.ndarray) -> float:
  """The objective that scipy's BFGS reaches, with the gradient written out in NumPy."""
  n, d, target = np.log(cells.params), np.log(cells.seed_tokens), np.log(cells.loss)

  def objective(t):
    terms = np.stack([t[0] - t[3] * n, t[1] - t[4] * d, np.full_like(n, t[2])])
    top = terms.max(0)
    parts = np.exp(terms - top)
    total = parts.sum(0)
    r = top + np.log(total) - target
    pull, share = np.clip(r, -1e-3, 1e-3), parts / total
    slope = np.array([pull @ share[0], pull @ share[1], pull @ share[2], -pull @ (share[0] * n), -pull @ (share[1] * d)])
    return np.where(np.abs(r) <= 1e-3, r**2 / 2, 1e-3 * (np.abs(r) - 5e-4)).sum(), slope

  return float(optimize.minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-10, "maxiter": 2000}).fun)


def compare_objectives(tables: pathlib.Path) -> None:
  """The lowest objective on every table by every form that suits it, ours and scipy's."""
  print(f"\n{'table':<22}{'form':<24}{'objective':<15}{'ours':>16}{'scipy':>16}{'ours - scipy':>14}{'at optimum':>12}")
  worse = 0
  for name, cells, share, forms in all_tables(tables):
    for form in forms:
      if skip_reason(form, cells):
        continue
      for objective in ("huber", "least_squares"):
        fit = fit_form(form, cells, FitSettings(objective=objective, share=share, starts=128), ())
        theirs = scipy_lowest(fit)
        excess = fit.objective_value / theirs - 1
        worse += excess > 1e-8
        print(f"{name:<22}{form.name:<24}{objective:<15}{fit.objective_value:>16.9e}{theirs:>16.9e}{excess:>+14.1e}"
              f"{np.mean(fit.solution.objective <= np.nanmin(fit.solution.objective) * (1 + 1e-8)):>12.1%}", flush=True)
  print(f"higher than scipy's: {worse}")


def all_tables(tables: pathlib.Path):
  """(name, cells, share, forms) of every table."""
  forms = list(FORMS.values())
  yield "upcycling", read_cells(tables / "upcycling_twostage" / "two_stage_grid.csv",
                                {"params": "N_active", "seed_tokens": "D1", "expert_tokens": "D2"}), "exponents", forms
  yield "farseer", read_cells(tables / "farseer" / "train.parquet", {"params": "N", "seed_tokens": "D"}), "exponents", forms
  gadre = {"params": "N", "seed_tokens": "D", "loss": "loss_c4_val", "domain": "dataset"}
  for share in ("exponents", "everything"):
    yield f"gadre, {share}", read_cells(tables / "gadre_overtrain" / "gadre_runs.csv", gadre), share, forms
  for name in ("flan", "gigaword", "wmt19"):
    with open(tables / "finetune_rectified" / f"{name}.csv", newline="") as f:
      for row in csv.DictReader(f):
        yield f"{name} {row['config name'].split('/')[-1]}"[:21], finetune_cells(row), "everything", [RECTIFIED]


def finetune_cells(row: dict[str, str]) -> Cells:
  """One model fine-tuned on ever more samples; the columns that are numbers count them."""
  counts = [name for name in row if name.isdigit() and name != "0"]
  return Cells.from_columns({"params": [float(row["size"])] * len(counts), "expert_tokens": [float(c) for c in counts],
                             "loss": [float(row[c]) for c in counts]})


def scipy_lowest(fit: Fitted) -> float:
  """The lowest objective of scipy's L-BFGS-B with exact gradients from 24 starts."""
  starts = draw_starts(fit.model, fit.layout, 24, 1)
  objective = functools.partial(value_and_slope, fit.model)
  best = np.inf
  with jax.enable_x64(True):
    call = lambda t: tuple(np.asarray(v, float) for v in objective(t, fit.problem, fit.target, fit.weight))
    for start in starts:
      result = optimize.minimize(call, start, jac=True, method="L-BFGS-B", bounds=list(zip(fit.problem.low, fit.problem.high)),
                                 options={"maxiter": 3000, "maxfun": 6000, "ftol": 1e-16, "gtol": 1e-12, "maxcor": 30})
      best = min(best, float(result.fun)) if np.isfinite(result.fun) else best
  return best


@functools.partial(jax.jit, static_argnums=0)
def value_and_slope(model, theta, problem, target, weight):
  """The objective and its gradient, for scipy."""

  def value(theta):
    cells = jax.tree.map(lambda a: jnp.broadcast_to(a, target.shape), problem.cells)
    r = jax.vmap(model)(theta[problem.index], cells) - target
    size, delta = jnp.abs(r), problem.delta
    return (weight * jnp.where(size <= delta, r**2 / 2, delta * (size - delta / 2))).sum()

  return jax.value_and_grad(value)(theta)


def timed(work):
  """The result of `work` and the shortest of three timings, in seconds."""
  seconds = []
  for _ in range(3):
    start = time.perf_counter()
    result = work()
    seconds.append(time.perf_counter() - start)
  return result, min(seconds)


if __name__ == "__main__":
  main()
