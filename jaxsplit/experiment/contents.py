"""What may lie in a folder where an experiment begins: its own files, and what users keep beside them."""

from __future__ import annotations

import pathlib

from jaxsplit.errors import InputError
from jaxsplit.files import read_json

OURS = ("added", "cells.csv", "checkpoints", "config.gin", "config.json", "divergence.json", "figures", "law.json", "ledger.json", "lock",
        "metrics.jsonl", "plan.json", "probe.csv", "provenance.json", "report.html", "resampling", "sizes.json", "store", "sweep.json",
        "telemetry.jsonl", "trace")  # docs/files.md
_SYSTEM = ("lost+found",)  # Of a disk of its own.
_BESIDE = (".gin", ".log", ".out", ".err", ".txt", ".md", ".sh", ".py")  # Settings, logs, notes, scripts and extensions.
_SURE = ("checkpoints", "metrics.jsonl", "provenance.json", "store")  # What nobody else calls so: beside it, settings are an experiment's.
_NAMED = 3


def check_contents(path: pathlib.Path) -> None:
  """Refuses a folder of other files than an experiment's, unless an experiment is there already.

  Hidden files are the user's, and so are settings, logs, notes and scripts, but config.gin, which an experiment would write over.

  Raises:
    InputError: it names some of them.
  """
  if not path.is_dir() or _is_experiment(path / "config.json"):
    return
  names = sorted(one.name for one in path.iterdir() if not one.name.startswith("."))
  others = [name for name in names if name not in (*OURS, *_SYSTEM) and not name.lower().endswith(_BESIDE)]
  theirs = ("config.json", *(() if _was_one(path) else ("config.gin",)))
  others[:0] = [name for name in theirs if (path / name).exists()]
  if others:
    more = f" and {len(others) - _NAMED:,} more" * (len(others) > _NAMED)
    raise InputError(f"--workdir={path}: holds what is no experiment's ({', '.join(others[:_NAMED])}{more}), and nothing was written; "
                     "name another --workdir, one that is new or empty")


def _is_experiment(config: pathlib.Path) -> bool:
  """Whether the file holds an experiment's settings, or, as far as its neighbours tell, did before it was damaged."""
  if not config.is_file():
    return False
  try:
    found = read_json(config)
  except InputError:
    return _was_one(config.parent)
  return isinstance(found, dict) and "Experiment" in found


def _was_one(path: pathlib.Path) -> bool:
  """Whether the folder has what only experiments leave."""
  return any((path / name).exists() for name in _SURE)
