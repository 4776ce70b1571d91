"""What preparing and reading text costs: tokenization, shuffled windows, memory.

    python scripts/bench/data.py --corpus=../shared/data/corpora --merges=../shared/data/tokenizers/gpt2_merges.vocab.bpe
    python scripts/bench/data.py ... --gigabytes=1      and the peak memory of preparing as much, in documents of 500 bytes

Rates are of processor time, so that other jobs on the machine change them little. Peak memory is that of all processes of the
preparation together, pages that they share counted once (PSS), looked at twice a second.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import tracemalloc

os.environ["RAYON_NUM_THREADS"] = "1"  # Of the tokenizer's library: rates are a core's.

import numpy as np  # noqa: E402

from jaxsplit.data.documents import read_documents  # noqa: E402
from jaxsplit.data.permutation import Permutation  # noqa: E402
from jaxsplit.data.store_writer import Document, batch_of, write_store  # noqa: E402
from jaxsplit.data.stream import Batches, mixture, windows  # noqa: E402
from jaxsplit.data.tokenizer import load_tokenizer  # noqa: E402

MB = 1e6


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--corpus", required=True)
  parser.add_argument("--merges", required=True)
  parser.add_argument("--gigabytes", type=float, nargs="*", default=[])
  parser.add_argument("--length", type=int, default=1024)
  flags = parser.parse_args()
  print(f"{os.cpu_count()} cores, NumPy {np.__version__}")
  texts = [text for path in sorted(pathlib.Path(flags.corpus).rglob("*valid*.jsonl*")) for text in read_documents(path)]
  tokenizer = load_tokenizer(flags.merges)
  tokenization(texts, tokenizer)
  with tempfile.TemporaryDirectory() as folder:
    reading(pathlib.Path(folder), tokenizer, flags.length)
  simulated(10**9)
  for gigabytes in flags.gigabytes:
    with tempfile.TemporaryDirectory() as folder:
      preparing(pathlib.Path(folder), texts, gigabytes, flags.merges)


def tokenization(texts: list[str], tokenizer) -> None:
  """From text to ids as they lie in a store, on one core; the merges' cache is warm, as it is after the first megabytes."""
  size = sum(len(text.encode()) for text in texts)
  for _ in range(2):
    began = time.process_time()
    batch_of([Document(encoding.ids, 0, b"") for encoding in tokenizer.encode_batch(texts)], tokenizer)
    took = time.process_time() - began
  print(f"tokenization, one core: {size / took / MB:.1f} MB/s ({size / MB:.1f} MB)")


def reading(folder: pathlib.Path, tokenizer, length: int) -> None:
  """Shuffled windows on their way to a step, on one core."""
  random = np.random.default_rng(0)
  documents = lambda: [Document(random.integers(0, 50_000, 64 << 20, np.uint16), 0, b"x")]
  store = write_store(folder / "store", tokenizer, [(d, s, documents()) for d in "ab" for s in ("train", "valid")], {})
  for what, stream in (("of a domain", windows(store, "a", 0, length)), ("of a mixture", mixture(store, {"a": 1, "b": 2}, 0, length))):
    batches, steps, rows = Batches([stream], 16), 32, []
    batches.block([0], steps)
    began = time.process_time()
    for i in range(8):
      rows.append(batches.block([i * steps], steps).tokens.shape)
    took = time.process_time() - began
    print(f"shuffled windows of {length:,} tokens {what}, one core: {8 * steps * 16 * length / took / MB:.0f} M tokens/s")


def simulated(count: int) -> None:
  """The order of so many windows."""
  tracemalloc.start()
  began = time.perf_counter()
  Permutation(count, (0, 0))(np.arange(16))
  took, (_, most) = time.perf_counter() - began, tracemalloc.get_traced_memory()
  tracemalloc.stop()
  print(f"a stream over {count:,} windows: its first batch of numbers after {took * 1e3:.1f} ms, {most / 1024:.0f} kB")


def preparing(folder: pathlib.Path, texts: list[str], gigabytes: float, merges: str) -> None:
  """Peak memory and time of preparing documents of 500 bytes on average, as bytes and with the merges."""
  random, whole = np.random.default_rng(0), "".join(texts)
  (folder / "corpus").mkdir()
  written = number = 0
  while written < gigabytes * 1e9:
    with open(folder / "corpus" / f"text-{number:05d}.jsonl", "w") as file:
      number += 1
      for size, at in zip(random.integers(100, 900, 100_000), random.integers(0, len(whole) - 1000, 100_000)):
        file.write(json.dumps({"text": f"{number} {at} {whole[at:at + size]}"}) + "\n")
        written += int(size)
  command = [sys.executable, "-m", "jaxsplit.prepare", f"--gin.Corpus.path={folder / 'corpus'}", f"--store={folder / 'store'}",
             "--gin.Tokenization.kind=bpe", f"--gin.Tokenization.path={merges}"]
  began = time.monotonic()
  process, most = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True), 0
  while process.poll() is None:
    most = max(most, sum(map(resident, members(process.pid))))
    time.sleep(0.5)
  if process.returncode:
    raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
  print(f"preparing {gigabytes:g} GB in {number * 100_000:,} documents: peak memory {most / 1e9:.2f} GB, "
        f"{time.monotonic() - began:.0f} s")


def members(session: int) -> list[int]:
  """The processes of a session."""
  found = []
  for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
    try:
      if int(path.read_text().rpartition(")")[2].split()[3]) == session:
        found.append(int(path.parent.name))
    except OSError:
      pass
  return found


def resident(process: int) -> int:
  """Bytes of memory, shared pages divided between those that share them."""
  try:
    lines = pathlib.Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
  except OSError:
    return 0
  return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
  main()
