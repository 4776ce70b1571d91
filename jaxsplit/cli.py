"""The edge of the package: flags and gin become frozen dataclasses; errors become one line and exit code 2.

Every setting is a field of a frozen dataclass. A door names the dataclasses it takes; their fields are then bindable from
gin files (`Probe.rates = (1e-3, 3e-3)`), from `--gin.Probe.rates=...`, and, for doors that ask for it, from plain flags
(`--form=auto`). Nothing else in the package imports gin or absl.
"""

from __future__ import annotations

import argparse
import ast
import codecs
import dataclasses
import functools
import graphlib
import inspect
import math
import os
import pathlib
import sys
import threading
import tokenize
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gin
from gin import config_parser

from jaxsplit import signals, streams
from jaxsplit.errors import FAULT_EXIT_CODE, RETRY_EXIT_CODE, SHORTAGE_EXIT_CODE, InputError, Interrupted, ending, nearest
from jaxsplit.files import from_home
from jaxsplit.registry import run_extension

_UNSET = object()
_PATIENCE = 5.0  # Seconds from a signal to the end at the latest, where nothing is being saved.
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_MOST_MACROS = 64  # That one macro's value may be made of: macros of macros could else grow without bound.


class Path(str):
  """The help of a flag that takes a path: in what it is given, ~ and ~user are expanded."""


class _OneLineParser(argparse.ArgumentParser):
  """argparse whose errors are one line with the nearest known flag."""

  def error(self, message: str) -> typing.NoReturn:
    prefix = "unrecognized arguments: "
    if message.startswith(prefix):
      flag = message.removeprefix(prefix).split()[0].split("=")[0]
      message = f"unknown flag {flag}{nearest(flag, self._option_string_actions)}"
    raise InputError(message)


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a door was started with.

  Attributes:
    values: one instance per settings dataclass, keyed by the dataclass.
    flags: the plain flags, by name.
    operative: the gin text that reproduces `values`.
  """

  values: dict[type, Any]
  flags: dict[str, Any]
  operative: str

  def __getitem__(self, cls: type) -> Any:
    return self.values[cls]


def parse(
    door: str,
    description: str,
    settings: Sequence[type],
    argv: Sequence[str] | None,
    *,
    flags: dict[str, str] | None = None,
    switches: dict[str, str] | None = None,
    fields_as_flags: bool = False,
) -> Settings:
  """Reads the command line of a door.

  Args:
    door: the module's name, as in `python -m jaxsplit.<door>`.
    description: the first lines of `--help`.
    settings: frozen dataclasses that gin may bind, by class name.
    argv: arguments without the program's name; None takes sys.argv.
    flags: the door's own flags that are no settings (paths, say): name -> help, a `Path` for those that take one.
    switches: those of them that are true or false, false by default: name -> help. As every boolean, they are given as --name,
      or with a value: true, yes, on, 1, false, no, off or 0.
    fields_as_flags: also accept every field of `settings` as `--field=value`, but those that the door reads itself.

  Raises:
    InputError: an unknown flag, gin name or file, or a value that cannot be read.
  """
  argv = list(sys.argv[1:] if argv is None else argv)
  bindings, argv = _take_gin_bindings(argv, settings)
  parser = _OneLineParser(
      prog=f"python -m jaxsplit.{door}", description=description, allow_abbrev=False,
      formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_bindings_help(settings))
  parser.add_argument("--gin_file", action="append", default=[], metavar="FILE", help="a gin config; repeatable, later ones win")
  parser.add_argument("--gin_search_paths", action="append", default=[], metavar="DIR",
                      help="where gin files and their includes are looked for; repeatable")
  parser.add_argument("--gin.NAME", dest="_", metavar="VALUE", help="bind one name, as in --gin.Probe.replicas=2; wins over files")
  parser.add_argument("--extension", action="append", default=[], metavar="FILE",
                      help="a Python file of yours that is run first, and may add model families, optimizers and forms of the law, "
                           "which settings then name (docs/extending.md); repeatable. No config can name one")
  for name, text in (flags or {}).items():
    parser.add_argument(f"--{name}", help=text)
  for name, text in (switches or {}).items():
    parser.add_argument(f"--{name}", nargs="?", default="false", const="true", metavar="true|false", help=text)
  if fields_as_flags:
    for cls in settings:
      for field in dataclasses.fields(cls):
        if field.name not in (flags or {}):
          bare = {"nargs": "?", "const": "true"} if _is_boolean(cls, field.name) else {}
          parser.add_argument(f"--{field.name}", default=_UNSET, metavar="VALUE", help=f"{cls.__name__}.{field.name}", **bare)
  args = vars(parser.parse_args(argv))

  for path in args["extension"]:
    run_extension(from_home(path, "--extension"))
  collectors = {cls: _collector(cls) for cls in settings}
  gin.clear_config()
  macros = _Macros(settings)
  _bind_files(args["gin_file"], args["gin_search_paths"], macros)
  _bind_text("\n".join(bindings), "command line", [], macros)
  macros.check()
  values = {}
  for cls in settings:
    given = {f.name: _flag_value(cls, f, args[f.name]) for f in dataclasses.fields(cls)
             if fields_as_flags and f.name not in (flags or {}) and args[f.name] is not _UNSET}
    for name, value in given.items():
      gin.bind_parameter(f"{cls.__name__}.{name}", value)
    try:
      values[cls] = cls(**_as_types(cls, collectors[cls]()))
    except (TypeError, ValueError) as error:
      raise InputError(str(error).splitlines()[0]) from None
  for name, text in (flags or {}).items():
    if isinstance(text, Path) and args[name] == "":
      raise InputError(f"--{name}= is empty; give a path, or leave the flag out")
  at = lambda name, text: from_home(args[name], f"--{name}") if isinstance(text, Path) and args[name] else args[name]
  own = {name: at(name, text) for name, text in (flags or {}).items()}
  own |= {name: _as_type(bool, args[name], f"--{name}") for name in switches or {}}
  return Settings(values, own, gin.operative_config_str())


def run(door: Callable[[Sequence[str] | None], int | None]) -> typing.NoReturn:
  """Runs a door's main to its exit code, by errors.ending; what is expected there is one line on stderr."""
  streams.never_fail()
  try:
    with signals.handled(_interrupt):
      code = door(None) or 0
  except BaseException as error:
    if ending(error) is None:
      raise
    code, line = ending(error)
    print(f"jaxsplit: {line}", file=sys.stderr)
  if code in (RETRY_EXIT_CODE, FAULT_EXIT_CODE, SHORTAGE_EXIT_CODE):
    # All is durable, or cannot be made so; the interpreter would wait for a program that is being compiled.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  sys.exit(code)


