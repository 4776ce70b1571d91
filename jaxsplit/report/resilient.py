"""Error handling of reports: a chapter that cannot be written must not end an experiment."""

from __future__ import annotations

import pathlib
import traceback
from collections.abc import Callable

import jaxsplit
from jaxsplit.errors import InputError, in_the_way
from jaxsplit.report import html

_PACKAGE = pathlib.Path(jaxsplit.__file__).parent
_LONGEST = 200  # Characters of a reason.


def chapter(title: str, write: Callable[[], list[str]], log: Callable[[str], None],
            passes: type[Exception] | tuple[type[Exception], ...] = ()) -> list[str]:
  """A chapter's HTML parts; if writing it fails, a sentence with the reason in its place, which `log` gets too.

  Args:
    title: of the chapter.
    write: makes the parts.
    log: told in one line.
    passes: exceptions that are no failures, and raised.
  """
  try:
    return write()
  except passes:
    raise
  except Exception as error:
    reason = why(error)
    log(f"report: the chapter {title!r} could not be written ({reason}); no measurement is lost")
    return [html.paragraph(f"This chapter could not be written ({reason}). No measurement is lost.")]


def sentence(write: Callable[[], str], log: Callable[[str], None]) -> str:
  """A sentence, or one with the reason why there is none, which `log` gets too."""
  try:
    return write()
  except Exception as error:
    reason = f"What was found could not be put in a sentence ({why(error)})."
    log(f"report: {reason[0].lower()}{reason[1:-1]}; no measurement is lost")
    return reason


def why(error: Exception) -> str:
  """What went wrong and, unless it is a message for users, in which line of this package."""
  words = " ".join(str(error).split())
  words = words if len(words) <= _LONGEST else f"{words[:_LONGEST]} ..."
  if isinstance(error, InputError):
    return words
  if isinstance(error, OSError) and in_the_way(error):
    return f"{error.filename}: {error.strerror}; move what is there elsewhere, or give the right to write there"
  frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _PACKAGE in pathlib.Path(frame.filename).parents]
  at = f", {pathlib.Path(frames[-1].filename).relative_to(_PACKAGE.parent).as_posix()}:{frames[-1].lineno}" if frames else ""
  return f"{type(error).__name__}: {words}{at}"
