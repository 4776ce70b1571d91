"""Writes docs/scales.md: what configs/scales need of the devices of configs/machines, and that their programs lower for them.

    python scripts/scales.py [--experts=8] [--lower] > docs/scales.md

For every scale and machine: the seed, and its experts, as the configs have them, in the layouts, parts and waves that fit.
With --lower the training programs are also lowered ahead of time on abstract meshes of the machine's kind.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from collections.abc import Iterator

from jaxsplit import cli
from jaxsplit.data.tokenizer import Tokenization
from jaxsplit.errors import InputError
from jaxsplit.experiment.settings import Experiment
from jaxsplit.models.config import Architecture
from jaxsplit.parallel.sharding import Layout, Machine
from jaxsplit.train import SETTINGS
from jaxsplit.training import capacity, memory, stack
from jaxsplit.training.loop import Training
from jaxsplit.training.optimizer import Optimizer
from jaxsplit.training.stack import StackSpec

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
GiB = 1 << 30
# Bytes of one device, as its maker counts them: TPUs from cloud.google.com/tpu/docs, GPUs from NVIDIA's data sheets.
MACHINES = {
    "v5e_8": Machine("tpu", 8, 16 * GiB), "v5e_16": Machine("tpu", 16, 16 * GiB), "v5e_256": Machine("tpu", 256, 16 * GiB),
    "v6e_8": Machine("tpu", 8, 32 * GiB), "v5p_8": Machine("tpu", 4, 95 * GiB), "h100_8": Machine("cuda", 8, 80 * 10**9),
    "h200_8": Machine("cuda", 8, 141 * 10**9),
}

HEAD = """# Scales and machines

What training at the scales of `configs/scales` takes of each device of the machines in `configs/machines`: GiB of parameters,
moments, gradients, activations and logits, by the estimate of `jaxsplit/training/memory.py` (within 15 % of XLA's own count on a
CPU; what an H200 measured is 12 to 17 % less, no TPU was asked). At most 85 % of a device are filled. The seed is one run, experts are {experts},
each with its own float32 weights and moments. Experts that do not fit at once are trained in waves, one after another, all by one
program. Where the layout of the machine's config does not fit, mesh (expert x data x tensor) and waves are those that cost the
least time of all that do, by the estimate of `jaxsplit/training/capacity.py`. Parts are what `Training.accumulation = 0` cuts
each run's batch into. Attention is splash on TPUs and cuDNN's on GPUs. Every row that fits was lowered ahead of time for its platform
on an abstract mesh, those for GPUs with dense attention: JAX asks the machine that lowers for cuDNN. None was run. Written by
`python scripts/scales.py --lower > docs/scales.md`.

Where it is too much, not even one run fits: `Optimizer.moments = 'bfloat16'`, `Architecture.remat = 'full'`, or a larger machine.
"""


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--experts", type=int, default=8)
  parser.add_argument("--lower", action="store_true")
  flags = parser.parse_args()
  print(HEAD.format(experts=flags.experts))
  print("| scale | machine | seed: mesh, parts, GiB a device | waves | experts: mesh, parts, GiB a device |\n|" + " --- |" * 5)
  for scale in sorted(path.stem for path in (CONFIGS / "scales").glob("*m.gin")) + sorted(
      path.stem for path in (CONFIGS / "scales").glob("*b.gin")):
    for machine in MACHINES:
      seed, experts = (trained(one) for one in wanted(scale, machine, flags.experts))
      waves = f"{experts[0]} of {experts[1].runs}" if experts[0] else ""
      columns = [told(*seed, flags.lower), waves, told(*experts, flags.lower)]
      print(f"| {scale.upper().replace('_', '.')} | {machine.replace('_', '-')} | {' | '.join(columns)} |", flush=True)


def wanted(scale: str, machine: str, experts: int) -> Iterator[StackSpec]:
  """The stacks of the seed and of its experts, as the configs have them."""
  files = [CONFIGS / "scales" / f"{scale}.gin", CONFIGS / "machines" / f"{machine}.gin"]
  given = cli.parse("train", "", SETTINGS, [f"--gin_file={file}" for file in files])
  training, there = given[Training], MACHINES[machine]
  model = given[Architecture].at(*given[Experiment].target, given[Tokenization].vocab_size, training.sequence_length)
  model = dataclasses.replace(model, attention={"tpu": "splash", "cuda": "cudnn"}[there.platform])  # As "auto" is there.
  for runs in (1, experts):
    yield StackSpec(model, given[Optimizer], given[Layout], runs, training.runs_per_map, training.batch_sequences, 0,
                    elsewhere=there)


def trained(wanted: StackSpec) -> tuple[int, StackSpec]:
  """In how many waves a stack is trained, and a wave's. No waves and the whole stack where not even one run fits."""
  try:
    count = capacity.waves(wanted, any_parts=True)
  except InputError:
    given = capacity.as_given(wanted)
    return 0, dataclasses.replace(given, accumulation=given.batch // given.mesh.shape["data"])
  return count, capacity.fitted(capacity.wave(wanted, -(-wanted.runs // count)) if count > 1 else wanted, any_parts=True)


def told(count: int, spec: StackSpec, lower: bool) -> str:
  """A stack, or a wave of it, in a few words."""
  text = f"{' x '.join(map(str, spec.mesh.shape.values()))}, {spec.accumulation}, {memory.estimate(spec).total / GiB:.1f}"
  if not count:
    return f"{text}: too much"
  if lower:
    here = "dense" if spec.model.attention == "cudnn" else spec.model.attention  # JAX asks the machine that lowers for cuDNN.
    stack.lower_training(dataclasses.replace(spec, model=dataclasses.replace(spec.model, attention=here)), 1)
  return text


if __name__ == "__main__":
  main()
