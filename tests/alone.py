"""A test file that is run as a program, in a process of its own: one that emulates eight devices, say."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

_TESTS = pathlib.Path(__file__).resolve().parent


def run_alone(file: str, folder: pathlib.Path) -> Any:
  """What `python FILE FOLDER` has written into seen.json in that folder."""
  path = os.pathsep.join(map(str, (_TESTS.parent, _TESTS)))
  done = subprocess.run([sys.executable, file, str(folder)], env=os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
                        cwd=_TESTS.parent, timeout=300, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
  return json.loads((folder / "seen.json").read_text())
