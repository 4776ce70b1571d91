"""The GPT-2 family: LayerNorm, learned positions, multi-head attention, GELU, biases, tied embeddings.

Its logits are those of `transformers`' GPT2LMHeadModel with the same weights (scripts/gpt2_logits.py). Positions are a window's,
also where attention stays inside documents.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from jaxsplit.errors import InputError
from jaxsplit.models.cache import Cache, positions, through_layers_on
from jaxsplit.models.family import FAMILIES, LayerValues, ModelConfig, Weights
from jaxsplit.models.kernels.attention import Attend, attender
from jaxsplit.models.kernels.projection import project
from jaxsplit.models.modules import look_up, through_layers


@dataclasses.dataclass(frozen=True)
class GPT2(ModelConfig):
  """Fields as in `Architecture`, and `norm_epsilon`, which models from elsewhere have of their own."""

  mlp_ratio: float = 4.0
  norm_epsilon: float = 1e-5

  def __post_init__(self):
    super().__post_init__()
    if self.mlp_width < 1:
      raise InputError(f"Architecture.mlp_ratio = {self.mlp_ratio} leaves a model of width {self.width} no hidden unit; use 4")

  @property
  def mlp_width(self) -> int:
    return int(self.width * self.mlp_ratio)

  @property
  def std(self) -> float:
    """Of fresh weights: GPT-2's 0.02 at its width of 768, and as large a product at others."""
    return 0.02 * (768 / self.width) ** 0.5

  def module(self, weights: Weights) -> Decoder:
    return Decoder(self, weights)

  def layer_values(self, tensor: int) -> LayerValues:
    heads, mlp = (count // (tensor if count % tensor == 0 else 1) for count in (self.heads, self.mlp_width))
    q = heads * self.head_dim
    products = 3 * q + self.width + mlp + self.width
    return LayerValues(products + q + 4 * self.width + 3 * mlp, products, 3 * q, heads)


class LayerNorm(nnx.Module):
  """(x - mean) / std * scale + bias over the last axis, computed in float32."""

  def __init__(self, shape: tuple[int, ...], axes: tuple[str, ...], weights: Weights, epsilon: float):
    self.epsilon = epsilon
    self.scale, self.bias = weights.constant(shape, axes, 1.0), weights.constant(shape, axes, 0.0)

  def __call__(self, x: jax.Array) -> jax.Array:
    x32 = x.astype(jnp.float32)
    centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    unit = centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + self.epsilon)
    return (unit * _beside(self.scale[...], x) + _beside(self.bias[...], x)).astype(x.dtype)


class Projection(nnx.Module):
  """x W + b in all layers. The first `inputs` axes of W [I, O] are contracted with x's last."""

  def __init__(self, c: GPT2, weights: Weights, shape: tuple[int, ...], axes: tuple[str | None, ...], std: float, inputs: int = 1):
    self.inputs = inputs
    self.weight = weights.normal((c.depth, *shape), ("layers", *axes), std)
    self.bias = weights.constant((c.depth, *shape[inputs:]), ("layers", *axes[inputs:]), 0.0)

  def __call__(self, x: jax.Array) -> jax.Array:
    out = project(x, self.weight[...].astype(x.dtype), self.inputs)
    return out + _beside(self.bias[...].astype(x.dtype), out)


class Layer(nnx.Module):
  """Pre-norm residual attention and MLP, declared for all layers at once."""

  def __init__(self, c: GPT2, weights: Weights):
    heads, std_out = (c.heads, c.head_dim), c.std * (2 * c.depth) ** -0.5
    self.attention_norm = LayerNorm((c.depth, c.width), ("layers", "embed"), weights, c.norm_epsilon)
    self.qkv = Projection(c, weights, (c.width, 3, *heads), ("embed", None, "heads", "head_dim"), c.std)
    self.out = Projection(c, weights, (*heads, c.width), ("heads", "head_dim", "embed"), std_out, 2)
    self.mlp_norm = LayerNorm((c.depth, c.width), ("layers", "embed"), weights, c.norm_epsilon)
    self.up = Projection(c, weights, (c.width, c.mlp_width), ("embed", "mlp"), c.std)
    self.down = Projection(c, weights, (c.mlp_width, c.width), ("mlp", "embed"), std_out)

  def __call__(self, x_BxTxD: jax.Array, attend: Attend) -> jax.Array:
    q_BxTxHxd, k_BxTxHxd, v_BxTxHxd = jnp.unstack(self.qkv(self.attention_norm(x_BxTxD)), axis=2)
    x_BxTxD = x_BxTxD + self.out(attend(q_BxTxHxd[..., None, :], k_BxTxHxd, v_BxTxHxd)[..., 0, :])
    return x_BxTxD + self.down(jax.nn.gelu(self.up(self.mlp_norm(x_BxTxD)), approximate=True))


class Decoder(nnx.Module):
  """Tokens [B, T] to final hidden states [B, T, D]; `unembedding` turns those into logits."""

  def __init__(self, c: GPT2, weights: Weights):
    self.config = c
    self.embed_VxD = weights.normal((c.vocab_size, c.width), ("vocab", "embed"), c.std)
    self.positions_TxD = weights.normal((c.sequence_length, c.width), ("positions", "embed"), c.std)
    self.layers = Layer(c, weights)
    self.norm = LayerNorm((c.width,), ("embed",), weights, c.norm_epsilon)

  def __call__(self, tokens_BxT: jax.Array, end_of_document: int) -> jax.Array:
    c = self.config
    positions_TxD = self.positions_TxD[...][:tokens_BxT.shape[1]].astype(c.dtype)
    x_BxTxD = look_up(c, self.embed_VxD[...], tokens_BxT) + positions_TxD[None]
    return self.norm(through_layers(c, self.layers, x_BxTxD, attender(c, tokens_BxT, end_of_document)))

  def extend(self, tokens_BxT: jax.Array, end_of_document: int, cache: Cache) -> tuple[jax.Array, Cache]:
    """The same of tokens that follow those in the cache, and the cache with them."""
    c = self.config
    positions_BxTxD = self.positions_TxD[...].astype(c.dtype)[positions(cache, tokens_BxT.shape[1])]
    x_BxTxD = look_up(c, self.embed_VxD[...], tokens_BxT) + positions_BxTxD
    x_BxTxD, cache = through_layers_on(c, self.layers, x_BxTxD, cache, tokens_BxT, end_of_document)
    return self.norm(x_BxTxD), cache

  def unembedding(self) -> jax.Array:
    """The output projection [D, V]."""
    return self.embed_VxD[...].T


def _beside(value: jax.Array, x: jax.Array) -> jax.Array:
  """The value with as many axes as x, as JAX's strict promotion wants it."""
  return jnp.expand_dims(value, tuple(range(x.ndim - value.ndim)))


FAMILIES.add("gpt2", GPT2)
