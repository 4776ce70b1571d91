"""The one exception that a user's input can raise, how near misses are named, and the exit codes that a launcher acts on."""

from __future__ import annotations

from collections.abc import Iterable

RETRY_EXIT_CODE = 75  # EX_TEMPFAIL: the same command may be given again, and goes on from what is kept.
SHORTAGE_EXIT_CODE = 71  # EX_OSERR: the machine has no more threads or memory for this process.
FAULT_EXIT_CODE = 74  # EX_IOERR: a disk is full or lost, say. The same command may go on once somebody has seen to it.
NOTHING_KEPT = "nothing was written"

_LONGEST = 1_600  # Characters of an error's line.


class Interrupted(BaseException):
  """Raised where a run stops because it was asked to. No Exception: `except Exception` shall not swallow it.

  Attributes:
    kept: what is there of what was done, for the line that the entry point ends with.
  """

  def __init__(self, kept: str = NOTHING_KEPT):
    super().__init__(kept)
    self.kept = kept


class InputError(ValueError):
  """Something the user gave cannot work.

  The message is one line: what is wrong, where (file and line, flag, config name), and what to do.
  Every entry point prints it without a traceback and exits with code 2.
  """

  def __init__(self, message: str):
    line = " ".join(message.split())
    # A broken file may be quoted at any length; where it lies stands first, and what to do last.
    super().__init__(line if len(line) <= _LONGEST else f"{line[:_LONGEST // 2]} ... {line[-_LONGEST // 2:]}")


def ending(error: BaseException) -> tuple[int, str] | None:
  """The exit code and the one line that an expected error ends a entry point with; None where it needs a traceback."""
  if isinstance(error, InputError):
    return 2, str(error)
  if isinstance(error, Interrupted):
    return RETRY_EXIT_CODE, f"stopped; {error.kept} (exit code {RETRY_EXIT_CODE})"
  if is_shortage(error):
    return SHORTAGE_EXIT_CODE, (f"this machine has no more {'memory' if isinstance(error, MemoryError) else 'threads'} for this process; "
                                "raise its limit (ulimit -a, or the container's), or end others, and the same command goes on from "
                                "here")
  if isinstance(error, OSError):
    where = f"{error.filename}: " if error.filename else ""
    return FAULT_EXIT_CODE, f"{where}{error.strerror or error}; when that is mended, the same command goes on from here"
  return None


def is_shortage(error: BaseException) -> bool:
  """Whether the machine lacks memory or threads, whatever was being done."""
  return isinstance(error, MemoryError) or isinstance(error, RuntimeError) and "can't start new thread" in str(error)


def in_the_way(error: OSError) -> bool:
  """Whether something else than the disk keeps a file from being written: a folder of its name, or rights that are missing."""
  return isinstance(error, (PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError))


def check_decoded(what: str, text: str, path: bool = False) -> None:
  """Refuses text of the system's that Python could not decode; a path's where the locale is to blame, as it may be reached all the same.

  Raises:
    InputError: `what` has such characters.
  """
  import sys

  encoding = sys.getfilesystemencoding()
  if any("\udc80" <= character <= "\udcff" for character in text):
    if encoding.lower() not in ("utf-8", "utf8"):
      raise InputError(f"{what}: cannot be read, as Python's file-name encoding is {encoding} here; set PYTHONUTF8=1 for UTF-8")
    if not path:
      raise InputError(f"{what}: is not UTF-8; give it in that encoding")


def nearest(name: str, known: Iterable[str]) -> str:
  """A clause naming the known names closest to `name`: '; did you mean a or b?', or all when few, or nothing."""
  import difflib  # Here, as entry points import this file before they listen to signals.

  known = sorted(set(known))
  close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
  if close:
    return f"; did you mean {' or '.join(close)}?"
  return f"; known: {', '.join(known)}" if 0 < len(known) <= 12 else ""
