"""Every form keeps its values under a change of units, is finite at zero tokens, and can be joined by a user's own."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest

from jaxsplit.errors import InputError
from jaxsplit.files import file_hash
from jaxsplit.law.cells import Cells
from jaxsplit.law.design import skip_reason
from jaxsplit.law.forms import FORMS, Form, Point
from jaxsplit.law.problem import Counts, Model
from jaxsplit.registry import run_extension

UNITS = Point(2e6, 3e7, 5e6, 4e7)


def constants(form: Form) -> dict[str, float]:
  random = np.random.default_rng(3)
  return {q.name: float(random.uniform(*q.start)) for q in form.parameters}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_natural_constants_give_the_same_loss(form):
  random = np.random.default_rng(1)
  x = Point(*(random.uniform(-2, 2, 20) for _ in Point._fields))
  plain = Point(*(a + np.log(u) for a, u in zip(x, UNITS)))
  p = constants(form)
  with jax.enable_x64(True):
    np.testing.assert_allclose(form.loss(form.natural(p, UNITS), plain), form.loss(p, x), rtol=1e-10)


def test_forms_are_the_formulas_they_name():
  n, d, e = 3e6, 2e7, 4e6
  x = Point(*(np.log(v) for v in (n, d, e, d + e)))
  p = {"E": 1.5, "A": 90.0, "B": 200.0, "C": 30.0, "alpha": 0.31, "beta": 0.28, "gamma": 0.4, "delta": 0.01, "k": 2.0,
       "kappa": 0.1, "t": 1e-6, "b": 0.05, "c": -0.04, "aa": 0.01, "dd": 0.02, "xx": 0.03, "ad": -0.01, "ax": 0.015, "dx": -0.02}
  a, b, c = np.log([n, d, e])
  base = 1.5 + 90 * n**-0.31
  expected = {
      "chinchilla": base + 200 * (d + e) ** -0.28,
      "additive": base + 200 * d**-0.28 + 30 * e**-0.4,
      "additive_by_size": base + 200 * n**0.05 * d**-0.28 + 30 * n**-0.04 * e**-0.4,
      "interaction": base + 200 * d**-0.28 * e ** (-0.4 + 0.01 * np.log(d)),
      "effective_data": base + 200 * (e + 2 * d**0.4) ** -0.28,
      "effective_data_by_size": base + 200 * (e + 2 * n**0.1 * d**0.4) ** -0.28,
      "continued": 1.5 + 200 * (1 + 1e-6 * e + 2 * d**0.4) ** -0.28,
      "multiplicative": 1.5 + 90 * n**-0.31 * d**-0.28 * e**-0.4,
      "log_quadratic": 1.5 + 90 * n**-0.31 * d**-0.28 * e**-0.4 * np.exp(
          0.01 * a * a + 0.02 * b * b + 0.03 * c * c - 0.01 * a * b + 0.015 * a * c - 0.02 * b * c),
  }
  assert set(expected) == set(FORMS)
  with jax.enable_x64(True):
    for name, value in expected.items():
      assert float(FORMS[name].loss(p, x)) == pytest.approx(value, rel=1e-12), name


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_formula_names_every_constant(form):
  offsets = tuple(name for name, column in (("seed_offset", "seed_tokens"), ("expert_offset", "expert_tokens")) if column in form.diverges)
  model = Model(form, log=True, repeats=True, offsets=offsets)
  formula = model.formula.partition(";")[0]
  assert {q.name for q in model.known} <= set(re.findall(r"\w+", formula))
  assert model.formula.endswith(form.source.partition(";")[2])
  assert ("D + seed_offset in place of D and D' + expert_offset in place of D'" in formula) == bool(offsets)
  assert Model(form, log=True).formula == form.source


def test_exponents_that_depend_on_where_they_are_taken():
  assert {name: form.local for name, form in FORMS.items() if form.local} == {
      "interaction": ("beta", "gamma"), "log_quadratic": ("alpha", "beta", "gamma")}


def test_a_form_of_one_size_is_for_cells_of_one_size():
  cells = Cells.from_columns({"params": [1e6] * 15 + [2e6], "loss": [2.0] * 16, "seed_tokens": [1e6, 2e6, 4e6, 8e6] * 4,
                              "expert_tokens": [1e5] * 4 + [2e5] * 4 + [4e5] * 4 + [8e5] * 4})
  assert skip_reason(FORMS["continued"], cells) == "it has no term in N, and there are several sizes"
  assert not skip_reason(FORMS["continued"], cells.take(cells.params == 1e6))


def domain(seed, expert, unique):
  one = np.ones(())
  return Counts(np.zeros(1), np.array([seed]), np.array([expert]), np.array([unique]), one, one, one * 1e-3, one * 1e-3, one)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("seed, expert", [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0)])
def test_loss_and_derivatives_are_finite_at_zero_tokens(form, seed, expert):
  model = Model(form, log=True)
  theta = np.array([np.log(np.mean(q.start)) if q.kind == "positive" else np.mean(q.start) for q in model.parameters])
  with jax.enable_x64(True):
    value, slope = jax.value_and_grad(lambda t: model(t, domain(seed, expert, np.inf))[0])(theta)
  assert np.isfinite(value) and np.isfinite(slope).all()


def test_repeats_discount_as_muennighoff():
  model = Model(FORMS["chinchilla"], log=False, repeats=True)
  theta = np.array([1.0, 1.0, 0.3, 1.0, 0.5, np.log(15.0)])
  with jax.enable_x64(True):
    loss = lambda expert, unique: float(model(theta, domain(0.0, expert, unique))[0])
    unique, epochs, r_star = 2.0, 5.0, 15.0
    worth = unique + unique * r_star * (1 - np.exp(-(epochs - 1) / r_star))
    assert loss(unique * epochs, unique) == pytest.approx(loss(worth, np.inf), rel=1e-12)
    assert loss(1.0, unique) == pytest.approx(loss(1.0, np.inf), rel=1e-12)


def test_seed_tokens_repeat_too_and_count_against_the_experts():
  # Of 8 seed tokens, a quarter are of the domain: 2 passes over its one distinct token, and 3 passes over the others' two.
  r_star, one = 15.0, np.ones(1)
  w = lambda passes: 1 + r_star * (1 - np.exp(-(passes - 1) / r_star))
  seen = Counts(np.zeros(1), 8 * one, 3 * one, one, one, one, one * 1e-3, one * 1e-3, one, 0.25 * one, 2 * one)
  fresh = Counts(np.zeros(1), w(2) + 2 * w(3) * one, (w(5) - w(2)) * one, np.inf * one, *seen[4:9])
  for form in ("chinchilla", "additive", "effective_data"):
    model = Model(FORMS[form], log=True, repeats=True)
    theta = np.array([*(np.mean(q.start) for q in FORMS[form].parameters), np.log(r_star)])
    with jax.enable_x64(True):
      assert float(model(theta, seen)[0]) == pytest.approx(float(model(theta, fresh)[0]), rel=1e-12)


def test_slopes_are_finite_where_nothing_is_known_to_repeat():
  model, one = Model(FORMS["chinchilla"], log=True, repeats=True), np.ones(1)
  theta = np.array([1.0, 1.0, 0.3, 1.0, 0.5, np.log(15.0)])
  with jax.enable_x64(True):
    assert np.isfinite(jax.grad(lambda t: model(t, domain(3.0, 2.0, np.inf)._replace(mixed=one / 2))[0])(theta)).all()


OWN = '''
import jax.numpy as jnp
from jaxsplit.law.forms import Form, add_form, coefficient, exponent

def loss(p, x):
  return p["E"] + p["A"] * jnp.exp(-p["alpha"] * x.params) + p["B"] * jnp.exp(-p["alpha"] * x.total)

def natural(p, u):
  return dict(p, A=p["A"] * u.params ** p["alpha"], B=p["B"] * u.total ** p["alpha"]{extra})

add_form(Form("tied", (*map(coefficient, "EAB"), exponent("alpha")), loss, {natural}, ("params", "total_tokens"), (), "a test"))
'''


def test_a_users_form(extensions, tmp_path):
  path = tmp_path / "tied.py"
  path.write_text(OWN.format(extra="", natural="natural"))
  run_extension(path)
  assert [q.name for q in FORMS["tied"].parameters] == ["E", "A", "B", "alpha"] and FORMS.origins == {"tied": file_hash(path)}
  run_extension(path)  # Again is nothing new.
  path.write_text(path.read_text() + "# changed\n")
  with pytest.raises(InputError, match=r"tied.py:11: FitSettings.form: the name 'tied' is taken"):
    run_extension(path)


@pytest.mark.parametrize("text, message", [
    (OWN.format(extra=", E=2 * p['E']", natural="natural"), "own.py:11: form tied: its natural constants do not give its loss"),
    ("\nraise ValueError('no')", "own.py:2: cannot be run (ValueError: no); mend the file"),
    ("x = 1\nif True\n", "own.py:2: cannot be run (SyntaxError: "),
    ("import sys\nsys.exit(3)", "own.py:2: cannot be run (SystemExit: 3)"),
    ("import nowhere_to_be_found", "own.py:1: cannot be run (ModuleNotFoundError: "),
    ("\x00", "own.py"),
])
def test_a_users_broken_file(extensions, tmp_path, text, message):
  path = tmp_path / "own.py"
  path.write_text(text)
  for _ in range(2):  # What failed is not taken for done.
    with pytest.raises(InputError) as error:
      run_extension(path)
    assert message in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)
  assert not FORMS.origins


def test_unknown_forms_name_the_nearest():
  with pytest.raises(InputError, match="FitSettings.form = 'chinchila': .*did you mean chinchilla.*--extension=FILE"):
    FORMS["chinchila"]
  with pytest.raises(InputError, match="did you mean auto"):
    FORMS["autp"]


def test_files_that_are_none(tmp_path):
  (tmp_path / "own.txt").write_text("x = 1")
  for name, message in (("own.txt", "is no .py file"), ("nowhere.py", "cannot be read .No such file"), ("", "cannot be read .Is a dir")):
    with pytest.raises(InputError, match=message):
      run_extension(tmp_path / name)
