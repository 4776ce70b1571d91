"""What a fork costs: a snapshot of one run is restored, forked into experts, and their stack is written as a snapshot.

    python scripts/bench/fork.py                       1 GB of parameters and moments into 8 experts: 10 GB of disk and of memory
    python scripts/bench/fork.py --size=6m --depth=20  less

Everything is what experiments use: checkpoint/checkpoints.py and training/fork.py. Each stage runs in a fresh process, whose peak memory
(VmHWM) is its own: `restore` restores the snapshot; `write` writes a stack of random experts, made there; `fork` restores, forks
and writes. Prints one JSON line: the peak memory of `fork` over the stack's size, and its seconds over those of a plain restore
plus the plain write; of every stage, the least over the repeats.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
from stacks import SIZES, Size, chosen_size, size_flags

from jaxsplit.checkpoint.checkpoints import Checkpoints
from jaxsplit.parallel.sharding import Layout, present_devices
from jaxsplit.training import fork, stack
from jaxsplit.training.stack import StackSpec

# 83M parameters: with Adam's two moments, 1 GB in float32.
SIZES["1gb"] = Size(768, 9, 16384, 1024, 8, head_dim=64)
STAGES = ("seed", "restore", "write", "fork")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  size_flags(parser, "1gb")
  parser.add_argument("--experts", type=int, default=8)
  parser.add_argument("--repeats", type=int, default=3)
  parser.add_argument("--folder", help="where snapshots are written for a while; a temporary folder by default")
  parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
  flags = parser.parse_args()
  if flags.stage:
    print(json.dumps(stage(flags.stage, chosen_size(flags), flags.experts, pathlib.Path(flags.folder))))
    return
  with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
    measured = {name: [] for name in STAGES}
    for i in range(flags.repeats):
      for name in STAGES[bool(i):]:  # The seed is written once.
        command = [sys.executable, __file__, *sys.argv[1:], f"--stage={name}", f"--folder={folder}"]
        measured[name].append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
  least = lambda name, field: min(one[field] for one in measured[name])
  size, plain = least("fork", "bytes"), least("restore", "seconds") + least("write", "seconds")
  print(json.dumps({
      "device": jax.devices()[0].device_kind, "jax": jax.__version__, "experts": flags.experts,
      "seed_gb": round(least("seed", "bytes") / 1e9, 3), "stack_gb": round(size / 1e9, 3),
      "peak_gb": {name: round(least(name, "peak_bytes") / 1e9, 3) for name in STAGES},
      "seconds": {name: round(least(name, "seconds"), 2) for name in STAGES},
      "fork_parts_s": min(measured["fork"], key=lambda one: one["seconds"])["parts"],
      "peak_over_stack": round(least("fork", "peak_bytes") / size, 3),
      "time_over_restore_and_write": round(least("fork", "seconds") / plain, 3)}))


def stage(name: str, size: Size, experts: int, folder: pathlib.Path) -> dict:
  """One stage, in this process: bytes of its state, seconds without making it, and the peak of its memory."""
  present_devices(Layout(devices=1))
  seed, many = size.spec(), dataclasses.replace(size.spec(), runs=experts)
  snapshots = Checkpoints(folder)
  parts, began = {}, time.perf_counter()

  def done(part):
    nonlocal began
    now = time.perf_counter()
    parts[part], began = round(now - began, 2), now

  if name in ("seed", "write"):
    spec = seed if name == "seed" else many
    state = jax.block_until_ready(random_state(spec))
    began = time.perf_counter()
    snapshots.save("seed" if name == "seed" else "write", 1, state, {})
  else:
    state = jax.block_until_ready(snapshots.restore("seed", 1, seed.abstract))
    done("restore")
    if name == "fork":
      state = jax.block_until_ready(fork.gather(many, [state], [0] * experts))
      done("fork")
      snapshots.save("fork", 1, state, {})
  if name != "restore":
    snapshots.wait()
    done("write")
  snapshots.close()
  if name in ("fork", "write"):
    snapshots = Checkpoints(folder)
    snapshots.discard(name)
    snapshots.close()
  return {"bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(state)), "parts": parts, "seconds": sum(parts.values()),
          "peak_bytes": peak_bytes()}


def random_state(spec: StackSpec) -> stack.State:
  """A state of random numbers, which compress as badly as trained ones, made in no more memory than it takes."""
  random = np.random.default_rng(0)
  drawn = lambda x: random.random(x.shape, np.float32).astype(x.dtype, copy=False)
  return jax.tree.map(lambda x: jax.device_put(drawn(x), x.sharding), spec.abstract)


def peak_bytes() -> int:
  """The most memory that this process has had resident."""
  line = next(line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
  return 1024 * int(line.split()[1])


if __name__ == "__main__":
  main()
