"""What --help says of the settings: every binding, its default, and what it means, from the dataclasses' docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Sequence

_WIDTH = 110


def bindings_help(settings: Sequence[type]) -> str:
  """The list of bindings that `--help` ends with."""
  lines = ["bindings (in a gin file, or as --gin.NAME=VALUE), their defaults, and what they mean:"]
  for cls in settings:
    first, said = (inspect.getdoc(cls) or "").partition("\n")[0], meanings(cls)
    lines += ["", *textwrap.wrap(f"{cls.__name__}: {first}", _WIDTH, initial_indent="  ", subsequent_indent="    ")]
    for field in dataclasses.fields(cls):
      default = "required" if field.default is dataclasses.MISSING else repr(field.default)
      lines.append(f"    {cls.__name__}.{field.name} = {default}")
      lines += textwrap.wrap(said[field.name], _WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
  return "\n".join(lines)


def meanings(cls: type) -> dict[str, str]:
  """What the section "Attributes:" of a dataclass's docstring says of each field; several may share an entry, as in `a, b: ..`."""
  section = re.search(r"^Attributes:\n((?:  .*\n?|\n)*)", inspect.getdoc(cls) or "", re.MULTILINE)
  entries = re.findall(r"^  (\w+(?:, \w+)*): (.*(?:\n    .*)*)", section[1] if section else "", re.MULTILINE)
  said = {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}
  return {field.name: said.get(field.name, "") for field in dataclasses.fields(cls)}
