"""Fitted laws reproduce known answers, choose by held-out error, and come back from their file unchanged."""

from __future__ import annotations

import csv
import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxsplit.errors import InputError
from jaxsplit.law import Cells, FitSettings, fit_law, load_law, read_cells
from jaxsplit.law.fit import fit_form
from jaxsplit.law.forms import FORMS
from jaxsplit.law.holdout import contenders, default_rules, folds
from jaxsplit.law.repeats import mixture
from jaxsplit.registry import run_extension
from worlds import SIZES, TABLES, effective_cells, effective_loss, needs_tables

TIED = '''
import jax.numpy as jnp
from jaxsplit.law.forms import Form, add_form, coefficient, exponent

def loss(p, x):
  return p["E"] + p["A"] * jnp.exp(-p["alpha"] * x.params) + p["B"] * jnp.exp(-p["alpha"] * x.total)

def natural(p, u):
  return dict(p, A=p["A"] * u.params ** p["alpha"], B=p["B"] * u.total ** p["alpha"])

add_form(Form("tied", (*map(coefficient, "EAB"), exponent("alpha")), loss, natural, ("params", "total_tokens"), (),
              "Gadre et al. 2024, arXiv 2403.08540, eq. 4"))
'''


@pytest.fixture(scope="module")
def two_domains():
  return fit_law(effective_cells(noise=1e-3, domains=("prose", "verse")), form="effective_data", bootstrap=64)


def test_a_noiseless_law_is_recovered():
  law = fit_law(effective_cells(), form="effective_data", bootstrap=0)
  expected = {"E": 1.2, "A": 20.0, "alpha": 0.3, "B": 150.0, "beta": 0.35, "k": 3.0, "gamma": 0.8}
  assert law.parameters == pytest.approx(expected, rel=1e-4)
  assert law.r2 > 1 - 1e-9 and law.held_out["mre"] < 1e-6
  assert law.diagnostics["starts_at_optimum"] > 0.0
  assert law.predict(1e7, 1e8, [0.0, 1e7]) == pytest.approx(effective_loss(1e7, 1e8, np.array([0.0, 1e7])), rel=1e-5)


def test_domains_have_their_own_constants_and_shared_exponents(two_domains):
  law = two_domains
  assert law.domains == ("prose", "verse")
  assert {"E[prose]", "E[verse]", "k[verse]", "alpha", "beta", "gamma"} <= set(law.parameters)
  assert not {"alpha[prose]", "E"} & set(law.parameters)
  for name, e, k in (("prose", 1.2, 3.0), ("verse", 1.3, 4.0)):
    assert law.predict(1e6, 8e6, 2e6, name) == pytest.approx(effective_loss(1e6, 8e6, 2e6, e=e, k=k), rel=2e-3)
  mean = (law.predict(1e6, 8e6, 2e6, "prose") + law.predict(1e6, 8e6, 2e6, "verse")) / 2
  assert law.predict(1e6, 8e6, 2e6) == pytest.approx(mean)
  with pytest.raises(InputError, match="did you mean prose"):
    law.predict(1e6, 8e6, 2e6, "prosa")


def test_a_law_comes_back_from_its_file(two_domains, tmp_path):
  two_domains.save(tmp_path / "law.json")
  law = load_law(tmp_path / "law.json")
  np.testing.assert_array_equal(law.predict(2e6, [1e7, 2e7], 1e6), two_domains.predict(2e6, [1e7, 2e7], 1e6))
  for mine, theirs in zip(law.interval(2e6, [1e7, 2e7], 1e6, "verse"), two_domains.interval(2e6, [1e7, 2e7], 1e6, "verse")):
    np.testing.assert_allclose(mine, theirs, rtol=1e-5)
  record = json.loads((tmp_path / "law.json").read_text())
  assert law.held_out == two_domains.held_out and len(law.held_out["predicted"]) == law.held_out["num_points"] == 24
  for key in ("form", "objective", "parameters", "objective_value", "num_points", "held_out", "intervals", "candidates",
              "diagnostics", "data", "version"):
    assert key in record
  assert {"mre", "max", "bias", "num_points", "rule"} <= set(record["held_out"])


