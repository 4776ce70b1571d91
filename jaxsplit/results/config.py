"""config.json: every setting of an experiment, by dataclass and field."""

from __future__ import annotations

import pathlib
from typing import Any

from jaxsplit.errors import InputError
from jaxsplit.files import read_json

FILE = "config.json"


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
  """The settings of the experiment in a work directory.

  Raises:
    InputError: they are missing or damaged, so that nobody knows what the results beside them are of.
  """
  try:
    return read_json(workdir / FILE)
  except InputError as error:
    raise InputError(f"{error}; it held the settings of the results beside it: restore it, or name another work directory") from None
