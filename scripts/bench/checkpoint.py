"""What snapshots cost: training with and without them, and what they hold up the training thread for.

    python scripts/bench/checkpoint.py                    a model of the quickstart's size on this machine, default settings
    python scripts/bench/checkpoint.py --size=50m --steps=300 --every=100          50M on a GPU

Prints one JSON line: milliseconds a step without and with snapshots, the overhead in percent at `--every` and in default
settings, and, of one snapshot, milliseconds on the training thread, seconds until it is durable, and megabytes.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import tempfile
import time

import jax
import numpy as np
from stacks import SIZES, Size, chosen_size, constant_rate, size_flags

from jaxsplit.checkpoint.checkpoints import Checkpoints
from jaxsplit.data.stream import Windows
from jaxsplit.parallel.sharding import Layout, present_devices
from jaxsplit.training import stack
from jaxsplit.training.fingerprint import as_text
from jaxsplit.training.interruption import Interruption
from jaxsplit.training.loop import Training, train
from jaxsplit.training.telemetry import Clock

SIZES["quickstart"] = Size(64, 4, 4096, 128, 8, head_dim=16)


class RandomBatches:
  """The same random block again and again: reading data is not what is measured."""

  def __init__(self, shape: tuple[int, ...], vocab_size: int):
    self._block = np.random.default_rng(0).integers(1, vocab_size, shape).astype(np.int32)

  def blocks(self, requests):
    for _ in requests:
      yield Windows(self._block)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  size_flags(parser, "quickstart")
  for name, value in {"runs": 1, "steps": 600, "every": 200, "repeats": 3}.items():
    parser.add_argument(f"--{name}", type=int, default=value)
  args = parser.parse_args()
  present_devices(Layout(devices=1))
  size = chosen_size(args)
  spec, schedule = size.spec(args.runs), constant_rate(args.runs, 1e-3)
  batches = RandomBatches((Training().steps_per_dispatch, args.runs, size.batch, size.length + 1), size.vocab)
  held_up, durable = [], []

  def seconds(folder: pathlib.Path, every: int) -> float:
    """Trains once; how long it took, without the wait for the last snapshot."""
    snapshots = Checkpoints(folder)

    def save(step, state, prints):
      began = time.perf_counter()
      about = {"step": step, "prints": as_text(prints)}
      snapshots.save("stage", step, state, about, first=lambda: durable.append(time.perf_counter() - began))
      held_up.append(time.perf_counter() - began)

    state = jax.block_until_ready(stack.initialize(spec, range(args.runs)))
    began = time.perf_counter()
    jax.block_until_ready(train(
        spec, state, batches, schedule, first_batch=[0] * args.runs, done=0, steps=args.steps,
        training=Training(size.length, size.batch, save_every_steps=every), observe=lambda *_: None, save=save,
        saved=snapshots.wait, copies=True, interruption=Interruption(), clock=Clock()))
    took = time.perf_counter() - began
    snapshots.close()
    return took

  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    seconds(folder / "warm", args.every)
    held_up.clear()
    durable.clear()
    # In turns, so that what else the machine does falls on both.
    pairs = [(seconds(folder / f"{i}-without", args.steps), seconds(folder / f"{i}-with", args.every))
             for i in range(args.repeats)]
    last = max((folder / "0-with" / "stage").iterdir(), key=lambda path: int(path.name))
    size = sum(f.stat().st_size for f in last.rglob("*") if f.is_file())
  without, with_ = (statistics.median(side) / args.steps for side in zip(*pairs))
  one = statistics.median(b - a for a, b in pairs) / max(1, (args.steps - 1) // args.every)
  print(json.dumps({
      "device": jax.devices()[0].device_kind, "params_total": spec.model.params_total, "runs": args.runs,
      "step_ms": round(1e3 * without, 3), "step_ms_with": round(1e3 * with_, 3), "every": args.every,
      "overhead_percent": round(100 * (with_ / without - 1), 2),
      "overhead_percent_default": round(100 * one / (Training().save_every_steps * without), 3),
      "training_thread_ms": round(1e3 * statistics.median(held_up), 2), "written_s": round(statistics.median(durable), 3),
      "snapshot_mb": round(size / 1e6, 2)}))


if __name__ == "__main__":
  main()
