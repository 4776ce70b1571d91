"""Runs the steps of a preparation as an Apache Beam pipeline (extra `beam`), on any of its runners.

Workers read the corpus and write finished parts where the store is prepared, so that folder has to be seen by all of them, under
one name: a disk that is shared. What joins parts (division, clusters, the table of documents) is done by the process that was
started, as with drivers.Local, whose steps these are.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from jaxsplit.errors import InputError, ending
from jaxsplit.registry import extensions, run_extension

J = TypeVar("J")
R = TypeVar("R")


class Beam:
  """Runs steps as pipelines.

  Args:
    runner: its name, as DirectRunner, DataflowRunner, FlinkRunner or SparkRunner.
    arguments: of the runner, as --project=mine.

  Raises:
    InputError: Beam is not installed, or does not know the runner or an argument.
  """

  def __init__(self, runner: str, arguments: Sequence[str] = ()):
    try:
      import apache_beam as beam
      from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
      raise InputError("--runner needs Apache Beam, which is not installed; install jaxsplit[beam], or leave --runner out") from None
    self._beam = beam
    self._options = PipelineOptions([f"--runner={runner}", *arguments])
    try:
      beam.runners.runner.create_runner(runner)
    except (ValueError, ImportError) as error:
      raise InputError(f"--runner={runner}: {' '.join(str(error)[:200].split())}") from None
    unknown = [argument for argument in arguments if not argument.startswith("--")]
    if unknown:
      raise InputError(f"{unknown[0]}: an argument of the runner is written as --name=value")

  def run(self, step: Callable[[J], R], jobs: Sequence[J], size: int, done: Callable[[int, R], None]) -> list[R]:
    """As drivers.Driver; `done` is told at the end."""
    beam, work = self._beam, functools.partial(_worked, step, extensions())
    with beam.Pipeline(options=self._options) as pipeline:
      _ = pipeline | beam.Create(list(jobs)) | beam.Reshuffle() | beam.Map(work)
    results = []
    for number, job in enumerate(jobs):  # What is finished is read back; what failed fails here again, in words.
      results.append(step(job))
      done(number, results[-1])
    return results


def _worked(step: Callable[[Any], Any], files: Sequence[pathlib.Path], job: Any) -> None:
  for file in files:
    run_extension(file)
  try:
    step(job)
  except Exception as error:
    if ending(error) is None:  # A bad document is told by the process that was started; an engine would try it again.
      raise
