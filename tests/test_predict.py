"""The predict entry point: losses with intervals, and what growing compute is best spent on, with a figure."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from jaxsplit import predict
from jaxsplit.errors import InputError
from jaxsplit.law import Cells, compute_optimal, fit_law, load_law

CHINCHILLA = (1.8172, 477.83, 0.3473, 2143.4, 0.3672)


@pytest.fixture(scope="module")
def split_law(tmp_path_factory):
  rows = [(n, d, x, e + 20 * n**-0.3 + 150 * (x + 3 * d**0.8) ** -0.35, name) for name, e in (("prose", 1.5), ("verse", 1.2))
          for n in (1e5, 3e5, 1e6) for d in (4e6, 8e6, 1.6e7) for x in (0.0, 1e6, 2e6)]
  columns = dict(zip(("params", "seed_tokens", "expert_tokens", "loss", "domain"), map(np.array, zip(*rows))))
  columns["loss"] *= np.exp(2e-3 * np.random.default_rng(0).standard_normal(len(rows)))
  path = tmp_path_factory.mktemp("split") / "law.json"
  fit_law(Cells.from_columns(columns), form="effective_data", bootstrap=40, starts=8, holdout="none").save(path)
  return path


@pytest.fixture(scope="module")
def dense_law(tmp_path_factory):
  n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1.6e10, 6), np.geomspace(1e9, 3e11, 6)))
  e, a, alpha, b, beta = CHINCHILLA
  loss = (e + a * n**-alpha + b * d**-beta) * np.exp(2e-3 * np.random.default_rng(0).standard_normal(len(n)))
  path = tmp_path_factory.mktemp("dense") / "law.json"
  fit_law(Cells.from_columns({"params": n, "seed_tokens": d, "loss": loss}), form="chinchilla", bootstrap=40, starts=8,
          holdout="none").save(path)
  return path


def test_losses_with_intervals(split_law, capsys):
  argv = [f"--law={split_law}", "--params=1e6,3M", "--seed_tokens=8e6", "--expert_tokens=0,1e6"]
  assert predict.main([*argv, "--json"]) == 0
  rows = json.loads(capsys.readouterr().out)
  law = load_law(split_law)
  assert [(r["params"], r["expert_tokens"]) for r in rows] == [(1e6, 0), (1e6, 1e6), (3e6, 0), (3e6, 1e6)]
  for row in rows:
    at = row["params"], row["seed_tokens"], row["expert_tokens"]
    assert row["loss"] == pytest.approx(float(law.mean_of_forms(*at)), rel=1e-9) and row["domain"] is None
    (low, high), (least, most) = row["mean_interval"], row["prediction_interval"]
    assert low < row["loss"] < high and least < row["loss"] < most and most - least >= 0.9 * (high - low)
  assert rows[0]["extrapolates"] == [] and rows[2]["extrapolates"] == ["N is 3 times the largest measured"]
  assert predict.main([*argv, "--domain=verse"]) == 0
  told = capsys.readouterr().out
  assert f"{float(law.mean_of_forms(1e6, 8e6, 0, 'verse')):.4f}" in told and "warning: N is 3 times the largest measured" in told
  assert predict.main([*argv, "--domain=all", "--json"]) == 0
  assert [r["domain"] for r in json.loads(capsys.readouterr().out)] == ["prose"] * 4 + ["verse"] * 4
  assert predict.main([f"--law={split_law}", "--params=1e6", "--expert_tokens=1e6"]) == 0
  told = capsys.readouterr().out
  assert "- " in told.splitlines()[1] and "the loss there is not known (-)" in told, "no cell has D = 0, so there is no number"


def test_tokens_of_which_one_count_was_measured(dense_law):
  rows = predict.predictions(load_law(dense_law), [1e8], [1e10], [0.0, 1e9])
  assert rows[0]["loss"] > 0 and rows[1]["loss"] is None, "no cell of the law has experts"


def test_compute_optimal_sizes_are_the_laws_own(dense_law, tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  argv = [f"--law={dense_law}", "--compute_optimal", "--budget_flops=1e19,1e21,2e25"]
  assert predict.main([*argv, "--json"]) == 0
  optima = json.loads(capsys.readouterr().out)
  assert not list(tmp_path.iterdir())
  p = load_law(dense_law).parameters
  for o in optima:
    # The stationary point of A / N^alpha + B / D^beta at 6 N D = C, as in Hoffmann et al. 2022, eq. 4.
    g = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / (p["alpha"] + p["beta"]))
    best = g * (o["budget_flops"] / 6) ** (p["beta"] / (p["alpha"] + p["beta"]))
    assert o["params"] == pytest.approx(best, rel=0.02)
    assert o["params_interval"][0] < best < o["params_interval"][1]
    assert 6 * o["params"] * o["seed_tokens"] == pytest.approx(o["budget_flops"]) and o["fraction"] is None
    assert o["loss_interval"][0] < o["loss"] < o["loss_interval"][1]
  assert predict.main(argv) == 0
  told = capsys.readouterr().out
  a = p["beta"] / (p["alpha"] + p["beta"])
  powers = [float(power) for power in re.findall(r"C\^([0-9.]+)", told)]
  assert powers == pytest.approx([a, 1 - a], abs=2e-3)
  assert "one dense model each" in told and "times the largest size" in told and "figure: compute_optimal.svg" in told
  assert (tmp_path / "compute_optimal.svg").read_text().startswith("<?xml")
  size = r"(\d\.\d{3}e\+\d\d)"
  for point, low, high in re.findall(f"{size} +{size} .. {size}", told):
    assert float(low) <= float(point) <= float(high)
  assert len(re.findall(f"{size} +{size} .. {size}", told)) == 3


def test_a_best_size_lies_within_its_printed_interval(split_law):
  optimum = dataclasses.replace(compute_optimal(load_law(split_law), [1e14])[0], params=1.326e9, params_interval=(1.326e9, 1.6e9))
  assert "1.326e+09 1.326e+09 .. 1.600e+09" in " ".join(predict._optimal_text([optimum], load_law(split_law), 2).split())


def test_compute_optimal_splits(split_law, tmp_path, capsys):
  figure = tmp_path / "deep" / "optimal.png"
  assert predict.main([f"--law={split_law}", "--compute_optimal", "--budget_flops=1e14,1e15", "--num_domains=9", f"--figure={figure}"]) == 0
  told = capsys.readouterr().out
  assert figure.read_bytes().startswith(b"\x89PNG") and "N ~ C^" in told and f"figure: {figure}" in told
  for o in compute_optimal(load_law(split_law), [1e14, 1e15], num_domains=9):
    assert o.seed_tokens + 9 * o.expert_tokens == pytest.approx(o.budget_tokens)
    assert o.fraction_interval[0] <= o.fraction <= o.fraction_interval[1] and o.params_interval[0] <= o.params <= o.params_interval[1]


@pytest.mark.parametrize("argv, message", [
    ([], "--params is missing"), (["--params=x"], "--params=x: give numbers"), (["--params=1e6"], "trains on no tokens has no prediction"),
    (["--params=-1", "--seed_tokens=1e6"], "params must be positive"), (["--params=1e6", "--seed_tokens=1e6", "--domain=prosa"], "did you mean prose"),
    (["--params=1e6", "--budget_flops=1e9"], "--budget_flops does not apply to a prediction.*--compute_optimal"),
    (["--compute_optimal"], "--budget_flops is missing"), (["--compute_optimal", "--budget_flops=0"], "--budget_flops=0: must be positive"),
    (["--compute_optimal", "--budget_flops=1e15", "--params=1e6"], "--params does not apply to --compute_optimal"),
    (["--compute_optimal", "--budget_flops=1e15", "--num_domains=0"], "--num_domains=0: must be a whole number"),
    (["--compute_optimal", "--budget_flops=1e15", "--accounting=all"], "--accounting=all: must be total"),
    (["--compute_optimal", "--budget_flops=1e15", "--figure=x.gif"], "name a .svg, .png or .pdf"),
    (["--parms=1"], "did you mean --params"),
])
def test_bad_input_is_one_line(split_law, argv, message):
  with pytest.raises(InputError, match=message) as error:
    predict.main([f"--law={split_law}", *argv])
  assert "\n" not in str(error.value)


def test_a_law_is_needed():
  with pytest.raises(InputError, match="--law is missing"):
    predict.main(["--params=1e6"])
