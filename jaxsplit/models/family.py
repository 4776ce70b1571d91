"""The interface of a model family: a frozen config that counts, initializes and applies its parameters.

A family is one file: a subclass of `ModelConfig` that declares an nnx module, added to `FAMILIES` by the name that
`Architecture.family` takes. Every parameter is declared once, with its shape, its initializer and its logical axes; fresh weights,
their shapes, their axes and the counts derive from that one declaration. Outside a family's file a model is a pytree of arrays and
a pure function. Sharding, decay and Muon read the axes, so their names mean something:

    layers    the leading axis of what every layer has
    embed     D, one side of every matrix, whose other axes are the other side; divided over `data` with fsdp
    heads, kv_heads, mlp, vocab    divided over `tensor`
    vocab, positions               those of tables, which N does not count
    None      no name: matrices that lie side by side, such as those of queries, keys and values
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import itertools
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxsplit.errors import InputError
from jaxsplit.models import noise
from jaxsplit.registry import Registry

if TYPE_CHECKING:
  from jaxsplit.models.cache import Cache

Params = Any  # A nested dict of arrays, as `initialize` gives it.
Remat = Literal["none", "dots", "full"]
Kernel = Literal["auto", "dense", "splash", "cudnn"]
Dtype = Literal["auto", "float32", "bfloat16"]


class LayerValues(NamedTuple):
  """Numbers a token that one layer's forward pass leaves for its backward pass, on each of the devices that share its tensors.

  Attributes:
    saved: all, but for what attention keeps of its own.
    products: those of them that products with weights give.
    qkv, heads: queries, keys and values together, and how many heads there are.
  """

  saved: float
  products: float
  qkv: float
  heads: int


@dataclasses.dataclass(frozen=True)
class ModelConfig(abc.ABC):
  """One model. Fields as in `Architecture`, for one size; a family adds its own, with defaults.

  Raises InputError where there is no such model, or its heads do not suit the width or the kernel.
  """

  family: str
  vocab_size: int
  sequence_length: int
  width: int
  depth: int
  head_dim: int
  document_masking: bool
  attention: Kernel
  remat: Remat
  compute_dtype: Dtype

  def __post_init__(self):
    if self.width < 1 or self.depth < 1:
      raise InputError(f"a model of width {self.width} and depth {self.depth} is none; give (width, depth) of 1 or more in "
                       "Experiment.target and Experiment.sizes")
    if self.width % self.head_dim or self.head_dim % 2:
      raise InputError(f"Architecture.head_dim = {self.head_dim} must be even and divide the width {self.width}; "
                       f"use a width of {-(-self.width // self.head_dim) * self.head_dim}")
    if self.attention == "splash" and (self.sequence_length % 128 or self.head_dim % 128):
      raise InputError(f"Architecture.attention = 'splash' takes multiples of 128, not Training.sequence_length = "
                       f"{self.sequence_length} and Architecture.head_dim = {self.head_dim}; use 'auto'")
    suits_cudnn = self.sequence_length % 2 == 0 and self.head_dim % 8 == 0 and self.head_dim <= 128
    if self.attention == "cudnn" and (self.compute_dtype == "float32" or not suits_cudnn):
      raise InputError(f"Architecture.attention = 'cudnn' takes compute_dtype = 'bfloat16', not {self.compute_dtype!r}, head_dim in "
                       f"multiples of 8 up to 128, not {self.head_dim}, and an even Training.sequence_length, not "
                       f"{self.sequence_length}; use 'auto'")

  @abc.abstractmethod
  def module(self, weights: Weights) -> nnx.Module:
    """The model, declared. Called with tokens [B, T] and the end-of-document token it gives final hidden states [B, T, D] in
    `self.dtype`; its `unembedding()` is the output projection [D, V]. To generate, its `extend(tokens, end_of_document, cache)` gives
    those of tokens that follow the ones in a cache, and the cache with them (`models.cache`)."""

  @abc.abstractmethod
  def layer_values(self, tensor: int) -> LayerValues:
    """What a layer leaves for the backward pass where `tensor` devices share its heads and hidden units."""

  @property
  def heads(self) -> int:
    """Query heads."""
    return self.width // self.head_dim

  @property
  def kv_heads(self) -> int:
    """Heads of keys and of values."""
    return self.heads

  @property
  def dtype(self) -> jnp.dtype:
    """The dtype of activations: as configured, or float32 on CPU and bfloat16 on accelerators."""
    if self.compute_dtype != "auto":
      return jnp.dtype(self.compute_dtype)
    return jnp.dtype(jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16)

  @property
  def params(self) -> int:
    """N: parameters outside the embeddings and the output projection."""
    return _counts(self)[0]

  @property
  def params_total(self) -> int:
    """All parameters."""
    return _counts(self)[1]

  @property
  def flops_per_token(self) -> float:
    """Training FLOPs per token: 6 per parameter of a matmul, plus attention (arXiv 2204.02311, appendix B).

    The output projection multiplies as any other matrix and is counted (it dominates small models); embeddings are
    lookups and are not. Attention scores and sums cost 12 * depth * width * T, with no discount for causality.
    """
    return 6.0 * (self.params + self.vocab_size * self.width) + 12.0 * self.depth * self.width * self.sequence_length

  def initialize(self, seed: jax.Array) -> Params:
    """Fresh float32 parameters: a nested dict of arrays. Layers are stacked on their leading axis. `seed` is a uint32."""
    return nnx.to_pure_dict(nnx.split(self.module(Weights(seed)))[1])

  @functools.cached_property
  def abstract_params(self) -> Params:
    """Shapes and dtypes of the parameters, as `initialize` gives them."""
    return nnx.to_pure_dict(_declared(self)[1])

  @functools.cached_property
  def param_axes(self) -> Params:
    """The logical axes of every parameter: a tree like the parameters', with tuples of axis names."""
    axes = jax.tree.map(lambda v: v.get_metadata()["axes"], _declared(self)[1], is_leaf=lambda v: isinstance(v, nnx.Variable))
    return nnx.to_pure_dict(axes)

  def apply(self, params: Params, tokens_BxT: jax.Array, end_of_document: int) -> tuple[jax.Array, jax.Array]:
    """Runs the model: hidden states [B, T, D] in the compute dtype, and the output projection [D, V] to go with them."""
    model = self._filled(params)
    return model(tokens_BxT, end_of_document), model.unembedding()

  def extend(self, params: Params, tokens_BxT: jax.Array, end_of_document: int, cache: Cache) -> tuple[jax.Array, jax.Array, Cache]:
    """As `apply`, of tokens that follow those in a cache (`models.cache`); also the cache with these. It must have room for them.

    Raises:
      InputError: the family's module has no `extend`.
    """
    model = self._filled(params)
    if not hasattr(model, "extend"):
      raise InputError(f"Architecture.family = {self.family!r} cannot generate: its module has no method `extend`; docs/extending.md "
                       "shows one")
    x_BxTxD, cache = model.extend(tokens_BxT, end_of_document, cache)
    return x_BxTxD, model.unembedding(), cache

  @functools.cached_property
  def reads_on(self) -> bool:
    """Whether the family's module has `extend`."""
    return hasattr(nnx.merge(*_declared(self)), "extend")

  def unembedding(self, params: Params) -> jax.Array:
    """The output projection [D, V]."""
    return self._filled(params).unembedding()

  def layers_apart(self, params: Params) -> Params:
    """The parameters with every layer's as arrays of their own: tuples of them in place of stacks. `extend` takes both, and reads
    those apart layer by layer, without slicing them out of the stack anew for every token."""
    apart = lambda value, axes: tuple(value) if axes[0] == "layers" else value
    return jax.tree.map(apart, params, self.param_axes)

  def _filled(self, params: Params) -> nnx.Module:
    graph, variables = _declared(self)
    variables = jax.tree.map(lambda x: x, variables)  # A copy: the cached declaration must not be filled in place.
    nnx.replace_by_pure_dict(variables, params)
    return nnx.merge(graph, variables)


