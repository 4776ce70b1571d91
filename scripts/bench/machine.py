"""Which device and versions are here, and the two ceilings of it: how fast it multiplies in bfloat16, and how fast it copies.

    python scripts/bench/machine.py
    python scripts/bench/machine.py --side=512 --gigabytes=0.01         less

Random numbers, a square product of the given side, medians over rounds; bytes read and bytes written both count. Prints one
JSON line.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import backend


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--side", type=int, default=8192)
  parser.add_argument("--gigabytes", type=float, default=4.0)
  parser.add_argument("--accelerator", action="store_true", help="exit code 2 where JAX sees a CPU alone")
  flags = parser.parse_args()
  if flags.accelerator and jax.default_backend() == "cpu":
    print(f"jax {jax.__version__} sees no accelerator here: {jax.devices()}; accelerator.sh --rehearse takes the steps on a CPU")
    return 2
  device, side = jax.devices()[0], flags.side
  a, b = (jax.random.normal(jax.random.key(i), (side, side), jnp.bfloat16) for i in range(2))
  x = jax.random.normal(jax.random.key(2), (int(flags.gigabytes * 1e9 / 4),))
  installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
  print(json.dumps({
      "platform": jax.default_backend(), "device": device.device_kind, "devices": jax.device_count(),
      "gb": round((device.memory_stats() or {}).get("bytes_limit", 0) / 1e9, 1) or None,
      "python": platform.python_version(), "backend": backend.get_backend().platform_version,
      "packages": {name: version for name, version in sorted(installed.items())
                   if name.startswith(("jax", "flax", "optax", "orbax", "grain", "numpy", "nvidia-cudnn", "nvidia-cublas"))},
      "product_tflops_per_s": round(2 * side**3 / seconds(jnp.matmul, a, b) / 1e12, 3),
      "copy_tb_per_s": round(2 * x.nbytes / seconds(lambda x: x + 1, x) / 1e12, 4)}))
  return 0


def seconds(f, *arguments, rounds: int = 7, calls: int = 5) -> float:
  """The median over rounds of the seconds of one call."""
  compiled, took = jax.jit(f), []
  jax.block_until_ready(compiled(*arguments))
  for _ in range(rounds):
    began = time.perf_counter()
    for _ in range(calls):
      out = compiled(*arguments)
    jax.block_until_ready(out)
    took.append((time.perf_counter() - began) / calls)
  return float(np.median(took))


if __name__ == "__main__":
  sys.exit(main())
