"""Snapshots of run stacks: written by Orbax, committed with hashes of our own, checked before they are used.

    <stage>/<step>/state/           the arrays
    <stage>/<step>/snapshot.json    facts about them, and the size and SHA-256 of every file under state/; written last

TensorStore checks its own indexes, but not the arrays: a bit flipped there would be read back as another number.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import logging
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxsplit.checkpoint.manifest import MANIFEST, read_manifest, write_manifest
from jaxsplit.errors import InputError, is_shortage
from jaxsplit.parallel import hosts

State = dict[str, Any]  # Of a stack: a pytree of arrays.
_CHUNK = 64 << 20  # Bytes of an array that are read as one: where it is laid out over more devices, each reads its own.


class Checkpoints:
  """The snapshots under one directory. To be closed.

  Snapshots are written and read by a thread of their own. One exists once its manifest does. Only one is written at a time: `save`
  waits where the one before is not done. Snapshots of one stage follow each other, and its older ones go, but for as many as it `keeps`.

  Of several processes, each writes and reads what its own devices hold; `directory` must be the same files for all. The lead
  alone checks, commits and removes, and tells the others what there is. Writing threads wait for each other, but not for devices.

  Args:
    directory: where they lie.
    log: told of every snapshot that is damaged.
    keeps: snapshots that a stage has while it is trained, so that one is left if the newest turns out to be damaged.
  """

  def __init__(self, directory: pathlib.Path, log: Callable[[str], None] = print, keeps: int = 2):
    self._directory = directory.absolute()
    self._log, self._keeps = log, keeps
    self._writer = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="snapshots")
    self._writing: concurrent.futures.Future | None = None
    self._removing: list[concurrent.futures.Future] = []
    self._good: dict[tuple[str, int], dict[str, Any]] = {}  # Manifests of the snapshots that were checked, or written, by us.
    self._calls = 0  # Of Orbax, to tell its barriers apart.

  def newest(self, stage: str, at_most: int | None = None) -> int | None:
    """The step of the stage's newest whole snapshot; None if there is none.

    Every byte is checked, once. Damaged snapshots are removed, saying so, and so are those after step `at_most`, from which
    training cannot go on.
    """
    self.wait()
    return hosts.broadcast(lambda: self._newest(stage, at_most))

  def _newest(self, stage: str, at_most: int | None) -> int | None:
    for step in sorted(self._steps(stage), reverse=True):
      if at_most is not None and step > at_most:
        self._remove(stage, step)
      elif self._is_good(stage, step):
        return step
    return None

  def save(self, stage: str, step: int, state: State, about: Mapping[str, Any], *, last: bool = False,
           first: Callable[[], None] = lambda: None) -> None:
    """Starts writing `state`, which must not be donated, as the stage's snapshot at `step`.

    Args:
      stage, step: its name.
      state: the arrays.
      about: JSON facts.
      last: the stage ends here: its older snapshots go.
      first: called before the manifest is written, in the lead's writing thread: what must be durable before the snapshot is.

    Raises:
      OSError: an earlier snapshot could not be written.
    """
    self._wait_for_writing()
    folder = self._folder(stage, step)
    self._good.pop((stage, step), None)
    self._writing = self._writer.submit(self._write, stage, step, folder, [state], dict(about), last, first)

  def restore(self, stage: str, step: int, abstract: State) -> State:
    """The stage's snapshot at `step`, laid out as `abstract` says.

    Raises:
      InputError: the snapshot cannot be read, or holds other shapes.
    """
    self.wait()
    try:
      # By the thread: Orbax would turn what a signal raises in the main one into an error of the snapshot's.
      return self._writer.submit(self._restore, stage, step, abstract).result()
    except Exception as error:  # Orbax, TensorStore and zarr raise many types for a broken snapshot.
      if is_shortage(error):
        raise
      raise InputError(f"{self._folder(stage, step)}: snapshot cannot be restored ({_first_line(error)}); "
                       "move that folder away to train the stage again") from error

  def _restore(self, stage: str, step: int, abstract: State) -> State:
    with _quiet(), self._orbax() as checkpointer:
      wanted = ocp.checkpoint_utils.construct_restore_args(abstract)
      return checkpointer.restore(self._folder(stage, step) / "state", args=ocp.args.PyTreeRestore(abstract, restore_args=wanted))

  def about(self, stage: str, step: int) -> dict[str, Any]:
    """The facts saved with a whole snapshot."""
    self.wait()
    return hosts.broadcast(lambda: self._manifest(stage, step)["about"])

  def digest(self, stage: str, step: int) -> str:
    """The hash of a whole snapshot, facts and arrays."""
    self.wait()
    return hosts.broadcast(lambda: self._manifest(stage, step)["check"])

  def discard(self, stage: str) -> None:
    """Removes a stage's snapshots, once what is being written is."""
    if hosts.is_lead() and (self._directory / stage).is_dir():
      self._removing.append(self._writer.submit(self._remove_all, stage))

  def wait(self) -> None:
    """Returns when everything saved is durable. Raises OSError where it could not be written."""
    self._wait_for_writing()
    removing, self._removing = self._removing, []
    for one in removing:
      one.result()

  def close(self) -> None:
    try:
      self.wait()
    finally:
      self._writer.shutdown()

  def _wait_for_writing(self) -> None:
    writing, self._writing = self._writing, None
    if writing is not None:
      writing.result()

  def _write(self, stage: str, step: int, folder: pathlib.Path, handed_over: list[State], about: dict[str, Any], last: bool,
             first: Callable[[], None]) -> None:
    state = handed_over.pop()  # Not as an argument: the executor keeps those for a moment after the result is there.
    try:
      if hosts.is_lead():
        if folder.exists():
          shutil.rmtree(folder)
        self._directory.mkdir(exist_ok=True)  # Not what it lies in: a work directory that is lost shall not come back empty.
        folder.mkdir(parents=True)
      with _quiet(), self._orbax(save_concurrent_gb=_gigabytes_at_once(state)) as checkpointer:
        hosts.barrier(f"snapshot {self._calls}")  # The folder is there, and empty.
        chunks = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK), state)
        checkpointer.save(folder / "state", args=ocp.args.PyTreeSave(state, save_args=chunks))
        checkpointer.wait_until_finished()
      del state
      if not hosts.is_lead():
        return
      first()
      self._good[stage, step] = write_manifest(folder, about)
    except Exception as error:  # Orbax and TensorStore have types of their own for a full disk.
      if hosts.is_lead():
        shutil.rmtree(folder, ignore_errors=True)
      raise error if is_shortage(error) else _as_os_error(error, folder) from error
    for other in sorted(self._steps(stage))[:-1 if last else -self._keeps]:
      self._remove(stage, other)

  def _is_good(self, stage: str, step: int) -> bool:
    if (stage, step) in self._good:
      return True
    folder = self._folder(stage, step)
    try:
      self._good[stage, step] = read_manifest(folder)
      return True
    except InputError as error:
      self._log(f"snapshot {folder} is damaged ({error}); it is removed, and training goes on from an earlier one")
      self._remove(stage, step)
      return False

  def _orbax(self, **options: Any) -> ocp.AsyncCheckpointer:
    """Writes arrays as they are: trained numbers hardly compress, and compressing takes copies of them.

    Processes that are named meet in the key-value store; otherwise on their devices, which may be training meanwhile.
    """
    self._calls += 1
    together = ocp.options.MultiprocessingOptions(
        active_processes=set(range(hosts.count())) if hosts.count() > 1 else None, barrier_sync_key_prefix=f"jaxsplit{self._calls}")
    handler = ocp.PyTreeCheckpointHandler(use_compression=False, multiprocessing_options=together, **options)
    return ocp.AsyncCheckpointer(
        handler, async_options=ocp.options.AsyncOptions(timeout_secs=hosts.LONG), multiprocessing_options=together)

  def _manifest(self, stage: str, step: int) -> dict[str, Any]:
    if not self._is_good(stage, step):
      raise InputError(f"{self._folder(stage, step)}: no whole snapshot there; give the same command again to train the stage again")
    return self._good[stage, step]

  def _steps(self, stage: str) -> Iterator[int]:
    """The steps of the stage's committed snapshots. What a killed process left uncommitted is removed."""
    folder = self._directory / stage
    for path in list(folder.iterdir()) if folder.is_dir() else []:
      if path.name.isdecimal() and path.is_dir():
        if (path / MANIFEST).exists():
          yield int(path.name)
        else:
          shutil.rmtree(path, ignore_errors=True)

  def _remove(self, stage: str, step: int) -> None:
    self._good.pop((stage, step), None)
    folder = self._folder(stage, step)
    with contextlib.suppress(FileNotFoundError):
      (folder / MANIFEST).unlink()  # First, so that a removal cut short leaves nothing that looks whole.
    shutil.rmtree(folder, ignore_errors=True)

  def _remove_all(self, stage: str) -> None:
    for step in list(self._steps(stage)):
      self._remove(stage, step)
    with contextlib.suppress(OSError):
      (self._directory / stage).rmdir()

  def _folder(self, stage: str, step: int) -> pathlib.Path:
    return self._directory / stage / str(step)


