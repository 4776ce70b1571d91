"""Which rows of somebody's table a law is fitted to: those that conditions keep, and of those at one point the best or the mean."""

from __future__ import annotations

import collections
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.law.mapping import QUOTED, number, split_list, unquoted

_CONDITION = re.compile(rf'\s*({QUOTED}|.+?)\s*(!=|>=|<=|=|>|<)\s*(.*?)\s*', re.DOTALL)
_TESTS: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda a, b: a >= b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, "<": lambda a, b: a < b}
_MOST_SHOWN = 6


class Condition(NamedTuple):
  """`column test value`; of = and !=, the value may be several, as in role=train|valid."""

  column: str
  test: str
  value: str

  def __str__(self) -> str:
    return f"{self.column}{self.test}{self.value}"

  def holds(self, value: Any, decimal_comma: bool) -> bool:
    """Whether it holds of a value of the column; numbers are compared as numbers."""
    if self.test in _TESTS:
      try:
        return _TESTS[self.test](number(value, decimal_comma, True), number(self.value, False, True))
      except (TypeError, ValueError, OverflowError):
        return False
    return any(_same(value, option.strip(), decimal_comma) for option in self.value.split("|")) == (self.test == "=")


def parse_where(text: str | None) -> list[Condition]:
  """`role=train,status=finished` as conditions that must all hold.

  Raises:
    InputError: a part that is no condition.
  """
  found: list[Condition] = []
  for part in split_list(text or ""):
    match = _CONDITION.fullmatch(part)
    if match:
      found.append(Condition(unquoted(match[1]), match[2], match[3]))
    elif found:  # The rest of a value with a comma.
      found[-1] = found[-1]._replace(value=f"{found[-1].value},{part.rstrip()}")
    else:
      raise InputError(f"--where: {part.strip()!r} is not COLUMN=VALUE, as in status=finished")
  return [condition._replace(value=unquoted(condition.value)) for condition in found]


def commonest(values: Sequence[Any]) -> list[tuple[str, int]]:
  """The commonest values of a column, as text, with how often each is there."""
  return collections.Counter(str(value).strip()[:40] for value in values).most_common(_MOST_SHOWN + 1)


def shown(values: Sequence[Any]) -> str:
  """`commonest` for a sentence."""
  common = commonest(values)
  return ", ".join(f"{value} {count:,}" for value, count in common[:_MOST_SHOWN]) + ", ..." * (len(common) > _MOST_SHOWN)


def merged(arrays: Mapping[str, np.ndarray], how: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """One row for each distinct (N, D, D', domain), and the index of the row that each was.

  Args:
    arrays: [n] each: params, seed_tokens, expert_tokens, domain, loss, weight and any others.
    how: "best" keeps the row of least loss; "mean" the first, with the mean loss, by weight, of all.
  """
  loss, weight = arrays["loss"], arrays["weight"]
  # Tokens that follow from FLOPs differ in their last digits.
  places = [[f"{value:.6g}" for value in arrays[name].tolist()] for name in ("params", "seed_tokens", "expert_tokens")]
  groups: dict[tuple, list[int]] = {}
  for i, key in enumerate(zip(*places, arrays["domain"].tolist())):
    groups.setdefault(key, []).append(i)
  kept = np.array([min(group, key=lambda i: loss[i]) if how == "best" else group[0] for group in groups.values()])
  out = {name: values[kept] for name, values in arrays.items()}
  if how == "mean":
    out["loss"] = np.array([np.average(loss[group], weights=weight[group] if weight[group].any() else None)
                            for group in groups.values()])
  return out, kept


def _same(value: Any, option: str, decimal_comma: bool) -> bool:
  text = str(value).strip()
  if text == option:
    return True
  if isinstance(value, bool) or text.lower() in ("true", "false"):
    return text.lower() == option.lower()
  try:
    return number(value, decimal_comma, True) == number(option, False, True)
  except (TypeError, ValueError, OverflowError):
    return False
