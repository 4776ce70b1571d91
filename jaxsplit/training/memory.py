"""The memory that training a stack needs on each device, estimated from shapes, and the memory available.

An estimate needs no compilation, so a stack that cannot fit is refused before anything is computed. It counts what XLA allocates: the
state, one set of gradients for each run trained together, weights in the compute dtype, activations saved for the
backward pass, and the working memory of one layer or of the loss. It is 0.85 to 1.25 times XLA's own count on a CPU in
float32 (tests/training/test_memory.py). One stack is in memory while it trains, and the copy that a snapshot is written from only
if there is memory for it. Not counted: during a fork the parents are in memory beside the new runs.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pathlib

import jax

from jaxsplit.models.family import ModelConfig
from jaxsplit.models.kernels import attention, cudnn
from jaxsplit.models.loss import logits_at_once
from jaxsplit.parallel.sharding import Layout, Machine
from jaxsplit.training.optimizer import Optimizer
from jaxsplit.training.stack import StackSpec

FILLED = 0.85  # Of a device's memory at most: an estimate may be short of the truth, and XLA fragments some.


@dataclasses.dataclass(frozen=True)
class Estimate:
  """Bytes on each device.

  Attributes:
    params, moments: of all the runs that live there; float32, moments as the optimizer keeps them; params twice where they are averaged.
    gradients: of the runs trained together, float32; twice where parts of a batch are summed.
    weights: those runs' parameters in the compute dtype, where that is another; with fsdp also two layers and the output
      projection, gathered whole, and where a batch and layers are both shared out, the embedding.
    activations: what the backward pass needs of the forward pass, of one part of a batch.
    working: temporary memory: the larger of one layer's backward pass and one chunk of the loss.
  """

  params: int
  moments: int
  gradients: int
  weights: int
  activations: int
  working: int

  @property
  def total(self) -> int:
    """The sum."""
    return sum(dataclasses.astuple(self))

  def __str__(self) -> str:
    return ", ".join(f"{name} {text(size)}" for name, size in dataclasses.asdict(self).items() if size)


def estimate(spec: StackSpec) -> Estimate:
  """The memory that training this stack needs on each device of its mesh."""
  c, shape = spec.model, spec.mesh.shape
  here = spec.runs // shape["expert"]
  together = min(spec.runs_per_map or here, here)
  each, moments = _state_bytes(
      dataclasses.replace(c, remat="none"), spec.optimizer, shape["data"], shape["tensor"], spec.layout.fsdp)
  width = c.dtype.itemsize
  tokens = spec.microbatch // shape["data"] * c.sequence_length
  layer, kept = _layer_bytes(spec, width)
  if c.remat != "none":
    layer = 1.5 * layer - kept  # What is computed again, and its gradients.
  gathered = 0
  if spec.layout.fsdp and shape["data"] > 1:
    gathered = (2 * (c.params // c.depth) + c.vocab_size * c.width) // shape["tensor"] * width
  if shape["data"] > 1 and shape["tensor"] > 1:  # The embedding, whole (models/modules.py).
    gathered += c.vocab_size * c.width * width
  vocab = c.vocab_size // (shape["tensor"] if c.vocab_size % shape["tensor"] == 0 else 1)
  return Estimate(
      params=here * each * (2 if spec.averages else 1), moments=here * moments,
      gradients=together * each * (1 if spec.accumulation == 1 else 2),
      weights=together * (gathered + (each * width // 4 if width < 4 else 0)),
      activations=int(together * tokens * (c.depth * kept + 4 * c.width * width)),
      working=int(together * max(tokens * layer, logits_at_once(tokens, vocab) * (4 + 4 + width))))


def fits(spec: StackSpec) -> bool:
  """Whether training this stack fits into the devices of its mesh."""
  return estimate(spec).total <= limit(spec)[0]


def has_room_for_a_copy(spec: StackSpec) -> bool:
  """Whether a copy of the stack's state, to be written to disk meanwhile, fits beside its training."""
  need = estimate(spec)
  return need.total + need.params + need.moments <= limit(spec)[0]


def _layer_bytes(spec: StackSpec, width: int) -> tuple[float, float]:
  """Bytes a token that one layer's forward pass leaves behind, and that the remat policy keeps of them."""
  c = spec.model
  values = c.layer_values(spec.mesh.shape["tensor"])
  joined = cudnn.width(c.sequence_length, c.head_dim, documents=True) / c.head_dim if c.document_masking else 0
  attending = {"dense": values.heads * c.sequence_length * (4 + width), "splash": 0,
               "cudnn": (values.qkv + values.heads * c.head_dim) * width * joined}
  layer = values.saved * width + attending[attention.kernel(c)]
  kept = {"none": layer, "dots": (values.products + c.width) * width, "full": c.width * width}[c.remat]
  return layer, kept


def limit(spec: StackSpec) -> tuple[float, str]:
  """Bytes that a device of the spec's mesh may fill, and what it is. On a CPU all devices share the machine's memory."""
  if spec.elsewhere:
    return FILLED * spec.elsewhere.memory, "device's memory there"
  devices = [device for device in spec.mesh.devices.flat if device.process_index == jax.process_index()]
  stats = devices[0].memory_stats() if devices else None
  if stats and "bytes_limit" in stats:
    return FILLED * stats["bytes_limit"], f"{devices[0].device_kind}'s memory"
  if devices and devices[0].platform == "cpu":
    return FILLED * _machine_bytes() / len(devices), "CPU device's share of the memory"
  return math.inf, "device's memory"


def _machine_bytes() -> int:
  """The machine's memory, or what a container may use of it."""
  there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  try:
    return min(there, int(pathlib.Path("/sys/fs/cgroup/memory.max").read_text()))
  except (OSError, ValueError):  # Without a limit it says "max".
    return there


@functools.cache
def _state_bytes(model: ModelConfig, optimizer: Optimizer, data: int, tensor: int, fsdp: bool) -> tuple[int, int]:
  """Bytes of one run's float32 parameters, and of its moments, on each of the devices over which it is sharded."""
  shared = StackSpec(model, optimizer, Layout(1, data, tensor, fsdp), 1, 1, data, 0, elsewhere=Machine("tpu", data * tensor, 0))
  of_shard = lambda leaf: math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
  return tuple(sum(map(of_shard, jax.tree.leaves(shared.abstract[part]))) for part in ("params", "moments"))


def text(size: float) -> str:
  """Bytes in words."""
  return f"{size / 2**30:.1f} GiB" if size >= 2**28 else f"{size / 2**20:.1f} MiB"
