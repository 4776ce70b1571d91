"""R runs, four ways: one after another, by lax.map, by vmap, and sharded over devices.

    python scripts/bench/stack.py                               8 runs of 0.8M parameters, on as many devices as the CPU has cores
    python scripts/bench/stack.py --size=50m --runs=8           8 x 50M on a GPU
    python scripts/bench/stack.py --size=350m --runs=4          4 x 350M on a GPU

`sequential` trains R stacks of one, a dispatch each; `one` is a single run with the batches of all R in one, so that a step sees
as many tokens. `sharded` is there where there is more than one device. All take turns in one process. Prints tokens/s (all runs
together, from medians) and, against `sequential`, the median ratio over the rounds, with its quartiles.
"""

from __future__ import annotations

import argparse
import dataclasses

import jax
import numpy as np
from stacks import Stack, chosen_size, in_turns, size_flags

from jaxsplit.parallel.sharding import Layout, present_devices


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  size_flags(parser, "0.8m")
  parser.add_argument("--runs", type=int, default=8)
  parser.add_argument("--steps", type=int, default=4, help="steps a dispatch")
  parser.add_argument("--rounds", type=int, default=10)
  flags = parser.parse_args()
  present_devices(Layout())
  size = chosen_size(flags)
  singles = [Stack(size.spec(), flags.steps) for _ in range(flags.runs)]
  stacks = {
      "lax.map": Stack(size.spec(flags.runs), flags.steps),
      "vmap": Stack(size.spec(flags.runs, runs_per_map=0), flags.steps),
      "one": Stack(dataclasses.replace(size, batch=flags.runs * size.batch).spec(), flags.steps)}
  if len(jax.devices()) > 1:
    stacks["sharded"] = Stack(size.spec(flags.runs, layout=Layout()), flags.steps)
  seconds = in_turns({"sequential": lambda: sum(single() for single in singles), **stacks}, flags.rounds)
  tokens = flags.runs * singles[0].tokens
  print(f"{flags.runs} runs of {singles[0].spec.model.params_total:,} parameters, B = {size.batch}, T = {size.length}, "
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
  for name, taken in seconds.items():
    low, middle, high = np.percentile(seconds["sequential"] / taken, (25, 50, 75))
    where = f"   on {stacks['sharded'].spec.mesh.size} devices" if name == "sharded" else ""
    print(f"  {name:<12}{tokens / np.median(taken):>12,.0f} tokens/s   {middle:.2f} x sequential "
          f"({low:.2f} to {high:.2f}){where}")


if __name__ == "__main__":
  main()
