"""The work directory: where everything that an experiment makes lies, and whose experiment it is."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from jaxsplit.errors import InputError
from jaxsplit.files import content_hash, read_json, write_atomic, write_json
from jaxsplit.training.checkpoint import Checkpoints
from jaxsplit.training.metrics import Metrics


class Workdir:
  """One experiment's files.

      config.gin     the operative gin text            cells.csv     the measured cells
      config.json    every setting, resolved           probe.csv     the learning-rate probe's cells
      metrics.jsonl  every training step               ledger.json   who spent which tokens and FLOPs
      checkpoints/   snapshots                         law.json, plan.json, report.html, figures/
      store/         the tokens
  """

  def __init__(self, path: str | os.PathLike):
    self.path = pathlib.Path(path)
    self.config_hash = ""
    try:
      self.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise InputError(f"--workdir={path}: cannot be made ({error.strerror}); name a folder that can be written") from None
    if not os.access(self.path, os.W_OK):
      raise InputError(f"--workdir={path}: cannot be written; name a folder that can be")
    self.checkpoints = Checkpoints(self.path / "checkpoints")
    self.metrics = Metrics(self.path / "metrics.jsonl")

  def claim(self, config: dict[str, Any], operative: str) -> None:
    """Makes this the work directory of one experiment, or makes sure that it is.

    Raises:
      InputError: it holds the results of other settings; the first that differs is named.
    """
    config = json.loads(json.dumps(config))
    self.config_hash = content_hash(json.dumps(config, sort_keys=True))
    file = self.path / "config.json"
    if file.exists():
      held = _flat(read_json(file))
      for name, value in _flat(config).items():
        if held.get(name) != value:
          raise InputError(f"--workdir={self.path}: holds another experiment's results ({name} = {held.get(name)!r} there, "
                           f"{value!r} here); name another folder, or delete this one")
      return
    if any(self.path.glob("*.csv")) or (self.path / "checkpoints").exists():
      raise InputError(f"--workdir={self.path}: holds results but no config.json to tell whose; name another folder")
    write_atomic(self.path / "config.gin", operative)
    write_json(file, config)

  def close(self) -> None:
    """Returns when everything is durable."""
    self.metrics.close()
    self.checkpoints.close()


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
  if isinstance(value, dict):
    return {name: leaf for key, item in value.items() for name, leaf in _flat(item, f"{prefix}.{key}" if prefix else key).items()}
  return {prefix: value}
