"""Converts cells and a form to the solver's arrays, and its vectors back to named constants.

Everything is measured in the table's own units (geometric means of N, D, D', D + D' and of the loss), so that every
constant is of order one whatever the scale of the models.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxsplit.law.cells import Cells
from jaxsplit.law.constraints import Constraints
from jaxsplit.law.forms import Form, Parameter, Point
from jaxsplit.law.points import Problem, float64
from jaxsplit.law.repeats import mixture, worth

# A zero count of tokens enters the forms' logarithms as this multiple of the unit; any power of it is next to nothing.
_NOTHING = 1e-300
# Where a form diverges at zero tokens and no cell tells the offset, it is this share of the smallest positive count.
_OFFSET_SHARE = 1e-3


class Counts(NamedTuple):
  """Cells in table units, domain by domain: log N, plain D and D' [K, M] each, what law.repeats needs, units' ratios [1]."""

  params: Any
  seed: Any
  expert: Any
  unique: Any  # distinct tokens of the domain, in units of D'
  seed_share: Any  # unit of D over unit of D + D'
  expert_share: Any
  seed_offset: Any  # used where the offset is not itself fitted
  expert_offset: Any
  scale: Any  # unit of the loss
  mixed: Any = 0.0  # the domain's share of the seed's mixture
  rest: Any = np.inf  # distinct tokens of the other domains, in units of D'


@dataclasses.dataclass(frozen=True)
class Model:
  """A form with its options: maps q constants and points to losses, elementwise. Hashable, so each compiles once.

  Attributes:
    form: the law's shape.
    log: predict log loss.
    repeats: discount tokens seen again, as law.repeats does.
    offsets: which of "seed_offset" and "expert_offset" are fitted.
    constraints: constants that are fixed or tied, and so are none of `parameters`.
  """

  form: Form
  log: bool
  repeats: bool = False
  offsets: tuple[str, ...] = ()
  constraints: Constraints = Constraints()

  @property
  def parameters(self) -> tuple[Parameter, ...]:
    """The constants that are fitted."""
    return tuple(q for q in self.known if q.name not in self.constraints.names)

  @property
  def known(self) -> tuple[Parameter, ...]:
    """The form's constants and those of the options."""
    extra = [Parameter("R_star", "positive", 1e-2, 1e4, (3.0, 30.0))] if self.repeats else []
    extra += [Parameter(name, "positive", 1e-6, 1e3, (1e-2, 0.3), (-2.5, 1.5)) for name in self.offsets]
    return (*self.form.parameters, *extra)

  @property
  def formula(self) -> str:
    """The form's formula and source, with the constants of the options."""
    formula, semicolon, source = self.form.source.partition(";")
    options = [f"{count} + {name} in place of {count}" for name, count in (("seed_offset", "D"), ("expert_offset", "D'"))
               if name in self.offsets]
    options += ["repeated tokens discounted by R_star"] if self.repeats else []
    return f"{formula}{', with ' if options else ''}{' and '.join(options)}{semicolon}{source}"

  def is_shared(self, parameter: Parameter, share: str) -> bool:
    """Whether all domains have one value of this constant."""
    options = parameter not in self.form.parameters
    return share == "everything" or parameter.kind == "exponent" or options

  def __call__(self, theta: Any, x: Counts) -> Any:
    loss = self.loss(self.constants(theta, x.scale), x)
    return jnp.log(loss) if self.log else loss

  def constants(self, theta: Any, scale: Any) -> dict[str, Any]:
    """q values or arrays -> constants in table units."""
    read = {"coefficient": lambda v: v * scale, "positive": jnp.exp, "exponent": lambda v: v}
    fitted = {q.name: read[q.kind](theta[i]) for i, q in enumerate(self.parameters)}
    if not self.constraints.names:
      return fitted
    return self.constraints.complete(self.form, {q.name: q.kind for q in self.known}, fitted)

  def loss(self, p: dict[str, Any], x: Counts) -> Any:
    """The loss in nats per token at constants p."""
    seed, expert = x.seed, x.expert
    if self.repeats:
      unit = x.seed_share / x.expert_share  # of D over that of D'
      first = worth(seed * x.mixed * unit, x.unique, p["R_star"])
      expert = worth(seed * x.mixed * unit + expert, x.unique, p["R_star"]) - first
      seed = (first + worth(seed * (1 - x.mixed) * unit, x.rest, p["R_star"])) / unit
    log = lambda value: jnp.log(jnp.maximum(value, _NOTHING))
    diverges = self.form.diverges
    total = seed * x.seed_share + expert * x.expert_share
    if "seed_tokens" in diverges:
      seed = seed + p.get("seed_offset", x.seed_offset)
    if "expert_tokens" in diverges:
      expert = expert + p.get("expert_offset", x.expert_offset)
    return self.form.loss(p, Point(x.params, log(seed), log(expert), log(total)))


