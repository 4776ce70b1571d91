"""What a table can determine, checked before a fit: which constants and forms, and whether a split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.law.cells import Cells
from jaxsplit.law.constraints import Constraints, misfit
from jaxsplit.law.forms import FORMS, Form
from jaxsplit.law.problem import Model

_APART = 1.05  # Values within this factor of each other are one level: a power law hardly bends between them.
_LEVELS = 3  # That a power law is told from, and each side of a split.
_PROFILE = 0.05  # The spread of ln compute, below which a table is one isoFLOP profile.
_MOST_NAMED = 4


def levels(values: np.ndarray) -> int:
  """How many values that lie apart there are; zero is one."""
  count, start = 0, -np.inf
  for value in np.unique(values):
    if value > start * _APART or start <= 0:
      count, start = count + 1, value
  return count


def measured_levels(cells: Cells, domains: Sequence[str]) -> dict[str, dict[str, int]]:
  """By axis and domain of the law, how many levels of D and of D' were measured."""
  rows = {d: np.ones(len(cells), bool) if d not in cells.domains else cells.domain == d for d in domains}
  return {name: {d: levels(getattr(cells, name)[mine & (cells.weight > 0)]) for d, mine in rows.items()}
          for name in ("seed_tokens", "expert_tokens")}


def no_split(levels_of: dict[str, dict[str, int]], ranges: dict[str, list[float]]) -> str:
  """Why cells with these levels and ranges tell nothing of splits, and what to measure; empty where they do.

  Args:
    levels_of: as `measured_levels` gives them.
    ranges: least and largest D and D'.
  """
  for name, who, other, symbol in (("expert_tokens", "experts", "seeds", "D'"), ("seed_tokens", "seeds", "experts", "D")):
    short = {domain: count for domain, count in levels_of[name].items() if count < _LEVELS}
    if not short:
      continue
    of = "" if len(short) == len(levels_of[name]) else f" in {named(short)}"
    found = min(short.values())
    if found < 2 and ranges[name][1] == 0:
      what = f"{who} were never measured{of} (every cell has {symbol} = 0)"
    else:
      what = f"{who} were hardly measured{of} ({symbol} has {found} level{'s' * (found != 1)}, and a split needs {_LEVELS})"
    return (f"{what}, so nothing is known of how to split a budget: measure, at two sizes or more, {who} at {_LEVELS} or more "
            f"lengths {symbol} beside {other} of several lengths, such as the splits 10, 25, 50 and 80 % of one budget D + K D', "
            f"and {symbol} = 0")
  return ""


def check_plan(cells: Cells, form: str) -> None:
  """Refuses cells that no split can be planned from with that form (or "auto"), whatever their losses are.

  Raises:
    InputError: D or D' has too few levels in some domain, or the form takes their tokens for the same.
  """
  reason = no_split(measured_levels(cells, cells.domains), {name: [float(values.min()), float(values.max())] for name, values in (
      ("seed_tokens", cells.seed_tokens), ("expert_tokens", cells.expert_tokens))})
  if not reason and form != "auto":
    reason = "" if {"seed_tokens", "expert_tokens"} & set(FORMS[form].needs) else one_kind(form)
  if reason:
    raise InputError(f"{cells.source.get('file', 'cells')}: {reason}")


def one_kind(form: str) -> str:
  """Why nothing is planned with a form that knows of one kind of tokens only."""
  return (f"form {form} takes seed and expert tokens for the same, so it knows no best split; fit a form that tells them apart, "
          "such as --form=additive")


def named(domains: Sequence[str]) -> str:
  """Names of domains for a sentence, the first few of many."""
  some = ", ".join(list(domains)[:_MOST_NAMED])
  more = len(domains) - _MOST_NAMED
  return f"{'domain' if len(domains) == 1 else 'domains'} {some}{f' and {more} more' if more > 0 else ''}"


def check_design(cells: Cells, repeats: bool) -> None:
  """Refuses tables from which no form can be told, saying what to measure next.

  Raises:
    InputError: too few rows or sizes, or axes that move together.
  """
  where = cells.source.get("file", "cells")
  if repeats and not np.isfinite(cells.unique_tokens).any():
    raise InputError(f"{where}: --repeats needs a column unique_tokens")
  size, tokens = np.log(cells.params), np.log(cells.seed_tokens + cells.expert_tokens)
  if levels(cells.params) < 3 or np.ptp(tokens) == 0:
    return
  if np.ptp(size + tokens) < _PROFILE:
    raise InputError(f"{where}: {_profile(cells, size)}")
  if abs(np.corrcoef(size, tokens)[0, 1]) > 0.99999:
    raise InputError(f"{where}: params and tokens rise together in every row, so their effects cannot be told apart; "
                     "measure one size at two more numbers of tokens")