@pytest.mark.parametrize("text, message", [
    ("{}", "not a law"), ("[1]", "not a law"), ("{", "not JSON"), ('{"form": "x", "members": [], "version": 99}', "version 99"),
    ('{"form": "x", "members": [{}], "version": 6}', "damaged"),
])
def test_a_broken_law_file(tmp_path, text, message):
  (tmp_path / "law.json").write_text(text)
  with pytest.raises(InputError, match=message):
    load_law(tmp_path / "law.json")


def test_r2_is_the_usual_one_and_the_one_within_domains(two_domains):
  cells = effective_cells(noise=1e-3, domains=("prose", "verse"))
  predicted = np.concatenate([two_domains.predict(cells.params[m], cells.seed_tokens[m], cells.expert_tokens[m], name)
                              for name in cells.domains for m in [cells.domain == name]])
  order = np.argsort(cells.domain, kind="stable")
  loss, domain = np.log(cells.loss[order]), cells.domain[order]
  around = lambda centre: 1 - ((loss - np.log(predicted)) ** 2).sum() / ((loss - centre) ** 2).sum()
  assert two_domains.r2 == pytest.approx(around(loss.mean()), abs=1e-9)
  means = np.array([loss[domain == d].mean() for d in domain])
  assert two_domains.r2_within_domains == pytest.approx(around(means), abs=1e-9)
  assert two_domains.r2_within_domains < two_domains.r2


def test_the_same_fit_twice_is_the_same():
  cells = effective_cells(noise=3e-3)
  first, second = (fit_law(cells, form="chinchilla", bootstrap=20) for _ in range(2))
  assert first.parameters == second.parameters and first.intervals == second.intervals


def test_auto_takes_the_best_held_out_error_and_ranks_the_rest():
  law = fit_law(effective_cells(noise=2e-3), form="auto", bootstrap=0)
  errors = [c["held_out"]["mre"] for c in law.candidates]
  tried = [form for form in FORMS.values() if form.levels == 3 and not form.one_size]
  assert law.form in ("effective_data", "effective_data_by_size") and errors == sorted(errors) and len(errors) == len(tried)
  assert law.held_out["rule"] == "params:1" and law.held_out["distance"] == pytest.approx(np.log(3))
  assert {r["rule"] for r in law.held_out["others"]} == {"tokens:1", "params:1+tokens:1",
                                                           f"compute:{_fifth(effective_cells())}"}


def test_constants_that_gain_nothing_cost_a_form_its_say():
  n, d, x = (v.ravel() for v in np.meshgrid(SIZES, np.geomspace(4e6, 3e7, 4), np.geomspace(1e6, 8e6, 4)))
  loss = (1.2 + 3e3 * n**-0.2 * d**-0.2 * x**-0.1) * np.exp(3e-3 * np.random.default_rng(0).standard_normal(len(n)))
  cells = Cells.from_columns({"params": n, "seed_tokens": d, "expert_tokens": x, "loss": loss})
  fits = [fit_form(FORMS[name], cells, FitSettings(starts=8), ("tokens:1",)) for name in ("multiplicative", "log_quadratic")]
  say = {fit.model.form.name: weight for fit, weight in contenders(fits, cells)}
  assert fits[0].model.form.name == "multiplicative" and say["multiplicative"] == 1 and say.get("log_quadratic", 0) < 0.05


def _fifth(cells):
  return len(np.unique(6 * cells.params * (cells.seed_tokens + cells.expert_tokens))) // 5


def test_holdout_rules():
  cells = effective_cells()
  assert [int(m.sum()) for m in folds(cells, "params:2")] == [24]
  assert (cells.params[folds(cells, "params:1")[0]] == SIZES[-1]).all()
  assert len(folds(cells.take(np.arange(5)), "leave_one_out")) == 5
  assert default_rules(cells.take(np.arange(20))) == ("leave_one_out",)
  for rule, message in (("params:4", "only 4 values"), ("size:1", "AXIS:k"), ("params:x", "AXIS:k")):
    with pytest.raises(InputError, match=message):
      folds(cells, rule)


def test_row_weights_count():
  cells = effective_cells(noise=0.01)
  columns = {name: getattr(cells, name) for name in ("params", "seed_tokens", "expert_tokens", "loss")}
  heavy = Cells.from_columns({**columns, "weight": np.where(cells.params == 1e5, 0.0, 1.0)})
  without = cells.take(cells.params != 1e5)
  settings = FitSettings(form="chinchilla", bootstrap=0, holdout="none", objective="least_squares")
  assert fit_law(heavy, settings).objective_value == pytest.approx(fit_law(without, settings).objective_value, rel=1e-6)


