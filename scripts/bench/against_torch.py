"""A run on a CPU against the same model in PyTorch, eager and torch.compile, in turns.

    python scripts/bench/against_torch.py --torch_python=PATH                        0.8M and 6M parameters, T = 128, B = 8
    python scripts/bench/against_torch.py --torch_python=PATH --length=64            the same at T = 64

PATH is the interpreter of an environment with torch (measured with 2.13, CPU build); torch runs in processes of its own
(torch_worker.py). All sides compute in float32 with as many threads, start from the same weights, read the same batches, clip by
the global norm and update by fused AdamW at the same rates. First all train the same 50 steps, and their losses are compared:
where they differ by 1e-3 or more, the script says so and exits with 1. Then they go on in turns, and the median over the rounds
of the ratio of seconds is printed, with its quartiles: above 1, jaxsplit is faster.

jaxsplit is there twice: training one run with all threads, as PyTorch does, and as experiments have it, a stack of as many runs
as there are threads, one a core; its seconds are divided by its runs. And PyTorch is there once more, computing the matrix products of
a step and nothing else: what no side can do without.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
from stacks import SIZES, Size, in_turns

from jaxsplit.parallel.sharding import Layout, present_devices
from jaxsplit.training import fork, stack
from jaxsplit.training.optimizer import NEVER, Schedule
from jaxsplit.training.stack import StackSpec

COMPARED_STEPS, WARMUP_STEPS, RATE = 50, 20, 3e-3


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--torch_python", required=True)
  parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["0.8m", "6m"])
  parser.add_argument("--length", type=int, default=128)
  parser.add_argument("--batch", type=int, default=8)
  parser.add_argument("--steps", type=int, default=16, help="steps a turn; also steps a dispatch of ours")
  parser.add_argument("--rounds", type=int, default=15)
  parser.add_argument("--threads", type=int, default=2)
  parser.add_argument("--documents", type=int, choices=(0, 1), default=1, help="0: no document masking on either side")
  flags = parser.parse_args()
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:flags.threads])  # XLA takes a thread a core.
  if len(os.sched_getaffinity(0)) < flags.threads:
    parser.error(f"--threads={flags.threads}, but this process may use {len(os.sched_getaffinity(0))} cores")
  present_devices(Layout(devices=flags.threads))
  changes = {"length": flags.length, "batch": flags.batch, "documents": flags.documents}
  return max([compare(dataclasses.replace(SIZES[name], **changes), flags) for name in flags.sizes])


def compare(size: Size, flags: argparse.Namespace) -> int:
  """Prints one size's comparison; 1 where losses differ."""
  spec = size.spec()
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    state = stack.initialize(spec, [0])
    save_weights(state, folder)
    stacked = size.spec(runs=flags.threads, layout=Layout(devices=flags.threads))
    sides = {"jaxsplit, a run a core": Ours(stacked, fork.gather(stacked, [state], [0] * flags.threads), flags.steps),
             "jaxsplit, one run": Ours(spec, state, flags.steps)}
    for kind in ("torch eager", "torch.compile"):
      sides[kind] = Torch(flags.torch_python, spec, folder, flags.threads, compile=kind == "torch.compile")
    print(f"{spec.model.params_total:,} parameters, V = {size.vocab}, T = {size.length}, B = {size.batch}, "
          f"{flags.threads} threads, {'documents masked' if spec.model.document_masking else 'causal mask alone'}: "
          f"jax {jax.__version__}, torch {sides['torch eager'].version}", flush=True)
    losses = {name: [] for name in sides}
    for start in range(0, COMPARED_STEPS, flags.steps):
      block = tokens(spec, start, min(flags.steps, COMPARED_STEPS - start))
      for name, side in sides.items():
        losses[name] += side.train(block, start)[1]
    ours = np.array(losses["jaxsplit, one run"])
    apart = {name: np.abs(ours - theirs).max() for name, theirs in losses.items() if name != "jaxsplit, one run"}
    same = max(apart.values()) < 1e-3
    gaps = ", ".join(f"at most {gap:.1e} from {name}" for name, gap in apart.items())
    print(f"  losses over {COMPARED_STEPS} steps, {ours[0]:.3f} to {ours[-1]:.3f}: {gaps}: "
          f"{'equal' if same else 'NOT EQUAL'} to 1e-3")
    block = tokens(spec, COMPARED_STEPS, flags.steps)
    turn = lambda side: lambda: side.train(block, COMPARED_STEPS)[0]
    turns = {name: turn(side) for name, side in sides.items()}
    turns["torch, products alone"] = lambda: sides["torch eager"].multiply(flags.steps)
    seconds = in_turns(turns, flags.rounds)
    for name, taken in seconds.items():
      rate = flags.steps * size.batch * size.length / np.median(taken)
      print(f"  {name:<24}{1e3 * np.median(taken) / flags.steps:>8.1f} ms/step{rate:>10,.0f} tokens/s", flush=True)
    for ours in (name for name, side in sides.items() if isinstance(side, Ours)):
      for theirs in (name for name, side in sides.items() if isinstance(side, Torch)):
        low, middle, high = np.percentile(seconds[theirs] / seconds[ours], (25, 50, 75))
        print(f"  {ours} is {middle:.2f} x as fast as {theirs} ({low:.2f} to {high:.2f})", flush=True)
    for side in sides.values():
      side.close()
  return 0 if same else 1


