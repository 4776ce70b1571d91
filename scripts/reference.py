"""Writes two pages from the code: docs/reference.md, every flag of every entry point and every binding of every setting; and
docs/map.md, the purpose of every file.

    python scripts/reference.py            writes them
    python scripts/reference.py --check    checks that they are up to date; exit code 1 if not
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pathlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from jaxsplit import cli
from jaxsplit.cli.help import meanings

ROOT = pathlib.Path(__file__).resolve().parents[1]
_COMMON = [
    ("gin_file=FILE", "a gin config: a file, or the name of one that comes with jaxsplit, as in `quickstart.gin`; repeatable, later ones "
                      "win"),
    ("gin_search_paths=DIR", "a folder to search for gin files and their includes; repeatable"),
    ("gin.NAME=VALUE", "one binding of the settings below, as in `--gin.Probe.rates=\"(4e-3, 8e-3)\"`; wins over files"),
    ("extension=FILE", "your Python file, run first, which may add model families, optimizers, readers, forms of the law and the "
                       "like ([extending.md](extending.md)); repeatable"),
    ("help", "the flags and bindings of one entry point"),
    ("version", "the version of jaxsplit"),
]


class _Asked(BaseException):
  """Carries the arguments of an entry point's `cli.parse`, instead of parsing."""


def entry_points() -> list[str]:
  """Names of the modules that are run as `python -m jaxsplit.NAME`."""
  package = ROOT / "jaxsplit"
  modules = [*package.glob("*.py"), *package.glob("*/__main__.py")]
  found = [path for path in modules if re.search(r"^  cli\.run\(main\b", path.read_text(), re.MULTILINE)]
  return sorted(path.parent.name if path.stem == "__main__" else path.stem for path in found)


def asked(name: str) -> dict[str, Any]:
  """The arguments with which an entry point calls `cli.parse`."""
  package = (ROOT / "jaxsplit" / name).is_dir()
  module = importlib.import_module(f"jaxsplit.{name}.__main__" if package else f"jaxsplit.{name}")
  real, signature = cli.parse, inspect.signature(cli.parse)

  def ask(*args: Any, **kwargs: Any) -> None:
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    raise _Asked(bound.arguments)

  cli.parse = ask
  try:
    module.main([])
  except _Asked as answer:
    return answer.args[0]
  finally:
    cli.parse = real
  raise AssertionError(f"jaxsplit.{name} does not ask for its flags by cli.parse")


def reference() -> str:
  """The text of docs/reference.md."""
  names = entry_points()
  interfaces = {name: asked(name) for name in names}
  settings = dict.fromkeys(cls for interface in interfaces.values() for cls in interface["settings"])
  lines = ["# Reference", "", "Every flag and every binding, as the code has them: written by `scripts/reference.py`, checked by a test.",
           "Numbers may have underscores (`20_000_000`); of a flag that is true or false, the name alone means true.", "",
           "## Flags of every entry point", "", *_table(("flag", "meaning"), (
               (f"`--{name}`", text) for name, text in _COMMON)), ""]
  for name in names:
    lines += [f"## python -m jaxsplit.{name}", "", *_entry_point(name, interfaces[name]), ""]
  lines += ["## Bindings", "", "In a gin file `NAME = VALUE`, on the command line `--gin.NAME=VALUE`; in Python, arguments of the "
            "dataclass of that name.", ""]
  for cls in settings:
    takers = [f"`{name}`" for name in names if cls in interfaces[name]["settings"]]
    first = (inspect.getdoc(cls) or "").partition("\n\n")[0]
    said = meanings(cls)
    lines += [f"### {cls.__name__}", "", f"{_words(first)} Taken by {', '.join(takers)}.", "", *_table(("binding", "default", "meaning"), (
        (f"`{cls.__name__}.{field.name}`", f"`{_default(field)}`", said[field.name]) for field in dataclasses.fields(cls))), ""]
  return "\n".join(lines).rstrip() + "\n"


def files() -> str:
  """The text of docs/map.md."""
  package = ROOT / "jaxsplit"
  rooms = [package, *(package / name for name in re.findall(r"^\| `(\w+)/`", (ROOT / "docs" / "design.md").read_text(), re.MULTILINE))]
  lines = ["# Map of the code", "", "Every file and its purpose, as its first line has it: written by `scripts/reference.py`, checked by a "
           "test. What the rooms are, and how they lean on each other: [design.md](design.md).", ""]
  for room in rooms:
    paths = sorted(room.glob("*.py") if room == package else room.rglob("*.py"))
    said = ((f"`{path.relative_to(room)}`", _purpose(path)) for path in paths if path.name != "__init__.py")
    title = "jaxsplit/" if room == package else f"jaxsplit/{room.name}/"
    lines += [f"## {title}", "", _purpose(room / "__init__.py"), "", *_table(("file", "purpose"), said), ""]
  return "\n".join(lines).rstrip() + "\n"


def _purpose(path: pathlib.Path) -> str:
  """The first paragraph of a file's docstring, without the commands in it."""
  first = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0]
  return first.partition("\n    ")[0].rstrip(":")


PAGES = {"reference.md": reference, "map.md": files}


def _entry_point(name: str, interface: dict[str, Any]) -> Iterator[str]:
  flags, switches = interface["flags"] or {}, interface["switches"] or {}
  first = re.split(r"\n\n|: python -m", interface["description"].strip())[0]
  yield _words(first).rstrip(".:") + "."
  yield ""
  rows = [(f"`--{flag}=`", text) for flag, text in flags.items()] + [(f"`--{flag}`", text) for flag, text in switches.items()]
  yield from _table(("flag", "meaning"), rows)
  if interface["fields_as_flags"]:
    plain = [f"`--{field.name}`" for cls in interface["settings"] for field in dataclasses.fields(cls) if field.name not in flags]
    yield ""
    yield f"As plain flags too: {', '.join(plain)}, each the binding of that name."
  if interface["settings"]:
    yield ""
    yield f"Bindings of {', '.join(f'[{cls.__name__}](#{cls.__name__.lower()})' for cls in interface['settings'])}."


def _table(header: tuple[str, ...], rows: Any) -> Iterator[str]:
  yield f"| {' | '.join(header)} |"
  yield f"|{'---|' * len(header)}"
  for row in rows:
    yield f"| {' | '.join(_words(text).replace('|', chr(92) + '|') for text in row)} |"


def _words(text: str) -> str:
  """On one line, with what Markdown would take for HTML written out."""
  text = " ".join(str(text).split())
  return text if text.startswith("`") else re.sub(r"<(?=\w)", "&lt;", text)


def _default(field: dataclasses.Field) -> str:
  return "required" if field.default is dataclasses.MISSING else repr(field.default)


def main(argv: list[str], show: Callable[[str], None] = print) -> int:
  stale = False
  for name, make in PAGES.items():
    path, text = ROOT / "docs" / name, make()
    if "--check" not in argv:
      path.write_text(text)
      show(f"docs/{name}: {len(text.splitlines())} lines")
    elif not path.exists() or path.read_text() != text:
      stale = True
      show(f"docs/{name}: not as the code has it; run python scripts/reference.py")
  return int(stale)


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
