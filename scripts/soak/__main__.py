"""Disturbs a small experiment in every way that machines and people do, and compares its end with that of an undisturbed run.

See scripts/soak.sh. Everything lies in one folder, which is temporary unless named with --folder.
"""

from __future__ import annotations

import argparse
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

from entry_points import corpus_that_moves, growth, store_by_path
from faults import damage, full_disk, second_process
from runs import ROOT, Soak, cells, kills


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--kills", type=int, default=30, help="and a third as many while it grows")
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
    for _ in range(2):  # The second time, programs are compiled already: that is how long a start takes.
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
      growth(soak, clean, args.kills // 3)
      store_by_path(soak, clean)
      corpus_that_moves(soak, clean, half)
      damage(soak, clean, half)
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
