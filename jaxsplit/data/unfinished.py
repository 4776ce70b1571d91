"""Intermediate results of an interrupted preparation, kept beside the future store until that is complete."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

from jaxsplit.errors import InputError

_SUFFIX = ".parts"  # Behind the name of a store: the folder.


@contextlib.contextmanager
def unfinished(directory: str | os.PathLike, log: Callable[[str], None] = lambda line: None) -> Iterator[pathlib.Path]:
  """A folder for the parts of the store that shall lie in `directory`, with those that an earlier preparation has left there. It is
  deleted when the block ends well; otherwise `log` is told that it stays. One process has it at a time.

  Raises:
    InputError: another process prepares that store, or it cannot be made.
  """
  directory = pathlib.Path(directory).resolve()
  folder = directory.with_name(f".{directory.name}{_SUFFIX}")
  try:
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
  except OSError as error:
    raise InputError(f"{directory}: cannot be made ({error.strerror}); name another folder") from None
  try:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise InputError(f"{directory}: another process is preparing this store; wait for it, or name another folder") from None
    for left in folder.glob(".*"):  # What a process that was killed had half written.
      shutil.rmtree(left, ignore_errors=True)
    for left in directory.parent.glob(f".{directory.name}.*"):
      if left != folder:
        shutil.rmtree(left, ignore_errors=True)
    try:
      yield folder
    except BaseException:
      if any(folder.iterdir()):
        log(f"what is finished stays in {folder}, for the next try; it may be deleted")
      else:
        folder.rmdir()
      raise
    shutil.rmtree(folder, ignore_errors=True)
  finally:
    os.close(lock)
