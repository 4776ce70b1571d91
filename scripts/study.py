"""What studies of many worlds have in common: their flags, and a file of worlds that they go on from."""

from __future__ import annotations

import argparse
import json
import pathlib
import time
from typing import Any


class Study:
  """A study that goes on where it stopped: one line of JSON a world, so that several processes may share a file, each with its part.

  Args:
    parser: takes a study's own flags; --worlds, --minutes, --part and --out are added.
    worlds: how many, unless --worlds says otherwise.
    each: what that is counted per.
  """

  def __init__(self, parser: argparse.ArgumentParser, worlds: int, each: str = "in all"):
    parser.add_argument("--worlds", type=int, default=worlds, help=each)
    parser.add_argument("--minutes", type=float, default=60, help="start no world later than this")
    parser.add_argument("--part", default="0/1", help="which part of the worlds: 1/2 is the second half")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="resumed where it is there")
    self.flags = parser.parse_args()
    part, parts = map(int, self.flags.part.split("/"))
    self.numbers = range(part, self.flags.worlds, parts)
    self._end = time.monotonic() + 60 * self.flags.minutes

  @property
  def over(self) -> bool:
    """Whether its time has passed."""
    return time.monotonic() > self._end

  def records(self) -> list[dict[str, Any]]:
    """The worlds so far."""
    return [json.loads(line) for line in self.flags.out.read_text().splitlines()] if self.flags.out.exists() else []

  def add(self, record: dict[str, Any]) -> None:
    """Writes a world that is done."""
    with open(self.flags.out, "a") as f:
      f.write(json.dumps(record) + "\n")
