"""Constants may be fixed or tied in plain units, whatever the form; and an objective may weigh one side more."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from jaxsplit import fit, plan
from jaxsplit.errors import InputError
from jaxsplit.law import Cells, fit_law, load_law
from jaxsplit.law.constraints import parse_constraints
from worlds import effective_cells

QUICK = dict(bootstrap=10, starts=8, holdout="none")


def test_constants_fixed_at_the_truth_leave_the_others_true():
  law = fit_law(effective_cells(), form="effective_data", fix="E=1.2, B=150", tie="", **QUICK)
  assert law.parameters == pytest.approx({"E": 1.2, "A": 20.0, "alpha": 0.3, "B": 150.0, "beta": 0.35, "k": 3.0, "gamma": 0.8}, rel=1e-4)
  assert law.parameters["B"] == pytest.approx(150, rel=1e-12) and law.intervals["B"] == pytest.approx((150, 150), rel=1e-12)


@pytest.mark.parametrize("form, fix, tie, checks", [
    ("effective_data", "E=1.25", "beta=alpha", {"E": 1.25}), ("interaction", "beta=0.1,B=5", "gamma=alpha", {"beta": 0.1, "B": 5}),
    ("chinchilla", "A=20", "beta=alpha", {"A": 20})])
def test_what_is_fixed_and_tied_stays_so_and_comes_back_from_the_file(tmp_path, form, fix, tie, checks):
  law = fit_law(effective_cells(noise=1e-3, domains=("prose", "verse")), form=form, fix=fix, tie=tie, profile=3, **QUICK)
  name, other = tie.split("=")
  assert {key: law.parameters[key] for key in checks} == pytest.approx(checks, rel=1e-9)
  assert law.parameters[name] == pytest.approx(law.parameters[other], rel=1e-9)
  assert law.intervals[name] == pytest.approx(law.intervals[other], rel=1e-9)
  assert not {*checks, name} & set(law.profiles) and "E[prose]" in law.parameters or "E" in checks
  law.save(tmp_path / "law.json")
  again = load_law(tmp_path / "law.json")
  assert again.parameters == law.parameters and again.predict(2e6, 1e7, 1e6, "verse") == law.predict(2e6, 1e7, 1e6, "verse")


def test_a_tied_fit_is_the_optimum_of_the_tied_law():
  n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e6, 1e8, 5), np.geomspace(1e8, 1e10, 5)))
  loss = (1.8 + 480 * n**-0.35 + 2100 * d**-0.37) * np.exp(0.01 * np.random.default_rng(0).standard_normal(25))
  law = fit_law(Cells.from_columns({"params": n, "seed_tokens": d, "loss": loss}), form="chinchilla", tie="beta=alpha",
                objective="least_squares", **QUICK)

  def squares(t):
    return ((np.log(t[0] + np.exp(t[1]) * n ** -t[3] + np.exp(t[2]) * d ** -t[3]) - np.log(loss)) ** 2).sum() / 2

  best = min(optimize.minimize(squares, (1.5, np.log(300), np.log(2000), a), method="Nelder-Mead",
                               options={"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-10, "fatol": 1e-14}).fun for a in (0.3, 0.4))
  assert law.objective_value == pytest.approx(best, rel=1e-6)


def test_auto_leaves_out_forms_without_the_constant():
  law = fit_law(effective_cells(noise=2e-3), fix="k=3", bootstrap=0, starts=4)
  assert {c["form"] for c in law.candidates} == {"effective_data", "effective_data_by_size"}
  assert "form chinchilla has no constant k" in law.diagnostics["skipped_forms"]["chinchilla"]


@pytest.mark.parametrize("fix, tie, message", [
    ("E", "", "'E' is not as in --fix=E=1.69"), ("E=x", "", "'x' is not a number"), ("E=1,E=2", "", "E is given twice"),
    ("", "alpha", "'alpha' is not as in --tie=alpha=beta"), ("alpha=0.3", "beta=alpha", "alpha is fixed or tied itself"), ("E=inf", "", "finite"),
    ("e=1", "", "has no constant e"), ("E=-1", "", "E cannot be negative"), ("", "alpha=E", "one is of kind exponent, the other of kind coefficient"),
    ("E=1,A=1,alpha=1,B=1,beta=1", "", "nothing left to fit")])
def test_what_cannot_be_fixed_or_tied_is_one_line(fix, tie, message):
  with pytest.raises(InputError, match=message) as error:
    fit_law(effective_cells(), form="chinchilla", fix=fix, tie=tie, **QUICK)
  assert "\n" not in str(error.value)


def test_flags_of_the_fit_door(tmp_path, capsys):
  cells = effective_cells(noise=1e-3)
  rows = [f"{n},{d},{x},{loss}" for n, d, x, loss in zip(cells.params, cells.seed_tokens, cells.expert_tokens, cells.loss)]
  (tmp_path / "t.csv").write_text("\n".join(["params,seed_tokens,expert_tokens,loss", *rows]))
  fit.main([f"--cells={tmp_path / 't.csv'}", "--form=effective_data", "--fix=E=1.2,gamma=0.8", "--tie=beta=alpha", "--overestimate_penalty=3",
            "--bootstrap=10", "--starts=8", "--holdout=none", f"--out={tmp_path / 'law.json'}"])
  told = capsys.readouterr().out
  assert "objective huber (x 3 where predicted too high)" in told
  assert load_law(tmp_path / "law.json").parameters["gamma"] == pytest.approx(0.8)
  assert plan.main([f"--law={tmp_path / 'law.json'}", "--params=1e6", "--budget_tokens=4e7", "--num_domains=9"]) == 0


@pytest.mark.parametrize("objective, space", [("huber", "log"), ("least_squares", "raw")])
def test_a_penalty_on_one_side_moves_the_law_to_the_other(objective, space):
  cells = effective_cells(noise=1e-2)
  laws = {p: fit_law(cells, form="chinchilla", objective=objective, space=space, overestimate_penalty=p, profile=3, **QUICK)
          for p in (1.0, 9.0, 1 / 9)}
  above = {p: float((law.residuals < 0).mean()) for p, law in laws.items()}
  assert above[9.0] + 0.1 < above[1.0] < above[1 / 9] - 0.1
  assert all(np.isfinite(profile["deviance"]).all() for law in laws.values() for profile in law.profiles.values())


def test_the_penalised_objective_is_what_it_says():
  cells = effective_cells(noise=1e-2)
  law = fit_law(cells, form="chinchilla", objective="least_squares", overestimate_penalty=4, **QUICK)
  r = -law.residuals
  assert law.objective_value == pytest.approx((np.where(r > 0, 4, 1) * r**2).sum() / 2, rel=1e-9)
  plain = fit_law(cells, form="chinchilla", objective="least_squares", **QUICK)
  assert law.objective_value < (np.where(plain.residuals < 0, 4, 1) * plain.residuals**2).sum() / 2
  with pytest.raises(InputError, match="overestimate_penalty = 0"):
    fit_law(cells, overestimate_penalty=0.0)


def test_constraints_are_read():
  assert parse_constraints("E=1.69, alpha = .3", "").fix == (("E", 1.69), ("alpha", 0.3))
