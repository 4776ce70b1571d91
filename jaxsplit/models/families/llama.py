"""The Llama family (arXiv 2302.13971): RMSNorm, rotary positions, grouped-query attention, QK-norm, SwiGLU, no biases."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from flax import nnx

from jaxsplit.errors import InputError
from jaxsplit.models.cache import Cache, positions, through_layers_on
from jaxsplit.models.family import FAMILIES, LayerValues, ModelConfig, Weights
from jaxsplit.models.kernels.attention import Attend, attender
from jaxsplit.models.kernels.norm import rms_norm
from jaxsplit.models.kernels.projection import project, split_last
from jaxsplit.models.kernels.rotary import Rotation, rotate, rotation
from jaxsplit.models.modules import look_up, through_layers


@dataclasses.dataclass(frozen=True)
class Llama(ModelConfig):
  """Fields as in `Architecture`, and `norm_epsilon`, which models from elsewhere have of their own."""

  queries_per_kv: int = 1
  mlp_ratio: float = 8 / 3
  qk_norm: bool = True
  tie_embeddings: bool = False
  rope_theta: float = 10_000.0
  norm_epsilon: float = 1e-6

  def __post_init__(self):
    super().__post_init__()
    if self.heads % self.queries_per_kv:
      raise InputError(f"Architecture.queries_per_kv = {self.queries_per_kv} must divide the {self.heads} heads of width "
                       f"{self.width}; use a multiple of queries_per_kv * head_dim as width")
    if self.width * self.mlp_ratio < 1:
      raise InputError(f"Architecture.mlp_ratio = {self.mlp_ratio} leaves a model of width {self.width} no hidden unit; use more, "
                       "such as 8 / 3 = 2.667")

  @property
  def kv_heads(self) -> int:
    return self.heads // self.queries_per_kv

  @property
  def mlp_width(self) -> int:
    return -(-int(self.width * self.mlp_ratio) // 16) * 16

  def module(self, weights: Weights) -> Decoder:
    return Decoder(self, weights)

  def layer_values(self, tensor: int) -> LayerValues:
    heads, kv, mlp = (count // (tensor if count % tensor == 0 else 1) for count in (self.heads, self.kv_heads, self.mlp_width))
    q, qk, qkv = heads * self.head_dim, (heads + kv) * self.head_dim, (heads + 2 * kv) * self.head_dim
    saved = 2 * 2 * self.width + qkv + (2 if self.qk_norm else 1) * qk + q + 2 * self.width + 6 * mlp
    return LayerValues(saved, qkv + self.width + 2 * mlp + self.width, qkv, heads)


class RMSNorm(nnx.Module):
  """The scales of a normalization, and applying it."""

  def __init__(self, shape: tuple[int, ...], axes: tuple[str | None, ...], weights: Weights, epsilon: float = 1e-6):
    self.epsilon, self.scale = epsilon, weights.constant(shape, axes, 1.0)

  def __call__(self, x: jax.Array, rows: np.ndarray | slice = slice(None)) -> jax.Array:
    return rms_norm(x, self.scale[...][rows], self.epsilon)


class Attention(nnx.Module):
  """Grouped-query self-attention with rotary positions and optional QK-norm.

  One projection makes, for each of G groups, Q queries, a key and a value: M = Q + 2 heads that belong together, so that a mesh
  may share out the groups.
  """

  def __init__(self, c: Llama, weights: Weights):
    self.config = c
    queries, std_out = c.queries_per_kv, (c.width * 2 * c.depth) ** -0.5
    self.in_DxGxMxd = weights.normal(
        (c.depth, c.width, c.kv_heads, queries + 2, c.head_dim), ("layers", "embed", "kv_heads", None, "head_dim"), c.width**-0.5)
    self.out_GxQxdxD = weights.normal(
        (c.depth, c.kv_heads, queries, c.head_dim, c.width), ("layers", "kv_heads", None, "head_dim", "embed"), std_out)
    if c.qk_norm:  # A scale for queries, one for keys.
      self.norm = RMSNorm((c.depth, 2, c.head_dim), ("layers", None, "head_dim"), weights, c.norm_epsilon)

  def __call__(self, x_BxTxD: jax.Array, attend: Attend, rotation: Rotation) -> jax.Array:
    dtype = x_BxTxD.dtype
    heads_BxTxGxMxd = project(x_BxTxD, self.in_DxGxMxd[...].astype(dtype))
    qk_BxTxGxPxd, v_BxTxGxd = split_last(heads_BxTxGxMxd, -2)
    if self.config.qk_norm:
      which_P = np.array([0] * (qk_BxTxGxPxd.shape[3] - 1) + [1])
      qk_BxTxGxPxd = self.norm(qk_BxTxGxPxd, which_P)
    q_BxTxGxQxd, k_BxTxGxd = split_last(rotate(qk_BxTxGxPxd, rotation), -2)
    y_BxTxGxQxd = attend(q_BxTxGxQxd, k_BxTxGxd, v_BxTxGxd)
    return project(y_BxTxGxQxd, self.out_GxQxdxD[...].astype(dtype), 3)


class SwiGLU(nnx.Module):
  """down(silu(gate(x)) * up(x)) (arXiv 2002.05202)."""

  def __init__(self, c: Llama, weights: Weights):
    self.in_Dx2xF = weights.normal((c.depth, c.width, 2, c.mlp_width), ("layers", "embed", None, "mlp"), c.width**-0.5)
    self.out_FxD = weights.normal((c.depth, c.mlp_width, c.width), ("layers", "mlp", "embed"), (c.mlp_width * 2 * c.depth) ** -0.5)

  def __call__(self, x_BxTxD: jax.Array) -> jax.Array:
    dtype = x_BxTxD.dtype
    gate_BxTx1xF, up_BxTxF = split_last(project(x_BxTxD, self.in_Dx2xF[...].astype(dtype)), -2)
    return project(jax.nn.silu(gate_BxTx1xF[..., 0, :]) * up_BxTxF, self.out_FxD[...].astype(dtype))


class Layer(nnx.Module):
  """Pre-norm residual attention and MLP, declared for all layers at once."""

  def __init__(self, c: Llama, weights: Weights):
    self.attention_norm = RMSNorm((c.depth, c.width), ("layers", "embed"), weights, c.norm_epsilon)
    self.attention = Attention(c, weights)
    self.mlp_norm = RMSNorm((c.depth, c.width), ("layers", "embed"), weights, c.norm_epsilon)
    self.mlp = SwiGLU(c, weights)

  def __call__(self, x_BxTxD: jax.Array, attend: Attend, rotation: Rotation) -> jax.Array:
    x_BxTxD = x_BxTxD + self.attention(self.attention_norm(x_BxTxD), attend, rotation)
    return x_BxTxD + self.mlp(self.mlp_norm(x_BxTxD))


class Decoder(nnx.Module):
  """Tokens [B, T] to final hidden states [B, T, D]; `unembedding` turns those into logits. `layer` declares what all layers have."""

  def __init__(self, c: Llama, weights: Weights, layer: type[nnx.Module] = Layer):
    self.config = c
    self.embed_VxD = weights.normal((c.vocab_size, c.width), ("vocab", "embed"), c.width**-0.5 if c.tie_embeddings else 1.0)
    self.layers = layer(c, weights)
    self.norm = RMSNorm((c.width,), ("embed",), weights, c.norm_epsilon)
    if not c.tie_embeddings:
      self.unembed_DxV = weights.normal((c.width, c.vocab_size), ("embed", "vocab"), c.width**-0.5)

  def __call__(self, tokens_BxT: jax.Array, end_of_document: int) -> jax.Array:
    c = self.config
    turns = rotation(tokens_BxT.shape[1], c.head_dim, c.rope_theta)
    x_BxTxD = look_up(c, self.embed_VxD[...], tokens_BxT)
    return self.norm(through_layers(c, self.layers, x_BxTxD, attender(c, tokens_BxT, end_of_document), turns))

  def extend(self, tokens_BxT: jax.Array, end_of_document: int, cache: Cache) -> tuple[jax.Array, Cache]:
    """The same of tokens that follow those in the cache, and the cache with them."""
    c = self.config
    at_BxT = positions(cache, tokens_BxT.shape[1])
    turns = Rotation(*(table_Sxh[at_BxT] for table_Sxh in rotation(cache.room, c.head_dim, c.rope_theta)))
    x_BxTxD = look_up(c, self.embed_VxD[...], tokens_BxT)
    x_BxTxD, cache = through_layers_on(c, self.layers, x_BxTxD, cache, tokens_BxT, end_of_document, turns)
    return self.norm(x_BxTxD), cache

  def unembedding(self) -> jax.Array:
    """The output projection [D, V]."""
    return self.embed_VxD[...].T if self.config.tie_embeddings else self.unembed_DxV[...]


FAMILIES.add("llama", Llama)
