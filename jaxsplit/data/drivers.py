"""Runs the steps of a preparation in processes of this machine. beam.py runs the same steps on Apache Beam.

A step is a function of one job, which can be pickled. What it makes it writes to a folder that is named by the job's content, whole
or not at all; where that is there already, it only reads back what it returned. So a preparation that was killed goes on where it
was, and its result does not depend on who ran which job, or how often.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from jaxsplit.data.formats import READERS
from jaxsplit.registry import extensions

J = TypeVar("J")
R = TypeVar("R")

_ALONE = 4 << 20  # Bytes of input for which no processes are started: it takes each a second.


class Driver(Protocol):
  """Runs a step on jobs."""

  def run(self, step: Callable[[J], R], jobs: Sequence[J], size: int, done: Callable[[int, R], None]) -> list[R]:
    """What the step returns of each job, in their order.

    Args:
      size: bytes of all jobs' input.
      done: told of the number of each job that has ended, and what it returned.

    Raises:
      What a step raises.
    """


class Local:
  """Runs steps in processes of this machine.

  Args:
    workers: how many at most; the cores that this process may use where it is None.
  """

  def __init__(self, workers: int | None = None):
    self.workers = workers or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))

  def run(self, step: Callable[[J], R], jobs: Sequence[J], size: int, done: Callable[[int, R], None]) -> list[R]:
    workers = min(self.workers, len(jobs))
    if workers < 2 or size < _ALONE or any(name not in READERS.origins for name in READERS):
      return [_told(step(job), number, done) for number, job in enumerate(jobs)]  # Readers of this process alone are no file's.
    with contextlib.ExitStack() as stack:
      pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(workers))
      crew = stack.enter_context(_Crew())
      futures = {pool.submit(crew.work, step, job): number for number, job in enumerate(jobs)}
      try:
        for future in concurrent.futures.as_completed(futures):
          _told(future.result(), futures[future], done)
      except BaseException:
        for future in futures:
          future.cancel()
        crew.stop()
        raise
      return [future.result() for future in futures]


class _Crew:
  """Processes that work for the threads of a pool, one for each."""

  def __init__(self):
    self._own, self._all = threading.local(), []
    self._lock = threading.Lock()

  def __enter__(self) -> _Crew:
    return self

  def __exit__(self, *_) -> None:
    self.stop()

  def work(self, step: Callable[[Any], Any], job: Any) -> Any:
    """The step's result from this thread's process, or what the step raised."""
    if not hasattr(self._own, "process"):
      with self._lock:
        self._own.process = subprocess.Popen(
            [sys.executable, "-m", "jaxsplit.data.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment())
        self._all.append(self._own.process)
      _send(self._own.process.stdin, list(extensions()))
    _send(self._own.process.stdin, (step, job))
    try:
      result, error = pickle.load(self._own.process.stdout)
    except EOFError:
      raise OSError(None, "a process that prepares the corpus has ended (out of memory, or killed)") from None
    if error is not None:
      raise error
    return result

  def stop(self) -> None:
    for process in self._all:
      process.kill()
      process.wait()
      process.stdin.close()
      process.stdout.close()
    self._all.clear()


def _send(stream: Any, value: Any) -> None:
  try:
    pickle.dump(value, stream)
    stream.flush()
  except BrokenPipeError:
    raise OSError(None, "a process that prepares the corpus has ended (out of memory, or killed)") from None


def _environment() -> dict[str, str]:
  """That of a worker: one thread each, as there is a worker for each core; and this package, wherever it was found."""
  package = str(pathlib.Path(__file__).resolve().parents[2])
  path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
  one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
  return {**os.environ, **one, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}


def _told(result: R, number: int, done: Callable[[int, R], None]) -> R:
  done(number, result)
  return result


@contextlib.contextmanager
def whole(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """A new folder that becomes `folder` at the end, and vanishes where the block fails. Where another process was faster, its stays."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  build = pathlib.Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
  try:
    yield build
    try:
      os.rename(build, folder)
    except OSError:
      if not folder.is_dir():
        raise
  finally:
    shutil.rmtree(build, ignore_errors=True)