def _interrupt() -> typing.NoReturn:
  late = threading.Timer(_PATIENCE, _give_up)  # Threads that compute are waited for, but not for ever.
  late.daemon = True
  late.start()
  raise Interrupted


def _give_up() -> None:
  code, line = ending(Interrupted())
  print(f"jaxsplit: {line}", file=sys.stderr, flush=True)
  os._exit(code)


def _take_gin_bindings(argv: list[str], settings: Sequence[type]) -> tuple[list[str], list[str]]:
  """Splits `--gin.NAME=VALUE` (or `--gin.NAME VALUE`, or, of a boolean, `--gin.NAME`) from the other arguments."""
  booleans = {f"{cls.__name__}.{field.name}" for cls in settings for field in dataclasses.fields(cls)
              if _is_boolean(cls, field.name)}
  bindings, rest, waiting = [], [], list(argv)[::-1]
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
    bindings.append(f"{name} = {value if _is_gin_value(value) else repr(value)}")
  return bindings, rest


def _is_gin_value(text: str) -> bool:
  if text.startswith(("@", "%")):
    return True
  try:
    ast.literal_eval(text)
    return True
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    return False


@functools.cache
def _collector(cls: type) -> Callable[[], dict[str, Any]]:
  """What gin knows by the dataclass's name: a function of its fields that returns the bound ones, whatever their types."""

  def collect(**bound: Any) -> dict[str, Any]:
    return bound

  collect.__signature__ = inspect.signature(cls)  # gin writes the defaults into the operative text.
  return gin.external_configurable(collect, name=cls.__name__, module="jaxsplit")


class _MacrosOnly(gin.config.ParserDelegate):
  """Values may name macros; functions and classes, as in @NAME, are refused: a config must not be able to run code."""

  def __init__(self):
    super().__init__()
    self.named: list[str] = []

  def configurable_reference(self, scoped_selector: str, evaluate: bool) -> typing.NoReturn:
    raise ValueError(f"@{scoped_selector} names code, which a config cannot run; give a value, or a macro as %NAME")

  def macro(self, name: str) -> Any:
    self.named.append(name)
    return super().macro(name)


