"""The command line: flags and gin become frozen dataclasses; errors become one line and an exit code.

Every setting is a field of a frozen dataclass. An entry point names the dataclasses it takes; their fields can then be bound in
gin files (`Probe.rates = (1e-3, 3e-3)`), by `--gin.Probe.rates=...`, and, for some entry points, by plain flags
(`--form=auto`). No other package imports gin.

    bindings.py   gin texts -> bindings
    values.py     texts and literals -> values of the setting's type
    help.py       the dataclasses' docstrings -> a line of --help for each binding
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import sys
import threading
import typing
from collections.abc import Callable, Sequence
from typing import Any

from jaxsplit import __version__, signals, streams
from jaxsplit.cli.bindings import Bindings
from jaxsplit.cli.help import bindings_help, meanings
from jaxsplit.cli.values import as_type, of_text
from jaxsplit.errors import (
  FAULT_EXIT_CODE,
  NOTHING_KEPT,
  RETRY_EXIT_CODE,
  SHORTAGE_EXIT_CODE,
  InputError,
  Interrupted,
  check_decoded,
  ending,
  nearest,
)
from jaxsplit.files import from_home
from jaxsplit.registry import raised_by_extension, run_extension

_UNSET = object()
_PATIENCE = 5.0  # Maximum seconds from a signal to the end if nothing is being saved.


class Path(str):
  """The help of a flag that takes a path, in which ~ and ~user are expanded."""


class Paths(Path):
  """The help of a path flag that may be repeated: a tuple of paths."""


class _OneLineParser(argparse.ArgumentParser):
  """argparse whose errors are one line with the nearest known flag, or with the settings of that name, of `of_gin`."""

  of_gin: Sequence[type] = ()

  def error(self, message: str) -> typing.NoReturn:
    prefix = "unrecognized arguments: "
    if message.startswith(prefix):
      flag = message.removeprefix(prefix).split()[0].split("=")[0]
      settings = [(cls.__name__, field.name) for cls in self.of_gin for field in dataclasses.fields(cls)]
      if not flag.startswith("-"):
        meant = "gin.Corpus.path" if ("Corpus", "path") in settings and not flag.endswith(".gin") else "gin_file"
        raise InputError(f"{flag}: flags begin with --, as in --{meant}={flag}")
      named = [f"{owner}.{name}" for owner, name in settings if flag.removeprefix("--") in (name, owner.lower())]
      message = f"unknown flag {flag}" + (f"; settings are given as in --gin.{named[0]}=VALUE" if named else
                                          nearest(flag, self._option_string_actions))
    raise InputError(message)


@dataclasses.dataclass(frozen=True)
class Settings:
  """The parsed command line of an entry point.

  Attributes:
    values: one instance per settings dataclass, keyed by the dataclass.
    flags: the plain flags, by name.
  """

  values: dict[type, Any]
  flags: dict[str, Any]

  def __getitem__(self, cls: type) -> Any:
    return self.values[cls]


def parse(
    entry_point: str,
    description: str,
    settings: Sequence[type],
    argv: Sequence[str] | None,
    *,
    flags: dict[str, str] | None = None,
    switches: dict[str, str] | None = None,
    fields_as_flags: bool = False,
) -> Settings:
  """Reads the command line of an entry point.

  Args:
    entry_point: the module's name, as in `python -m jaxsplit.<entry_point>`.
    description: the first lines of `--help`.
    settings: frozen dataclasses that gin may bind, by class name.
    argv: arguments without the program's name; None takes sys.argv.
    flags: the entry point's flags that are not settings (such as paths): name -> help, a `Path` for those that take one.
    switches: boolean flags, false by default: name -> help. Like every boolean, they are given as --name,
      or with a value: true, yes, on, 1, false, no, off or 0.
    fields_as_flags: also accept every field of `settings` as `--field=value`, except names in `flags`.

  Raises:
    InputError: an unknown flag, gin name or file, or a value that cannot be read.
  """
  flags, switches = flags or {}, switches or {}
  words = list(sys.argv[1:] if argv is None else argv)
  for word in words:
    check_decoded(word.partition("=")[0] if word.startswith("--") else "the command line", word, path=True)
  bound, rest = _take_gin_flags(words, settings)
  fields = [(field.name, cls) for cls in settings for field in dataclasses.fields(cls)]
  as_flags = {name: cls for name, cls in fields if fields_as_flags and name not in flags}
  args = vars(_parser(entry_point, description, settings, flags, switches, as_flags).parse_args(rest))
  for path in args["extension"]:
    run_extension(from_home(path, "--extension"))
  bindings = Bindings(settings)
  search = [from_home(folder, "--gin_search_paths") for folder in args["gin_search_paths"]]
  for file in args["gin_file"]:
    bindings.read_file(file, search)
  bindings.read_flags(bound)
  values = {}
  for cls, bound_here in bindings.values().items():
    hints = typing.get_type_hints(cls)
    given = {name: as_type(hints[name], value, where) for name, (value, where) in bound_here.items()}
    given |= {name: of_text(hints[name], args[name], f"--{name}") for name, owner in as_flags.items()
               if owner is cls and args[name] is not _UNSET}
    try:
      values[cls] = cls(**given)
    except (TypeError, ValueError) as error:
      raise InputError(str(error).splitlines()[0]) from None
  own = {}
  for name, text in flags.items():
    paths = isinstance(text, Path)
    if isinstance(args[name], str):
      check_decoded(f"--{name}", args[name], path=paths)
    own[name] = (tuple(_path(path, f"--{name}") for path in args[name]) if isinstance(text, Paths) else
                 _path(args[name], f"--{name}") if paths else args[name])
  own |= {name: _switched(args[name], f"--{name}") for name in switches}
  return Settings(values, own)


def _parser(entry_point: str, description: str, settings: Sequence[type], flags: dict[str, str], switches: dict[str, str],
            as_flags: dict[str, type]) -> argparse.ArgumentParser:
  parser = _OneLineParser(
      prog=f"python -m jaxsplit.{entry_point}", description=description, allow_abbrev=False,
      formatter_class=argparse.RawDescriptionHelpFormatter, epilog=bindings_help(settings))
  parser.add_argument("--version", action="version", version=f"jaxsplit {__version__}")
  parser.add_argument("--gin_file", action="append", default=[], metavar="FILE",
                      help="a gin config: a file, or the name of one that comes with jaxsplit, as in quickstart.gin; repeatable, later "
                           "ones win")
  parser.add_argument("--gin_search_paths", action="append", default=[], metavar="DIR",
                      help="a folder to search for gin files and their includes; repeatable")
  parser.add_argument("--gin.NAME", dest="_", metavar="VALUE",
                      help="bind one of the names below, as in --gin.Probe.replicas=2; wins over files")
  parser.add_argument("--extension", action="append", default=[], metavar="FILE",
                      help="your Python file, run first, which may add model families, optimizers, forms of the law, routers and the like "
                           "for settings to name (docs/extending.md); repeatable. Cannot be given in a config")
  parser.of_gin = settings
  for name, text in flags.items():
    repeated = {"action": "append", "default": [], "metavar": "PATH"} if isinstance(text, Paths) else {}
    parser.add_argument(f"--{name}", help=text, **repeated)
  for name, text in switches.items():
    parser.add_argument(f"--{name}", nargs="?", default="false", const="true", metavar="true|false", help=text)
  for name, cls in as_flags.items():
    bare = {"nargs": "?", "const": "true"} if _is_boolean(cls, name) else {}
    text = f"{cls.__name__}.{name}: {meanings(cls)[name]}".replace("%", "%%")
    parser.add_argument(f"--{name}", default=_UNSET, metavar="VALUE", help=text, **bare)
  return parser


def run(entry_point: Callable[[Sequence[str] | None], int | None], kept: str = NOTHING_KEPT) -> typing.NoReturn:
  """Runs an entry point's main to its exit code, by errors.ending; what is expected there is one line on stderr.

  Args:
    entry_point: its main.
    kept: what is there of it where it is interrupted.
  """
  streams.never_fail()
  try:
    with signals.handled(functools.partial(_interrupt, Interrupted(kept))):
      code = entry_point(None) or 0
  except BaseException as error:
    expected = ending(error) or ending(raised_by_extension(error) or error)
    if expected is None:
      raise
    code, line = expected
    print(f"jaxsplit: {line}", file=sys.stderr)
  if code in (RETRY_EXIT_CODE, FAULT_EXIT_CODE, SHORTAGE_EXIT_CODE):
    # All is durable, or cannot be made so; the interpreter would wait for a program that is being compiled.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  sys.exit(code)


def _interrupt(error: Interrupted) -> typing.NoReturn:
  late = threading.Timer(_PATIENCE, _give_up, [error])  # Threads that compute are waited for, but not for ever.
  late.daemon = True
  late.start()
  raise error


def _give_up(error: Interrupted) -> None:
  code, line = ending(error)
  print(f"jaxsplit: {line}", file=sys.stderr, flush=True)
  os._exit(code)


def _take_gin_flags(argv: list[str], settings: Sequence[type]) -> tuple[list[tuple[str, str]], list[str]]:
  """Splits (NAME, VALUE) of `--gin.NAME=VALUE`, `--gin.NAME VALUE` or, of a boolean, `--gin.NAME`, from the other arguments."""
  booleans = {f"{cls.__name__}.{field.name}" for cls in settings for field in dataclasses.fields(cls)
              if _is_boolean(cls, field.name)}
  bound, rest, waiting = [], [], argv[::-1]
  while waiting:
    argument = waiting.pop()
    if not argument.startswith("--gin."):
      rest.append(argument)
      continue
    name, equals, value = argument.removeprefix("--gin.").partition("=")
    if not equals:
      if waiting and not (name in booleans and waiting[-1].startswith("--")):
        value = waiting.pop()
      elif name in booleans:
        value = "true"
      else:
        raise InputError(f"flag --gin.{name} has no value; write --gin.{name}=VALUE")
    bound.append((name, value))
  return bound, rest


def _is_boolean(cls: type, field: str) -> bool:
  return typing.get_type_hints(cls)[field] is bool


def _switched(text: str, flag: str) -> bool:
  try:
    return as_type(bool, text, flag)
  except InputError as error:
    raise InputError(f"{error}, or nothing; write the flag that this belongs to before it") from None


def _path(path: str | None, flag: str) -> str | None:
  if path == "":
    raise InputError(f"{flag}= is empty; give a path, or leave the flag out")
  return path and from_home(path, flag)
