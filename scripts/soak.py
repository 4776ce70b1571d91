"""Disturbs a small experiment in every way that machines do, and compares its end with that of an undisturbed run.

See scripts/soak.sh. Everything lies in one folder, which is temporary unless named with --folder.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parent.parent
RETRY, FAULT, INPUT = 75, 74, 2
FILES = ("cells.csv", "law.json", "plan.json")  # The last two where there is a law.


@dataclasses.dataclass
class Soak:
  """The folder, the command and what was found so far."""

  folder: pathlib.Path
  rng: random.Random
  devices: list[int]
  ends: float
  law: bool
  startup: float = 5.0
  rows: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
  failed: bool = False

  def start(self, workdir: pathlib.Path, devices: int, log: str = "log", more: tuple[str, ...] = ()) -> subprocess.Popen:
    command = [
        sys.executable, "-m", "jaxsplit.train", f"--workdir={workdir}", f"--gin.Corpus.path={self.folder / 'corpus'}",
        "--gin.Experiment.budget_tokens=12_000", "--gin.Experiment.target=(24, 1)", "--gin.Experiment.compare=(0.5, 1.0)",
        f"--gin.Experiment.sizes={'((8, 1), (16, 1), (16, 2))' if self.law else '()'}",
        "--gin.Experiment.validation_tokens=2048", "--gin.Experiment.expert_fractions=(0.2, 0.5)", "--gin.Probe.rates=(5e-3,)",
        "--gin.Architecture.head_dim=8", "--gin.Training.sequence_length=16", "--gin.Training.batch_sequences=2",
        "--gin.Training.save_every_steps=30", "--gin.Optimizer.warmup_tokens=320", f"--gin.Layout.devices={devices}",
        "--gin.FitSettings.bootstrap=40", "--gin.FitSettings.form=effective_data", *more]
    # Compiled programs are kept, so that a start takes seconds. They are the same programs.
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "XLA_FLAGS": "--xla_backend_optimization_level=0", "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(self.folder / "programs"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    with (self.folder / log).open("ab") as out:
      return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=ROOT)

  def finish(self, process: subprocess.Popen) -> int:
    """The exit code; what outlasts the soak is ended, by its id."""
    try:
      return process.wait(max(1.0, self.ends - time.monotonic()))
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()
      raise SystemExit("soak: out of time; raise --seconds") from None

  def note(self, fault: str, tried: str, good: bool, outcome: str) -> None:
    self.failed |= not good
    self.rows.append((fault, tried, outcome if good else f"FAILED: {outcome}"))
    print(f"{fault} | {tried} | {self.rows[-1][2]}", flush=True)

  def last_line(self, log: str) -> str:
    lines = [line for line in (self.folder / log).read_text(errors="replace").splitlines() if line.startswith("jaxsplit:")]
    return lines[-1] if lines else ""


def cells(path: pathlib.Path) -> dict[tuple, float]:
  with path.open() as f:
    return {tuple(row[name] for name in ("role", "params_total", "seed_tokens", "expert_tokens", "replica", "domain")): float(row["loss"])
            for row in csv.DictReader(f)}


def steps(path: pathlib.Path) -> list[tuple]:
  """(leg, step, losses) of every step in the file."""
  out = []
  with path.open() as f:
    for line in map(json.loads, f):
      out += [(line["leg"], line["first_step"] + i, tuple(losses)) for i, losses in enumerate(line["loss"])]
  return sorted(out)


def difference(clean: pathlib.Path, other: pathlib.Path, exact: bool) -> str:
  """What differs between two finished work directories; empty if nothing does."""
  if exact:
    for name in FILES:
      if (clean / name).exists() and (clean / name).read_bytes() != (other / name).read_bytes():
        return f"{name} differs"
  a, b = cells(clean / "cells.csv"), cells(other / "cells.csv")
  if a.keys() != b.keys():
    return "other cells"
  worst = max(abs(a[key] - b[key]) / a[key] for key in a)
  if worst > 1e-6:
    return f"losses differ by {worst:.1e}"
  a, b = steps(clean / "metrics.jsonl"), steps(other / "metrics.jsonl")
  if [row[:2] for row in a] != [row[:2] for row in b]:
    return f"metrics.jsonl has {len(b)} steps, {len(set(row[:2] for row in b))} of them distinct, instead of {len(a)}"
  return "metrics.jsonl differs" if exact and a != b else ""


def kills(soak: Soak, clean: pathlib.Path, number: signal.Signals, count: int) -> None:
  """Ends the experiment at `count` random moments, as often as it finishes starting another one."""
  done, finished, codes, wrong = 0, 0, {}, []
  measured = cells(clean / "cells.csv").keys()
  workdir = soak.folder / f"killed-{number.name}-0"
  while done < count or workdir.exists():
    process = soak.start(workdir, soak.rng.choice(soak.devices))
    if done < count:
      try:
        process.wait(soak.rng.uniform(0, 2.5 * soak.startup))
      except subprocess.TimeoutExpired:
        process.send_signal(number)
        done += 1
    code = soak.finish(process)
    codes[code] = codes.get(code, 0) + 1
    # A signal that comes before Python listens to it ends the process by itself; then nothing has begun.
    if code not in (0, RETRY, -number):
      wrong.append(f"exit code {code}: {soak.last_line('log')}")
      break
    if (workdir / "metrics.jsonl").exists() and any(left for left in workdir.glob("*.csv") if not cells(left).keys() <= measured):
      wrong.append("a cell that the undisturbed run has not")
    if code == 0:
      what = difference(clean, workdir, exact=soak.devices == [1])
      wrong += [what] if what else []
      finished += 1
      workdir = soak.folder / f"killed-{number.name}-{finished}"
  ended = ", ".join(f"{n} x {code}" for code, n in sorted(codes.items()))
  devices = "" if soak.devices == [1] else f" on {'/'.join(map(str, soak.devices))} devices in turn"
  soak.note(f"{number.name} at random moments{devices}", f"{done} times", not wrong,
            "; ".join(wrong) or f"{finished} experiments ended as the undisturbed one, to the "
                                f"{'bit' if soak.devices == [1] else '1e-6'} (exit codes: {ended})")


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
      "the store's file table": lambda w: w / "store" / "files.csv", "the store's times": lambda w: w / "store" / "times.json",
      "provenance.json": lambda w: w / "provenance.json", "sizes.json": lambda w: w / "sizes.json"}
  for what, find in targets.items():
    for how in (flip, truncate):
      workdir = soak.folder / "damaged"
      shutil.rmtree(workdir, ignore_errors=True)
      shutil.copytree(half, workdir)
      path = find(workdir)
      how(path, soak.rng)
      code = soak.finish(soak.start(workdir, 1, "damage.log"))
      # A damaged line of metrics belongs to a leg that is finished, maybe: then it stays out, saying so.
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


def growth(soak: Soak, clean: pathlib.Path, kills: int) -> None:
  """Asks the finished work directory for more, once undisturbed and once with processes that are killed."""
  more = ("--gin.Experiment.compare=(0.5, 0.9, 1.0)", *(["--gin.Experiment.seed_fractions=(0.25, 0.5, 0.6, 0.9)"] if soak.law else []))
  whole, cut = soak.folder / "grown", soak.folder / "grown-killed"
  for workdir in (whole, cut):
    shutil.copytree(clean, workdir)
  code = soak.finish(soak.start(whole, 1, "grown.log", more))
  before, after = steps(clean / "metrics.jsonl"), steps(whole / "metrics.jsonl")
  good = code == 0 and set(before) <= set(after) and cells(clean / "cells.csv").items() <= cells(whole / "cells.csv").items()
  soak.note("a finished work directory, asked for more", "once", good,
            f"trained {len(after) - len(before):,} steps besides the {len(before):,} that were there" if good else
            f"exit code {code}: {soak.last_line('grown.log')}")
  done = 0
  while True:
    process = soak.start(cut, 1, "grown-killed.log", more)
    if done < kills:
      try:
        process.wait(soak.rng.uniform(0, 2.5 * soak.startup))
      except subprocess.TimeoutExpired:
        process.kill()
        done += 1
    code = soak.finish(process)
    if code != -signal.SIGKILL:
      break
  what = difference(whole, cut, exact=True) if code == 0 else f"exit code {code}: {soak.last_line('grown-killed.log')}"
  soak.note("the same, SIGKILL at random moments", f"{done} times", not what, what or "ended as the undisturbed one")


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


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--kills", type=int, default=30)
  parser.add_argument("--signal", choices=("KILL", "TERM", "INT"), default="KILL")
  parser.add_argument("--devices", default="1", help="emulated CPU devices, a random one of them for each start")
  parser.add_argument("--faults", choices=("all", "none"), default="all", help="whether to try the other faults after the signals")
  parser.add_argument("--experiment", choices=("whole", "proof"), default="whole", help="with the grid and its law, or without")
  parser.add_argument("--seconds", type=float, default=3600, help="it gives up after this long")
  parser.add_argument("--folder", type=pathlib.Path, help="where to work; kept")
  parser.add_argument("--seed", type=int, default=0)
  args = parser.parse_args()
  folder = args.folder or pathlib.Path(tempfile.mkdtemp(prefix="soak."))
  folder.mkdir(parents=True, exist_ok=True)
  soak = Soak(folder.resolve(), random.Random(args.seed), [int(d) for d in args.devices.split(",")], time.monotonic() + args.seconds,
              args.experiment == "whole")
  sys.path.insert(0, str(ROOT / "tests"))
  from small import write_corpus
  if not (folder / "corpus").exists():
    (folder / "corpus").mkdir()
    write_corpus(folder / "corpus")
  clean, half = soak.folder / "clean", soak.folder / "half"
  try:
    for warm in (False, True):  # The second time, programs are compiled already: that is how long a start takes.
      shutil.rmtree(clean, ignore_errors=True)
      began = time.monotonic()
      process = soak.start(clean, 1)
      while process.poll() is None and not (clean / "metrics.jsonl").exists():
        time.sleep(0.02)
      soak.startup = time.monotonic() - began
      if soak.finish(process):
        raise SystemExit(f"soak: the undisturbed run failed; see {folder / 'log'}")
    print(f"undisturbed: {time.monotonic() - began:.0f} s, of which {soak.startup:.0f} s before the first step", flush=True)
    kills(soak, clean, signal.Signals[f"SIG{args.signal}"], args.kills)
    if args.faults == "all":
      process = soak.start(half, 1)
      while process.poll() is None and (not (half / "cells.csv").exists() or len(cells(half / "cells.csv")) < (24 if soak.law else 2)):
        time.sleep(0.02)
      process.kill()
      process.wait()
      damage(soak, clean, half)
      growth(soak, clean, kills=min(args.kills, 5))
      second_process(soak, clean)
      full_disk(soak, clean)
    print("\n| fault | tried | outcome |\n|---|---|---|")
    print("\n".join(f"| {' | '.join(row)} |" for row in soak.rows))
    return int(soak.failed)
  finally:
    if not args.folder:
      shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
  sys.exit(main())
