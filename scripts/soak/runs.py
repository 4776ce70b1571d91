"""The experiment that is disturbed, and how its end is compared with that of an undisturbed run."""

from __future__ import annotations

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
import time
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]
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

  def start(self, workdir: pathlib.Path, devices: int = 1, log: str = "log", data: str = "",
            more: Sequence[str] = ()) -> subprocess.Popen:
    """Starts the experiment on `data`, a flag, by default of the corpus; `more` flags win."""
    return self.launch("train", [
        f"--workdir={workdir}", data or f"--gin.Corpus.path={self.folder / 'corpus'}",
        "--gin.Experiment.budget_tokens=12_000", "--gin.Experiment.target=(24, 1)", "--gin.Experiment.compare=(0.5, 1.0)",
        f"--gin.Experiment.sizes={'((8, 1), (16, 1), (16, 2))' if self.law else '()'}",
        "--gin.Experiment.validation_tokens=2048", "--gin.Experiment.seed_fractions=(0.25, 0.5, 0.9)",
        "--gin.Experiment.expert_fractions=(0.2, 0.5)", "--gin.Probe.rates=(5e-3,)",
        "--gin.Architecture.head_dim=8", "--gin.Training.sequence_length=16", "--gin.Training.batch_sequences=2",
        "--gin.Training.save_every_steps=30", "--gin.Optimizer.warmup_tokens=320", f"--gin.Layout.devices={devices}",
        "--gin.FitSettings.bootstrap=40", "--gin.FitSettings.form=effective_data", *more], log)

  def launch(self, entry: str, flags: Sequence[str], log: str) -> subprocess.Popen:
    """Starts an entry point, whose output goes to the end of `log`."""
    command = [sys.executable, "-m", f"jaxsplit.{entry}", *flags]
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
  """(stage, step, losses) of every step in the file."""
  out = []
  with path.open() as f:
    for line in map(json.loads, f):
      out += [(line["stage"], line["first_step"] + i, tuple(losses)) for i, losses in enumerate(line["loss"])]
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


def kills(soak: Soak, clean: pathlib.Path, number: signal.Signals, count: int, growing: pathlib.Path | None = None,
          more: Sequence[str] = ()) -> None:
  """Ends the experiment at `count` random moments, as often as it finishes starting another one.

  Args:
    clean: what an undisturbed one ends as.
    growing: what it begins as, where that is not nothing, and grows from by the flags `more`.
  """
  done, finished, codes, wrong = 0, 0, {}, []
  measured = cells(clean / "cells.csv").keys()
  what = f"{number.name} at random moments{' while growing' if growing else ''}"
  folder = lambda: soak.folder / f"{'grown' if growing else 'killed'}-{number.name}-{finished}"
  while done < count or folder().exists():
    workdir = folder()
    if growing and not workdir.exists():
      shutil.copytree(growing, workdir)
    process = soak.start(workdir, soak.rng.choice(soak.devices), more=more)
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
      lost = difference(clean, workdir, exact=soak.devices == [1])
      wrong += [lost] if lost else []
      finished += 1
  ended = ", ".join(f"{n} x {code}" for code, n in sorted(codes.items()))
  devices = "" if soak.devices == [1] else f" on {'/'.join(map(str, soak.devices))} devices in turn"
  soak.note(f"{what}{devices}", f"{done} times", not wrong,
            "; ".join(wrong) or f"{finished} experiments ended as the undisturbed one, to the "
                                f"{'bit' if soak.devices == [1] else '1e-6'} (exit codes: {ended})")
