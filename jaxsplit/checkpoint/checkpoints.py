"""Snapshots of run stacks: written by Orbax, sealed with hashes of our own, checked before they are used.

    <leg>/<step>/state/           the arrays
    <leg>/<step>/snapshot.json    facts about them, and the size and SHA-256 of every file under state/; written last

TensorStore checks its own indexes, but not the arrays: a bit flipped there would be read back as another number.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import hashlib
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxsplit.errors import InputError, is_shortage
from jaxsplit.files import content_hash, read_json, sync_folder, write_json
from jaxsplit.parallel import hosts

State = dict[str, Any]  # Of a stack: a pytree of arrays.
VERSION = 1
SEAL = "snapshot.json"
_CHUNK = 64 << 20  # Bytes of an array that are read as one: where it is laid out over more devices, each reads its own.


class Checkpoints:
  """The snapshots under one directory. To be closed.

  Snapshots are written and read by a thread of their own. One exists once its seal does. Only one is written at a time: `save`
  waits where the one before is not done. Snapshots of one leg follow each other, and its older ones go, but for as many as it `keeps`.

  Of several processes, each writes and reads what its own devices hold; `directory` must be the same files for all. The lead
  alone checks, seals and removes, and tells the others what there is. Writing threads wait for each other, but not for devices.

  Args:
    directory: where they lie.
    say: told of every snapshot that is damaged.
    keeps: snapshots that a leg has while it is trained, so that one is left if the newest turns out to be damaged.
  """

  def __init__(self, directory: pathlib.Path, say: Callable[[str], None] = print, keeps: int = 2):
    self._directory = directory.absolute()
    self._say, self._keeps = say, keeps
    self._writer = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="snapshots")
    self._writing: concurrent.futures.Future | None = None
    self._removing: list[concurrent.futures.Future] = []
    self._good: dict[tuple[str, int], dict[str, Any]] = {}  # Seals of the snapshots that were checked, or written, by us.
    self._calls = 0  # Of Orbax, to tell its barriers apart.

  def newest(self, leg: str, at_most: int | None = None) -> int | None:
    """The step of the leg's newest whole snapshot; None if there is none.

    Every byte is checked, once. Damaged snapshots are removed, saying so, and so are those after step `at_most`, from which
    training cannot go on.
    """
    self.wait()
    return hosts.share(lambda: self._newest(leg, at_most))

  def _newest(self, leg: str, at_most: int | None) -> int | None:
    for step in sorted(self._steps(leg), reverse=True):
      if at_most is not None and step > at_most:
        self._remove(leg, step)
      elif self._is_good(leg, step):
        return step
    return None

  def save(self, leg: str, step: int, state: State, about: Mapping[str, Any], *, last: bool = False,
           first: Callable[[], None] = lambda: None) -> None:
    """Starts writing `state`, which must not be donated, as the leg's snapshot at `step`.

    Args:
      leg, step: its name.
      state: the arrays.
      about: JSON facts.
      last: the leg ends here: its older snapshots go.
      first: called before the seal is written, in the lead's writing thread: what must be durable before the snapshot is.

    Raises:
      OSError: an earlier snapshot could not be written.
    """
    self._wait_for_writing()
    folder = self._folder(leg, step)
    self._good.pop((leg, step), None)
    self._writing = self._writer.submit(self._write, leg, step, folder, [state], dict(about), last, first)

  def restore(self, leg: str, step: int, abstract: State) -> State:
    """The leg's snapshot at `step`, laid out as `abstract` says.

    Raises:
      InputError: the snapshot cannot be read, or holds other shapes.
    """
    self.wait()
    try:
      # By the thread: Orbax would turn what a signal raises in the main one into an error of the snapshot's.
      return self._writer.submit(self._restore, leg, step, abstract).result()
    except Exception as error:  # Orbax, TensorStore and zarr raise many types for a broken snapshot.
      if is_shortage(error):
        raise
      raise InputError(f"{self._folder(leg, step)}: snapshot cannot be restored ({_first_line(error)}); "
                       "move that folder away to train the leg again") from error

  def _restore(self, leg: str, step: int, abstract: State) -> State:
    with _quiet(), self._orbax() as checkpointer:
      wanted = ocp.checkpoint_utils.construct_restore_args(abstract)
      return checkpointer.restore(self._folder(leg, step) / "state", args=ocp.args.PyTreeRestore(abstract, restore_args=wanted))

  def about(self, leg: str, step: int) -> dict[str, Any]:
    """The facts saved with a whole snapshot."""
    self.wait()
    return hosts.share(lambda: self._seal(leg, step)["about"])

  def digest(self, leg: str, step: int) -> str:
    """The hash of a whole snapshot, facts and arrays."""
    self.wait()
    return hosts.share(lambda: self._seal(leg, step)["check"])

  def discard(self, leg: str) -> None:
    """Removes a leg's snapshots, once what is being written is."""
    if hosts.is_lead() and (self._directory / leg).is_dir():
      self._removing.append(self._writer.submit(self._remove_all, leg))

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

  def _write(self, leg: str, step: int, folder: pathlib.Path, handed_over: list[State], about: dict[str, Any], last: bool,
             first: Callable[[], None]) -> None:
    state = handed_over.pop()  # Not as an argument: the executor keeps those for a moment after the result is there.
    try:
      if hosts.is_lead():
        if folder.exists():
          shutil.rmtree(folder)
        self._directory.mkdir(exist_ok=True)  # Not what it lies in: a work directory that is lost shall not come back empty.
        folder.mkdir(parents=True)
      with _quiet(), self._orbax(save_concurrent_gb=_gigabytes_at_once(state)) as checkpointer:
        hosts.meet(f"snapshot {self._calls}")  # The folder is there, and empty.
        chunks = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK), state)
        checkpointer.save(folder / "state", args=ocp.args.PyTreeSave(state, save_args=chunks))
        checkpointer.wait_until_finished()
      del state
      if not hosts.is_lead():
        return
      first()
      files = {path.relative_to(folder / "state").as_posix(): _digest(path, durable=True) for path in _files(folder / "state")}
      for inner in {path.parent for path in _files(folder / "state")}:
        sync_folder(inner)
      seal = {"version": VERSION, "about": about, "files": files}
      write_json(folder / SEAL, {**seal, "check": _check(seal)})
      sync_folder(folder.parent)
      self._good[leg, step] = read_json(folder / SEAL)
    except Exception as error:  # Orbax and TensorStore have types of their own for a full disk.
      if hosts.is_lead():
        shutil.rmtree(folder, ignore_errors=True)
      raise error if is_shortage(error) else _as_os_error(error, folder) from error
    for other in sorted(self._steps(leg))[:-1 if last else -self._keeps]:
      self._remove(leg, other)

  def _is_good(self, leg: str, step: int) -> bool:
    if (leg, step) in self._good:
      return True
    folder = self._folder(leg, step)
    try:
      self._good[leg, step] = _checked_seal(folder)
      return True
    except InputError as error:
      self._say(f"snapshot {folder} is damaged ({error}); it is removed, and training goes on from an earlier one")
      self._remove(leg, step)
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

  def _seal(self, leg: str, step: int) -> dict[str, Any]:
    if not self._is_good(leg, step):
      raise InputError(f"{self._folder(leg, step)}: no whole snapshot there; give the same command again to train the leg again")
    return self._good[leg, step]

  def _steps(self, leg: str) -> Iterator[int]:
    """The steps of the leg's sealed snapshots. What a killed process left unsealed is removed."""
    folder = self._directory / leg
    for path in list(folder.iterdir()) if folder.is_dir() else []:
      if path.name.isdecimal() and path.is_dir():
        if (path / SEAL).exists():
          yield int(path.name)
        else:
          shutil.rmtree(path, ignore_errors=True)

  def _remove(self, leg: str, step: int) -> None:
    self._good.pop((leg, step), None)
    folder = self._folder(leg, step)
    with contextlib.suppress(FileNotFoundError):
      (folder / SEAL).unlink()  # First, so that a removal cut short leaves nothing that looks whole.
    shutil.rmtree(folder, ignore_errors=True)

  def _remove_all(self, leg: str) -> None:
    for step in list(self._steps(leg)):
      self._remove(leg, step)
    with contextlib.suppress(OSError):
      (self._directory / leg).rmdir()

  def _folder(self, leg: str, step: int) -> pathlib.Path:
    return self._directory / leg / str(step)


