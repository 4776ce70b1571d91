"""Diagnostics of a fit in plain language: the optimum, the constants and the cells."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsplit.law.cells import Cells
from jaxsplit.law.design import measured_levels, named, no_split
from jaxsplit.law.fitted import Fitted
from jaxsplit.law.repeats import passes
from jaxsplit.law.settings import FitSettings

_SAME = 1e-8  # Starts whose objective is this close (relative) to the best have found the same optimum ...
_EXACT = 1e-6  # ... or all residuals that small: then there is no noise, and what is left of the objective is rounding.
_ALIKE = 1 / 3  # Starts whose predictions differ from the best's by less than this share of its residuals lie in its valley.
_MOST_STARTS = 256  # Whose predictions are compared.
_FLAT = 1e10  # Condition of J'J beyond which some direction of the constants is not measured.
_NARROW = 3.0  # Sizes that span less than this tell little of alpha.
_WIDE = 0.9  # The share of what a constant may be, at which its interval says nothing ...
_VAGUE = 100.0  # ... or the factor that a coefficient's interval spans.
_FAR = 10.0  # Residuals this many times the usual size ...
_CARRIED = 0.5  # ... that make up this share of all squares carry the fit.
_MOST_ROWS = 5  # Named.
_MANY = 2.0  # Rows a point, from which on they are not repetitions ...
_SPREAD = 0.02  # ... where their losses differ by this much.


def diagnose(fit: Fitted, cells: Cells, settings: FitSettings, skipped: dict[str, str], samples: np.ndarray, r2: float) -> dict[str, Any]:
  """Numbers about the optimum, and "warnings": sentences for whoever will use the law.

  Args:
    fit: the chosen form at its optimum.
    cells: the table.
    settings: as it was fitted by.
    skipped: forms that were not tried, and why.
    samples: [B, P] refits of resampled cells; may be empty.
    r2: the share of the variance of log loss that the fit explains.
  """
  objective = fit.solution.objective
  least = np.nanmin(objective)
  rounding = fit.weight.sum() * _EXACT * min(_EXACT, fit.problem.delta)
  reached = float((objective <= least * (1 + _SAME) + rounding).mean())
  alike = max(reached, _alike(fit))
  best = int(np.nanargmin(objective))
  problem, names = fit.problem, fit.layout.labels(fit.model)
  at_bounds = [names[i] for i in range(len(fit.theta)) if fit.theta[i] <= problem.low[i] or fit.theta[i] >= problem.high[i]]
  jacobian = fit.jacobian()
  condition = _condition(jacobian)
  per_constant = len(cells) / len(fit.theta)
  warnings = []
  if r2 <= 0:
    warnings.append(f"R2 is {r2:.3g}: the law explains no more of the losses than their mean does, so it predicts nothing; see "
                    "that the columns are the right ones, and measure more")
  span = float(cells.params.max() / cells.params.min())
  if span == 1 and not fit.model.form.one_size:
    warnings.append(f"one size was measured, N = {cells.params[0]:.3g}: the cells do not tell how loss falls with N, so losses at other "
                    "sizes are less sure than the split, which moves little with N; a second size tells")
  elif 1 < span < _NARROW:
    warnings.append(f"the sizes span a factor of {span:.2g} only: how loss falls with N is hardly told, so do not go beyond "
                    f"them; measure a size {_NARROW:g} times smaller")
  floors = [name for name in at_bounds if name.startswith("E")]
  if floors:
    warnings.append(f"{', '.join(floors)} reached 0: the cells show no floor of the loss, so do not extrapolate far; "
                    "measure larger models or more tokens")
  others = [name for name in at_bounds if name not in floors]
  if others:
    warnings.append(f"{', '.join(others)} lies on its bound: the form does not suit the cells, or they do not determine it")
  if settings.reading == "plain":  # Priors stand in for what cells leave open, and plans weigh all that it may be.
    warnings += _open_constants(fit, cells, samples, jacobian, condition)
  if alike < 0.5:
    warnings.append(f"only {alike:.0%} of the starts reached the optimum: raise --starts and see that it stays the same")
  unknown = no_split(measured_levels(cells, fit.layout.domains), {name: [float(v.min()), float(v.max())] for name, v in (
      ("seed_tokens", cells.seed_tokens), ("expert_tokens", cells.expert_tokens))})
  if unknown:
    warnings.append(unknown)
  warnings += [*_carried(fit, cells), *_crowded(cells), *_repeated(fit, cells, settings.repeats)]
  return {"starts": len(objective), "starts_at_optimum": reached, "starts_alike": alike,
          "gradient": float(fit.solution.gradient[best]), "condition": condition, "at_bounds": at_bounds,
          "points_per_constant": per_constant, "skipped_forms": skipped, "warnings": warnings}


def starts_text(diagnostics: dict[str, Any]) -> str:
  """Where the starts ended, in a sentence."""
  reached, alike = diagnostics["starts_at_optimum"], diagnostics["starts_alike"]
  text = f"{reached:.0%} of {diagnostics['starts']:,} starting points led to this optimum"
  if alike - reached < 0.1:
    return f"{text}."
  return (f"{text}, {alike:.0%} to it or to other constants that predict the cells alike (within a third of their residuals): "
          "predictions are certain, single constants are not.")


def _alike(fit: Fitted) -> float:
  """The share of starts whose predictions are those of the best, but for a part of the residuals."""
  theta = fit.solution.theta[:_MOST_STARTS]
  found = np.isfinite(fit.solution.objective[:_MOST_STARTS])
  with np.errstate(all="ignore"):
    predicted = np.log(fit.losses(np.concatenate([fit.theta[None], theta])))
  used = fit.row[(fit.row >= 0) & (fit.weight > 0)]
  here, there = predicted[0, used], predicted[1:, used]
  target = fit.target[(fit.row >= 0) & (fit.weight > 0)]
  residual = (target if fit.model.log else np.log(target)) - here
  apart = np.sqrt(np.mean((there - here) ** 2, 1))
  return float((found & (apart <= _ALIKE * np.sqrt(np.mean(residual**2)) + _EXACT)).mean())


def _condition(jacobian: np.ndarray) -> float:
  curvature = np.linalg.svd(jacobian, compute_uv=False)
  return float((curvature[0] / max(curvature[-1], curvature[0] * 1e-100, 1e-100)) ** 2)


def _open_constants(fit: Fitted, cells: Cells, samples: np.ndarray, jacobian: np.ndarray, condition: float) -> list[str]:
  """The constants that the cells leave open, and what would determine them."""
  found = []
  vague = _undetermined(fit, cells, samples)
  if vague:
    spans = "its interval spans" if len(vague) == 1 else "their intervals span"
    found.append(f"the cells do not determine {', '.join(vague)}: {spans} about all that there could be")
  if condition > _FLAT:
    found.append(f"some combination of constants is hardly measured (condition {condition:.0e}): predictions inside the "
                 "table stand, single constants do not")
  flat = _flat_domains(fit, jacobian)
  if flat:
    found.append(f"the cells of {named(flat)} do not tell apart the constants of {'its' if len(flat) == 1 else 'their'} own: "
                 "measure them at other sizes and lengths")
  if len(cells) < 5 * len(fit.theta):
    found.append(f"{len(cells)} cells for {len(fit.theta)} constants is fewer than 5 each: measure more")
  return found


def _flat_domains(fit: Fitted, jacobian: np.ndarray) -> list[str]:
  """The domains whose cells leave a combination of their own constants open."""
  index = np.array(fit.layout.index)
  if len(index) < 2:
    return []
  own = [[i for i in places if (index == i).sum() == 1] for places in index]
  domain = np.repeat(np.arange(len(index)), fit.row.shape[1]).reshape(fit.row.shape)[fit.row >= 0]
  weight = fit.weight[fit.row >= 0]
  return [name for k, (name, places) in enumerate(zip(fit.layout.domains, own))
          if places and _condition(jacobian[(domain == k) & (weight > 0)][:, places]) > _FLAT]


def _undetermined(fit: Fitted, cells: Cells, samples: np.ndarray) -> list[str]:
  """The constants whose 95 % interval is about as wide as what they may be."""
  if not len(samples):
    return []
  found = []
  low, high = np.quantile(samples, [0.025, 0.975], axis=0)
  for i, label in enumerate(fit.layout.labels(fit.model)):
    domains = [d for d, places in zip(fit.layout.domains, fit.layout.index) if i in places]
    at = next(places.index(i) for places in fit.layout.index if i in places)
    kind = fit.model.parameters[at].kind
    if kind == "coefficient" and label.startswith("E"):
      mine = np.isin(cells.domain, domains) if fit.layout.domains != ("all",) else slice(None)
      ceiling = cells.loss[mine].min() / fit.layout.scale
      wide = high[i] - low[i] > _WIDE * ceiling
    elif kind == "coefficient":
      wide = high[i] > _VAGUE * low[i] and high[i] > 1e-2
    else:
      wide = high[i] - low[i] > _WIDE * (fit.problem.high[i] - fit.problem.low[i])
    if wide:
      found.append(label)
  return found


def far_rows(fit: Fitted, cells: Cells) -> np.ndarray:
  """Indices of the few rows whose residuals dwarf all others, the largest first; none where many are large."""
  size = np.abs(np.log(cells.loss / fit.losses(fit.theta[None])[0])) * (cells.weight > 0)
  far = np.flatnonzero(size > _FAR * max(np.median(size) / 0.6745, _EXACT * 100))
  if len(far) > max(3, 0.05 * len(cells)) or (size[far] ** 2).sum() < _CARRIED * (size**2).sum():
    return far[:0]
  return far[np.argsort(-size[far])]


def _carried(fit: Fitted, cells: Cells) -> list[str]:
  """The few rows whose residuals dwarf all others, by their line."""
  far, loss = far_rows(fit, cells), fit.losses(fit.theta[None])[0]
  if not len(far):
    return []
  rows = "; ".join(f"row {cells.row[i]} (loss {cells.loss[i]:.4g}, where the law says {loss[i]:.4g})" for i in far[:_MOST_ROWS])
  more = f"; and {len(far) - _MOST_ROWS} more" if len(far) > _MOST_ROWS else ""
  one = "s" * (len(far) == 1)
  without = f"splits are planned without {'it' if len(far) == 1 else 'them'}"
  return [f"{len(far)} of {len(cells)} rows lie{one} more than {_FAR:.0f} times as far off as is usual here, and widen{one} "
          f"every interval ({without}): {rows}{more}; mend or remove what is no measurement"]


def _crowded(cells: Cells) -> list[str]:
  """That many rows share their N, D and D': runs of other settings, of which a law wants the best."""
  _, point, count = np.unique(np.stack([cells.params, cells.seed_tokens, cells.expert_tokens,
                                        np.unique(cells.domain, return_inverse=True)[1]]), axis=1, return_inverse=True,
                              return_counts=True)
  if len(cells) < _MANY * len(count):
    return []
  value, point = np.log(cells.loss), point.ravel()
  low, high = np.full(len(count), np.inf), np.full(len(count), -np.inf)
  np.minimum.at(low, point, value)
  np.maximum.at(high, point, value)
  if np.median((high - low)[count > 1]) < _SPREAD:
    return []
  return [f"{len(cells):,} rows measure only {len(count):,} distinct points (N, D, D', domain), and their losses differ there by "
          f"{np.median((high - low)[count > 1]):.1%}: where they are of several domains, map the column that says which, "
          "as domain=NAME in --columns; where they are runs of other settings, fit the best of each, --rows=best"]


def _repeated(fit: Fitted, cells: Cells, asked: bool) -> list[str]:
  """What to know about tokens that were seen again."""
  most = float(passes(cells).max())
  if not asked:
    return [f"some models saw their data up to {most:.3g} times: --repeats discounts repeated tokens"] if most > 4 else []
  if not fit.model.repeats:
    return ["no model saw any of its data twice: there is nothing for --repeats to discount, and no R* to fit"]
  if np.isfinite(cells.epochs).any():
    return []
  domains = len(cells.domains)
  each = f"each of the {domains} domains is taken for an even share" if domains > 1 else "the domain is taken for the whole"
  return [f"no column epochs tells how much of each domain the seeds saw, so {each} of their mixture: map one "
          "(passes over unique_tokens in seed and expert together) where it was not"]
