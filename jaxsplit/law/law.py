"""A fitted law: what it predicts, how sure it is, and its file."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import Any, Literal

import jax
import numpy as np

from jaxsplit.errors import InputError, nearest
from jaxsplit.files import write_json
from jaxsplit.law.constraints import Constraints, misfit
from jaxsplit.law.forms import Form, get_form
from jaxsplit.law.points import float64
from jaxsplit.law.problem import Counts, Layout, Model
from jaxsplit.law.record import LAW, damaged, read_record

VERSION = 3
MOST_REFITS = 20_000  # of a form: all of them are evaluated together.
_BLOCK = (64, 256)  # Predictions are evaluated in blocks of this many vectors and points, so that one compilation serves all.


@dataclasses.dataclass(frozen=True)
class Member:
  """One fitted form: the chosen one, or another whose held-out error leaves it in play.

  Attributes:
    model: form and options.
    layout: domains and units.
    theta: [P] the fitted vector.
    samples: [B, P] refits of resampled cells, empty without bootstrap.
    weight: its say in plans and intervals, relative to the others'.
  """

  model: Model
  layout: Layout
  theta: np.ndarray
  samples: np.ndarray
  weight: float

  def predict(self, theta: np.ndarray, params: np.ndarray, seed: np.ndarray, expert: np.ndarray, domain: int) -> np.ndarray:
    """theta [B, P], counts [n] -> loss [B, n] of domain number `domain`."""
    out = np.zeros((len(theta), len(params)))
    if not out.size:
      return out
    vectors, points = _BLOCK
    seen = self.layout.unique_tokens[domain], self.layout.shares[domain], self.layout.rest_tokens[domain]
    counts = (params, seed, expert, *(np.full(len(params), v) for v in seen))
    model = dataclasses.replace(self.model, log=False)
    with float64():
      for i in range(0, len(theta), vectors):
        local = np.resize(theta[i:i + vectors, self.layout.index[domain]], (vectors, len(self.layout.index[domain])))
        for j in range(0, len(params), points):
          x = self.layout.points(*(np.resize(v[j:j + points], points) for v in counts))
          block = out[i:i + vectors, j:j + points]
          block[:] = np.asarray(_predict(model, local.T[:, :, None], x))[:block.shape[0], :block.shape[1]]
    return out


@functools.partial(jax.jit, static_argnames="model")
def _predict(model: Model, theta: Any, x: Counts) -> Any:
  """theta [q, B, 1], counts [n] -> [B, n]."""
  return model(theta, jax.tree.map(lambda count: count[None], x))


@dataclasses.dataclass(frozen=True)
class Law:
  """A fitted split law.

  Attributes:
    form: the chosen form's name.
    objective: {"name", "delta", "space"}.
    parameters: constants in plain units by name; "E[prose]" is domain prose's.
    objective_value: the minimum, summed over points.
    num_points: fitted points.
    r2: share of the variance of log loss around its overall mean that the law explains, over the fitted points.
    r2_within_domains: the same around each domain's own mean, so that domains' different losses explain nothing.
    held_out: {"mre", "max", "bias", "num_points", "rule", "distance", "measured", "predicted", "others"}: relative errors on
      cells left out of a refit, and their losses; distance is the log of how far they lie beyond the fitted ones; others
      are errors by further rules. None where nothing was held out.
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
  r2_within_domains: float
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

  def with_unique_tokens(self, count: float, num_domains: int) -> Law:
    """The law for other data of the same kind: `num_domains` domains of `count` distinct tokens each, mixed evenly."""
    every = lambda value: (value,) * len(self.domains)
    seen = dict(unique_tokens=every(count), shares=every(1 / num_domains),
                rest_tokens=every(count * (num_domains - 1) if num_domains > 1 else np.inf))
    return dataclasses.replace(self, members=tuple(
        dataclasses.replace(m, layout=dataclasses.replace(m.layout, **seen)) for m in self.members))

  def predict(self, params: Any, seed_tokens: Any, expert_tokens: Any, domain: str | None = None) -> np.ndarray:
    """Loss in nats per token.

    Args:
      params, seed_tokens, expert_tokens: N, D and D', broadcast against each other.
      domain: None takes the mean over domains.
    """
    counts, shape = _counts(params, seed_tokens, expert_tokens)
    return self._predictions(self.members[0], counts, domain).reshape(shape)

  def expect(self, params: Any, seed_tokens: Any, expert_tokens: Any, domain: str | None = None) -> np.ndarray:
    """`predict`, averaged over the forms in play by their say: what plans are read off. The same where one form stands alone."""
    counts, shape = _counts(params, seed_tokens, expert_tokens)
    each = [self._predictions(member, counts, domain) for member in self.members]
    return np.average(each, axis=0, weights=[member.weight for member in self.members]).reshape(shape)

  def samples(self, params: Any, seed_tokens: Any, expert_tokens: Any,
              domain: str | None = None) -> tuple[np.ndarray, np.ndarray]:
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
        "form": m.model.form.name, "form_hash": m.model.form.file_hash, "log": m.model.log, "repeats": m.model.repeats,
        "offsets": m.model.offsets, "fix": dict(m.model.constraints.fix), "tie": dict(m.model.constraints.tie),
        "layout": dataclasses.asdict(m.layout), "theta": m.theta,
        "samples": [[float(f"{v:.6g}") for v in row] for row in m.samples.tolist()], "weight": m.weight,
    } for m in self.members]
    write_json(path, record)

  def _predictions(self, member: Member, counts: tuple[np.ndarray, ...], domain: str | None) -> np.ndarray:
    return np.mean([member.predict(member.theta[None], *counts, k)[0] for k in self._which(domain)], 0)

  def _which(self, domain: str | None) -> range | list[int]:
    if domain is None:
      return range(len(self.domains))
    if self.domains == ("all",):
      return [0]
    if domain not in self.domains:
      raise InputError(f"the law has no domain {domain!r}{nearest(domain, self.domains)}")
    return [self.domains.index(domain)]


