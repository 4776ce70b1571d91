"""Constants that are not fitted: fixed at a value, or tied to another's, both in the plain units that laws are reported in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxsplit.errors import InputError, nearest
from jaxsplit.law.forms import Form, Parameter, Point
from jaxsplit.law.mapping import split_list


class Constraints(NamedTuple):
  """What is fixed and what is tied; hashable.

  Attributes:
    fix: (name, value) each, for every domain.
    tie: (name, other) each: the constant takes the value of the other, which is fitted.
    units: plain scales of N, D, D' and D + D'; None before a table is laid out.
  """

  fix: tuple[tuple[str, float], ...] = ()
  tie: tuple[tuple[str, str], ...] = ()
  units: tuple[float, float, float, float] | None = None

  @property
  def names(self) -> tuple[str, ...]:
    """The constants that are not fitted."""
    return tuple(name for name, _ in (*self.fix, *self.tie))

  def complete(self, form: Form, kinds: Mapping[str, str], fitted: Mapping[str, Any]) -> dict[str, Any]:
    """All constants, in table units.

    In plain units a coefficient is a multiple of itself, and an exponent itself and a shift, whatever the others are; so each
    is set to 1 or 0, and then to what gives the plain value.

    Args:
      form: whose `natural` says what plain units are.
      kinds: of every constant, coefficient, positive or exponent.
      fitted: the others' values, in table units.
    """
    neutral = {name: 0.0 if kinds[name] == "exponent" else 1.0 for name in self.names}
    p, values, others = {**fitted, **neutral}, dict(self.fix), dict(self.tie)
    plain = lambda p: p if form.natural is None else form.natural(p, Point(*self.units))
    exponents = [name for name in self.names if kinds[name] == "exponent"]
    # Exponents may shift one another, coefficients depend on them: so exponents first, and once more.
    for name in (*exponents, *exponents, *(name for name in self.names if name not in exponents)):
      goal = values[name] if name in values else plain(p)[others[name]]
      now = plain({**p, name: neutral[name]})[name]
      p[name] = goal - now if kinds[name] == "exponent" else goal / now
    return p


def parse_constraints(fix: str, tie: str) -> Constraints:
  """`E=1.69,B=410` and `alpha=beta` as constraints.

  Raises:
    InputError: a part that is not NAME=VALUE, or NAME=NAME; a constant that is given twice.
  """
  pairs = {}
  for flag, text, example in (("fix", fix, "E=1.69"), ("tie", tie, "alpha=beta")):
    split = [tuple(part.strip() for part in pair.split("=")) for pair in split_list(text)]
    for pair in split:
      if len(pair) != 2 or not all(pair):
        raise InputError(f"--{flag}={text[:80]}: {'='.join(pair)[:40]!r} is not as in --{flag}={example}")
    pairs[flag] = split
  fixed = []
  for name, value in pairs["fix"]:
    try:
      fixed.append((name, float(value)))
    except ValueError:
      raise InputError(f"--fix={fix[:80]}: {value[:40]!r} is not a number, as in --fix=E=1.69") from None
    if not math.isfinite(fixed[-1][1]):
      raise InputError(f"--fix={fix[:80]}: {name} must be a finite number")
  found = Constraints(tuple(fixed), tuple(pairs["tie"]))
  for name in found.names:
    if found.names.count(name) > 1:
      raise InputError(f"--fix and --tie: {name} is given twice")
  for name, other in found.tie:
    if other in found.names:
      raise InputError(f"--tie={tie[:80]}: {other} is fixed or tied itself; fix or tie {name} to what is fitted")
  return found


def misfit(constraints: Constraints, form: str, parameters: Sequence[Parameter]) -> str:
  """Why the constraints do not suit a form of these constants; empty where they do."""
  kinds = {q.name: q.kind for q in parameters}
  for name in (*constraints.names, *(other for _, other in constraints.tie)):
    if name not in kinds:
      return f"form {form} has no constant {name[:40]}{nearest(name, kinds)}"
  for name, value in constraints.fix:
    if value < 0 and kinds[name] != "exponent" or value == 0 and kinds[name] == "positive":
      return f"--fix={name}={value:g}: {name} cannot be {'negative' if value else '0'}"
  for name, other in constraints.tie:
    if kinds[name] != kinds[other]:
      return f"--tie={name}={other}: one is of kind {kinds[name]}, the other of kind {kinds[other]}, so they are never equal"
  if len(constraints.names) == len(kinds):
    return f"form {form} has nothing left to fit"
  return ""
