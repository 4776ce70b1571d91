"""Meshes, and where the arrays of a run stack live on them.

A mesh has three axes. `expert` carries the runs of a stack and is mapped by hand (shard_map), so no collective can cross from
one run's devices to another's. `data` splits a run's batch and, with `fsdp`, its parameters; `tensor` splits heads and hidden
units. Those two are left to the compiler, which follows the shardings of the arguments.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxsplit import devices
from jaxsplit.errors import InputError
from jaxsplit.models.family import ModelConfig, is_axes
from jaxsplit.parallel import hosts

_EVEN = ("heads", "kv_heads", "mlp")  # Axes that are shared out over `tensor`, beside the vocabulary.


@dataclasses.dataclass(frozen=True)
class Layout:
  """The device mesh. Stacks that do not fit into memory with it are laid out differently (`training.capacity`).

  Attributes:
    expert: device groups with different runs; 0 takes as many as a stack can use (see `padded_runs`).
    data: devices over which one run's batch is sharded. 0 takes all remaining ones, but one on a CPU, where cores are faster separately.
    tensor: devices over which a layer's heads and hidden units are sharded.
    fsdp: shard parameters and moments over `data` too, instead of replicating them.
    devices: number of devices to use, evenly from all processes; 0 is all. A CPU counts as one per core, so that runs train in parallel.
  """

  expert: int = 0
  data: int = 0
  tensor: int = 1
  fsdp: bool = False
  devices: int = 0

  def __post_init__(self):
    for name, least in (("expert", 0), ("data", 0), ("tensor", 1), ("devices", 0)):
      if getattr(self, name) < least:
        raise InputError(f"Layout.{name} = {getattr(self, name)}: must be {least} or more")


@dataclasses.dataclass(frozen=True)
class Machine:
  """A machine that is not here. Programs can be lowered for it, and their memory estimated, but not run.

  Attributes:
    platform: "tpu", "cuda" or "cpu".
    devices: how many.
    memory: bytes of each.
  """

  platform: str
  devices: int
  memory: int


def present_devices(layout: Layout) -> list[jax.Device]:
  """The devices that the layout uses, of which a CPU looks like several if asked for. To be called before JAX touches a backend.

  Raises:
    InputError: there are none, or fewer than the layout needs.
  """
  if layout.devices % hosts.count():
    raise InputError(f"Layout.devices = {layout.devices} is not the same number for each of {hosts.count()} processes; "
                     f"use a multiple of {hosts.count()}, or 0 for all")
  _check_programs()
  with contextlib.suppress(RuntimeError):  # JAX was used in this process before: then what is there must do.
    jax.config.update("jax_num_cpu_devices", layout.devices // hosts.count() or cores())
  # Processes tell each other what devices they have; were the lead to touch them alone, it would wait for ever.
  devices.present()
  _groups(layout, None)
  return _devices(layout)


def _check_programs() -> None:
  if jax.config.jax_disable_jit:
    raise InputError("JAX_DISABLE_JIT is set, but runs are shared out by shard_map inside one program, which JAX cannot take apart; "
                     "unset it (JAX_DEBUG_NANS, JAX_CHECK_TRACER_LEAKS and jax.debug.print work)")


def cores() -> int:
  """Processor cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def padded_runs(layout: Layout, runs: int, elsewhere: Machine | None = None) -> int:
  """How many rows a stack of `runs` runs has: as many, or a few idle ones more, so that device groups hold equal numbers.

  With Layout.expert = 0, the most device groups are taken that leave at most a quarter of the rows idle. Runs side by side
  need no communication, which on small models is worth more than the idle rows cost.
  """
  if layout.expert:
    return runs
  for expert in reversed(_divisors(_groups(layout, elsewhere))):
    rows = -(-runs // expert) * expert
    if 4 * (rows - runs) <= rows:
      return rows
  return runs


def divisions(layout: Layout, elsewhere: Machine | None = None) -> Iterator[Layout]:
  """Every way to divide the layout's devices: itself with other `expert`, `data` and `tensor`, and with `fsdp` where that is
  another thing. Devices may be left idle where one process has them all."""
  count = _count(layout, elsewhere)
  for expert in _divisors(count):
    for data in _divisors(count // expert):
      for tensor in _divisors(count // expert // data):
        if hosts.count() == 1 or expert * data * tensor == count:
          for fsdp in {layout.fsdp, layout.fsdp or data > 1}:
            yield dataclasses.replace(layout, expert=expert, data=data, tensor=tensor, fsdp=fsdp)


def make_mesh(layout: Layout, rows: int, batch: int, elsewhere: Machine | None = None) -> Mesh | AbstractMesh:
  """The mesh for a stack of `rows` rows (as `padded_runs` has them) with `batch` sequences per run at once, here or elsewhere.

  Raises:
    InputError: the layout's numbers do not divide the devices, the runs or the batch.
  """
  _check_programs()
  groups = _groups(layout, elsewhere)
  expert = layout.expert or max(e for e in _divisors(groups) if rows % e == 0)
  if groups % expert:
    raise InputError(f"Layout.expert = {expert} times data = {layout.data or 1} times tensor = {layout.tensor} does not divide "
                     f"{_count(layout, elsewhere)} devices; use expert from {_divisors(groups)}")
  if rows % expert:
    raise InputError(f"a stack of {rows} runs cannot be shared by Layout.expert = {expert} device groups; "
                     f"use expert from {[e for e in _divisors(groups) if rows % e == 0]} or 0 for the best fit")
  on_cpu = (elsewhere.platform if elsewhere else jax.default_backend()) == "cpu"
  left = 1 if on_cpu and hosts.count() == 1 else groups // expert
  data = layout.data or math.gcd(batch, left)
  if batch % data:
    raise InputError(f"a batch of {batch} sequences cannot be shared by Layout.data = {data} devices; "
                     f"use a multiple of {data} as Training.batch_sequences, or data from {_divisors(math.gcd(batch, groups))}")
  shape, names, types = (expert, data, layout.tensor), ("expert", "data", "tensor"), (AxisType.Auto,) * 3
  if elsewhere:
    return AbstractMesh(shape, names, axis_types=types)
  used = _devices(layout)
  if hosts.count() > 1 and math.prod(shape) != len(used):  # Arrays move between meshes of the same devices only.
    raise InputError(f"a stack of {rows} runs with batches of {batch} sequences uses {math.prod(shape)} of "
                     f"{len(used)} devices, but {hosts.count()} processes need a part for each; use a multiple of "
                     f"{groups // expert} as Training.batch_sequences, or fewer Layout.devices")
  return jax.make_mesh(shape, names, devices=used[:math.prod(shape)], axis_types=types)


def stack_shardings(mesh: Mesh | AbstractMesh, layout: Layout, config: ModelConfig, state: Any) -> Any:
  """Shardings for a stacked training state: a tree like `state`, whose leaves have the leading axis R.

  A moment is sharded as the parameter it belongs to, found by the tail of its path.
  """
  rules = {**dict.fromkeys((*_EVEN, "vocab"), "tensor"), "embed": "data" if layout.fsdp else None}
  axes = {_names(path): axes for path, axes in jax.tree_util.tree_flatten_with_path(config.param_axes, is_leaf=is_axes)[0]}

  def sharding(path, leaf):
    names = _names(path)
    logical = next((axes[names[i:]] for i in range(len(names)) if names[i:] in axes), ())
    dims = zip(leaf.shape[1:], logical)
    fits = lambda size, mesh_axis: mesh_axis and size % mesh.shape[mesh_axis] == 0
    spec = [rules.get(axis) if fits(size, rules.get(axis)) else None for size, axis in dims]
    return NamedSharding(mesh, P("expert", *spec))

  return jax.tree_util.tree_map_with_path(sharding, state)


@functools.cache
def divides(config: ModelConfig, tensor: int) -> bool:
  """Whether so many devices can have equal parts of the model's heads and hidden units."""
  sizes = lambda axes, x: [size for axis, size in zip(axes, x.shape) if axis in _EVEN]
  return all(size % tensor == 0 for size in jax.tree.leaves(
      jax.tree.map(sizes, config.param_axes, config.abstract_params, is_leaf=is_axes)))


def parent_sharding(child: NamedSharding, shape: tuple[int, ...], everywhere: bool) -> NamedSharding:
  """For an array [rows, ...] of which any device group may gather rows, and then has them as `child` says.

  `everywhere`: all groups have all rows. Otherwise the `expert` axis shares out, in place of the rows, the axis of which each
  device has most; an array with none that it divides is everywhere all the same.
  """
  mesh, (_, *axes) = child.mesh, (*child.spec, *[None] * (len(shape) - len(child.spec)))
  here = child.shard_shape((mesh.shape["expert"], *shape[1:]))[1:]
  shareable = [axis for axis, size in enumerate(here) if size % mesh.shape["expert"] == 0]
  if shareable and not everywhere:
    most = max(shareable, key=lambda axis: here[axis])
    axes[most] = "expert" if axes[most] is None else (axes[most], "expert")
  return NamedSharding(mesh, P(None, *axes))


def batch_sharding(mesh: Mesh | AbstractMesh) -> NamedSharding:
  """For token blocks [steps, R, B, T + 1]."""
  return NamedSharding(mesh, P(None, "expert", "data"))


def windows_sharding(mesh: Mesh | AbstractMesh, shared: bool = False) -> NamedSharding:
  """For sets of windows [R, V, T + 1], or [1, V, T + 1] where all runs read the same."""
  return NamedSharding(mesh, P(None if shared else "expert", "data"))


def run_sharding(mesh: Mesh | AbstractMesh) -> NamedSharding:
  """For one value per run, [R, ...]."""
  return NamedSharding(mesh, P("expert"))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
  """For what every device has whole."""
  return NamedSharding(mesh, P())


def _devices(layout: Layout) -> list[jax.Device]:
  """The devices used: as many of each process."""
  there = jax.devices()
  if hosts.count() == 1 or not layout.devices:
    return there[:layout.devices or None]
  of_process = [[device for device in there if device.process_index == process] for process in range(hosts.count())]
  return [device for those in of_process for device in those[:layout.devices // hosts.count()]]


def _count(layout: Layout, elsewhere: Machine | None) -> int:
  there = elsewhere.devices if elsewhere else jax.device_count()
  if layout.devices > there:
    which = "" if elsewhere else f" ({devices.described(jax.devices())})"
    raise InputError(f"Layout.devices = {layout.devices}, but there are {there}{which}; use at most that many, or 0 for all")
  return layout.devices or there


def _groups(layout: Layout, elsewhere: Machine | None) -> int:
  """How many runs there are devices for at once, when each takes `data` times `tensor` of them."""
  count, each = _count(layout, elsewhere), (layout.data or 1) * layout.tensor
  if count % each:
    raise InputError(f"Layout.data = {layout.data or 1} times tensor = {layout.tensor} does not divide {count} devices; "
                     f"use a divisor: {_divisors(count)}")
  return count // each


def _names(path: tuple) -> tuple[str, ...]:
  return tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def _divisors(n: int) -> list[int]:
  return [d for d in range(1, n + 1) if n % d == 0]