@dataclasses.dataclass(frozen=True)
class Layout:
  """How a fit's vectors map to domains, constants and units; plain numbers and tuples, written to law.json.

  Attributes:
    domains: names; one entry where all rows share one law.
    index: [K][q] positions in theta.
    units: scales of N, D, D' and D + D'.
    scale: unit of the loss.
    offsets: D and D' offsets in plain tokens where they are not fitted.
    unique_tokens: per domain, the distinct tokens that repeats are counted against.
    shares: per domain, its share of the seeds' mixture.
    rest_tokens: per domain, the distinct tokens of the rest of that mixture.
  """

  domains: tuple[str, ...]
  index: tuple[tuple[int, ...], ...]
  units: tuple[float, float, float, float]
  scale: float
  offsets: tuple[float, float]
  unique_tokens: tuple[float, ...]
  shares: tuple[float, ...]
  rest_tokens: tuple[float, ...]

  @property
  def size(self) -> int:
    """The number of constants over all domains."""
    return max(map(max, self.index)) + 1

  def labels(self, model: Model) -> list[str]:
    """The name of each entry of theta, as `named` reports it."""
    labels = [""] * self.size
    for k, domain in enumerate(self.domains):
      for i, q in zip(self.index[k], model.parameters):
        owners = sum(i in row for row in self.index)
        labels[i] = q.name if owners == len(self.domains) else f"{q.name}[{domain}]"
    return labels

  def points(self, params: Any, seed: Any, expert: Any, unique: Any, mixed: Any, rest: Any) -> Counts:
    """Plain counts [..., M] in table units."""
    n, d, e, t = self.units
    one = np.ones(1)
    return Counts(np.log(np.asarray(params) / n), np.asarray(seed) / d, np.asarray(expert) / e, np.asarray(unique) / e,
                  one * d / t, one * e / t, one * self.offsets[0] / d, one * self.offsets[1] / e, one * self.scale,
                  np.asarray(mixed), np.asarray(rest) / e)

  def named(self, model: Model, theta: np.ndarray) -> dict[str, Any]:
    """theta [..., P] -> constants in plain units by name; a constant of one domain is called "E[domain]"."""
    named: dict[str, Any] = {}
    labels = self.labels(model)
    n, d, e, t = self.units
    for k in range(len(self.domains)):
      local = np.moveaxis(np.asarray(theta)[..., list(self.index[k])], -1, 0)
      with float64():
        p = {name: np.asarray(value) for name, value in model.constants(local, self.scale).items()}
      if model.form.natural is not None:
        p = model.form.natural(p, Point(n, d, e, t))
      for name, unit in (("seed_offset", d), ("expert_offset", e)):
        if name in p:
          p[name] = p[name] * unit
      for i, q in zip(self.index[k], model.parameters):
        named[labels[i]] = np.asarray(p[q.name], float)
      for name, label in zip(model.constraints.names, self.constrained(model, k)):
        named[label] = np.broadcast_to(np.asarray(p[name], float), local.shape[1:])
    return named

  def constrained(self, model: Model, k: int) -> list[str]:
    """What the constants that are not fitted are called in domain number k: as those that they are tied to."""
    labels, names = self.labels(model), [q.name for q in model.parameters]
    at = lambda other: labels[self.index[k][names.index(other)]]
    return [*(name for name, _ in model.constraints.fix),
            *(at(other).replace(other, name, 1) for name, other in model.constraints.tie)]