def newest_snapshot(folder: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]] | None:
  """The last snapshot in a leg's folder and its facts, every byte of it checked; None where there is none. Changes nothing.

  Raises:
    InputError: it is damaged.
  """
  there = [path for path in folder.glob("*") if path.name.isdecimal() and (path / SEAL).exists()]
  newest = max(there, key=lambda path: int(path.name), default=None)
  try:
    return newest and (newest, _checked_seal(newest)["about"])
  except InputError as error:
    raise InputError(f"{newest}: damaged ({error}); move that folder away, and the same command trains it again") from None


def read_arrays(snapshot: pathlib.Path, abstract: State) -> State:
  """Those of a snapshot's arrays that `abstract` has, as NumPy's."""
  wanted = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), abstract)
  with _quiet(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
    arguments = ocp.args.PyTreeRestore(abstract, restore_args=wanted, partial_restore=True)
    return checkpointer.restore(snapshot / "state", args=arguments)


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


def _checked_seal(folder: pathlib.Path) -> dict[str, Any]:
  """A snapshot's seal. InputError says in what the snapshot does not fit it."""
  seal = read_json(folder / SEAL)
  if not isinstance(seal, dict) or seal.get("check") != _check({k: v for k, v in seal.items() if k != "check"}):
    raise InputError(f"{SEAL} does not fit its own hash")
  if seal.get("version") != VERSION:
    raise InputError(f"{SEAL} is of another version")
  there = {path.relative_to(folder / "state").as_posix(): path for path in _files(folder / "state")}
  for name in sorted(seal["files"].keys() | there.keys()):
    if name not in there:
      raise InputError(f"state/{name} is missing")
    if name not in seal["files"]:
      raise InputError(f"state/{name} is not of it")
    size, _ = expected = seal["files"][name]
    if there[name].stat().st_size != size:
      raise InputError(f"state/{name} has {there[name].stat().st_size} bytes instead of {size}")
    if _digest(there[name]) != expected:
      raise InputError(f"state/{name} has other bytes than were written")
  return seal


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(path for path in folder.rglob("*") if path.is_file())


def _digest(path: pathlib.Path, durable: bool = False) -> list:
  """[bytes, SHA-256] of a file; `durable` also waits until the disk has it."""
  with path.open("rb") as f:
    if durable:
      os.fsync(f.fileno())
    return [os.fstat(f.fileno()).st_size, hashlib.file_digest(f, "sha256").hexdigest()]


def _check(seal: Mapping[str, Any]) -> str:
  return content_hash(json.dumps(seal, sort_keys=True))


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
