"""The settings of a fit."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

from jaxsplit.errors import InputError, nearest
from jaxsplit.law import holdout
from jaxsplit.law.constraints import parse_constraints
from jaxsplit.law.forms import FORMS
from jaxsplit.law.member import MOST_REFITS
from jaxsplit.law.resampling import KINDS


@dataclasses.dataclass(frozen=True)
class FitSettings:
  """How a law is fitted.

  Attributes:
    form: a name of law.forms.FORMS, which an extension may add to, or "auto": the form with the lowest held-out error.
    objective: loss function of the residuals.
    delta: Huber's width, in the residuals' unit.
    overestimate_penalty: weight of losses that are predicted too high, relative to those predicted too low.
    fix: constants that are not fitted, in plain units, as in "E=1.69,alpha=0.34".
    tie: constants that are equal to others, as in "alpha=beta".
    space: residuals of log loss, or of the loss (raw).
    share: what several domains have in common: "exponents" (other constants per domain) or "everything" (one law).
    repeats: discount repeated tokens of seeds and experts (needs unique_tokens; see law.repeats).
    holdout: "auto", "none", "leave_one_out" or AXIS:k, the k largest values of params, seed_tokens, expert_tokens,
      tokens or compute; AXIS:k+AXIS:k leaves out both and scores the cells that are among the largest of both.
    starts: starting points per form.
    bootstrap: refits of resampled cells per form in play; 0 for none.
    resample: kind of bootstrap: "rows" for independent rows, "shared" for common errors of sizes and snapshots as well, "auto" for
      the one of these that the table needs, "pairs" or "trunks"; see law.resampling.resample.
    profile: values per constant at which the likelihood is profiled; 0 for none. The fit entry point takes 21 with --report.
    seed: random seed of starts, bootstrap and draws.
    reading: "plain" fits each form separately, with separate constants for each domain, and keeps the lowest held-out error; "prior",
      for few cells, has weak priors, partial pooling of domains, estimated error variances of sizes, snapshots and cells, and forms
      weighted by evidence (law.prior_fit). The cells of an automatic sweep (`Experiment.sizes` not given) are always read with priors.
    prior: law.json files of earlier sweeps that narrow the priors of reading "prior".
  """

  form: str = "auto"
  objective: Literal["huber", "l1", "least_squares"] = "huber"
  delta: float = 1e-3
  overestimate_penalty: float = 1.0
  fix: str = ""
  tie: str = ""
  space: Literal["log", "raw"] = "log"
  share: Literal["exponents", "everything"] = "exponents"
  repeats: bool = False
  holdout: str = "auto"
  starts: int = 64
  bootstrap: int = 1000
  resample: Literal["auto", "shared", "rows", "pairs", "trunks"] = "auto"
  profile: int | None = None
  seed: int = 0
  reading: Literal["plain", "prior"] = "plain"
  prior: str = ""

  def __post_init__(self):
    if self.form != "auto":
      FORMS[self.form]  # Raises.
    if self.holdout not in ("auto", "none", "leave_one_out") and not holdout.is_rule(self.holdout):
      raise self._refusal("holdout", f"{holdout.RULES}{nearest(self.holdout.partition(':')[0], holdout.AXES)}")
    for name in ("delta", "overestimate_penalty"):
      if not (getattr(self, name) > 0 and np.isfinite(getattr(self, name))):
        raise self._refusal(name, "must be a positive number")
    parse_constraints(self.fix, self.tie)
    for name, low, high in (("starts", 1, 100_000), ("bootstrap", 0, MOST_REFITS), ("profile", 0, 1000), ("seed", 0, 2**32 - 1)):
      if not low <= (getattr(self, name) or 0) <= high:
        raise self._refusal(name, f"must be from {low:,} to {high:,}")
    for name, known in (("objective", ("huber", "l1", "least_squares")), ("space", ("log", "raw")),
                        ("share", ("exponents", "everything")), ("resample", KINDS), ("reading", ("plain", "prior"))):
      if getattr(self, name) not in known:
        raise self._refusal(name, f"must be one of {', '.join(known)}")
    if self.reading == "plain" and self.prior:
      raise self._refusal("prior", "the plain reading has no priors; add reading = 'prior' (--reading=prior)")
    if self.reading == "prior":
      for name in ("objective", "delta", "overestimate_penalty", "space", "repeats", "resample", "profile"):
        if (getattr(self, name) or None) != (getattr(FitSettings, name) or None):
          raise self._refusal(name, "is of the plain reading; leave it out, or the reading 'prior'")

  def _refusal(self, name: str, must: str) -> InputError:
    return InputError(f"FitSettings.{name} = {getattr(self, name)!r} (--{name} of the fit entry point): {must}")


def changed(settings: FitSettings, overrides: dict[str, Any]) -> FitSettings:
  """The settings with other values of some fields.

  Raises:
    InputError: there is no such field.
  """
  known = [f.name for f in dataclasses.fields(FitSettings)]
  for name in overrides:
    if name not in known:
      raise InputError(f"fit_law: no setting {name!r}{nearest(name, known)}")
  settings = dataclasses.replace(settings, **overrides)
  return dataclasses.replace(settings, profile=settings.profile or 0)
