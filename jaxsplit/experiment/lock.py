"""One process at a time in a work directory.

Not the package filelock: its lock does not say who has it, and where a file system has no locks it makes do with a marker, which
outlives a process that is killed (tests/experiment/test_workdir.py).
"""

from __future__ import annotations

import errno
import fcntl
import os
import pathlib
import socket
from collections.abc import Callable

from jaxsplit.errors import InputError


class Lock:
  """A lock on a file that the kernel gives back when its owner ends, however it ends. To be released.

  Args:
    path: the file; it stays.
    log: told if the file system has no locks.

  Raises:
    InputError: another process has it.
  """

  def __init__(self, path: pathlib.Path, log: Callable[[str], None]):
    self._file = path.open("a+")
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      if error.errno in (errno.EAGAIN, errno.EACCES):
        self._file.seek(0)
        owner = self._file.read(200).strip() or "another process"
        self._file.close()
        raise InputError(f"--workdir={path.parent}: in use by {owner}; wait for it, or name another folder") from None
      log(f"{path}: this file system has no locks ({error.strerror}); take care that no other process uses the folder")
    self._file.truncate(0)
    self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    self._file.flush()

  def release(self) -> None:
    self._file.close()
