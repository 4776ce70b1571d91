"""An experiment's training curves as TensorBoard's event files: a view of metrics.jsonl, telemetry.jsonl and cells.csv.

Each run of each stage is a run of TensorBoard's, `<stage>/<domain>`. Its axis "step" counts the tokens that the run has seen in its
life, so an expert's curve goes on where its seed's ends.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.results.cells import Cell, read_cells
from jaxsplit.results.config import read_config
from jaxsplit.results.stages import StageRecord, StageRun, read_stages
from jaxsplit.training.metrics import read_metrics
from jaxsplit.training.telemetry import StageTelemetry, read_telemetry

_SUFFIX = ".jaxsplit"  # Of the names of our event files, by which a later call knows them.
_POINTS = 1_000  # Of a curve: TensorBoard draws a sample of as many.


def write_tensorboard(workdir: str | os.PathLike, folder: str | os.PathLike) -> int:
  """Writes the event files of an experiment's finished stages, and returns how many runs they are of. Called again, it replaces them.

      jaxsplit.write_tensorboard("runs/mine", "events")         # then: tensorboard --logdir=events

  Of each run: `train/loss` and the other metrics of its steps, as means over stretches where there are more than a thousand steps;
  `train/tokens_per_second` (of its whole stack) and `train/mfu` at the end of its stage; `held_out/loss` where a cell was measured.

  Args:
    workdir: the experiment's.
    folder: where they are written; made if it is not there. Other files in it stay.

  Raises:
    InputError: no experiment that has trained anything, a damaged file, tensorboardX is not installed, or the folder cannot be written.
  """
  try:
    from tensorboardX import SummaryWriter
  except ImportError:
    raise InputError("--tensorboard needs tensorboardX, which is not installed: pip install 'jaxsplit[tensorboard]', or "
                     "pip install tensorboardX tensorboard") from None
  path, folder = pathlib.Path(workdir), pathlib.Path(folder)
  if not (path / "ledger.json").is_file():
    raise InputError(f"{path}: no experiment that has trained anything (ledger.json is missing); name a work directory of train")
  training, stages = read_config(path)["Training"], read_stages(path / "ledger.json")
  batch_tokens = training["sequence_length"] * training["batch_sequences"]
  metrics, speeds = _metrics(path, stages), {record.stage: record for record in read_telemetry(path / "telemetry.jsonl")}
  cells = read_cells(path / "cells.csv") if (path / "cells.csv").exists() else []
  count = 0
  try:
    for old in folder.rglob(f"events.out.tfevents.*{_SUFFIX}"):
      old.unlink()
    for stage in stages:
      for row, run in enumerate(stage.runs):
        with SummaryWriter(str(folder / _name(stage, row, batch_tokens)), filename_suffix=_SUFFIX) as writer:
          scalars = [*_curves(metrics.get(stage.name, {}), row, run, batch_tokens),
                     *_speed(speeds.get(stage.name), stage, run, batch_tokens), *_measured(cells, stage, run, batch_tokens)]
          for tag, value, tokens in scalars:
            writer.add_scalar(tag, value, tokens)
        count += 1
  except OSError as error:
    raise InputError(f"--tensorboard={folder}: cannot be written ({error.strerror}); name a folder that can be") from None
  return count


def _metrics(path: pathlib.Path, stages: Iterable[StageRecord]) -> dict[str, dict[str, np.ndarray]]:
  """Stage -> metric -> [steps, R] of the stages in the ledger, NaN where a value was not finite."""
  blocks: dict[str, dict[int, dict]] = {stage.name: {} for stage in stages}
  for line in read_metrics(path / "metrics.jsonl"):
    if line["stage"] in blocks:
      blocks[line["stage"]][line["first_step"]] = line
  return {stage: {name: np.concatenate([np.array(lines[first][name], float) for first in sorted(lines)])
                  for name, values in next(iter(lines.values())).items() if isinstance(values, list)}
          for stage, lines in blocks.items() if lines}


def _name(stage: StageRecord, row: int, batch_tokens: int) -> str:
  """The folder of a run, by its domain and what else tells it from the stage's others: tokens before the stage, replica, or number."""
  run, name = stage.runs[row], f"{stage.name}/{stage.runs[row].domain or 'mixture'}"
  alike = [other for other in stage.runs if other.domain == run.domain]
  if len({other.born for other in alike}) > 1:
    name, alike = f"{name}-after-{run.born * batch_tokens}", [other for other in alike if other.born == run.born]
  if len({other.replica for other in alike}) > 1:
    name, alike = f"{name}-replica-{run.replica}", [other for other in alike if other.replica == run.replica]
  return name if len(alike) == 1 else f"{name}-{row}"


def _curves(metrics: dict[str, np.ndarray], row: int, run: StageRun, batch_tokens: int) -> Iterator[tuple[str, float, int]]:
  for name, values_SxR in metrics.items():
    for part in np.array_split(np.arange(len(values_SxR)), min(len(values_SxR), _POINTS)):
      values = values_SxR[part, row]
      if np.isfinite(values).any():
        yield f"train/{name}", float(np.nanmean(values)), int(run.born + part[-1] + 1) * batch_tokens


def _speed(record: StageTelemetry | None, stage: StageRecord, run: StageRun, batch_tokens: int) -> Iterator[tuple[str, float, int]]:
  if record:
    end = (run.born + stage.steps) * batch_tokens
    yield "train/tokens_per_second", record.tokens_per_second, end
    if record.mfu is not None:
      yield "train/mfu", record.mfu, end


def _measured(cells: Iterable[Cell], stage: StageRecord, run: StageRun, batch_tokens: int) -> Iterator[tuple[str, float, int]]:
  """The losses of the cell that a run ends with: of an expert on its domain, of another on every domain."""
  if run.point is None:
    return
  at = run.point.seed_steps * batch_tokens, run.point.expert_steps * batch_tokens
  for cell in cells:
    if (cell.params, cell.replica, cell.seed_tokens, cell.expert_tokens) == (stage.params, run.replica, *at) and (
        cell.role == run.point.role and cell.status == "ok" and run.domain in (None, cell.domain)):
      yield f"held_out/loss/{cell.domain}", cell.loss, (run.born + stage.steps) * batch_tokens