def newest_snapshot(folder: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]] | None:
  """The last snapshot in a stage's folder and its facts, every byte of it checked; None where there is none. Changes nothing.

  Raises:
    InputError: it is damaged.
  """
  there = [path for path in folder.glob("*") if path.name.isdecimal() and (path / MANIFEST).exists()]
  newest = max(there, key=lambda path: int(path.name), default=None)
  try:
    return newest and (newest, read_manifest(newest)["about"])
  except InputError as error:
    raise InputError(f"{newest}: damaged ({error}); move that folder away: python -m jaxsplit.train, given as before, trains it "
                     "again") from None


def read_arrays(snapshot: pathlib.Path, abstract: State) -> State:
  """Those of a snapshot's arrays that `abstract` has, as NumPy's."""
  wanted = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), abstract)
  with _quiet(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
    arguments = ocp.args.PyTreeRestore(abstract, restore_args=wanted, partial_restore=True)
    return checkpointer.restore((snapshot / "state").absolute(), args=arguments)  # Orbax takes no other path.


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Without what Orbax logs of an error that it raises as well: tracebacks, where we say one line."""
  loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
  levels = [logger.level for logger in loggers]
  for logger in loggers:
    logger.setLevel(logging.CRITICAL)
  try:
    yield
  finally:
    for logger, level in zip(loggers, levels):
      logger.setLevel(level)


def _gigabytes_at_once(state: State) -> int:
  """How much of a state is on its way from devices to files at a time, where copies of all of it would take as much memory again.
  At least its largest array, which Orbax writes as one."""
  return 1 + max(leaf.nbytes for leaf in jax.tree.leaves(state)) // 10**9


def _as_os_error(error: Exception, folder: pathlib.Path) -> OSError:
  """What stopped the writing, as the operating system would have put it."""
  if isinstance(error, OSError) and error.errno:
    return OSError(error.errno, error.strerror, str(error.filename or folder))
  text = str(error)
  known = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOENT)
  code = next((code for code in known if os.strerror(code) in text), errno.EIO)
  return OSError(code, os.strerror(code) if code != errno.EIO else _first_line(error), str(folder))


def _first_line(error: Exception) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