@pytest.mark.parametrize("change, message", [
    ({"params": 1e6}, "params has 1 distinct value"),
    ({"params": 1e6, "seed_tokens": 1e7, "expert_tokens": 0.0}, "measure 2 more sizes N"),
    ({"seed_tokens": 1e7, "expert_tokens": 1e6}, "total_tokens has 1 distinct value"),
])
def test_designs_that_tell_nothing_are_refused_with_what_to_measure(change, message):
  cells = effective_cells(noise=0.01)
  columns = {name: getattr(cells, name) for name in ("params", "seed_tokens", "expert_tokens", "loss")}
  columns |= {name: np.full(len(cells), value) for name, value in change.items()}
  with pytest.raises(InputError) as error:
    fit_law(Cells.from_columns(columns))
  assert message in str(error.value) and "\n" not in str(error.value)


def test_sizes_and_tokens_that_rise_together_are_refused():
  n = np.geomspace(1e5, 1e7, 20)
  cells = Cells.from_columns({"params": n, "seed_tokens": 20 * n, "loss": 1 + n**-0.3})
  with pytest.raises(InputError, match="rise together"):
    fit_law(cells, form="chinchilla")


def test_settings_are_checked():
  for settings, message in (({"form": "chinchila"}, "did you mean chinchilla"), ({"deltas": 1}, "did you mean delta"),
                            ({"delta": 0.0}, "--delta"), ({"objective": "l2"}, "--objective"),
                            ({"holdout": "none"}, "nothing to choose"), ({"bootstrap": 10**9}, "from 0 to 20,000"),
                            ({"repeats": True}, "unique_tokens")):
    with pytest.raises(InputError, match=message):
      fit_law(effective_cells(), **settings)


def test_a_floor_that_is_not_there_is_told():
  n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e5, 1e7, 5), np.geomspace(1e6, 1e8, 5)))
  loss = 20 * n**-0.3 + 150 * d**-0.35 - 0.02
  law = fit_law(Cells.from_columns({"params": n, "seed_tokens": d, "loss": loss}), form="chinchilla", bootstrap=0)
  assert law.parameters["E"] == 0 and law.diagnostics["at_bounds"] == ["E"]
  assert any("reached 0" in text for text in law.warnings)


def repeated_cells(r_star=6.0, seed_tokens=(1e6, 4e6, 1.6e7, 6.4e7), epochs=True):
  """Two domains, a quarter and three quarters of the mixture, whose seeds and experts read their tokens again and again."""
  unique, share = {"prose": 4e5, "verse": 3e6}, {"prose": 0.25, "verse": 0.75}
  worth = lambda tokens, u: tokens if tokens <= u else u + u * r_star * (1 - np.exp(-(tokens / u - 1) / r_star))
  rows = []
  for name, u in unique.items():
    other = next(v for k, v in unique.items() if k != name)
    for n in (1e5, 3e5, 1e6, 3e6):
      for d in seed_tokens:
        for x in (0.0, 2e5, 2e6):
          own = share[name] * d
          fresh = worth(own, u) + worth(d - own, other), worth(own + x, u) - worth(own, u)
          rows.append((n, d, x, name, u, (own + x) / u, effective_loss(n, *fresh)))
  columns = dict(zip(("params", "seed_tokens", "expert_tokens", "domain", "unique_tokens", "epochs", "loss"), zip(*rows)))
  return Cells.from_columns({name: v for name, v in columns.items() if epochs or name != "epochs"})


def test_repeated_seed_tokens_are_discounted():
  settings = FitSettings(form="effective_data", repeats=True, bootstrap=0, starts=16, holdout="none")
  law = fit_law(repeated_cells(), settings)
  assert law.parameters["R_star"] == pytest.approx(6.0, rel=1e-3)
  assert law.parameters["beta"] == pytest.approx(0.35, rel=1e-3)
  assert not [text for text in law.warnings if "repeats" in text or "epochs" in text]
  (told,) = [text for text in fit_law(repeated_cells(epochs=False), settings).warnings if "epochs" in text]
  assert "each of the 2 domains is taken for an even share" in told
  (told,) = [text for text in fit_law(repeated_cells(), settings, repeats=False).warnings if "--repeats" in text]
  assert "up to 45 times" in told, "the seeds' passes alone are 40"


