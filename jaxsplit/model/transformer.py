"""The decoder-only transformer: RMSNorm, rotary positions, grouped-query attention, SwiGLU, one scan over layers.

Every parameter is declared once, with its shape, its initializer and its logical axes; `initialize`, `abstract_params` and
`param_axes` derive from that one declaration. Outside this file a model is a pytree of arrays and a pure function.

Shapes in names: B batch, T time, D width, G key/value heads, Q queries per key, d head width, F hidden width, V vocabulary.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec

from jaxsplit.model import attention, noise
from jaxsplit.model.config import ModelConfig
from jaxsplit.model.norm import rms_norm
from jaxsplit.model.projection import project, split_last

Params = Any  # A nested dict of arrays, as `initialize` gives it.
Attend = Callable[..., jax.Array]  # As `attention.attender` gives it.

_REMAT = {
    "none": lambda layer: layer,
    "dots": functools.partial(jax.checkpoint, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable),
    "full": jax.checkpoint,
}


class _Weights:
  """Draws weights, or only declares them where there is no seed. Each has a stream of noise of its own, by the order in which
  they are declared."""

  def __init__(self, seed: jax.Array | None):
    self._seed, self._streams = seed, itertools.count()

  def normal(self, shape: tuple[int, ...], axes: tuple[str | None, ...], std: float) -> nnx.Param:
    """A parameter of this shape with normal entries of standard deviation `std`."""
    stream = next(self._streams)
    if self._seed is None:
      return nnx.Param(jnp.empty(shape, jnp.float32), axes=axes)
    return nnx.Param(np.float32(std) * noise.normal(self._seed, stream, shape), axes=axes)


class RMSNorm(nnx.Module):
  """The scales of a normalization, and applying it."""

  def __init__(self, shape: tuple[int, ...], axes: tuple[str, ...]):
    self.scale = nnx.Param(jnp.ones(shape, jnp.float32), axes=axes)

  def __call__(self, x: jax.Array, rows: np.ndarray | slice = slice(None)) -> jax.Array:
    return rms_norm(x, self.scale[...][rows])


class Attention(nnx.Module):
  """Grouped-query self-attention with rotary positions and optional QK-norm.

  One projection makes, for each of G groups, Q queries, a key and a value: M = Q + 2 heads that belong together, so that a mesh
  may share out the groups.
  """

  def __init__(self, c: ModelConfig, weights: _Weights):
    self.config = c
    queries, std_out = c.heads // c.kv_heads, (c.heads * c.head_dim * 2 * c.depth) ** -0.5
    self.in_DxGxMxd = weights.normal(
        (c.depth, c.width, c.kv_heads, queries + 2, c.head_dim), ("layers", "embed", "kv_heads", None, "head_dim"), c.width**-0.5)
    self.out_GxQxdxD = weights.normal(
        (c.depth, c.kv_heads, queries, c.head_dim, c.width), ("layers", "kv_heads", None, "head_dim", "embed"), std_out)
    if c.qk_norm:  # A scale for queries, one for keys.
      self.norm = RMSNorm((c.depth, 2, c.head_dim), ("layers", None, "head_dim"))

  def __call__(self, x_BxTxD: jax.Array, attend: Attend, rotation: attention.Rotation) -> jax.Array:
    dtype = x_BxTxD.dtype
    heads_BxTxGxMxd = project(x_BxTxD, self.in_DxGxMxd[...].astype(dtype))
    qk_BxTxGxPxd, v_BxTxGxd = split_last(heads_BxTxGxMxd, -2)
    if self.config.qk_norm:
      which_P = np.array([0] * (qk_BxTxGxPxd.shape[3] - 1) + [1])
      qk_BxTxGxPxd = self.norm(qk_BxTxGxPxd, which_P)
    qk_BxTxGxPxd = attention.rotate(qk_BxTxGxPxd, rotation)
    q_BxTxGxQxd, k_BxTxGxd = split_last(qk_BxTxGxPxd, -2)
    y_BxTxGxQxd = attend(q_BxTxGxQxd, k_BxTxGxd, v_BxTxGxd)
    return project(y_BxTxGxQxd, self.out_GxQxdxD[...].astype(dtype), 3)


class SwiGLU(nnx.Module):
  """down(silu(gate(x)) * up(x)) (arXiv 2002.05202)."""

  def __init__(self, c: ModelConfig, weights: _Weights):
    self.in_Dx2xF = weights.normal((c.depth, c.width, 2, c.mlp_width), ("layers", "embed", None, "mlp"), c.width**-0.5)
    self.out_FxD = weights.normal((c.depth, c.mlp_width, c.width), ("layers", "mlp", "embed"), (c.mlp_width * 2 * c.depth) ** -0.5)

  def __call__(self, x_BxTxD: jax.Array) -> jax.Array:
    dtype = x_BxTxD.dtype
    gate_BxTx1xF, up_BxTxF = split_last(project(x_BxTxD, self.in_Dx2xF[...].astype(dtype)), -2)
    return project(jax.nn.silu(gate_BxTx1xF[..., 0, :]) * up_BxTxF, self.out_FxD[...].astype(dtype))


class Layer(nnx.Module):
  """Pre-norm residual attention and MLP. Declared for all layers at once: parameters have a leading axis of layers, which the
  scan takes off before a layer is called."""

  def __init__(self, c: ModelConfig, weights: _Weights):
    self.attention_norm, self.attention = RMSNorm((c.depth, c.width), ("layers", "embed")), Attention(c, weights)
    self.mlp_norm, self.mlp = RMSNorm((c.depth, c.width), ("layers", "embed")), SwiGLU(c, weights)

  def __call__(self, x_BxTxD: jax.Array, attend: Attend, rotation: attention.Rotation) -> jax.Array:
    x_BxTxD = x_BxTxD + self.attention(self.attention_norm(x_BxTxD), attend, rotation)
    return x_BxTxD + self.mlp(self.mlp_norm(x_BxTxD))


class Transformer(nnx.Module):
  """Tokens [B, T] to final hidden states [B, T, D]; `unembedding` turns those into logits."""

  def __init__(self, c: ModelConfig, weights: _Weights):
    self.config = c
    self.embed_VxD = weights.normal((c.vocab_size, c.width), ("vocab", "embed"), c.width**-0.5 if c.tie_embeddings else 1.0)
    self.layers = Layer(c, weights)
    self.norm = RMSNorm((c.width,), ("embed",))
    if not c.tie_embeddings:
      self.unembed_DxV = weights.normal((c.width, c.vocab_size), ("embed", "vocab"), c.width**-0.5)

  def __call__(self, tokens_BxT: jax.Array, end_of_document: int) -> jax.Array:
    c = self.config
    attend = attention.attender(c, tokens_BxT, end_of_document)
    rotation = attention.rotation(tokens_BxT.shape[1], c.head_dim, c.rope_theta)
    graph, layers = nnx.split(self.layers)
    layer = _REMAT[c.remat](lambda x_BxTxD, weights: (nnx.merge(graph, weights)(x_BxTxD, attend, rotation), None))
    x_BxTxD = _undivided(self.embed_VxD[...].astype(compute_dtype(c)))[tokens_BxT]
    x_BxTxD, _ = jax.lax.scan(layer, x_BxTxD, layers, unroll=layers_a_turn(c))
    return self.norm(x_BxTxD)

  def unembedding(self) -> jax.Array:
    """The output projection [D, V]."""
    return self.embed_VxD[...].T if self.config.tie_embeddings else self.unembed_DxV[...]


def _undivided(table_VxD: jax.Array) -> jax.Array:
  """The table, whole on every device of a mesh that may have divided it both ways.

  Where runs are mapped by hand beside it, XLA cannot look up tokens in such a table: it ends the process (spmd_partitioner_util.cc,
  jax 0.10.2).
  """
  mesh = jax.sharding.get_abstract_mesh()
  if any(mesh.shape.get(axis, 1) == 1 for axis in ("data", "tensor")):
    return table_VxD
  return jax.lax.with_sharding_constraint(table_VxD, PartitionSpec())


def compute_dtype(config: ModelConfig) -> jnp.dtype:
  """The dtype of activations: as configured, or float32 on CPU and bfloat16 on accelerators."""
  if config.compute_dtype != "auto":
    return jnp.dtype(config.compute_dtype)
  return jnp.dtype(jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16)


def layers_a_turn(config: ModelConfig) -> int:
  """Layers that one turn of the scan over layers computes: on a CPU all, for up to 8 layers, otherwise one.

  A scan stacks what the backward pass reads, filling and copying those arrays every step. On a CPU, whose programs spend much of
  their time on memory, that costs more than a tenth of a step; of many layers, compiling them one by one would cost more. Layers
  that are computed again to save memory stay in the scan, which alone keeps XLA from having them all at once.
  """
  return config.depth if jax.default_backend() == "cpu" and config.depth <= 8 and config.remat == "none" else 1


def initialize(config: ModelConfig, seed: jax.Array) -> Params:
  """Fresh float32 parameters: a nested dict of arrays. Layers are stacked on their leading axis. `seed` is a uint32."""
  return nnx.to_pure_dict(nnx.split(Transformer(config, _Weights(seed)))[1])


@functools.cache
def _declared(config: ModelConfig) -> tuple[nnx.GraphDef, nnx.State]:
  return nnx.split(nnx.eval_shape(lambda: Transformer(config, _Weights(None))))


def abstract_params(config: ModelConfig) -> Params:
  """Shapes and dtypes of the parameters, as `initialize` gives them."""
  return nnx.to_pure_dict(_declared(config)[1])


def param_axes(config: ModelConfig) -> Params:
  """The logical axes of every parameter: a tree like the parameters', with tuples of axis names."""
  axes = jax.tree.map(lambda v: v.get_metadata()["axes"], _declared(config)[1], is_leaf=lambda v: isinstance(v, nnx.Variable))
  return nnx.to_pure_dict(axes)


def apply(config: ModelConfig, params: Params, tokens_BxT: jax.Array, end_of_document: int) -> tuple[jax.Array, jax.Array]:
  """Runs the model: hidden states [B, T, D] in the compute dtype, and the output projection [D, V] to go with them."""
  graph, variables = _declared(config)
  variables = jax.tree.map(lambda x: x, variables)  # A copy: the cached declaration must not be filled in place.
  nnx.replace_by_pure_dict(variables, params)
  model = nnx.merge(graph, variables)
  return model(tokens_BxT, end_of_document), model.unembedding()
