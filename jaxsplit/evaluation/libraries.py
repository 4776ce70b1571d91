"""Rows of tasks from libraries that a user has them in: TensorFlow Datasets, and Hugging Face's `datasets`.

Both read what they have prepared or downloaded before, and download what they have not, as their own settings say. Splits are those
that lm-evaluation-harness takes.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxsplit.errors import InputError

LIBRARIES = ("tfds:", "datasets:")  # What --data begins with; the folder of the library's data follows, or nothing for its own.


class _DataSet(NamedTuple):
  """A data set's name, its config where it has several, the split, and fields that are called otherwise on the Hugging Face hub."""

  name: str
  config: str | None
  split: str
  renamed: Mapping[str, str] = {}


_TFDS = {
    "arc_easy": _DataSet("ai2_arc", "ARC-Easy", "test"), "arc_challenge": _DataSet("ai2_arc", "ARC-Challenge", "test"),
    "hellaswag": _DataSet("hellaswag", None, "validation"), "piqa": _DataSet("piqa", None, "validation"),
    "winogrande": _DataSet("winogrande", None, "validation", {"label": "answer"}), "boolq": _DataSet("bool_q", None, "validation")}
_DATASETS = {
    "arc_easy": _DataSet("allenai/ai2_arc", "ARC-Easy", "test"), "arc_challenge": _DataSet("allenai/ai2_arc", "ARC-Challenge", "test"),
    "hellaswag": _DataSet("Rowan/hellaswag", None, "validation"), "piqa": _DataSet("baber/piqa", None, "validation"),
    "winogrande": _DataSet("allenai/winogrande", "winogrande_xl", "validation"), "boolq": _DataSet("aps/super_glue", "boolq", "validation"),
    "sciq": _DataSet("allenai/sciq", None, "test"), "openbookqa": _DataSet("allenai/openbookqa", "main", "test"),
    "commonsense_qa": _DataSet("tau/commonsense_qa", None, "validation"), "mmlu": _DataSet("cais/mmlu", "all", "test"),
    "lambada_openai": _DataSet("EleutherAI/lambada_openai", "default", "test")}


def library_rows(task: str, source: str) -> Iterator[tuple[str, dict[str, Any]]]:
  """Each row of a task as the Hugging Face hub has it, and where it lies.

  Args:
    task: its name; what stands behind a colon in it does not matter.
    source: one of `LIBRARIES`, with a folder behind the colon or none.

  Raises:
    InputError: the library is not there, has no such data set, or cannot read it.
  """
  library, _, folder = source.partition(":")
  known, read = {"tfds": (_TFDS, _tfds), "datasets": (_DATASETS, _datasets)}[library]
  wanted = known.get(task.partition(":")[0])
  if wanted is None:
    raise InputError(f"--data={source}: there are no rows of task {task}; those of {', '.join(known)} are there. Give a folder with "
                     "its rows")
  where = "/".join(filter(None, (wanted.name, wanted.config, wanted.split)))
  try:
    rows = read(wanted, str(pathlib.Path(folder).expanduser()) if folder else None)
  except ImportError as error:
    raise InputError(f"--data={source}: a package is missing ({error}); pip install {error.name or library}, or give a folder with the "
                     "rows") from None
  except Exception as error:  # Either library raises many types for what it cannot find, download or read.
    raise InputError(f"--data={source}: {where} cannot be read ({str(error).strip().splitlines()[0][:160]}); prepare it, or give a folder "
                     "with the rows") from None
  for number, row in enumerate(rows, 1):
    yield f"{library}:{where}, row {number}", {wanted.renamed.get(name, name): value for name, value in row.items()}


def _datasets(wanted: _DataSet, folder: str | None) -> Iterator[dict[str, Any]]:
  import datasets

  return iter(datasets.load_dataset(wanted.name, wanted.config, split=wanted.split, cache_dir=folder))


def _tfds(wanted: _DataSet, folder: str | None) -> Iterator[dict[str, Any]]:
  import tensorflow_datasets as tfds  # A second.

  builder = tfds.builder("/".join(filter(None, (wanted.name, wanted.config))), data_dir=folder, file_format="array_record")
  if not builder.is_prepared():
    builder.download_and_prepare()
  features = builder.info.features
  return (_plain(features, row) for row in builder.as_data_source(split=wanted.split))


def _plain(feature: Any, value: Any) -> Any:
  """A value as JSON has it: text, and the names of classes in the place of their numbers."""
  kind = type(feature).__name__  # Not by attributes: a sequence has those of what it is a sequence of.
  if kind == "Sequence":
    inner = feature.feature
    if isinstance(value, Mapping):
      return {name: [_plain(inner[name], one) for one in values] for name, values in value.items()}
    rows = [_plain(inner, one) for one in value]
    return {name: [row[name] for row in rows] for name in inner} if type(inner).__name__ == "FeaturesDict" else rows
  if kind == "FeaturesDict":
    return {name: _plain(one, value[name]) for name, one in feature.items()}
  if kind == "ClassLabel":
    return feature.int2str(int(value))
  value = value.item() if isinstance(value, np.generic | np.ndarray) and not np.ndim(value) else value
  return value.decode() if isinstance(value, bytes) else value
