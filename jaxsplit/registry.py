"""What a name in the settings stands for, where users may add to it: model families, optimizers, readers, forms of the law, routers.

A user's additions are made by a Python file that a flag names (`--extension=FILE`) and that is run once, before settings are read.
No config can name such a file. What it adds is known by the hash of its content, so that results say what they were made with.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import sys
import traceback
from typing import TypeVar

from jaxsplit.errors import InputError, nearest
from jaxsplit.files import file_hash

T = TypeVar("T")

_running: list[str] = []  # The hash of the extension that is being run, if one is.
_files: dict[str, pathlib.Path] = {}  # The extensions that were run, by the names of their modules.


class Registry(dict[str, T]):
  """Things by name. A name that is not there is an InputError, a line that says which are.

  Args:
    setting: what takes such a name, as in "Architecture.family".
    others: what else it takes.

  Attributes:
    origins: of the names that extensions added, the hash of the extension's content.
  """

  def __init__(self, setting: str, *others: str):
    super().__init__()
    self.setting, self.others = setting, others
    self.origins: dict[str, str] = {}

  def add(self, name: str, thing: T) -> T:
    """Adds a thing. Raises InputError where the name is taken."""
    if name in self:
      raise InputError(f"{self.setting}: the name {name!r} is taken; choose another")
    if _running:
      self.origins[name] = _running[-1]
    self[name] = thing
    return thing

  def __missing__(self, name: str) -> T:
    raise InputError(f"{self.setting} = {name[:60]!r}: there is none of that name{nearest(name[:60], (*self, *self.others))}; a "
                     "file that adds one is given as --extension=FILE")


def run_extension(path: str | os.PathLike) -> None:
  """Runs a user's Python file, which adds to registries. The same content is run once in a process.

  Raises:
    InputError: no such file, or whatever it raises, in one line.
  """
  path = pathlib.Path(path)
  try:
    origin = file_hash(path)
  except OSError as error:
    raise InputError(f"--extension={path}: cannot be read ({error.strerror}); name a Python file") from None
  name = f"jaxsplit_extension_{origin}"
  if name in sys.modules:
    return
  spec = importlib.util.spec_from_file_location(name, path)
  if spec is None:
    raise InputError(f"--extension={path}: is no .py file; name a Python file")
  module = importlib.util.module_from_spec(spec)
  sys.modules[name] = module  # Where dataclasses look their module up.
  _running.append(origin)
  try:
    spec.loader.exec_module(module)
  except (Exception, SystemExit) as error:  # Whatever a user's file raises is told in one line.
    del sys.modules[name]
    places = _places(error, [path.resolve()])
    line = getattr(error, "lineno", None) or (places[-1][1] if places else None)
    what = str(error) if isinstance(error, InputError) else f"cannot be run ({type(error).__name__}: {error}); mend the file"
    raise InputError(f"--extension={path}{f':{line}' if line else ''}: {what}") from None
  finally:
    _running.pop()
  _files[name] = path.resolve()


def raised_by_extension(error: BaseException) -> InputError | None:
  """An error that came from what an extension added, as a line that says where in it; None: none of it was running."""
  places = _places(error, extensions())
  if not places:
    return None
  path, line = places[-1]
  text = str(error).strip().partition("\n")[0]
  return InputError(f"{path}:{line}: {type(error).__name__}{f': {text}' if text else ''}; mend the extension")


def _places(error: BaseException, files: list[pathlib.Path]) -> list[tuple[pathlib.Path, int]]:
  """Where in these files an error was on its way, the innermost last."""
  frames = ((pathlib.Path(frame.filename).resolve(), frame.lineno) for frame in traceback.extract_tb(error.__traceback__))
  return [place for place in frames if place[0] in files]


def extensions() -> list[pathlib.Path]:
  """The files that were run, for a process that shall have what they added."""
  return [path for name, path in _files.items() if name in sys.modules]
