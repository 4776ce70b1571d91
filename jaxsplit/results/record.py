"""JSON files checked field by field against the shape that they must have, before anything is made of them.

A shape is a type (float takes whole numbers too), a list of one shape or of one for each entry, a mapping of required names to
shapes (more names may be there), {"*": shape} for any names, or a tuple of shapes of which one must fit; None stands for itself,
a text for one of the words in it. The shape of a record that is a dataclass follows from its annotations.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pathlib
import types
import typing
from typing import Any, TypeVar

from jaxsplit.errors import InputError
from jaxsplit.files import read_json

_MAX_BYTES = 64 << 20  # A law with 4,000 refits of each of six forms has a tenth of this.

Record = TypeVar("Record")
_hints = functools.cache(typing.get_type_hints)


def shape_of(kind: Any) -> Any:
  """The shape that a value of this type has as JSON: of frozen dataclasses, tuples, lists, mappings and what they are made of."""
  origin, arguments = typing.get_origin(kind), typing.get_args(kind)
  if dataclasses.is_dataclass(kind):
    return {name: shape_of(hint) for name, hint in _hints(kind).items()}
  if origin in (typing.Union, types.UnionType):
    return tuple(map(shape_of, arguments))
  if origin is typing.Literal:
    return " ".join(arguments)
  if origin is dict:
    return {"*": shape_of(arguments[1])}
  if origin is tuple:
    return [shape_of(argument) for argument in arguments if argument is not ...]
  return None if kind is types.NoneType else kind


def made(kind: Any, value: Any) -> Any:
  """A value of this type from one of its shape."""
  origin, arguments = typing.get_origin(kind), typing.get_args(kind)
  if isinstance(kind, type) and dataclasses.is_dataclass(kind):
    return kind(**{name: made(hint, value[name]) for name, hint in _hints(kind).items()})
  if origin is types.UnionType:  # Of something and None.
    return None if value is None else made(arguments[0], value)
  if origin is tuple:
    return tuple(made(arguments[0], entry) for entry in value)
  return float(value) if kind is float else value


def parsed(kind: type[Record], value: Any) -> Record:
  """A value of this type from JSON. Raises ValueError saying in what it is none."""
  problem = _misfit(value, shape_of(kind), "")
  if problem:
    raise ValueError(problem)
  return made(kind, value)


def read_record(path: str | os.PathLike, shape: dict[str, Any], version: int, what: str, entry_point: str) -> dict[str, Any]:
  """The record of that shape and version in a JSON file.

  Args:
    what: "a law" or "a plan", for messages.
    entry_point: the command that writes it.

  Raises:
    InputError: one line: no such file, no such record, another version, or the field that is damaged.
  """
  path = pathlib.Path(path)
  if path.is_file() and path.stat().st_size > _MAX_BYTES:
    raise InputError(f"{path}: {path.stat().st_size >> 20} MiB is too large for {what} (limit {_MAX_BYTES >> 20} MiB)")
  record = read_json(path)
  if not isinstance(record, dict) or next(iter(shape)) not in record:
    raise InputError(f"{path}: not {what}; write one with python -m jaxsplit.{entry_point}")
  if record.get("version") != version:
    raise InputError(f"{path}: version {str(record.get('version'))[:20]} of {what} is not {version}; write it again with "
                     f"python -m jaxsplit.{entry_point}")
  problem = _misfit(record, shape, "")
  if problem:
    raise damaged(path, problem, entry_point)
  return record


def damaged(path: str | os.PathLike, problem: str, entry_point: str) -> InputError:
  """The error for a file that is not what was once written."""
  return InputError(f"{path}: damaged ({problem}); write it again with python -m jaxsplit.{entry_point}")


def _misfit(value: Any, shape: Any, where: str) -> str:
  """Where the value has another shape, in words; empty where it fits."""
  if isinstance(shape, tuple):
    problems = [_misfit(value, option, where) for option in shape]
    return "" if "" in problems else problems[0]
  if isinstance(shape, dict):
    if not isinstance(value, dict):
      return f"{where or 'the file'} is not a mapping"
    names = value if "*" in shape else shape
    missing = [name for name in names if name not in value]
    if missing:
      return f"no {_at(where, missing[0])}"
    return next(filter(None, (_misfit(value[name], shape.get("*", shape.get(name)), _at(where, name)) for name in names)), "")
  if isinstance(shape, list):
    if not isinstance(value, list):
      return f"{where} is not a list"
    if len(shape) not in (1, len(value)):
      return f"{where} has {len(value)} entries instead of {len(shape)}"
    of_each = shape if len(shape) == len(value) else shape * len(value)
    return next(filter(None, (_misfit(v, one, f"{where}[{i}]") for i, (v, one) in enumerate(zip(value, of_each)))), "")
  if shape is None:
    return "" if value is None else f"{where} is not null"
  if isinstance(shape, str):
    return "" if isinstance(value, str) and value in shape.split() else f"{where} is none of {shape}"
  if shape is float:
    whole = type(value) is int and abs(value) < 2**63  # Longer ones are nothing that was written here, and no array's.
    return "" if whole or type(value) is float and math.isfinite(value) else f"{where} is not a finite number"
  if shape is int:
    return "" if type(value) is int and abs(value) < 2**63 else f"{where} is not a whole number"
  return "" if type(value) is shape else f"{where} is not {'text' if shape is str else 'true or false'}"


def _at(where: str, name: str) -> str:
  return f"{where}.{name[:40]}" if where else name[:40]
