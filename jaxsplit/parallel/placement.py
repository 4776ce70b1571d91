"""Host arrays onto meshes that several processes share, and back.

With one process these are `jax.device_put` and `jax.device_get`. With several, each puts what its own devices hold, and what is
fetched is first gathered by the devices, so that every process reads the same numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxsplit.data.stream import Batches, Windows
from jaxsplit.parallel import hosts


def put(tree: Any, sharding: NamedSharding) -> Any:
  """Arrays that every process holds whole, on the mesh."""
  if hosts.count() == 1:
    return jax.device_put(tree, sharding)
  return jax.tree.map(lambda x: _from_parts(np.shape(x), sharding, lambda index: np.asarray(x)[index]), tree)


def blocks(batches: Batches, requests, steps: int, sharding: NamedSharding) -> Iterator[Windows]:
  """The blocks of `batches.blocks(requests)`, windows [steps, R, B, T + 1], on the mesh.

  Of several processes, each reads the runs and rows of the batch that its own devices hold, and no others.
  """
  if hosts.count() == 1:
    for block in batches.blocks(requests):
      yield jax.device_put(block, sharding)
    return
  shape = (steps, len(batches.streams), batches.batch_size)
  runs, rows = held(sharding, (*shape, batches.streams[0].window_length))
  for block in batches.blocks(requests, rows, runs):
    yield jax.tree.map(lambda part: assemble(part, runs, rows, (*shape, part.shape[-1]), sharding), block)


def held(sharding: NamedSharding, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
  """The runs and the rows (of axes 1 and 2) that this process's devices hold, ascending."""
  mine = sharding.addressable_devices_indices_map(tuple(shape)).values()
  return tuple(np.unique(np.concatenate([np.arange(shape[axis])[index[axis]] for index in mine])) for axis in (1, 2))


def assemble(tokens: np.ndarray, runs: np.ndarray, rows: np.ndarray, shape: Sequence[int], sharding: NamedSharding) -> jax.Array:
  """The global array of which this process holds those runs and rows."""
  def part(index):
    of_runs, of_rows = (np.searchsorted(have, np.arange(shape[axis])[index[axis]]) for axis, have in ((1, runs), (2, rows)))
    return tokens[:, of_runs[:, None], of_rows]

  return _from_parts(tuple(shape), sharding, part)


def _from_parts(shape: tuple[int, ...], sharding: NamedSharding, part: Callable[[tuple[slice, ...]], np.ndarray]) -> jax.Array:
  """The global array of which each of this process's devices is given, explicitly, the part at its index."""
  parts = [jax.device_put(part(index), device) for device, index in sharding.addressable_devices_indices_map(shape).items()]
  return jax.make_array_from_single_device_arrays(shape, sharding, parts)


def everywhere(tree: Any) -> Any:
  """The same arrays, whole on every device where several processes share them. Nothing is waited for."""
  if hosts.count() == 1:
    return tree
  return jax.tree.map(lambda x: x if x.is_fully_replicated else _replicate(x.sharding.mesh)(x), tree)


def fetch(tree: Any) -> Any:
  """The arrays as NumPy's, whole in every process."""
  return jax.device_get(everywhere(tree))


@functools.cache
def _replicate(mesh: Mesh):
  return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))
