"""What an experiment can be given besides a corpus that stays as it is: more to measure, a store that was made before, a corpus
that has moved or changed."""

from __future__ import annotations

import pathlib
import shutil
import signal
import subprocess
import time

from faults import flip, truncate
from runs import INPUT, Soak, cells, difference, kills, steps

_MORE_SPLITS = "--gin.Experiment.compare=(0.5, 0.75, 1.0)"
_MORE_GRID = ("--gin.Experiment.sizes=((8, 1), (16, 1), (16, 2), (8, 2))", "--gin.Experiment.seed_fractions=(0.25, 0.5, 0.6, 0.9)")


def growth(soak: Soak, clean: pathlib.Path, count: int) -> None:
  """Asks a finished work directory for more, once undisturbed, then killed again and again."""
  more = (_MORE_SPLITS, *(_MORE_GRID if soak.law else ()))
  grown = soak.folder / "grown"
  shutil.copytree(clean, grown)
  code = soak.finish(soak.start(grown, log="grown.log", more=more))
  were, are = (steps(path / "metrics.jsonl") for path in (clean, grown))
  good = code == 0 and set(were) <= set(are) and cells(clean / "cells.csv").items() < cells(grown / "cells.csv").items()
  soak.note("a finished work directory, asked for more", "once", good,
            f"trained {len(are) - len(were):,} steps besides the {len(were):,} that were there, whose cells stay" if good else
            f"exit code {code}: {soak.last_line('grown.log')}")
  if good:
    kills(soak, grown, signal.SIGKILL, count, growing=clean, more=more)


def store_by_path(soak: Soak, clean: pathlib.Path) -> None:
  """Makes a store in spite of kills, and trains on it, on another in its place, on it damaged and on it restored."""
  corpus, store, foreign = f"--gin.Corpus.path={soak.folder / 'corpus'}", soak.folder / "store", soak.folder / "foreign"
  began = time.monotonic()
  soak.finish(soak.launch("prepare", [corpus, f"--store={foreign}", "--gin.Corpus.domains=('latin',)"], "store.log"))
  seconds, killed = time.monotonic() - began, 0
  while killed < 8:
    if (store / "manifest.json").exists():
      shutil.rmtree(store)
    process = soak.launch("prepare", [corpus, f"--store={store}"], "store.log")
    try:
      process.wait(soak.rng.uniform(0, seconds))
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()
      killed += 1
  code = soak.finish(soak.launch("prepare", [corpus, f"--store={store}"], "store.log"))
  same = code == 0 and all((store / path.name).read_bytes() == path.read_bytes()
                           for path in [*(clean / "store").glob("*.bin"), clean / "store/manifest.json"])
  soak.note("SIGKILL while a store is made", f"{killed} times", same,
            "the store that the undisturbed run made" if same else f"another, or none: {soak.last_line('store.log')}")
  workdir, log = soak.folder / "by-store", "by-store.log"
  train = lambda path: soak.finish(soak.start(workdir, log=log, data=f"--store={path}"))

  def ends_as_clean(fault: str, tried: str) -> None:
    code = train(store)
    lost = difference(clean, workdir, exact=True) if code == 0 else f"exit code {code}: {soak.last_line(log)}"
    soak.note(fault, tried, not lost, lost or "ended as the undisturbed one")

  def is_refused(fault: str, tried: str, path: pathlib.Path, says: str) -> None:
    code, said = train(path), soak.last_line(log)
    soak.note(fault, tried, code == INPUT and says in said, f"exit code {code}: {said.replace(str(soak.folder), '')}")

  ends_as_clean("trained on a store by its path", "once")
  is_refused("another store in its place", "one of fewer domains", foreign, "another experiment")
  for how in (flip, truncate):
    for path in (next(store.glob("*.train.bin")), store / "manifest.json"):
      right = path.read_bytes()
      how(path, soak.rng)
      is_refused(f"{'bit flipped in' if how is flip else 'truncated:'} the store that is named", path.name, store, "")
      path.write_bytes(right)
  ends_as_clean("the store restored", "the same command")


def corpus_that_moves(soak: Soak, clean: pathlib.Path, half: pathlib.Path) -> None:
  """Gives a half-finished experiment its corpus elsewhere, then with files that are not read, then changed, then restored."""
  moved, workdir, log = soak.folder / "moved", soak.folder / "corpus-moved", "moved.log"
  shutil.copytree(soak.folder / "corpus", moved)
  shutil.copytree(half, workdir)
  train = lambda: soak.finish(soak.start(workdir, log=log, data=f"--gin.Corpus.path={moved}"))
  document, right = moved / "numbers.jsonl", (moved / "numbers.jsonl").read_bytes()
  document.write_bytes(right.replace(b"1", b"2", 1))
  code, said = train(), soak.last_line(log)
  soak.note("a document of the corpus changed", "one digit", code == INPUT and "corpus" in said,
            f"exit code {code}: {said.replace(str(soak.folder), '')}")
  document.write_bytes(right)
  for name in ("README.md", "latin/.notes.txt", "latin/table.csv"):
    (moved / name).write_text("No text of the corpus.")
  code = train()
  lost = difference(clean, workdir, exact=True) if code == 0 else f"exit code {code}: {soak.last_line(log)}"
  soak.note("the corpus restored, elsewhere, with files that are not read", "the same command", not lost,
            lost or "ended as the undisturbed one")