class Weights:
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

  def constant(self, shape: tuple[int, ...], axes: tuple[str | None, ...], value: float) -> nnx.Param:
    """A parameter of this shape whose entries are all `value`, such as a norm's scales or biases."""
    return nnx.Param(jnp.full(shape, value, jnp.float32), axes=axes)


@functools.cache
def _declared(config: ModelConfig) -> tuple[nnx.GraphDef, nnx.State]:
  return nnx.split(nnx.eval_shape(lambda: config.module(Weights(None))))


def is_matrix(axes: tuple[str | None, ...]) -> bool:
  """Whether a parameter of these axes is a matrix, or several, or a table; what is not is a vector, of a norm or of biases."""
  return "embed" in axes and len(set(axes) - {None, "layers"}) > 1


def is_axes(tree: Any) -> bool:
  """Whether a part of `param_axes` is the axes of one parameter: where to stop mapping over it."""
  return isinstance(tree, tuple)


@functools.cache
def _counts(config: ModelConfig) -> tuple[int, int]:
  """N, and all parameters."""
  axes, sizes = jax.tree.leaves(config.param_axes, is_leaf=is_axes), [x.size for x in jax.tree.leaves(config.abstract_params)]
  return sum(size for of, size in zip(axes, sizes) if not {"vocab", "positions"} & set(of)), sum(sizes)


FAMILIES: Registry[type[ModelConfig]] = Registry("Architecture.family")
