"""A lock, so that one process at a time uses a work directory.

Not the package filelock: its lock does not name its owner, and on a file system without locks it falls back to a marker file, which
stays when a process is killed (tests/experiment/test_workdir.py).
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
  """A lock on a file, which the kernel releases when the owner ends in any way. Call `release`.

  Args:
    path: the file; it stays, unless the owner removes it.
    log: gets a line if the file system has no locks.

  Raises:
    InputError: another process holds it.
  """

  def __init__(self, path: pathlib.Path, log: Callable[[str], None]):
    self._file = path.open("a+")
    if not self._taken(path, log):  # Its last owner has removed it meanwhile.
      self._file.close()
      self._file = path.open("a+")
      self._taken(path, log)
    self._file.truncate(0)
    self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    self._file.flush()

  def _taken(self, path: pathlib.Path, log: Callable[[str], None]) -> bool:
    """Locks the file. Returns whether it is still the one at `path`."""
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      if error.errno in (errno.EAGAIN, errno.EACCES):
        self._file.seek(0)
        owner = self._file.read(200).strip() or "another process"
        self._file.close()
        raise InputError(f"--workdir={path.parent}: in use by {owner}; wait for it, or name another folder") from None
      log(f"{path}: this file system has no locks ({error.strerror}); make sure that no other process uses the folder")
    return path.exists() and os.path.samestat(os.fstat(self._file.fileno()), path.stat())

  def release(self) -> None:
    self._file.close()
