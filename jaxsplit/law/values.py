"""Validates the values of a law's table, and warns of suspicious ones."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from jaxsplit.errors import InputError

_SMALL_MODEL, _FEW_TOKENS = 1e4, 1e5  # Numbers below these look like millions or billions that lack their unit ...
_LARGE_MODEL, _MANY_TOKENS = 1e14, 1e16  # ... and above these, like other numbers with a unit that is not theirs.
_MOST_NATS = 13.0  # A token of a vocabulary of 442,000 guessed blindly.


def typed(array: np.ndarray, name: str, where: str, rows: Sequence[int] | None) -> np.ndarray:
  """An object array as numbers, or a domain's names without spaces around them."""
  if name == "domain":
    out = np.array([str(v).strip() for v in array])
    bad = np.flatnonzero(out == "")
    if len(bad):
      raise InputError(f"{where}:{line(rows, int(bad[0]))}: domain is empty; name it, or remove the row")
    return out
  out = np.empty(len(array))
  for i, value in enumerate(array):
    try:
      out[i] = float(value)
    except (TypeError, ValueError, OverflowError):
      raise InputError(f"{where}:{line(rows, i)}: {name} is {repr(value)[:40]}, not a number") from None
  return out


def check_values(arrays: Mapping[str, np.ndarray], where: str, rows: Sequence[int] | None) -> None:
  """Refuses numbers that no measurement can have.

  Raises:
    InputError: naming file, row and column.
  """
  def refuse(bad: np.ndarray, name: str, need: str) -> None:
    if bad.any():
      i = int(np.flatnonzero(bad)[0])
      more = f" (and {int(bad.sum()) - 1} more)" if bad.sum() > 1 else ""
      raise InputError(f"{where}:{line(rows, i)}: {name} is {arrays[name][i]:g}{more}; {need}")

  if not len(arrays["loss"]):
    raise InputError(f"{where}: no rows")
  for name in ("params", "loss"):
    refuse(~(np.isfinite(arrays[name]) & (arrays[name] > 0)), name, "it must be a positive number: mend or remove the row")
  for name in ("seed_tokens", "expert_tokens"):
    refuse(~(np.isfinite(arrays[name]) & (arrays[name] >= 0)), name, "it must be a number, zero or more")
  refuse(~(arrays["unique_tokens"] > 0), "unique_tokens", "it must be positive")
  refuse(arrays["epochs"] < 0, "epochs", "it must be zero or more")
  refuse(~(np.isfinite(arrays["weight"]) & (arrays["weight"] >= 0)), "weight", "it must be a number, zero or more")
  refuse(~np.isfinite(arrays["replica"]), "replica", "it must be a number")
  refuse(arrays["seed_tokens"] + arrays["expert_tokens"] <= 0, "seed_tokens",
         "with no expert_tokens either the model is untrained: remove the row")


def repeated(arrays: Mapping[str, np.ndarray], where: str, rows: Sequence[int] | None) -> list[str]:
  """One line on rows that repeat an earlier one in every number, or none."""
  seen: dict[tuple, int] = {}
  found = []
  compared = [name for name in arrays if name != "epochs"]  # They follow from the others, or nobody knows them.
  for i, key in enumerate(zip(*(arrays[name].tolist() for name in compared))):
    if key in seen:
      found.append((i, seen[key]))
    seen.setdefault(key, i)
  if not found:
    return []
  (i, first), more = found[0], len(found) - 1
  return [f"{where}:{line(rows, i)}: repeats row {line(rows, first)} in every column, loss {arrays['loss'][i]:g} included"
          f"{f' ({more} more rows repeat others)' if more else ''}; all are kept, so remove them if they are copies"]


def doubts(params: np.ndarray, seed_tokens: np.ndarray, loss: np.ndarray, named: Mapping[str, str]) -> list[str]:
  """Numbers that look like another unit than ours.

  Args:
    params, seed_tokens, loss: [n] each.
    named: the column that each was read from; one with a unit is in no doubt.
  """
  found = []
  for name, values, least, unit in (("params", params, _SMALL_MODEL, "M"),
                                    ("seed_tokens", seed_tokens[seed_tokens > 0], _FEW_TOKENS, "B")):
    theirs = named.get(name, "")
    if len(values) and values.min() < least and theirs and "[" not in theirs:
      found.append(f"{name} go down to {values.min():g} (column {theirs}): where those are millions or billions, "
                   f"give the unit, as in --columns={name}={theirs}[{unit}]")
  for name, values, most in (("params", params, _LARGE_MODEL), ("seed_tokens", seed_tokens, _MANY_TOKENS)):
    theirs = named.get(name) or named.get("flops")
    if len(values) and values.max() > most and theirs:
      found.append(f"{name} go up to {values.max():.3g} (column {theirs}), more than anybody has trained: mend the unit, such as "
                   "[M], [B] or [PF-days], or the column")
  theirs = named.get("loss", "")
  if re.search(r"\[", theirs):
    return found
  if re.search(r"ppl|perplexity", theirs, re.IGNORECASE) or np.median(loss) > _MOST_NATS:
    found.append(f"loss (column {theirs or 'loss'}, {np.median(loss):.3g} in the middle) looks like perplexity, not nats: "
                 f"--columns=loss={theirs or 'loss'}[ppl] takes its logarithm")
  elif re.search(r"bits|\bbp[bc]\b|_bp[bc]|bp[bc]_", theirs, re.IGNORECASE):
    found.append(f"loss (column {theirs}) looks like bits: the law will be in that unit where it says nats; "
                 f"--columns=loss={theirs}[bits] makes nats of bits")
  return found


def line(rows: Sequence[int] | None, i: int) -> int:
  """The line of a row in its file; rows that came from no file are counted from 1."""
  return int(rows[i]) if rows is not None else i + 1