def test_experts_that_read_other_text_too_do_not_change_the_seeds_shares():
  cells = repeated_cells()
  less = 0.5 * cells.expert_tokens / cells.unique_tokens  # Half of the experts' streams is replay.
  share, _ = mixture(dataclasses.replace(cells, epochs=cells.epochs - less))
  assert share == pytest.approx(np.where(cells.domain == "prose", 0.25, 0.75))


def test_where_nothing_repeats_there_is_no_r_star():
  cells = repeated_cells(seed_tokens=(1e4, 4e4, 1.6e5))
  law = fit_law(cells.take(cells.expert_tokens < 1e6), form="chinchilla", repeats=True, bootstrap=10, starts=8, holdout="none",
                profile=3)
  assert "R_star" not in {*law.parameters, *law.intervals, *law.profiles}
  assert any("nothing for --repeats to discount" in text for text in law.warnings)


@needs_tables
def test_farseer_published_error():
  columns = {"params": "N", "seed_tokens": "D"}
  train, test = (read_cells(TABLES / "farseer" / f"{name}.parquet", columns) for name in ("train", "test"))
  law = fit_law(train, form="chinchilla", bootstrap=0, holdout="none")
  assert len(train) == 404 and "repeats row" in train.source["notes"][0]
  assert np.abs(law.predict(test.params, test.seed_tokens, 0) / test.loss - 1).mean() == pytest.approx(0.0299, abs=2e-4)


@needs_tables
def test_gadre_published_errors(extensions, tmp_path):
  (tmp_path / "tied.py").write_text(TIED)
  run_extension(tmp_path / "tied.py")
  with open(TABLES / "gadre_overtrain" / "gadre_runs.csv") as f:
    runs = {r["model"] + "-" + r["chinchilla_multiplier"]: r for r in csv.DictReader(f) if r["dataset"] == "rpj"}
  table = lambda *names: Cells.from_columns({
      "params": [float(runs[n]["N"]) for n in names], "seed_tokens": [float(runs[n]["D"]) for n in names],
      "loss": [float(runs[n]["loss_c4_val"]) for n in names]})
  small = table("d=96_l=8_h=4-1.0", "d=96_l=8_h=4-16.0", "d=512_l=8_h=4-1.0", "d=576_l=24_h=8-1.0", "d=1024_l=24_h=8-1.0")
  large = table("open_lm_1b-32.0", "open_lm_7b-1.0")
  law = fit_law(small, form="tied", objective="least_squares", space="raw", bootstrap=0, holdout="none")
  tied = fit_law(small, form="chinchilla", tie="beta=alpha", objective="least_squares", space="raw", bootstrap=0, holdout="none")
  for fitted in (law, tied):
    error = 100 * np.abs(fitted.predict(large.params, large.seed_tokens, 0) / large.loss - 1)
    assert error == pytest.approx([0.7103, 0.7320], abs=5e-5)


@needs_tables
def test_upcycling_extrapolates_and_auto_chooses_well():
  cells = read_cells(TABLES / "upcycling_twostage" / "two_stage_grid.csv",
                     {"params": "N_active", "seed_tokens": "D1", "expert_tokens": "D2"})
  law = fit_law(cells, form="auto", holdout="params:3", bootstrap=0, starts=16)
  errors = {c["form"]: c["held_out"]["mre"] for c in law.candidates}
  assert errors["interaction"] <= 0.00684 and errors["chinchilla"] == pytest.approx(0.01338, abs=1e-5)
  assert law.held_out["mre"] <= 1.1 * min(errors.values())


def test_jaxs_debug_switches_change_nothing():
  settings = FitSettings(form="multiplicative", bootstrap=0, starts=4)
  plain = fit_law(effective_cells(), settings)
  jax.clear_caches()
  with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"), jax.transfer_guard("disallow"):
    law = fit_law(effective_cells(), settings)
    assert law.parameters == plain.parameters
    assert law.predict(1e7, 1e8, [0.0, 1e7]).tolist() == plain.predict(1e7, 1e8, [0.0, 1e7]).tolist()
