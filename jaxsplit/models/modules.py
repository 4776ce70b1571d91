"""Building blocks of families besides kernels: embedding lookup, and layers in a scan."""

from __future__ import annotations

import functools
from typing import Any

import jax
from flax import nnx
from jax.sharding import PartitionSpec

from jaxsplit.models.family import ModelConfig

_REMAT = {
    "none": lambda layer: layer,
    "dots": functools.partial(jax.checkpoint, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable),
    "full": jax.checkpoint,
}


def through_layers(config: ModelConfig, layers: nnx.Module, x_BxTxD: jax.Array, *shared: Any) -> jax.Array:
  """Hidden states after all layers.

  Args:
    layers: declared for all layers at once: parameters have a leading axis of layers, which the scan takes off before a layer is
      called with the hidden states, [B, T, D] in and out, and `shared`.
    shared: what every layer reads, made once.
  """
  graph, weights = nnx.split(layers)
  layer = _REMAT[config.remat](lambda x_BxTxD, weights: (nnx.merge(graph, weights)(x_BxTxD, *shared), None))
  return jax.lax.scan(layer, x_BxTxD, weights, unroll=layers_a_turn(config))[0]


def layers_a_turn(config: ModelConfig) -> int:
  """Layers that one turn of the scan over layers computes: on a CPU all, for up to 8 layers, otherwise one.

  A scan stacks what the backward pass reads, filling and copying those arrays every step. On a CPU, whose programs spend much of
  their time on memory, that costs more than a tenth of a step; of many layers, compiling them one by one would cost more. Layers
  that are computed again to save memory stay in the scan, which alone keeps XLA from having them all at once.
  """
  return config.depth if jax.default_backend() == "cpu" and config.depth <= 8 and config.remat == "none" else 1


def look_up(config: ModelConfig, table_VxD: jax.Array, tokens_BxT: jax.Array) -> jax.Array:
  """The embeddings of tokens, [B, T, D] in the compute dtype, from a table that a mesh may have divided."""
  return _undivided(table_VxD.astype(config.dtype))[tokens_BxT]


def _undivided(table_VxD: jax.Array) -> jax.Array:
  """The table, whole on every device of a mesh that may have divided it both ways.

  Where runs are mapped by hand beside it, XLA cannot look up tokens in such a table: it ends the process (spmd_partitioner_util.cc,
  jax 0.10.2).
  """
  mesh = jax.sharding.get_abstract_mesh()
  if any(mesh.shape.get(axis, 1) == 1 for axis in ("data", "tensor")):
    return table_VxD
  return jax.lax.with_sharding_constraint(table_VxD, PartitionSpec())
