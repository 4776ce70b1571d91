"""A preparation that is killed again and again, and one on an engine, against one that nothing disturbs: the same bytes.

    python scripts/preparation.py --corpus=FOLDER [--kills=10] [--beam] [--tokenizer=FILE]

Kills the process and all that it has started (SIGKILL) at random moments of a preparation, until there were as many kills as
asked for; then lets it finish. With --beam, prepares it by Beam's DirectRunner too (needs the extra `beam`). Compares every file of
the stores but times.json, by its hash.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--corpus", required=True)
  parser.add_argument("--kills", type=int, default=10)
  parser.add_argument("--beam", action="store_true")
  parser.add_argument("--tokenizer", help="GPT-2 merges or a tokenizer.json; a BPE is learned without")
  parser.add_argument("--seed", type=int, default=0)
  flags = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    whole, took = prepared(flags, pathlib.Path(folder, "whole"))
    print(f"undisturbed: {took:.1f} s, {len(whole)} files", flush=True)
    store, draws, kills = pathlib.Path(folder, "killed"), random.Random(flags.seed), 0
    while kills < flags.kills:
      after = draws.uniform(0, 0.7 * took)  # What is left is less each time.
      if killed(flags, store, after):
        kills += 1
        parts = [path.name for path in (store.parent / f".{store.name}.parts").glob("*/*")]
        print(f"killed after {after:.1f} s, {len(parts)} parts are finished", flush=True)
      else:
        print("finished before it was killed; begins anew", flush=True)
        took = min(took, after)
        shutil.rmtree(store)
    print(report("killed", prepared(flags, store)[0], whole))
    if flags.beam:
      print(report("DirectRunner", prepared(flags, pathlib.Path(folder, "beam"), "--runner=DirectRunner")[0], whole))


def command(flags: argparse.Namespace, store: pathlib.Path, *more: str) -> list[str]:
  path = (f"--gin.Tokenization.path={flags.tokenizer}",) if flags.tokenizer else ()
  return [sys.executable, "-m", "jaxsplit.prepare", f"--store={store}", f"--gin.Corpus.path={flags.corpus}",
          "--gin.Tokenization.kind=bpe", *path, *more]


def prepared(flags: argparse.Namespace, store: pathlib.Path, *more: str) -> tuple[dict[str, str], float]:
  """The hashes of the files of a store that is prepared now, by their names, and the seconds that it took."""
  began = time.monotonic()
  subprocess.run(command(flags, store, *more), check=True, stdout=subprocess.DEVNULL)
  took = time.monotonic() - began
  return {str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(store.rglob("*"))
          if path.is_file() and path.name != "times.json"}, took


def killed(flags: argparse.Namespace, store: pathlib.Path, after: float) -> bool:
  """Whether a preparation was killed after so many seconds, and not finished before."""
  process = subprocess.Popen(command(flags, store), stdout=subprocess.DEVNULL, start_new_session=True)
  try:
    process.wait(after)
    return False
  except subprocess.TimeoutExpired:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def report(what: str, found: dict[str, str], whole: dict[str, str]) -> str:
  differ = sorted(name for name in {*found, *whole} if found.get(name) != whole.get(name))
  return f"{what}: {'other: ' + ', '.join(differ) if differ else f'all {len(whole)} files are the same'}"


if __name__ == "__main__":
  main()
