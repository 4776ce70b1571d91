"""The forms a law can take: loss as a function of model size N, seed tokens D and expert tokens D'.

A form is a pure function of its constants `p` and of a `Point`, whose fields are logarithms in units of the table's
geometric means (ln N/N0, ln D/D0 ...). There all constants are of order one, which is what makes the fit well
conditioned; `natural` then rewrites them for plain tokens and parameters, which is how they are reported.

A form of one's own is a file that calls `add_form(Form(...))`, given as --extension=FILE (docs/extending.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.law.points import float64
from jaxsplit.registry import Registry

Constants = Mapping[str, Any]


class Point(NamedTuple):
  """What a form sees of a cell: natural logarithms of N, D, D' and D + D', each in its own unit.

  Zero tokens appear as a very negative logarithm (-690), so that exp gives next to nothing and derivatives stay finite.
  """

  params: Any
  seed: Any
  expert: Any
  total: Any


@dataclasses.dataclass(frozen=True)
class Parameter:
  """One constant of a form.

  Attributes:
    name: as reported.
    kind: "coefficient" (positive, the loss is linear in all coefficients together), "positive" (fitted as a logarithm)
      or "exponent" (fitted as it is). With several domains, coefficients and positives are per domain, exponents shared.
    low, high: bounds, in the units of Point; a coefficient's are multiples of the typical loss.
    start: the range that starting values are drawn from.
    prior: mean and standard deviation of a weak normal prior on what is fitted, where one is needed (law.surface); None takes
      the middle of `start` and half its width.
  """

  name: str
  kind: Literal["coefficient", "positive", "exponent"]
  low: float
  high: float
  start: tuple[float, float]
  prior: tuple[float, float] | None = None

  @property
  def normal(self) -> tuple[float, float]:
    """Mean and standard deviation of the prior."""
    low, high = np.log(self.start) if self.kind == "positive" else self.start
    return self.prior or ((low + high) / 2, (high - low) / 2)


@dataclasses.dataclass(frozen=True)
class Form:
  """A law's shape.

  Attributes:
    name: what --form takes.
    parameters: its constants.
    loss: (p, point) -> nats per token; pure, elementwise, in jax.numpy.
    natural: (p, units) -> p for plain units, where units is a Point of plain scales; None: the form sees the logarithms
      of plain counts, and scales them itself where it needs to.
    needs: the columns that must vary for the constants to be told apart.
    diverges: the columns whose zero makes the loss infinite; there an offset is added to them (see law.problem).
    source: where the form comes from.
    levels: how many values of each column in `needs` its constants are told from where they have no priors: three of a power law,
      four of one that bends.
    one_size: whether it is of models of one size, and has no term in N: fitted to such tables, and only where it is named.
  """

  name: str
  parameters: tuple[Parameter, ...]
  loss: Callable[[Constants, Point], Any]
  natural: Callable[[Constants, Point], dict[str, Any]] | None
  needs: tuple[str, ...]
  diverges: tuple[str, ...]
  source: str
  levels: int = 3
  one_size: bool = False

  @property
  def local(self) -> tuple[str, ...]:
    """The exponents whose value depends on where they are taken: plain ones are those where all counts are 1."""
    if self.natural is None:
      return ()
    there = self.natural({q.name: 1.0 for q in self.parameters}, Point(2.0, 3.0, 5.0, 8.0))
    return tuple(q.name for q in self.parameters if q.kind == "exponent" and there[q.name] != 1.0)


def coefficient(name: str) -> Parameter:
  """A term's size."""
  return Parameter(name, "coefficient", 0.0, 1e4, (0.0, 1.0), (0.4, 0.6))


def exponent(name: str, low: float = 0.005, high: float = 3.0, start: tuple[float, float] = (0.05, 1.2),
             prior: tuple[float, float] = (0.35, 0.3)) -> Parameter:
  """A power, decreasing where positive."""
  return Parameter(name, "exponent", low, high, start, prior)


def bend(name: str) -> Parameter:
  """A small power of either sign, 0 as far as is known: how a term leans on another quantity, or curves."""
  return exponent(name, -0.5, 0.5, (-0.05, 0.05), (0.0, 0.1))


def _size(p: Constants, x: Point) -> Any:
  return p["E"] + p["A"] * jnp.exp(-p["alpha"] * x.params)


def _natural_size(p: Constants, u: Point) -> dict[str, Any]:
  return dict(p, A=p["A"] * u.params ** p["alpha"])


def _chinchilla(p: Constants, x: Point) -> Any:
  return _size(p, x) + p["B"] * jnp.exp(-p["beta"] * x.total)


def _natural_chinchilla(p: Constants, u: Point) -> dict[str, Any]:
  return dict(_natural_size(p, u), B=p["B"] * u.total ** p["beta"])


def _additive(p: Constants, x: Point) -> Any:
  return _size(p, x) + p["B"] * jnp.exp(-p["beta"] * x.seed) + p["C"] * jnp.exp(-p["gamma"] * x.expert)


def _natural_additive(p: Constants, u: Point) -> dict[str, Any]:
  return dict(_natural_size(p, u), B=p["B"] * u.seed ** p["beta"], C=p["C"] * u.expert ** p["gamma"])