class Ours:
  """A stack of runs that all train the same."""

  def __init__(self, spec: StackSpec, state: stack.State, block_steps: int):
    self._spec, self._state, self._block_steps = spec, state, block_steps
    self._schedule = Schedule(*(np.full(spec.runs, x, d) for x, d in zip(
        (RATE, 0, WARMUP_STEPS, 0, 0, NEVER), (np.float32, *[np.int32] * 5))))

  def train(self, block: np.ndarray, start: int) -> tuple[float, list[float]]:
    """Trains on [S, B, T + 1]: seconds a run, and losses. Steps are counted in the state."""
    count = len(block)
    padded = np.zeros((self._block_steps, self._spec.runs, *block.shape[1:]), np.int32)
    padded[:count] = block[:, None]
    began = time.perf_counter()
    self._state, metrics = stack.train_block(self._spec)(self._state, padded, np.int32(count), self._schedule)
    jax.block_until_ready(self._state)
    seconds = time.perf_counter() - began
    return seconds / self._spec.runs, np.asarray(metrics["loss"])[:count, 0].tolist()

  def close(self) -> None:
    """Nothing is held."""


class Torch:
  """A process that trains the same run in PyTorch, from the weights in a folder.

  Attributes:
    version: of PyTorch.
    processor: seconds of processor time that the latest call of `train` took, of all threads.
  """

  def __init__(self, python: str, spec: StackSpec, folder: pathlib.Path, threads: int, compile: bool):
    worker = pathlib.Path(__file__).with_name("torch_worker.py")
    self._process = subprocess.Popen([python, worker], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    self._file = folder / f"tokens-{compile}.npy"
    c = spec.model
    model = {**dataclasses.asdict(c), "heads": c.heads, "mlp_width": c.mlp_width, "end_of_document": spec.end_of_document}
    self.version = self._ask({"model": model, "optimizer": dataclasses.asdict(spec.optimizer), "threads": threads,
                              "weights": str(folder / "weights.npz"), "compile": compile, "batch": spec.batch})["torch"]

  def train(self, block: np.ndarray, start: int) -> tuple[float, list[float]]:
    np.save(self._file, block)
    rates = [RATE * min(1.0, (start + i + 1) / WARMUP_STEPS) for i in range(len(block))]
    answer = self._ask({"tokens": str(self._file), "rates": rates})
    self.processor = answer["processor"]
    return answer["seconds"], answer["losses"]

  def multiply(self, steps: int) -> float:
    """Seconds that the matrix products of so many steps take."""
    return self._ask({"steps": steps})["seconds"]

  def close(self) -> None:
    self._process.stdin.close()
    self._process.wait()

  def _ask(self, told: dict) -> dict:
    self._process.stdin.write(json.dumps(told) + "\n")
    self._process.stdin.flush()
    answer = self._process.stdout.readline()
    if not answer:
      raise SystemExit("the torch worker stopped; its error is above")
    return json.loads(answer)


def save_weights(state: stack.State, folder: pathlib.Path) -> None:
  """Writes the weights of a stack's first run where `Torch` reads them."""
  weights = {"/".join(key.key for key in path): np.asarray(leaf[0])
             for path, leaf in jax.tree_util.tree_flatten_with_path(state["params"])[0]}
  np.savez(folder / "weights.npz", **weights)


def tokens(spec: StackSpec, start: int, count: int) -> np.ndarray:
  """Batches that can be learned, [count, B, T + 1]: half the tokens follow from the one before; some end a document."""
  vocab, length = spec.model.vocab_size, spec.model.sequence_length
  follows = np.random.default_rng(0).permutation(vocab)
  out = np.zeros((count, spec.batch, length + 1), np.int32)
  for i in range(count):
    random = np.random.default_rng([1, start + i])
    fresh = (vocab * random.random((spec.batch, length + 1)) ** 3).astype(np.int32)
    copies = random.random((spec.batch, length + 1)) < 0.5
    row = fresh[:, 0]
    for t in range(length + 1):
      row = np.where(copies[:, t], follows[row], fresh[:, t])
      out[i, :, t] = np.where(random.random(spec.batch) < 0.01, spec.end_of_document, row)
  return out


if __name__ == "__main__":
  sys.exit(main())