class _Macros:
  """The macros of all texts: where each was last defined, of which others, and where each is used."""

  def __init__(self, settings: Sequence[type]):
    self.classes = {cls.__name__: cls for cls in settings}
    self._defined: dict[str, tuple[str, list[str]]] = {}
    self._used: dict[str, str] = {}

  def use(self, named: Sequence[str], at: str) -> None:
    """Notes the macros that a statement's value names."""
    self._used.update(dict.fromkeys(named, at))

  def define(self, name: str, named: Sequence[str], at: str) -> None:
    """Notes a macro; the last of a name is the one that counts."""
    self._defined[name] = (at, list(named))

  def check(self) -> None:
    """Makes sure that every macro is used, and that every used one is there and comes to an end."""
    for name, (at, _) in self._defined.items():
      if name in self.classes:
        first = dataclasses.fields(self.classes[name])[0].name
        raise InputError(f"{at}: {name} is no setting, but has some; name one of them, as in {name}.{first}")
      if name not in self._used:
        raise InputError(f"{at}: unknown name {name}, and no value uses it as a macro, %{name}{self._nearest(name)}")
    for name, at in self._used.items():
      if name not in self._defined:
        raise InputError(f"{at}: no macro %{name}{nearest(name, self._defined)}; define it, as in {name} = VALUE")
    try:
      order = list(graphlib.TopologicalSorter({name: named for name, (_, named) in self._defined.items()}).static_order())
    except graphlib.CycleError as error:
      circle = error.args[1]
      raise InputError(f"{self._defined[circle[0]][0]}: macros need each other in a circle "
                       f"({' of '.join(f'%{name}' for name in circle[:9])}); give one of them a value") from None
    sizes: dict[str, int] = {}
    for name in order:
      at, named = self._defined[name]
      sizes[name] = 1 + sum(sizes[other] for other in named)
      if sizes[name] > _MOST_MACROS:
        raise InputError(f"{at}: %{name} is made of more than {_MOST_MACROS} macros; write its value out")

  def _nearest(self, name: str) -> str:
    fields = [f"{owner}.{field.name}" for owner, cls in self.classes.items() for field in dataclasses.fields(cls)]
    same = [field for field in fields if field.partition(".")[2] == name]
    return f"; did you mean {' or '.join(same)}?" if same else nearest(name, (*self.classes, *fields, *self._used))


def _bind_files(names: Sequence[str], search: Sequence[str], macros: _Macros) -> None:
  search = [from_home(folder, "--gin_search_paths") for folder in search]
  for name in names:
    path = _find(name, search)
    _bind_text(_read(path), str(path), [*search, str(path.parent)], macros)


def _find(name: str, search: Sequence[str], where: str = "--gin_file") -> pathlib.Path:
  name = from_home(name, where)
  for folder in ("", *search):
    path = pathlib.Path(folder) / name
    if path.is_file():
      return path
    if path.is_dir():
      raise InputError(f"{where}: {path} is a folder; name a file in it")
  known = [str(p) for folder in (str(pathlib.Path(name).parent), *search) for p in pathlib.Path(folder).glob("*.gin")]
  raise InputError(f"{where}: no such file: {name}{nearest(name, known)}")


def _read(path: pathlib.Path) -> str:
  try:
    if path.stat().st_size > 1 << 20:
      raise InputError(f"{path}: {path.stat().st_size} bytes is too large for a gin file")
    return path.read_text(encoding="utf-8-sig")  # Windows' editors begin a file with a byte-order mark.
  except UnicodeDecodeError:
    with path.open("rb") as file:
      wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    raise InputError(f"{path}: is {'UTF-16' if wide else 'not UTF-8'} text; save it as UTF-8") from None
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _statements(text: str, where: str) -> Iterator[tuple[Any, list[str]]]:
  """The statements of a gin text, and the macros that each names. What the parser raises, at once or later, is one line."""
  delegate, parser = _MacrosOnly(), None
  try:
    parser = config_parser.ConfigParser(text, delegate)
    for statement in parser:
      named, delegate.named = delegate.named, []
      yield statement, named  # A block names all of its macros at its head.
  except Exception as error:  # SyntaxError, ValueError, and from Python 3.12 on a tokenizer's error of (reason, (line, column)).
    reason, *place = error.args if isinstance(error, tokenize.TokenError) else (getattr(error, "msg", None) or error,)
    line = place[0][0] if place else getattr(error, "lineno", None) or (parser and parser.current_token.start[0])
    lines = str(reason).strip().splitlines() or [type(error).__name__]
    raise InputError(f"{where}{f':{line}' if line else ''}: not a gin statement ({lines[0]})") from None