def suit(form: Form, cells: Cells, share: str, *, log: bool, repeats: bool = False,
         constraints: Constraints = Constraints()) -> tuple[Model, Layout]:
  """The model of a form that these cells need, and the places of its constants."""
  zeros = {"seed_offset": "seed_tokens", "expert_offset": "expert_tokens"}
  offsets = tuple(name for name, column in zeros.items() if column in form.diverges and (getattr(cells, column) == 0).any())
  model = Model(form, log, repeats, offsets, constraints)
  layout = lay_out(model, cells, share)
  if constraints.names:
    model = dataclasses.replace(model, constraints=constraints._replace(units=layout.units))
  return model, layout


def lay_out(model: Model, cells: Cells, share: str) -> Layout:
  """Places the constants of `model` for the domains of `cells`."""
  domains = ("all",) if share == "everything" else cells.domains
  shared = [model.is_shared(q, share) or len(domains) == 1 for q in model.parameters]
  index = np.zeros((len(domains), len(shared)), int)
  index[:, np.array(shared)] = np.arange(sum(shared))
  own = len(shared) - sum(shared)
  index[:, ~np.array(shared)] = sum(shared) + np.arange(len(domains) * own).reshape(len(domains), own)
  if model.form.natural is None:
    units = (1.0, 1.0, 1.0, 1.0)
  else:
    units = tuple(_geometric_mean(v) for v in (
        cells.params, cells.seed_tokens, cells.expert_tokens, cells.seed_tokens + cells.expert_tokens))
  smallest = lambda v: _OFFSET_SHARE * float(v[v > 0].min()) if (v > 0).any() else 1.0
  seen = [tuple(float(np.median(v[cells.domain == d] if share != "everything" else v)) for d in domains)
          for v in (cells.unique_tokens, *mixture(cells))]
  return Layout(domains, tuple(map(tuple, index.tolist())), units, _geometric_mean(cells.loss),
                (smallest(cells.seed_tokens), smallest(cells.expert_tokens)), *seen)


def pose(model: Model, layout: Layout, cells: Cells, delta: float) -> tuple[Problem, np.ndarray, np.ndarray]:
  """The solver's problem, target [K, M] and row [K, M]: which cell each entry is, -1 where a domain has fewer than M."""
  rows = [np.arange(len(cells)) if d == "all" and len(layout.domains) == 1 else np.flatnonzero(cells.domain == d)
          for d in layout.domains]
  most = max(map(len, rows))
  row = np.stack([np.concatenate([r, np.full(most - len(r), -1)]) for r in rows])
  # Padding repeats a real cell, which has weight 0 and finite derivatives.
  take = np.where(row < 0, row[:, :1], row)
  counts = (cells.params, cells.seed_tokens, cells.expert_tokens, cells.unique_tokens, *mixture(cells))
  x = layout.points(*(values[take] for values in counts))
  if not model.repeats:
    x = x._replace(unique=None, mixed=None, rest=None)  # Which nothing reads then, and every evaluation would carry along.
  target = np.log(cells.loss[take]) if model.log else cells.loss[take]
  low, high, linear = (np.zeros(layout.size) for _ in range(3))
  for index in layout.index:
    for i, q in zip(index, model.parameters):
      low[i], high[i] = np.log([q.low, q.high]) if q.kind == "positive" else (q.low, q.high)
      linear[i] = q.kind == "coefficient"
  index = np.array(layout.index)
  return Problem(x, index, low, high, linear.astype(bool), float(delta)), target, row


def draw_starts(model: Model, layout: Layout, count: int, seed: int) -> np.ndarray:
  """[count, P] starting vectors; all domains of one start begin at the same constants."""
  # A Halton-like lattice would do as well: what matters is that exponents cover their ranges.
  uniform = np.random.default_rng(seed).uniform(size=(count, len(model.parameters)))
  theta = np.zeros((count, layout.size))
  coefficients = sum(q.kind == "coefficient" for q in model.parameters)
  for index in layout.index:
    for j, (i, q) in enumerate(zip(index, model.parameters)):
      low, high = np.log(q.start) if q.kind == "positive" else q.start
      value = low + (high - low) * uniform[:, j]
      # Coefficients start with their terms summing to less than the loss: from below the linear settling is monotone.
      theta[:, i] = 0.3 * uniform[:, j] / coefficients + 0.6 / coefficients if q.kind == "coefficient" else value
  return theta


def _geometric_mean(values: np.ndarray) -> float:
  positive = values[values > 0]
  return float(np.exp(np.log(positive).mean())) if len(positive) else 1.0
