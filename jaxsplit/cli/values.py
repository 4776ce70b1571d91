"""What a person wrote for a setting, as the type that the setting has.

None of the libraries for this (msgspec, pydantic, cattrs), since a refusal says here how the value is to be written, and a tuple
of one may come without its parentheses and a boolean in words (tests/test_cli.py).
"""

from __future__ import annotations

import ast
import contextlib
import math
import types
import typing
from typing import Any

from jaxsplit.errors import InputError

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def as_type(hint: Any, value: Any, name: str) -> Any:
  """The value with ints and lists turned into floats and tuples where the type has these.

  Args:
    hint: bool, int, float, str, a Literal, a tuple or a union of those, or another class, of which there must be an instance.
    value: what was read.
    name: of the setting, for messages.

  Raises:
    InputError: the value is not of that type; one line says by example what is.
  """
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    if value is None and type(None) in args:
      return None
    *others, last = (option for option in args if option is not type(None))
    for option in others:
      with contextlib.suppress(InputError):
        return as_type(option, value, name)
    return as_type(last, value, name)
  if origin is typing.Literal:
    if value not in args:
      raise InputError(f"{name} = {value!r}: must be one of {', '.join(map(str, args))}")
    return value
  if origin is tuple and args[-1] is Ellipsis and typing.get_origin(args[0]) is tuple and not isinstance(value, (list, tuple)):
    raise InputError(f"{name} = {value!r}: must be as in {_example(hint)}")
  if origin is tuple and args[-1] is Ellipsis:
    alone = not isinstance(value, (list, tuple)) or typing.get_origin(args[0]) is tuple and not any(
        isinstance(one, (list, tuple)) for one in value) and len(value) > 0
    return tuple(as_type(args[0], one, name) for one in ([value] if alone else value))
  if origin is tuple and isinstance(value, (list, tuple)):
    if len(value) != len(args):
      raise InputError(f"{name} = {value!r}: needs {len(args)} values, as in {_example(hint)}")
    return tuple(as_type(of, one, name) for of, one in zip(args, value))
  if hint is bool and not isinstance(value, bool) and str(value).strip().lower() in _BOOLEANS:
    return _BOOLEANS[str(value).strip().lower()]
  if hint is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 1023:
    return float(value)
  if hint is int and isinstance(value, float) and value.is_integer():
    return int(value)
  if hint is float and isinstance(value, float) and not math.isfinite(value):
    raise InputError(f"{name} = {value!r}: must be a finite number")
  if isinstance(hint, type) and isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
    return value
  kinds = {bool: "true or false", int: "a whole number, as in 1_000_000 or 1e6", float: "a number, as in 0.5", str: "text, as in 'a'"}
  kind = f"as in {_example(hint)}" if origin is tuple else kinds.get(hint) or getattr(hint, "__name__", str(hint).replace("typing.", ""))
  raise InputError(f"{name} = {value!r}: must be {kind}")


def of_text(hint: Any, text: str, name: str) -> Any:
  """A flag's text as the type; text that is no literal of Python, or none of that type, stands for itself."""
  if is_literal(text):
    with contextlib.suppress(InputError):
      return as_type(hint, ast.literal_eval(text), name)
  return as_type(hint, text, name)


def is_literal(text: str) -> bool:
  """Whether the text is a number, a string in quotes, a tuple of those, or any other literal of Python."""
  try:
    ast.literal_eval(text)
    return True
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    return False


def _example(hint: Any, other: bool = False) -> str:
  """How a value of this type is written; an `other` one beside it differs."""
  if typing.get_origin(hint) is tuple:
    of, *others = typing.get_args(hint)
    parts = [_example(of), _example(of, other=True)] if others == [...] else [_example(one, other) for one in (of, *others)]
    return f"({', '.join(parts)})"
  return {int: ("8", "16"), float: ("0.5", "0.25"), str: ("'a'", "'b'")}.get(hint, ("...", "..."))[other]
