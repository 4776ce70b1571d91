"""What law.json and plan.json must hold, checked field by field before anything is made of them.

A shape is a type (float takes whole numbers too), a list of one shape, a mapping of required names to shapes (more names may be
there), {"*": shape} for any names, or a tuple of shapes of which one must fit; None stands for itself.
"""

from __future__ import annotations

import math
import os
import pathlib
from typing import Any

from jaxsplit.errors import InputError
from jaxsplit.files import read_json

_MAX_BYTES = 64 << 20  # A law with 4,000 refits of each of six forms has a tenth of this.

_SCORE = {"mre": float, "max": float, "bias": float, "differences": (float, None),
          "num_points": int, "rule": str, "distance": float}
_MEMBER = {
    "form": str, "form_hash": (str, None), "log": bool, "repeats": bool, "offsets": [str], "fix": {"*": float},
    "tie": {"*": str}, "theta": [float], "samples": [[float]], "weight": float,
    "layout": {"domains": [str], "index": [[int]], "units": [float], "scale": float, "offsets": [float],
               "unique_tokens": [(float, None)], "shares": [float], "rest_tokens": [(float, None)]}}
LAW = {
    "form": str, "objective": {"name": str, "delta": (float, None), "space": str}, "parameters": {"*": float},
    "objective_value": float, "num_points": int, "r2": float, "r2_within_domains": float,
    "held_out": ({**_SCORE, "measured": [float], "predicted": [float], "others": [_SCORE]}, None),
    "intervals": {"*": [(float, None)]}, "profiles": {"*": {"value": [float], "deviance": [float], "interval": [float]}},
    "candidates": [{"form": str, "parameters": {"*": float}, "objective_value": float,
                    "held_out": ({**_SCORE, "others": [_SCORE]}, None)}],
    "diagnostics": {"starts": int, "starts_at_optimum": float, "starts_alike": float, "gradient": float,
                    "condition": (float, None), "at_bounds": [str], "points_per_constant": float, "skipped_forms": {"*": str},
                    "warnings": [str]},
    "data": {"ranges": {name: [float] for name in ("params", "seed_tokens", "expert_tokens", "loss")},
             "levels": {name: {"*": int} for name in ("seed_tokens", "expert_tokens")}},
    "settings": {"*": (str, float, bool, None)}, "residuals": [float],
    "members": [_MEMBER],
    "surface": ({"points": {name: [float] for name in ("params", "seed", "expert", "replica", "loss")},
                 "forms": [{"member": _MEMBER, "covariance": [[float]], "scales": [float]}]}, None),
}
_PAIR = [float]
PLAN = {
    **dict.fromkeys(("params", "budget_tokens", "budget_flops", "seed_tokens", "expert_tokens", "fraction", "loss", "fixed_loss",
                     "gain_over_fixed", "split_point", "regret"), float),
    **dict.fromkeys(("dense_loss", "seedless_loss", "gain_over_dense", "unique_tokens"), (float, None)),
    **dict.fromkeys(("fraction_interval", "loss_interval", "gain_over_fixed_interval"), _PAIR),
    "gain_over_dense_interval": (_PAIR, None),
    "num_domains": int, "accounting": str, "forms": {"*": float}, "warnings": [str],
    "curve": {**{name: [float] for name in ("fraction", "loss", "low", "high")}, "measured": [bool]},
    "domains": [{"domain": str, "loss_interval": _PAIR, "dense_loss": (float, None), **dict.fromkeys((
        "seed_tokens", "expert_tokens", "loss", "best_seed_tokens", "best_expert_tokens", "best_loss"), float)}],
}


def read_record(path: str | os.PathLike, shape: dict[str, Any], version: int, what: str, door: str) -> dict[str, Any]:
  """The record of that shape and version in a JSON file.

  Args:
    what: "a law" or "a plan", for messages.
    door: the command that writes it.

  Raises:
    InputError: one line: no such file, no such record, another version, or the field that is damaged.
  """
  path = pathlib.Path(path)
  if path.is_file() and path.stat().st_size > _MAX_BYTES:
    raise InputError(f"{path}: {path.stat().st_size >> 20} MiB is too large for {what} (limit {_MAX_BYTES >> 20} MiB)")
  record = read_json(path)
  if not isinstance(record, dict) or next(iter(shape)) not in record:
    raise InputError(f"{path}: not {what}; write one with python -m jaxsplit.{door}")
  if record.get("version") != version:
    raise InputError(f"{path}: version {str(record.get('version'))[:20]} of {what} is not {version}; write it again with "
                     f"python -m jaxsplit.{door}")
  problem = _misfit(record, shape, "")
  if problem:
    raise damaged(path, problem, door)
  return record


def damaged(path: str | os.PathLike, problem: str, door: str) -> InputError:
  """The error for a file that is not what was once written."""
  return InputError(f"{path}: damaged ({problem}); write it again with python -m jaxsplit.{door}")


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
    return next(filter(None, (_misfit(v, shape[0], f"{where}[{i}]") for i, v in enumerate(value))), "")
  if shape is None:
    return "" if value is None else f"{where} is not null"
  if shape is float:
    whole = type(value) is int and abs(value) < 2**63  # Longer ones are nothing that was written here, and no array's.
    return "" if whole or type(value) is float and math.isfinite(value) else f"{where} is not a finite number"
  if shape is int:
    return "" if type(value) is int and abs(value) < 2**63 else f"{where} is not a whole number"
  return "" if type(value) is shape else f"{where} is not {'text' if shape is str else 'true or false'}"


def _at(where: str, name: str) -> str:
  return f"{where}.{name[:40]}" if where else name[:40]