def load_law(path: str | os.PathLike, own: Form | None = None) -> Law:
  """Reads law.json.

  Args:
    path: the file.
    own: the form, of `load_form`, of a law that was fitted with a user's own: a law only names that, it does not run it.

  Raises:
    InputError: not a law of this version, damaged, or of a form other than `own` is or was when the law was fitted.
  """
  record = read_record(path, LAW, VERSION, "a law", "fit")
  try:
    members = tuple(_read_member(m, own) for m in record["members"])
    _check_whole(record, members)
  except InputError as error:
    raise InputError(f"{path}: {error}") from None
  except ValueError as error:
    raise damaged(path, str(error), "fit") from None
  fields = {f.name: record[f.name] for f in dataclasses.fields(Law)}
  return Law(**{**fields, "intervals": {name: tuple(pair) for name, pair in record["intervals"].items()}, "members": members,
                "candidates": tuple(record["candidates"]), "residuals": np.array(record["residuals"], float)})


def _check_whole(record: dict[str, Any], members: tuple[Member, ...]) -> None:
  """Raises ValueError where the parts of a record, each of the right shape, do not belong together."""
  if not members or members[0].model.form.name != record["form"]:
    raise ValueError("its first member is not of its form")
  if any(m.layout.domains != members[0].layout.domains or bool(len(m.samples)) != bool(len(members[0].samples)) for m in members):
    raise ValueError("its members need the same domains, and refits or none")
  layout, model = members[0].layout, members[0].model
  names = {*layout.labels(model), *(name for k in range(len(layout.domains)) for name in layout.constrained(model, k))}
  if set(record["parameters"]) != names or not {*record["intervals"], *record["profiles"]} <= names:
    raise ValueError("its parameters, intervals or profiles are not those of its form")
  scored = [record["held_out"]] if record["held_out"] else []
  if any(set(levels) != set(members[0].layout.domains) for levels in record["data"]["levels"].values()):
    raise ValueError("its levels are not those of its domains")
  lengths = [(len(record["residuals"]), record["num_points"]), *((len(pair), 2) for pair in record["intervals"].values()),
             *((len(pair), 2) for pair in record["data"]["ranges"].values()),
             *((len(p["value"]), len(p["deviance"])) for p in record["profiles"].values()),
             *((len(p["interval"]), 2) for p in record["profiles"].values()),
             *((len(s[name]), s["num_points"]) for s in scored for name in ("measured", "predicted"))]
  if any(one != other for one, other in lengths):
    raise ValueError("residuals, intervals, ranges, profiles or held-out losses have other lengths than they should")


def _read_member(m: dict[str, Any], own: Form | None) -> Member:
  """A member of the record's shape; what its numbers must be is checked here.

  Raises:
    ValueError: numbers that no fit writes.
    InputError: its form is not there, or not what it was.
  """
  form = _form(m["form"], m["form_hash"], own)
  plain, known = m["layout"], lambda tokens: tuple(np.inf if count is None else count for count in tokens)
  layout = Layout(tuple(plain["domains"]), tuple(map(tuple, plain["index"])), tuple(plain["units"]), plain["scale"],
                  tuple(plain["offsets"]), known(plain["unique_tokens"]), tuple(plain["shares"]), known(plain["rest_tokens"]))
  constraints = Constraints(tuple(m["fix"].items()), tuple(m["tie"].items()), layout.units)
  model = Model(form, m["log"], m["repeats"], tuple(m["offsets"]), constraints if constraints.names else Constraints())
  theta, widths = np.array(m["theta"], float), set(map(len, m["samples"]))
  places = sorted({i for row in layout.index for i in row})
  if not set(model.offsets) <= {"seed_offset", "expert_offset"}:
    raise ValueError(f"offsets of {form.name} are not seed_offset and expert_offset")
  if misfit(constraints, form.name, model.known) or {*m["fix"], *m["tie"]} & set(m["tie"].values()):
    raise ValueError(f"fix and tie of {form.name} do not suit it")
  if not layout.domains or {*map(len, (layout.index, layout.unique_tokens, layout.shares, layout.rest_tokens))} != {
      len(layout.domains)}:
    raise ValueError(f"layout of {form.name} needs an index, unique_tokens, shares and rest_tokens for each domain")
  if {len(row) for row in layout.index} != {len(model.parameters)} or places != list(range(len(theta))):
    raise ValueError(f"index of {form.name} does not give {len(model.parameters)} places among its {len(theta)} constants")
  if widths - {len(theta)} or len(m["samples"]) > MOST_REFITS:
    raise ValueError(f"samples of {form.name} are not at most {MOST_REFITS:,} vectors of {len(theta)} numbers")
  if len(layout.units) != 4 or len(layout.offsets) != 2 or min(layout.units) <= 0 or layout.scale <= 0 or m["weight"] <= 0:
    raise ValueError(f"units, scale, offsets or weight of {form.name} are not those of a fit")
  return Member(model, layout, theta, np.array(m["samples"], float).reshape(-1, len(theta)), m["weight"])


def _form(name: str, fitted_hash: str | None, own: Form | None) -> Form:
  """The form that a member names: one of ours, or `own` if that is what it was fitted with, wherever it lies now."""
  if fitted_hash is None or own is None:
    return get_form(name)
  if own.file_hash != fitted_hash:
    raise InputError(f"{own.name}: is not the form that the law was fitted with, {name[:200]!r}; bring that file back, or fit "
                     "the law again")
  return dataclasses.replace(own, name=name)


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
