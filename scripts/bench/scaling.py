"""What a step costs against the number of runs R, parameters N, sequence length T and devices, one at a time.

    python scripts/bench/scaling.py                                   around a small model on the CPU's cores
    python scripts/bench/scaling.py --size=50m --devices=8            around 50M on eight accelerators

Devices hold different runs (Layout.expert). On a CPU they are emulated, and share its cores: more than cores gain nothing.
All rows take turns in one process. Prints milliseconds a step (all runs), microseconds a token, and GFLOPs/s, from medians.
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
  parser.add_argument("--devices", type=int, default=0, help="how many a CPU is to look like; 0 is one a core")
  parser.add_argument("--steps", type=int, default=4, help="steps a dispatch")
  parser.add_argument("--rounds", type=int, default=5)
  flags = parser.parse_args()
  present_devices(Layout(devices=flags.devices))
  size = chosen_size(flags)
  change = lambda **numbers: dataclasses.replace(size, **numbers).spec()
  count = len(jax.devices())
  powers = [2**i for i in range(count.bit_length()) if 2**i <= count]
  head = size.head_dim
  specs = {
      **{f"R = {r}": size.spec(r) for r in (1, 2, 4, 8)},
      **{f"D = {w}": change(width=w) for w in (head * max(1, size.width // head // 2), 2 * size.width)},
      **{f"T = {t}": change(length=t) for t in (size.length // 2, 2 * size.length)},
      **{f"R = {count}, {d} of {count} devices": size.spec(count, layout=Layout(expert=d, devices=d))
         for d in powers if count > 1}}
  sides = {name: Stack(spec, flags.steps) for name, spec in specs.items()}
  seconds = in_turns(sides, flags.rounds)
  print(f"around D = {size.width}, {size.depth} layers, V = {size.vocab}, B = {size.batch}, T = {size.length}: "
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
  print(f"{'':<24}{'N':>12}{'ms/step':>10}{'us/token':>10}{'GFLOPs/s':>10}")
  for name, side in sides.items():
    taken = np.median(seconds[name])
    flops = side.spec.model.flops_per_token * side.tokens / taken
    print(f"{name:<24}{side.spec.model.params:>12,}{1e3 * taken / flags.steps:>10.1f}{1e6 * taken / side.tokens:>10.2f}"
          f"{flops / 1e9:>10.1f}")


if __name__ == "__main__":
  main()
