"""What gin texts bind: files, the files they include, and --gin flags, with the macros that their values name.

gin's parser reads the texts. Its registry is left out: there a config imports modules and calls functions, and a macro that is
missing, or that needs itself, ends without its line (tests/test_cli.py).
"""

from __future__ import annotations

import codecs
import dataclasses
import graphlib
import pathlib
import tokenize
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gin import config_parser

from jaxsplit.cli.values import is_literal
from jaxsplit.errors import InputError, nearest
from jaxsplit.files import from_home

_COMMAND_LINE = "command line"
_LARGEST = 1 << 20  # Bytes of a gin file.
_DEEPEST = 16  # Files that include each other.
_MOST_MACROS = 64  # That one macro's value may be made of: macros of macros could else grow without bound.


@dataclasses.dataclass(frozen=True)
class _Macro:
  """Where a value names a macro."""

  name: str


class _Values(config_parser.ParserDelegate):
  """Values may name macros; functions and classes, as in @NAME, are refused: a config must not be able to run code."""

  def configurable_reference(self, scoped_selector: str, evaluate: bool) -> typing.NoReturn:
    raise ValueError(f"@{scoped_selector} names code, which a config cannot run; give a value, or a macro as %NAME")

  def macro(self, name: str) -> _Macro:
    return _Macro(name)


