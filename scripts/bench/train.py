"""How fast one run trains: tokens/s, model FLOPs/s, and the share of the chip's peak that is (MFU).

    python scripts/bench/train.py                                      a model of 0.8M parameters on one CPU device (all cores)
    python scripts/bench/train.py --size=1.3b                          1.3B at T = 2,048 in bfloat16 on one H100 or H200
    python scripts/bench/train.py --size=350m --batch=4 --remat=full   on one TPU v5e

Trains by the program of experiments, several steps a dispatch. FLOPs are ours (6 a parameter and token, and attention, none
for what is recomputed), and their peak is that of the chip in bfloat16, where training/chips.py has it. --documents=0 trains
without document masking. --profile=FOLDER also writes a trace of one dispatch. Prints one JSON line; times are medians, and
the memory that the device had in use at most stands beside what training/memory.py estimates.
"""

from __future__ import annotations

import argparse
import json

import jax
import numpy as np
from stacks import Stack, chosen_size, in_turns, size_flags

from jaxsplit.models.kernels import attention
from jaxsplit.parallel.sharding import Layout, present_devices
from jaxsplit.training.chips import peak_bf16_flops
from jaxsplit.training.memory import estimate


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  size_flags(parser, "0.8m")
  parser.add_argument("--steps", type=int, default=16, help="steps a dispatch")
  parser.add_argument("--rounds", type=int, default=10, help="dispatches timed")
  parser.add_argument("--peak_flops", type=float, help="of the chip, in the dtype that is computed in, where it is another")
  parser.add_argument("--profile")
  flags = parser.parse_args()
  present_devices(Layout(devices=1))
  size = chosen_size(flags)
  run = Stack(size.spec(), flags.steps)
  seconds = np.median(in_turns({"run": run}, flags.rounds)["run"])
  if flags.profile:
    with jax.profiler.trace(flags.profile):
      run()
  device = jax.devices()[0]
  flops = run.spec.model.flops_per_token * run.tokens / seconds
  peak_flops = flags.peak_flops or peak_bf16_flops(device.device_kind)
  in_use = (device.memory_stats() or {}).get("peak_bytes_in_use")
  print(json.dumps({
      "device": device.device_kind, "jax": jax.__version__, "params": run.spec.model.params,
      "params_total": run.spec.model.params_total, "batch": size.batch, "length": size.length, "remat": size.remat,
      "attention": attention.kernel(run.spec.model),
      "step_ms": round(1e3 * seconds / flags.steps, 3), "tokens_per_s": round(run.tokens / seconds),
      "model_tflops_per_s": round(flops / 1e12, 4), "mfu": peak_flops and round(flops / peak_flops, 4),
      "device_gb": in_use and round(in_use / 1e9, 2), "estimated_gb": round(estimate(run.spec).total / 1e9, 2),
      "compile_s": round(run.compile_seconds, 1)}))


if __name__ == "__main__":
  main()
