"""A fitted law: what it predicts, how sure it is, and its file."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from typing import Any, Literal

import numpy as np

from jaxsplit.errors import InputError, nearest
from jaxsplit.files import write_json
from jaxsplit.law.member import Member, read_member
from jaxsplit.law.record import LAW
from jaxsplit.law.surface import Surface, read_surface_record
from jaxsplit.results.record import damaged, read_record

VERSION = 6
_NEW_RUNS = 4_000  # At least so many draws of a new run's loss.
_ROUNDING = 1e-6  # Of constants that are worked out on another machine, relative to them.


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
    held_out: {"mre", "max", "bias", "differences", "num_points", "rule", "distance", "measured", "predicted", "others"}:
      relative errors on cells left out of a refit, and their losses; differences is the mean error of differences between splits of
      one size (None without any); distance is the log of how far they lie beyond the fitted ones; others are errors by further
      rules. None where nothing was held out.
    intervals: name -> (low, high), 95 %, from the bootstrap.
    profiles: name -> {"value", "deviance", "interval"}, see law.uncertainty.profiles; empty where none was asked for.
    candidates: every form tried: {"form", "parameters", "objective_value", "held_out"}, best first.
    diagnostics: numbers and the plain-language "warnings".
    data: file, hash, dropped rows, ranges, what params counts.
    settings: the fit's settings.
    members: the fitted forms behind predictions and intervals, the chosen one first.
    residuals: [n] log measured over predicted, of the fitted points.
    surface: what plans are read off; None where the table has no experts, or repeated tokens are discounted: then plans are read
      off the mean of the members.
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
  surface: Surface | None = None

  @property
  def domains(self) -> tuple[str, ...]:
    """Names of the law's domains; ("all",) where it knows only one."""
    return self.members[0].layout.domains

  @property
  def warnings(self) -> tuple[str, ...]:
    """What to know before trusting the law, in plain language."""
    return tuple(self.diagnostics.get("warnings", ()))

  @property
  def with_priors(self) -> bool:
    """Whether it was read with priors (law.prior_fit): then members' samples are beside the surface's draws, one for one."""
    return self.settings.get("reading") == "prior"

  @property
  def scatter(self) -> float:
    """What chance makes of two splits' difference, see `Surface.scatter`; 0 where there is no surface that knows it."""
    return self.surface.scatter if self.surface else 0.0

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
    """What plans are read off: the surface's expected loss; of a domain, that times its ratio to the mean by the forms in play."""
    counts, shape = _counts(params, seed_tokens, expert_tokens)
    if self.surface is None:
      return self.mean_of_forms(*counts, domain).reshape(shape)
    return (self.surface.expect(*counts) * self._ratio(counts, domain)).reshape(shape)

  def mean_of_forms(self, params: Any, seed_tokens: Any, expert_tokens: Any, domain: str | None = None) -> np.ndarray:
    """`predict`, averaged over the forms in play by their weights. The same where one form stands alone."""
    counts, shape = _counts(params, seed_tokens, expert_tokens)
    each = [self._predictions(member, counts, domain) for member in self.members]
    return np.average(each, axis=0, weights=[member.weight for member in self.members]).reshape(shape)

  def draws(self, params: Any, seed_tokens: Any, expert_tokens: Any,
            domain: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """What may be in place of `expect`: losses [S, ...] and their weights [S], which sum to 1."""
    counts, shape = _counts(params, seed_tokens, expert_tokens)
    if self.surface is not None:
      losses, weights = self.surface.draws(*counts)
      ratio = self._drawn_ratio(counts, domain) if self.with_priors and domain else self._ratio(counts, domain)
      return (losses * ratio).reshape(-1, *shape), weights
    if not self.members[0].samples.size:
      return self.expect(params, seed_tokens, expert_tokens, domain)[None], np.ones(1)
    return self.samples(params, seed_tokens, expert_tokens, domain)

  def anew(self, draws: np.ndarray) -> np.ndarray:
    """`draws` with the errors that models trained anew will have, where a surface knows them."""
    return self.surface.anew(draws) if self.surface else draws

  def samples(self, params: Any, seed_tokens: Any, expert_tokens: Any,
              domain: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of every refit of every member: ([S, ...], weights [S] that sum to 1). Of a law with priors, its draws."""
    if self.with_priors:
      return self.draws(params, seed_tokens, expert_tokens, domain)
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
    tail = (1 - level) / 2
    low, high = (weighted_quantile(draws, weights, end) for end in (tail, 1 - tail))
    if kind == "mean":
      return low, high
    times = -(-_NEW_RUNS // len(draws))  # Few refits are drawn with several residuals each.
    noise = np.random.default_rng(0).choice(self.residuals, times * len(draws))
    draws, weights = np.tile(draws, (times, *[1] * (draws.ndim - 1))), np.tile(weights, times) / times
    draws = draws * np.exp(noise).reshape(-1, *[1] * (draws.ndim - 1))
    # Whatever was drawn, no run is surer than the mean of all.
    return np.minimum(low, weighted_quantile(draws, weights, tail)), np.maximum(high, weighted_quantile(draws, weights, 1 - tail))

  def save(self, path: str | os.PathLike) -> None:
    """Writes law.json."""
    record = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    record["version"] = VERSION
    record["members"] = [member.record() for member in self.members]
    record["surface"] = self.surface and self.surface.record()
    write_json(path, record)

  def _ratio(self, counts: tuple[np.ndarray, ...], domain: str | None) -> np.ndarray | float:
    """[n] a domain's loss over the mean of all."""
    return 1.0 if domain is None else self.mean_of_forms(*counts, domain) / self.mean_of_forms(*counts)

  def _drawn_ratio(self, counts: tuple[np.ndarray, ...], domain: str) -> np.ndarray:
    """[S, n] the same, of every draw."""
    (chosen,), at = self._which(domain), np.stack(counts).tobytes()
    if at not in self._ratios:  # Those of the last points are kept: one domain's need all the others'.
      self._ratios.clear()
      each = [np.stack([m.predict(m.samples, *counts, k) for k in range(len(self.domains))]) for m in self.members]
      self._ratios[at] = np.concatenate([losses / losses.mean(0) for losses in each], axis=1)
    return self._ratios[at][chosen]

  @functools.cached_property
  def _ratios(self) -> dict[bytes, np.ndarray]:
    return {}

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


def load_law(path: str | os.PathLike) -> Law:
  """Reads law.json.

  Raises:
    InputError: not a law of this version, damaged, or of a form that is not there, or not as it was when the law was fitted.
  """
  if pathlib.Path(path).suffix.lower() in (".csv", ".tsv", ".md", ".jsonl", ".parquet"):
    raise InputError(f"{path}: a table, not a law; fit one to it: python -m jaxsplit.fit "
                     f"--cells={path} --out=law.json")
  record = read_record(path, LAW, VERSION, "a law", "fit")
  try:
    members = tuple(read_member(m) for m in record["members"])
    surface = record["surface"] and read_surface_record(record["surface"])
    _check_whole(record, members)
  except InputError as error:
    raise InputError(f"{path}: {error}") from None
  except ValueError as error:
    raise damaged(path, str(error), "fit") from None
  fields = {f.name: record[f.name] for f in dataclasses.fields(Law)}
  return Law(**{**fields, "intervals": {name: tuple(pair) for name, pair in record["intervals"].items()}, "members": members,
                "candidates": tuple(record["candidates"]), "residuals": np.array(record["residuals"], float),
                "surface": surface or None})


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
  fitted = layout.named(model, members[0].theta)
  for name, value in record["parameters"].items():
    if not np.isclose(value, fitted[name], rtol=_ROUNDING, atol=0):
      raise ValueError(f"parameter {name} is {value:g}, and what was fitted comes to {fitted[name]:g}: predictions follow the fit, so "
                       "give a constant that you know as --fix to it")
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