def _bind_text(text: str, where: str, search: Sequence[str], macros: _Macros, depth: int = 0) -> None:
  """Binds the statements of one gin text. Imports are refused: a config must not be able to run code."""
  classes = macros.classes
  for statement, named in _statements(text, where):
    at = f"{where}:{statement.location.line_num}" if where != "command line" else where
    macros.use(named, at)
    if isinstance(statement, config_parser.ImportStatement):
      raise InputError(f"{at}: import is not allowed in a config; every setting is already registered, so delete the line")
    if isinstance(statement, config_parser.IncludeStatement):
      if depth > 16:
        raise InputError(f"{at}: includes nest deeper than 16 files")
      path = _find(statement.filename, search, at)
      _bind_text(_read(path), str(path), [*search, str(path.parent)], macros, depth + 1)
      continue
    if statement.scope:
      raise InputError(f"{at}: {statement.scope}/{statement.selector}: there are no scopes here; write it without "
                       f"{statement.scope}/")
    selector = statement.selector.rsplit(".", 1)[-1]
    if isinstance(statement, config_parser.BlockDeclaration) or statement.arg_name:
      if selector not in classes or statement.selector not in (selector, f"jaxsplit.{selector}"):
        raise InputError(f"{at}: unknown name {statement.selector}{nearest(selector, classes)}")
      if isinstance(statement, config_parser.BlockDeclaration):
        continue
      fields = [f.name for f in dataclasses.fields(classes[selector])]
      if statement.arg_name not in fields:
        raise InputError(f"{at}: {selector} has no setting {statement.arg_name}{nearest(statement.arg_name, fields)}")
      key = ("", statement.selector, statement.arg_name)
    else:
      macros.define(statement.selector, named, at)
      key = (statement.selector, "gin.macro", "value")
    try:
      gin.bind_parameter(key, statement.value)
    except (ValueError, TypeError) as error:
      raise InputError(f"{at}: {str(error).splitlines()[0]}") from None


def _as_types(cls: type, bound: dict[str, Any]) -> dict[str, Any]:
  """Checks fields against their annotations and returns them with ints and lists turned into floats and tuples."""
  hints = typing.get_type_hints(cls)
  return {name: _as_type(hints[name], value, f"{cls.__name__}.{name}") for name, value in bound.items()}


def _as_type(hint: Any, value: Any, name: str) -> Any:
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    if value is None and type(None) in args:
      return None
    options = [a for a in args if a is not type(None)]
    for option in options:
      try:
        return _as_type(option, value, name)
      except InputError:
        if option is options[-1]:
          raise
  if origin is typing.Literal:
    if value not in args:
      raise InputError(f"{name} = {value!r}: must be one of {', '.join(map(str, args))}")
    return value
  if origin is tuple and args[-1] is Ellipsis:
    alone = not isinstance(value, (list, tuple)) or typing.get_origin(args[0]) is tuple and not any(
        isinstance(one, (list, tuple)) for one in value) and len(value) > 0
    return tuple(_as_type(args[0], v, name) for v in ([value] if alone else value))
  if origin is tuple and isinstance(value, (list, tuple)):
    if len(value) != len(args):
      raise InputError(f"{name} = {value!r}: needs {len(args)} values, as in {_example(hint)}")
    return tuple(_as_type(a, v, name) for a, v in zip(args, value))
  if hint is bool and not isinstance(value, bool) and str(value).strip().lower() in _BOOLEANS:
    return _BOOLEANS[str(value).strip().lower()]
  if hint is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 1023:
    return float(value)
  if hint is int and isinstance(value, float) and value.is_integer():
    return int(value)
  if hint is float and isinstance(value, float) and not math.isfinite(value):
    raise InputError(f"{name} = {value!r}: must be a finite number")
  if isinstance(hint, type) and isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
    return value
  kind = f"as in {_example(hint)}" if origin is tuple else getattr(hint, "__name__", str(hint).replace("typing.", ""))
  raise InputError(f"{name} = {value!r}: must be {'true or false' if hint is bool else kind}")


def _example(hint: Any) -> str:
  """How a value of this type is written."""
  if typing.get_origin(hint) is tuple:
    return f"({', '.join(_example(one) for one in typing.get_args(hint))})"
  return {int: "8", float: "0.5", str: "'a'"}.get(hint, "...")


def _is_boolean(cls: type, field: str) -> bool:
  return typing.get_type_hints(cls)[field] is bool


def _flag_value(cls: type, field: dataclasses.Field, text: str) -> Any:
  """A flag's text as the field's type; text that is no Python literal stands for itself."""
  hint = typing.get_type_hints(cls)[field.name]
  for candidate in (ast.literal_eval(text) if _is_gin_value(text) and not text.startswith(("@", "%")) else text, text):
    try:
      return _as_type(hint, candidate, f"--{field.name}")
    except InputError as error:
      problem = error
  raise problem


def _bindings_help(settings: Sequence[type]) -> str:
  """The list of bindings and defaults that `--help` ends with."""
  lines = ["bindings (gin files, or --gin.NAME=VALUE):"]
  for cls in settings:
    lines.append(f"\n  {cls.__name__}: {(cls.__doc__ or '').strip().splitlines()[0]}")
    for field in dataclasses.fields(cls):
      default = "required" if field.default is dataclasses.MISSING else repr(field.default)
      lines.append(f"    {cls.__name__}.{field.name} = {default}")
  return "\n".join(lines)