def _additive_by_size(p: Constants, x: Point) -> Any:
  return _additive(dict(p, B=p["B"] * jnp.exp(p["b"] * x.params), C=p["C"] * jnp.exp(p["c"] * x.params)), x)


def _natural_additive_by_size(p: Constants, u: Point) -> dict[str, Any]:
  natural = _natural_additive(p, u)
  return dict(natural, B=natural["B"] * u.params ** -p["b"], C=natural["C"] * u.params ** -p["c"])


def _interaction(p: Constants, x: Point) -> Any:
  return _size(p, x) + p["B"] * jnp.exp(-p["beta"] * x.seed - p["gamma"] * x.expert + p["delta"] * x.seed * x.expert)


def _natural_interaction(p: Constants, u: Point) -> dict[str, Any]:
  # delta (ln D - d0)(ln D' - e0) expands into the plain product and shifts of both exponents and of B.
  d0, e0 = np.log(u.seed), np.log(u.expert)
  return dict(_natural_size(p, u), B=p["B"] * np.e ** (p["beta"] * d0 + p["gamma"] * e0 + p["delta"] * d0 * e0),
              beta=p["beta"] + p["delta"] * e0, gamma=p["gamma"] + p["delta"] * d0)


def _effective(p: Constants, x: Point) -> Any:
  return _size(p, x) + p["B"] * jnp.exp(-p["beta"] * jnp.log(jnp.exp(x.expert) + p["k"] * jnp.exp(p["gamma"] * x.seed)))


def _natural_effective(p: Constants, u: Point) -> dict[str, Any]:
  return dict(_natural_size(p, u), B=p["B"] * u.expert ** p["beta"], k=p["k"] * u.expert * u.seed ** -p["gamma"])


def _effective_by_size(p: Constants, x: Point) -> Any:
  return _effective(dict(p, k=p["k"] * jnp.exp(p["kappa"] * x.params)), x)


def _natural_effective_by_size(p: Constants, u: Point) -> dict[str, Any]:
  natural = _natural_effective(p, u)
  return dict(natural, k=natural["k"] * u.params ** -p["kappa"])


def _continued(p: Constants, x: Point) -> Any:
  return p["E"] + p["B"] * jnp.exp(-p["beta"] * jnp.log1p(p["t"] * jnp.exp(x.expert) + p["k"] * jnp.exp(p["gamma"] * x.seed)))


def _natural_continued(p: Constants, u: Point) -> dict[str, Any]:
  return dict(p, t=p["t"] / u.expert, k=p["k"] * u.seed ** -p["gamma"])


def _multiplicative(p: Constants, x: Point) -> Any:
  return p["E"] + p["A"] * jnp.exp(-p["alpha"] * x.params) * jnp.exp(-p["beta"] * x.seed) * jnp.exp(-p["gamma"] * x.expert)


def _natural_multiplicative(p: Constants, u: Point) -> dict[str, Any]:
  return dict(p, A=p["A"] * u.params ** p["alpha"] * u.seed ** p["beta"] * u.expert ** p["gamma"])


# ln(L - E) as a quadratic of a = ln N, d = ln D, x = ln D': the name of each product's factor, and what it multiplies.
_QUADRATIC = {"aa": (0, 0), "dd": (1, 1), "xx": (2, 2), "ad": (0, 1), "ax": (0, 2), "dx": (1, 2)}
_SLOPES = "alpha", "beta", "gamma"


def _log_quadratic(p: Constants, x: Point) -> Any:
  logs = x.params, x.seed, x.expert
  total = sum(p[name] * logs[i] * logs[j] for name, (i, j) in _QUADRATIC.items())
  return p["E"] + p["A"] * jnp.exp(total - sum(p[name] * log for name, log in zip(_SLOPES, logs)))


def _natural_log_quadratic(p: Constants, u: Point) -> dict[str, Any]:
  # Each product about the units expands into the plain one, shifts of two slopes, and of A.
  at = np.log(u.params), np.log(u.seed), np.log(u.expert)
  slopes, level = [p[name] for name in _SLOPES], sum(p[name] * log for name, log in zip(_SLOPES, at))
  for name, (i, j) in _QUADRATIC.items():
    slopes[i] = slopes[i] + p[name] * at[j]
    slopes[j] = slopes[j] + p[name] * at[i]
    level = level + p[name] * at[i] * at[j]
  return dict(p, A=p["A"] * np.e**level, **dict(zip(_SLOPES, slopes)))


_E, _A, _B, _C = map(coefficient, "EABC")
_ALPHA, _BETA, _GAMMA = map(exponent, ("alpha", "beta", "gamma"))
_SEED_POWER = exponent("gamma", 0.02, 3.0, (0.3, 1.2), (0.7, 0.3))
_KAPPA = exponent("kappa", -2.0, 2.0, (-0.3, 0.3), (0.0, 0.3))
_K = Parameter("k", "positive", 1e-5, 1e5, (0.02, 5.0), (-1.0, 2.0))

