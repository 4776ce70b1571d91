"""A fitted law: what it predicts, how sure it is, and its file."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import Any, Literal

import jax
import numpy as np

from jaxsplit.errors import InputError, nearest
from jaxsplit.files import read_json, write_json
from jaxsplit.law.forms import get_form
from jaxsplit.law.problem import Domain, Layout, Model

VERSION = 1
_POINTS = 256  # Predictions are evaluated in blocks of this many points, so that one compilation serves all.


@dataclasses.dataclass(frozen=True)
class Member:
  """One fitted form: the chosen one, or another whose held-out error leaves it in play.

  Attributes:
    model: form and options.
    layout: domains and units.
    theta: [P] the fitted vector.
    samples: [B, P] refits of resampled cells, empty without bootstrap.
    weight: its share in intervals.
  """

  model: Model
  layout: Layout
  theta: np.ndarray
  samples: np.ndarray
  weight: float

  def predict(self, theta: np.ndarray, params: np.ndarray, seed: np.ndarray, expert: np.ndarray, domain: int) -> np.ndarray:
    """theta [B, P], counts [n] -> loss [B, n] of domain number `domain`."""
    index = list(self.layout.index[domain])
    size = -(-len(params) // _POINTS) * _POINTS
    pad = lambda v: np.resize(v, size).reshape(-1, _POINTS)
    unique = np.full(len(params), self.layout.unique_tokens[domain])
    blocks = zip(*map(pad, (params, seed, expert, unique)))
    with jax.enable_x64(True):
      parts = [np.asarray(_predict(dataclasses.replace(self.model, log=False), theta[:, index], self.layout.points(*block)))
               for block in blocks]
    return np.concatenate(parts, 1)[:, :len(params)]


@functools.partial(jax.jit, static_argnames="model")
def _predict(model: Model, theta: Any, x: Domain) -> Any:
  return jax.vmap(model, (0, None))(theta, x)


@dataclasses.dataclass(frozen=True)
class Law:
  """A fitted split law.

  Attributes:
    form: the chosen form's name.
    objective: {"name", "delta", "space"}.
    parameters: constants in plain units by name; "E[prose]" is domain prose's.
    objective_value: the minimum, summed over points.
    num_points: fitted points.
    r2: share of the variance of log loss around each domain's mean that the law explains, over the fitted points.
    held_out: {"mre", "max", "bias", "num_points", "rule", "distance", "others"}: relative errors on cells left out of a
      refit; distance is the log of how far they lie beyond the fitted ones. None where nothing was held out.
    intervals: name -> (low, high), 95 %, from the bootstrap.
    profiles: name -> {"value", "deviance", "interval"}, see law.uncertainty.profiles; empty where none was asked for.
    candidates: every form tried: {"form", "parameters", "objective_value", "held_out"}, best first.
    diagnostics: numbers and the plain-language "warnings".
    data: file, hash, dropped rows, ranges, what params counts.
    settings: the fit's settings.
    members: the fitted forms behind predictions and intervals, the chosen one first.
    residuals: [n] log measured over predicted, of the fitted points.
  """

  form: str
  objective: dict[str, Any]
  parameters: dict[str, float]
  objective_value: float
  num_points: int
  r2: float
  held_out: dict[str, Any] | None
  intervals: dict[str, tuple[float, float]]
  profiles: dict[str, dict[str, list[float]]]
  candidates: tuple[dict[str, Any], ...]
  diagnostics: dict[str, Any]
  data: dict[str, Any]
  settings: dict[str, Any]
  members: tuple[Member, ...]
  residuals: np.ndarray

  @property
  def domains(self) -> tuple[str, ...]:
    """Names of the law's domains; ("all",) where it knows only one."""
    return self.members[0].layout.domains

  @property
  def warnings(self) -> tuple[str, ...]:
    """What to know before trusting the law, in plain language."""
    return tuple(self.diagnostics.get("warnings", ()))

  def predict(self, params: Any, seed_tokens: Any, expert_tokens: Any, domain: str | None = None) -> np.ndarray:
    """Loss in nats per token.

    Args:
      params, seed_tokens, expert_tokens: N, D and D', broadcast against each other.
      domain: None takes the mean over domains.
    """
    counts, shape = _counts(params, seed_tokens, expert_tokens)
    first = self.members[0]
    return np.mean([first.predict(first.theta[None], *counts, k)[0] for k in self._which(domain)], 0).reshape(shape)

  def samples(self, params: Any, seed_tokens: Any, expert_tokens: Any, domain: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of every refit of every member: ([S, ...], weights [S] that sum to 1)."""
    if not self.members[0].samples.size:
      raise InputError("this law was fitted with bootstrap=0, so it has no intervals; fit it with bootstrap=1000")
    counts, shape = _counts(params, seed_tokens, expert_tokens)
    draws = [np.mean([m.predict(m.samples, *counts, k) for k in self._which(domain)], 0) for m in self.members]
    weights = np.concatenate([np.full(len(d), m.weight / len(d)) for d, m in zip(draws, self.members)])
    return np.concatenate(draws).reshape(-1, *shape), weights / weights.sum()

  def interval(self, params: Any, seed_tokens: Any, expert_tokens: Any, domain: str | None = None, level: float = 0.95,
               kind: Literal["mean", "prediction"] = "mean") -> tuple[np.ndarray, np.ndarray]:
    """Where the law (kind="mean") or a new measurement (kind="prediction") lies with probability `level`."""
    draws, weights = self.samples(params, seed_tokens, expert_tokens, domain)
    if kind == "prediction":
      noise = np.random.default_rng(0).choice(self.residuals, draws.shape[0])
      draws = draws * np.exp(noise).reshape(-1, *[1] * (draws.ndim - 1))
    tail = (1 - level) / 2
    return weighted_quantile(draws, weights, tail), weighted_quantile(draws, weights, 1 - tail)

  def save(self, path: str | os.PathLike) -> None:
    """Writes law.json."""
    record = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "members"}
    record["version"] = VERSION
    record["members"] = [{
        "form": m.model.form.name, "log": m.model.log, "repeats": m.model.repeats, "offsets": m.model.offsets,
        "layout": dataclasses.asdict(m.layout), "theta": m.theta,
        "samples": [[float(f"{v:.6g}") for v in row] for row in m.samples.tolist()], "weight": m.weight,
    } for m in self.members]
    write_json(path, record)

  def _which(self, domain: str | None) -> range | list[int]:
    if domain is None:
      return range(len(self.domains))
    if self.domains == ("all",):
      return [0]
    if domain not in self.domains:
      raise InputError(f"the law has no domain {domain!r}{nearest(domain, self.domains)}")
    return [self.domains.index(domain)]


def load_law(path: str | os.PathLike) -> Law:
  """Reads law.json.

  Raises:
    InputError: not a law of this version, or incomplete.
  """
  record = read_json(path)
  if not isinstance(record, dict) or "members" not in record or "form" not in record:
    raise InputError(f"{path}: not a law; write one with python -m jaxsplit.fit --out={path}")
  if record.get("version") != VERSION:
    raise InputError(f"{path}: version {record.get('version')!r} is not {VERSION}; fit the law again")
  try:
    members = tuple(_read_member(m) for m in record["members"])
    fields = {f.name: record[f.name] for f in dataclasses.fields(Law) if f.name not in ("members", "residuals")}
    fields["intervals"] = {name: tuple(pair) for name, pair in fields["intervals"].items()}
    fields["candidates"] = tuple(fields["candidates"])
    residuals = np.array(record["residuals"], float)
  except InputError:
    raise
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise InputError(f"{path}: damaged ({type(error).__name__}: {error}); fit the law again") from None
  return Law(**fields, members=members, residuals=residuals)


def _read_member(m: dict[str, Any]) -> Member:
  layout = {**m["layout"], "unique_tokens": [np.inf if u is None else u for u in m["layout"]["unique_tokens"]],
            "index": tuple(map(tuple, m["layout"]["index"]))}
  layout = Layout(**{name: tuple(v) if isinstance(v, list) else v for name, v in layout.items()})
  model = Model(get_form(m["form"]), bool(m["log"]), bool(m["repeats"]), tuple(m["offsets"]))
  theta = np.array(m["theta"], float)
  if theta.shape != (layout.size,) or not np.isfinite(theta).all():
    raise ValueError(f"theta of {m['form']} needs {layout.size} numbers")
  return Member(model, layout, theta, np.array(m["samples"], float).reshape(-1, layout.size), float(m["weight"]))


def weighted_quantile(values: np.ndarray, weights: np.ndarray, level: float) -> np.ndarray:
  """The `level` quantile of values [S, ...] along the first axis under weights [S]; finite values stand before infinite."""
  order = np.argsort(values, axis=0)
  ranked = np.take_along_axis(values, order, 0)
  mass = np.cumsum(weights[order], 0) - weights[order] / 2
  flat, masses = ranked.reshape(len(values), -1), mass.reshape(len(values), -1)
  return np.array([np.interp(level, masses[:, i], flat[:, i]) for i in range(flat.shape[1])]).reshape(values.shape[1:])


def _counts(params: Any, seed: Any, expert: Any) -> tuple[tuple[np.ndarray, ...], tuple[int, ...]]:
  arrays = np.broadcast_arrays(*(np.asarray(v, float) for v in (params, seed, expert)))
  if not (np.isfinite(arrays).all() and (arrays[0] > 0).all() and (arrays[1] >= 0).all() and (arrays[2] >= 0).all()):
    raise InputError("predict: params must be positive, seed_tokens and expert_tokens zero or more")
  return tuple(a.ravel() for a in arrays), arrays[0].shape
