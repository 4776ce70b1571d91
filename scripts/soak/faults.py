"""Faults of files and disks: damage, a disk that is full, and a second process in the work directory."""

from __future__ import annotations

import pathlib
import random
import shutil
import subprocess
import time
from collections.abc import Callable

from runs import FAULT, INPUT, Soak, difference


def flip(path: pathlib.Path, rng: random.Random) -> None:
  data = bytearray(path.read_bytes())
  data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
  path.write_bytes(data)


def truncate(path: pathlib.Path, rng: random.Random) -> None:
  path.write_bytes(path.read_bytes()[:rng.randrange(path.stat().st_size)])


def damage(soak: Soak, clean: pathlib.Path, half: pathlib.Path) -> None:
  """Damages one file of a half-finished work directory at a time, and lets it finish."""
  def snapshot(workdir):
    return soak.rng.choice([f for f in (workdir / "checkpoints").rglob("*") if f.is_file() and f.stat().st_size])

  targets: dict[str, Callable] = {
      "a snapshot": snapshot, "cells.csv": lambda w: w / "cells.csv", "metrics.jsonl": lambda w: w / "metrics.jsonl",
      "a token file": lambda w: next((w / "store").glob("*.train.bin")), "the store's manifest": lambda w: w / "store" / "manifest.json",
      "provenance.json": lambda w: w / "provenance.json", "sizes.json": lambda w: w / "sizes.json"}
  for what, find in targets.items():
    for how in (flip, truncate):
      workdir = soak.folder / "damaged"
      shutil.rmtree(workdir, ignore_errors=True)
      shutil.copytree(half, workdir)
      path = find(workdir)
      how(path, soak.rng)
      code = soak.finish(soak.start(workdir, 1, "damage.log"))
      # A damaged line of metrics belongs to a stage that is finished, maybe: then it stays out, saying so.
      lost = difference(clean, workdir, exact=True) if code == 0 else f"exit code {code}: {soak.last_line('damage.log')}"
      good = not lost or (what == "metrics.jsonl" and lost.startswith("metrics.jsonl"))
      soak.note(f"{'bit flipped in' if how is flip else 'truncated:'} {what}", path.relative_to(workdir).as_posix(), good,
                lost or "found, mended, ended as the undisturbed one")


def full_disk(soak: Soak, clean: pathlib.Path) -> None:
  """A work directory on a disk that is too small at first."""
  disk = soak.folder / "disk"
  disk.mkdir()
  mount = lambda *options: subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(disk)], capture_output=True).returncode == 0
  if not mount("-o", "size=700k"):
    soak.note("full disk", "not tried: needs the right to mount a tmpfs", True, "-")
    return
  try:
    code = soak.finish(soak.start(disk / "w", 1, "disk.log"))
    said = soak.last_line("disk.log")
    good = code == FAULT and "No space left on device" in said
    soak.note("disk full", "a tmpfs of 700 kB", good, f"exit code {code}: {said.replace(str(soak.folder), '')}")
    mount("-o", "remount,size=200m")
    code = soak.finish(soak.start(disk / "w", 1, "disk.log"))
    what = difference(clean, disk / "w", exact=True) if code == 0 else f"exit code {code}: {soak.last_line('disk.log')}"
    soak.note("room again", "the same command", not what, what or "ended as the undisturbed one")
  finally:
    subprocess.run(["umount", str(disk)], check=False)


def second_process(soak: Soak, clean: pathlib.Path) -> None:
  workdir = soak.folder / "shared"
  first = soak.start(workdir, 1, "first.log")
  while not (workdir / "config.json").exists() and first.poll() is None:
    time.sleep(0.05)
  code = soak.finish(soak.start(workdir, 1, "second.log"))
  said = soak.last_line("second.log")
  ended = soak.finish(first)
  what = difference(clean, workdir, exact=True)
  soak.note("two processes in one work directory", "once", code == INPUT and "in use" in said and ended == 0 and not what,
            f"the second is refused (exit code {code}), the first ends as the undisturbed one" if not what else what)