def _profile(cells: Cells, size: np.ndarray) -> str:
  """What the cells of one compute budget say, and what they cannot."""
  bend, slope, level = np.polyfit(size, np.log(cells.loss), 2)
  best = -slope / (2 * bend) if bend > 0 else np.inf
  compute = 6 * np.exp(np.mean(np.log(cells.params * (cells.seed_tokens + cells.expert_tokens))))
  if size.min() < best < size.max():
    says = (f"it gives that budget's best size, N = {np.exp(best):.3g} with loss "
            f"{np.exp(level + slope * best + bend * best**2):.4g} (a parabola in ln N), but")
  else:
    says = f"its loss has no minimum between N = {cells.params.min():.3g} and {cells.params.max():.3g}, so it gives no best size, and"
  return (f"every row spends about the same {compute:.2g} FLOPs, one isoFLOP profile: {says} not how loss falls with N or "
          "with tokens, nor anything about other budgets; measure the same sizes at two more budgets, 3 times apart")


def skip_reason(form: Form, cells: Cells, constraints: Constraints = Constraints(), priors: bool = False) -> str:
  """Why the form's constants cannot be told from the cells, with what to measure next; empty where they can.

  Args:
    form, cells, constraints: what is to be fitted, to what, and which of its constants are given.
    priors: its constants have priors, so that no form needs more levels than a power law, and neither sizes nor rows need to be as
      many as constants are.
  """
  if reason := misfit(constraints, form.name, Model(form, True, constraints.names.count("R_star") > 0).known):
    return reason
  if form.one_size and len(np.unique(cells.params)) > 1:
    return "it has no term in N, and there are several sizes"
  axes = {"params": cells.params, "seed_tokens": cells.seed_tokens, "expert_tokens": cells.expert_tokens,
          "total_tokens": cells.seed_tokens + cells.expert_tokens}
  need = _LEVELS if priors else form.levels
  law = f"and a {'power law' if need == _LEVELS else 'law that bends'} needs {need}"
  for name in form.needs:
    if priors and name == "params":
      continue
    distinct = len(np.unique(axes[name]))
    if distinct < need:
      one, more = ("size N", "sizes N") if name == "params" else (f"value of {name}", f"values of {name}")
      found = ", ".join(f"{v:g}" for v in np.unique(axes[name]))
      return (f"{name} has {distinct} distinct value{'s' * (distinct > 1)} ({found}), "
              f"{law}; measure {f'another {one}' if distinct == need - 1 else f'{need - distinct} more {more}'}, well apart")
    apart = levels(axes[name])
    if apart < need:
      return (f"{name} has {distinct} distinct values, but only {apart} that {'is' if apart == 1 else 'are'} more than "
              f"{_APART - 1:.0%} apart, {law}; measure {need - apart} more, well apart")
  if {"seed_tokens", "expert_tokens"} <= set(form.needs) and (cells.expert_tokens > 0).all():
    ratio = cells.expert_tokens / cells.seed_tokens if (cells.seed_tokens > 0).all() else np.array([0.0, np.inf])
    if ratio.max() < _APART * ratio.min():
      return (f"expert_tokens is {ratio.mean():.3g} times seed_tokens in every row, so their effects cannot be told apart; measure two "
              "more numbers of expert tokens after the same seed tokens")
  constants = len(form.parameters) - len(constraints.names)
  if len(cells) <= constants and not priors:
    return f"{len(cells)} rows for {constants} constants; measure at least {5 * constants} cells"
  return ""


def check_domains(forms: Sequence[Form], cells: Cells, share: str, constraints: Constraints) -> None:
  """Refuses tables in which a domain has fewer cells than constants of its own in some form, or at one size where others have
  several, by name. (A domain at one number of tokens is fitted, and no split planned for it.)

  Raises:
    InputError: which domains, and what each lacks.
  """
  if share == "everything" or len(cells.domains) < 2:
    return
  need, form = max((sum(not model.is_shared(q, share) for q in model.parameters), model.form.name)
                   for model in (Model(form, True, constraints=constraints) for form in forms))
  lacking = {}
  for domain in cells.domains:
    mine = (cells.domain == domain) & (cells.weight > 0)
    points = len(np.unique(np.stack([cells.params, cells.seed_tokens, cells.expert_tokens])[:, mine], axis=1).T)
    if points < need:
      lacking[domain] = f"{domain} has {points} distinct cell{'s' * (points != 1)} and lacks {need - points}"
    elif need > 2 and levels(cells.params[mine]) == 1 < levels(cells.params[cells.weight > 0]):
      lacking[domain] = f"{domain} is measured at one size N"
  if lacking:
    more = f"; and {len(lacking) - _MOST_NAMED} more" * (len(lacking) > _MOST_NAMED)
    some = "; ".join(list(lacking.values())[:_MOST_NAMED]) + more
    raise InputError(f"{cells.source.get('file', 'cells')}: a domain needs {need} cells for its own constants (form {form}), at "
                     f"two sizes where others have several; {named(list(lacking))} {'lacks' if len(lacking) == 1 else 'lack'} them: "
                     f"{some}; measure them, leave "
                     f"it out (--where={cells.source.get('columns', {}).get('domain', 'domain')}!={next(iter(lacking))}), or fit one law "
                     "to all rows (--share=everything)")