FORMS: Registry[Form] = Registry("FitSettings.form", "auto")
for _form in (
    Form("chinchilla", (_E, _A, _ALPHA, _B, _BETA), _chinchilla, _natural_chinchilla, ("params", "total_tokens"), (),
         "L = E + A/N^alpha + B/(D+D')^beta; Hoffmann et al. 2022, arXiv 2203.15556, eq. 2"),
    Form("additive", (_E, _A, _ALPHA, _B, _BETA, _C, _GAMMA), _additive, _natural_additive,
         ("params", "seed_tokens", "expert_tokens"), ("seed_tokens", "expert_tokens"),
         "L = E + A/N^alpha + B/D^beta + C/D'^gamma; the separable extension of Hoffmann et al. 2022"),
    Form("additive_by_size", (_E, _A, _ALPHA, _B, _BETA, bend("b"), _C, _GAMMA, bend("c")), _additive_by_size,
         _natural_additive_by_size, ("params", "seed_tokens", "expert_tokens"), ("seed_tokens", "expert_tokens"),
         "L = E + A/N^alpha + B N^b/D^beta + C N^c/D'^gamma; additive, with coefficients that depend on N as in Farseer, "
         "arXiv 2506.10972", levels=4),
    Form("interaction", (_E, _A, _ALPHA, _B, _BETA, _GAMMA, bend("delta")), _interaction,
         _natural_interaction, ("params", "seed_tokens", "expert_tokens"), ("seed_tokens", "expert_tokens"),
         "L = E + A/N^alpha + B D^-beta D'^(-gamma + delta ln D); Liew & Kato 2025, arXiv 2510.06548"),
    Form("effective_data", (_E, _A, _ALPHA, _B, _BETA, _K, _SEED_POWER), _effective, _natural_effective,
         ("params", "seed_tokens", "expert_tokens"), (),
         "L = E + A/N^alpha + B/(D' + k D^gamma)^beta; Hernandez et al. 2021, arXiv 2102.01293"),
    Form("effective_data_by_size", (_E, _A, _ALPHA, _B, _BETA, _K, _SEED_POWER, _KAPPA),
         _effective_by_size, _natural_effective_by_size, ("params", "seed_tokens", "expert_tokens"), (),
         "L = E + A/N^alpha + B/(D' + k N^kappa D^gamma)^beta; Hernandez et al. 2021, arXiv 2102.01293, eq. 3.2"),
    Form("continued", (_E, _B, _BETA, Parameter("t", "positive", 1e-5, 1e5, (0.1, 10.0), (0.0, 2.0)), _K, _SEED_POWER), _continued,
         _natural_continued, ("seed_tokens", "expert_tokens"), (),
         "L = E + B/(1 + t D' + k D^gamma)^beta; effective data (arXiv 2102.01293) after a base model's, whose tokens are the unit: of "
         "one size, without a term in N", one_size=True),
    Form("multiplicative", (_E, _A, _ALPHA, _BETA, _GAMMA), _multiplicative, _natural_multiplicative,
         ("params", "seed_tokens", "expert_tokens"), ("seed_tokens", "expert_tokens"),
         "L = E + A N^-alpha D^-beta D'^-gamma; Zhang et al. 2024, arXiv 2402.17193, extended by D"),
    Form("log_quadratic", (_E, _A, *map(exponent, _SLOPES), *map(bend, _QUADRATIC)), _log_quadratic, _natural_log_quadratic,
         ("params", "seed_tokens", "expert_tokens"), ("seed_tokens", "expert_tokens"),
         "L = E + A exp(-alpha n - beta d - gamma x + aa n^2 + dd d^2 + xx x^2 + ad n d + ax n x + dx d x) with n = ln N, d = ln D, "
         "x = ln D'; a response surface (Box & Wilson 1951) of the excess loss",
         levels=4),
):
  FORMS.add(_form.name, _form)


def add_form(form: Form) -> Form:
  """Adds a user's form by its name, once it was evaluated at random constants: it must be finite and, where it gives `natural`,
  invariant under units.

  Raises:
    InputError: it is not, or the name is taken.
  """
  random = np.random.default_rng(0)
  p = {q.name: float(random.uniform(*q.start)) for q in form.parameters}
  units = Point(3.0, 5.0, 7.0, 11.0)
  x = Point(*(random.uniform(-0.7, 0.7, 8) for _ in Point._fields))
  elsewhere = Point(*(a + np.log(u) for a, u in zip(x, units)))
  try:
    with float64():
      here = np.asarray(form.loss(p, x))
      there = here if form.natural is None else np.asarray(form.loss(form.natural(p, units), elsewhere))
  except Exception as error:
    raise InputError(f"form {form.name}: cannot be evaluated ({type(error).__name__}: {error})") from None
  if here.shape != (8,) or not np.isfinite(here).all():
    raise InputError(f"form {form.name}: its loss must give one finite value a point; it gave {here.tolist()}")
  if not np.allclose(here, there, rtol=1e-9):
    raise InputError(f"form {form.name}: its natural constants do not give its loss in other units; mend it, or give natural=None")
  return FORMS.add(form.name, form)