class Bindings:
  """The bindings of settings classes by the texts that were read: of each name, the last counts."""

  def __init__(self, settings: Sequence[type]):
    self._classes = {cls.__name__: cls for cls in settings}
    self._bound: dict[type, dict[str, tuple[Any, str]]] = {cls: {} for cls in settings}
    self._macros: dict[str, tuple[Any, str]] = {}
    self._used: dict[str, str] = {}

  def read_file(self, name: str, search: Sequence[str], where: str = "--gin_file", depth: int = 0) -> None:
    """Reads a file, and those that it includes.

    Args:
      name: its path, from here, from one of the folders `search`, or from the configs that come with jaxsplit.
      where: what names it, for messages.
      depth: how many files include it.
    """
    path = _find(name, search, where)
    self._read(_text(path), str(path), [*search, str(path.parent)], depth)

  def read_flags(self, flags: Sequence[tuple[str, str]]) -> None:
    """Reads (name, value) of --gin flags; a value that is none of gin's stands for its text."""
    as_is = lambda value: value.startswith(("@", "%")) or is_literal(value)
    lines = [f"{name} = {value if as_is(value) else repr(value)}" for name, value in flags]
    self._read("\n".join(lines), _COMMAND_LINE, (), 0)

  def values(self) -> dict[type, dict[str, tuple[Any, str]]]:
    """Of every class, the fields that are bound: name -> (value, where). Where is `Class.field`, after the line of a file."""
    macros = self._expanded()
    where = lambda cls, field, at: f"{'' if at == _COMMAND_LINE else f'{at}: '}{cls.__name__}.{field}"
    return {cls: {field: (_without_macros(value, macros), where(cls, field, at)) for field, (value, at) in bound.items()}
            for cls, bound in self._bound.items()}

  def _read(self, text: str, where: str, search: Sequence[str], depth: int) -> None:
    for statement in _statements(text, where):
      at = f"{where}:{statement.location.line_num}" if where != _COMMAND_LINE else where
      if isinstance(statement, config_parser.ImportStatement):
        raise InputError(f"{at}: import is not allowed in a config; every setting is already registered, so delete the line")
      if isinstance(statement, config_parser.IncludeStatement):
        if depth > _DEEPEST:
          raise InputError(f"{at}: includes nest deeper than {_DEEPEST} files")
        self.read_file(statement.filename, search, at, depth + 1)
        continue
      if statement.scope:
        raise InputError(f"{at}: {statement.scope}/{statement.selector}: there are no scopes here; write it without "
                         f"{statement.scope}/")
      self._bind(statement, at)

  def _bind(self, statement: config_parser.BindingStatement | config_parser.BlockDeclaration, at: str) -> None:
    selector, is_block = statement.selector, isinstance(statement, config_parser.BlockDeclaration)
    if not is_block:
      self._used.update(dict.fromkeys(_named(statement.value), at))
      if not statement.arg_name:
        self._macros[selector] = (statement.value, at)
        return
    cls = self._classes.get(selector.removeprefix("jaxsplit."))
    if cls is None:
      raise InputError(f"{at}: unknown name {selector}{nearest(selector.rsplit('.', 1)[-1], self._classes)}")
    if not is_block:
      fields = [field.name for field in dataclasses.fields(cls)]
      if statement.arg_name not in fields:
        raise InputError(f"{at}: {cls.__name__} has no setting {statement.arg_name}{nearest(statement.arg_name, fields)}")
      self._bound[cls][statement.arg_name] = (statement.value, at)

  def _expanded(self) -> dict[str, Any]:
    """Every macro's value, without macros. Each must be used, and every used one be there and come to an end."""
    for name, (_, at) in self._macros.items():
      if name in self._classes:
        first = dataclasses.fields(self._classes[name])[0].name
        raise InputError(f"{at}: {name} is no setting, but has some; name one of them, as in {name}.{first}")
      if name not in self._used:
        raise InputError(f"{at}: unknown name {name}, and no value uses it as a macro, %{name}{self._nearest(name)}")
    for name, at in self._used.items():
      if name not in self._macros:
        raise InputError(f"{at}: no macro %{name}{nearest(name, self._macros)}; define it, as in {name} = VALUE")
    needs = {name: list(_named(value)) for name, (value, _) in self._macros.items()}
    try:
      order = list(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError as error:
      circle = error.args[1]
      raise InputError(f"{self._macros[circle[0]][1]}: macros need each other in a circle "
                       f"({' of '.join(f'%{name}' for name in circle[:9])}); give one of them a value") from None
    expanded: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for name in order:
      value, at = self._macros[name]
      sizes[name] = 1 + sum(sizes[other] for other in needs[name])
      if sizes[name] > _MOST_MACROS:
        raise InputError(f"{at}: %{name} is made of more than {_MOST_MACROS} macros; write its value out")
      expanded[name] = _without_macros(value, expanded)
    return expanded

  def _nearest(self, name: str) -> str:
    fields = [f"{owner}.{field.name}" for owner, cls in self._classes.items() for field in dataclasses.fields(cls)]
    same = [field for field in fields if field.partition(".")[2] == name]
    return f"; did you mean {' or '.join(same)}?" if same else nearest(name, (*self._classes, *fields, *self._used))


def _statements(text: str, where: str) -> Iterator[Any]:
  """The statements of a gin text. What the parser raises, at once or later, is one line."""
  parser = None
  try:
    parser = config_parser.ConfigParser(text, _Values())
    yield from parser
  except Exception as error:  # SyntaxError, ValueError, and from Python 3.12 on a tokenizer's error of (reason, (line, column)).
    reason, *place = error.args if isinstance(error, tokenize.TokenError) else (getattr(error, "msg", None) or error,)
    line = place[0][0] if place else getattr(error, "lineno", None) or (parser and parser.current_token.start[0])
    lines = str(reason).strip().splitlines() or [type(error).__name__]
    raise InputError(f"{where}{f':{line}' if line else ''}: not a gin statement ({lines[0]})") from None


def _named(value: Any) -> Iterator[str]:
  """The macros that a value names."""
  if isinstance(value, _Macro):
    yield value.name
  elif isinstance(value, (list, tuple)):
    for one in value:
      yield from _named(one)


def _without_macros(value: Any, macros: Mapping[str, Any]) -> Any:
  if isinstance(value, (list, tuple)):
    return type(value)(_without_macros(one, macros) for one in value)
  return macros[value.name] if isinstance(value, _Macro) else value


def shipped_configs() -> pathlib.Path:
  """The folder of the configs that come with jaxsplit: within the package where a wheel was installed, beside it in a checkout."""
  package = pathlib.Path(__file__).resolve().parents[1]
  return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def _find(name: str, search: Sequence[str], where: str) -> pathlib.Path:
  """A config's file: from here, from the folders of `search`, or, with or without configs/ before its name, one that is shipped."""
  name, shipped = from_home(name, where), shipped_configs()
  for path in (*(pathlib.Path(folder) / name for folder in ("", *search)), shipped / name.removeprefix("configs/")):
    if path.is_file():
      return path
    if path.is_dir():
      raise InputError(f"{where}: {path} is a folder; name a file in it")
  known = [str(p) for folder in (str(pathlib.Path(name).parent), *search) for p in pathlib.Path(folder).glob("*.gin")]
  known += [path.relative_to(shipped).as_posix() for path in shipped.rglob("*.gin")]
  raise InputError(f"{where}: no such file: {name}{nearest(name, known)}")


def _text(path: pathlib.Path) -> str:
  try:
    if path.stat().st_size > _LARGEST:
      raise InputError(f"{path}: {path.stat().st_size} bytes is too large for a gin file")
    return path.read_text(encoding="utf-8-sig")  # Windows' editors begin a file with a byte-order mark.
  except UnicodeDecodeError:
    with path.open("rb") as file:
      wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    raise InputError(f"{path}: is {'UTF-16' if wide else 'not UTF-8'} text; save it as UTF-8") from None
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror})") from None
