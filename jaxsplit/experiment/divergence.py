"""Divergence: which runs of a stage diverged, and the record of what was done about it.

A run has diverged if `PATIENCE` consecutive updates were not finite (each was skipped), or if its mean loss over `WINDOW` steps rose
`Training.spike` nats above the lowest of the stage before, or above that of guessing, and had not come back by the stage's end. It is
trained again from the stage's first state, with its windows in another order, up to `Training.retries` times. The other runs of the
stack are not affected. If a run diverges in all attempts, its cells and those of its descendants are marked.

This is a function of the losses in metrics.jsonl, so a process that was killed comes to the same result.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from jaxsplit.experiment.tree import Run, Stage
from jaxsplit.files import read_json, write_json
from jaxsplit.results.record import parsed

PATIENCE = 8
WINDOW = 16


@dataclasses.dataclass(frozen=True)
class Divergence:
  """One run of a stage that diverged, in one attempt.

  Attributes:
    stage: the stage's name, without the attempt.
    run: its index in the stack.
    attempt: 0 is the first.
    step: of the stage, at which it was detected.
    what: the criterion, in words.
  """

  stage: str
  run: int
  attempt: int
  step: int
  what: str


def first_divergence(losses_SxR: np.ndarray, spike: float, guessing: float) -> dict[int, tuple[int, str]]:
  """Which runs diverged.

  Args:
    losses_SxR: NaN where a step was not finite.
    spike: nats.
    guessing: the loss of a uniform guess, ln of the vocabulary's size.

  Returns:
    run -> (step, what).
  """
  found = {}
  for r, losses in enumerate(losses_SxR.T):
    bad = ~np.isfinite(losses)
    patience = min(PATIENCE, len(losses))
    in_a_row = np.convolve(bad, np.ones(patience, int), "valid") == patience
    if in_a_row.any():
      found[r] = int(np.argmax(in_a_row)), f"{patience} steps that were not finite"
      continue
    good = np.flatnonzero(~bad)
    # The first means are over fewer steps, so that a run that diverges at its second step has a mean before it.
    ends = np.arange(1, len(good) + 1)
    starts = np.maximum(ends - WINDOW, 0)
    sums = np.concatenate([[0], np.cumsum(losses[good])])
    means = (sums[ends] - sums[starts]) / (ends - starts)
    rise = means - np.minimum(np.minimum.accumulate(means), guessing)
    if len(rise) and rise[-1] > spike:
      within = np.flatnonzero(rise <= spike)  # After the last of them it never came back.
      found[r] = int(good[ends[within[-1] + 1] - 1 if len(within) else 0]), f"a rise of {rise[-1]:.3g} nats that stayed"
  return found


def again(stage: Stage, rows: Sequence[int], attempt: int) -> Stage:
  """The stage that trains these runs of `stage` again."""
  runs: tuple[Run, ...] = tuple(stage.runs[r] for r in rows)
  return dataclasses.replace(stage, name=f"{stage.name}~{attempt}", runs=runs, keep=False, wave=None)


class Divergences:
  """The divergences of an experiment, in a file. Empty if the file does not exist or is damaged."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._found: dict[tuple, Divergence] = {}
    try:
      records = read_json(path) if path.exists() else []
      self._found = {(d.stage, d.run, d.attempt): d for d in parsed(tuple[Divergence, ...], records)}
    except ValueError:
      pass  # It is rewritten with the next trained stage; no result depends on it.

  def __iter__(self):
    return iter(self._found[key] for key in sorted(self._found))

  def add(self, found: Iterable[Divergence]) -> None:
    """Adds divergences, and writes the file."""
    self._found |= {(d.stage, d.run, d.attempt): d for d in found}
    write_json(self._path, [dataclasses.asdict(d) for d in self])
