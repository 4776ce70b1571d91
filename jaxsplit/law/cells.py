"""Cells: the measured table that a law is fitted to, an experiment's without the runs that diverged.

A cell is one trained model: N parameters, D seed tokens, D' expert tokens, a domain, and the loss it reached. law.reading makes
them of anybody's file, law.values checks what stands in them.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsplit.errors import InputError, nearest
from jaxsplit.files import file_hash
from jaxsplit.law import values
from jaxsplit.results.cells import LAW_DATA, Cell, read_cells

REQUIRED = ("params", "loss")
OPTIONAL = {"seed_tokens": 0.0, "expert_tokens": 0.0, "domain": "all", "replica": 0, "unique_tokens": np.inf, "epochs": np.nan,
            "weight": 1.0}


@dataclasses.dataclass(frozen=True)
class Cells:
  """Equal-length arrays, one entry a measured model.

  Attributes:
    params: [n] model size N.
    seed_tokens: [n] D, tokens of the shared mixture.
    expert_tokens: [n] D', tokens of the domain alone.
    loss: [n] nats per token (or any positive unit, kept throughout).
    domain: [n] strings.
    replica: [n] integers: which repetition of the trunk.
    unique_tokens: [n] distinct tokens of the domain, infinite where unknown.
    epochs: [n] passes over them in the seed and the expert together, NaN where unknown.
    weight: [n] how much the row counts in the objective.
    row: [n] the line that each has in its file.
    source: what the rows came from: file, hash, dropped and merged rows, the column names used, notes and remarks.
  """

  params: np.ndarray
  seed_tokens: np.ndarray
  expert_tokens: np.ndarray
  loss: np.ndarray
  domain: np.ndarray
  replica: np.ndarray
  unique_tokens: np.ndarray
  epochs: np.ndarray
  weight: np.ndarray
  row: np.ndarray
  source: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @classmethod
  def from_records(cls, cells: Sequence[Cell], source: Mapping[str, Any] | None = None, rows: Sequence[int] | None = None) -> Cells:
    """Cells from those of an experiment; `source` and `rows` as of `from_columns`."""
    names = [name for name in (*REQUIRED, *OPTIONAL) if name != "weight"]
    return cls.from_columns({name: [getattr(cell, name) for cell in cells] for name in names}, source, rows)

  @classmethod
  def of_experiment(cls, path: pathlib.Path) -> Cells:
    """The law's data in the cells.csv of a work directory: of its grid, without what diverged.

    Raises:
      InputError: a row that is not what was measured.
    """
    measured = read_cells(path)
    lines = [line for line, cell in enumerate(measured, start=2) if all(getattr(cell, name) == LAW_DATA[name] for name in LAW_DATA)]
    source = {"file": str(path), "file_hash": file_hash(path), "rows": len(measured),
              "dropped": {"not of the grid, or diverged": len(measured) - len(lines)}}
    return cls.from_records([measured[line - 2] for line in lines], source, lines)

  @classmethod
  def from_columns(cls, columns: Mapping[str, Any], source: Mapping[str, Any] | None = None,
                   rows: Sequence[int] | None = None) -> Cells:
    """Cells from arrays by name; columns left out take their neutral value (0 tokens, one domain, replica 0).

    Args:
      columns: `params` and `loss`, at least one of `seed_tokens` and `expert_tokens`, and any of the others.
      source: recorded in law.json.
      rows: the line each entry has in its file, for messages; counted from 1 where left out.

    Raises:
      InputError: a column is missing or unknown, lengths differ, or a value cannot be a measurement.
    """
    known = (*REQUIRED, *OPTIONAL)
    where = dict(source or {}).get("file", "cells")
    for name in columns:
      if name not in known:
        raise InputError(f"{where}: unknown column {name!r}{nearest(name, known)}")
    for name in REQUIRED:
      if name not in columns:
        raise InputError(f"{where}: no column {name!r}; name it with --columns={name}=YOUR_COLUMN")
    if "seed_tokens" not in columns and "expert_tokens" not in columns:
      raise InputError(f"{where}: no tokens; name seed_tokens, expert_tokens or both with --columns=seed_tokens=YOUR_COLUMN, or "
                       "the training compute with --columns=flops=YOUR_COLUMN")
    size = len(np.atleast_1d(columns["loss"]))
    arrays = {}
    for name in known:
      value = columns.get(name, OPTIONAL.get(name))
      array = np.full(size, value, object) if name not in columns else np.atleast_1d(np.asarray(value, object))
      if len(array) != size:
        raise InputError(f"{where}: column {name!r} has {len(array)} values, column 'loss' has {size}")
      arrays[name] = values.typed(array, name, where, rows)
    values.check_values(arrays, where, rows)
    notes = values.repeated(arrays, where, rows)
    return cls(**arrays, row=np.arange(1, size + 1) if rows is None else np.asarray(rows, int),
               source={**(source or {}), "notes": notes} if notes else dict(source or {}))

  def __len__(self) -> int:
    return len(self.loss)

  def take(self, index: np.ndarray) -> Cells:
    """The rows at `index` (integers or a mask)."""
    return Cells(*(getattr(self, name)[index] for name in (f.name for f in dataclasses.fields(self)) if name != "source"),
                 source=self.source)

  @property
  def domains(self) -> tuple[str, ...]:
    """The distinct domains, sorted."""
    return tuple(sorted(set(self.domain.tolist())))
