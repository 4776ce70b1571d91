"""Trained models: one that gives logits, or several of one shape side by side."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplit.data.encoding import Tokenizer
from jaxsplit.errors import InputError
from jaxsplit.models.family import ModelConfig, Params
from jaxsplit.models.kernels.projection import project

@dataclasses.dataclass(frozen=True)
class TrainedModel:
  """One model.

  Attributes:
    config: its shape.
    params: a nested dict of float32 arrays of JAX's, as `config` has them, layers on their leading axis.
    tokenizer: `encode(text)` gives ids [n], `decode(ids)` a text.
    steps: how many it was trained.
  """

  config: ModelConfig
  params: Params
  tokenizer: Tokenizer
  steps: int

  def __repr__(self) -> str:
    return f"TrainedModel(N = {self.config.params:,}, {self.steps:,} steps, vocabulary of {self.config.vocab_size:,})"

  def __call__(self, tokens_BxT: np.ndarray) -> jax.Array:
    """Logits, float32 [B, T, V]; `jax.nn.log_softmax` makes log-probabilities in nats of them.

    Those at position t are of the token that follows tokens[:, :t + 1]. Attention stays inside a document where the model was
    trained so: it begins anew after `tokenizer.end_of_document`.

    Args:
      tokens_BxT: ids [B, T], T at most config.sequence_length.

    Raises:
      InputError: another shape, or an id that the tokenizer does not have.
    """
    tokens = np.asarray(tokens_BxT)
    if tokens.ndim != 2 or not np.issubdtype(tokens.dtype, np.integer) or not 1 <= tokens.shape[1] <= self.config.sequence_length:
      raise InputError(f"tokens of {tokens.dtype} {list(tokens.shape)}: give ids [B, T], T from 1 to {self.config.sequence_length}")
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.config.vocab_size:
      raise InputError(f"tokens from {tokens.min()} to {tokens.max()}: ids are from 0 to {self.config.vocab_size - 1}")
    return _logits(self.config, self.tokenizer.end_of_document)(self.params, jax.device_put(np.asarray(tokens, np.int32)))


@dataclasses.dataclass(frozen=True)
class TrainedModels:
  """Models of one shape and one tokenizer, side by side.

  Attributes:
    names, kinds: of each of the R models: its domain, "seed", "dense" or "base", and what it is.
    config, params, tokenizer: as of `TrainedModel`, but params are arrays of NumPy's with a leading axis R.
    steps: how many each was trained.
  """

  names: tuple[str, ...]
  kinds: tuple[Literal["expert", "seed", "dense", "base", "average", "model"], ...]
  config: ModelConfig
  params: Params
  tokenizer: Tokenizer
  steps: tuple[int, ...]

  def __repr__(self) -> str:
    steps = ", ".join(f"{name}: {count:,}" for name, count in zip(self.names, self.steps))
    return f"TrainedModels(N = {self.config.params:,}, steps of {steps}; vocabulary of {self.config.vocab_size:,})"

  @property
  def domains(self) -> tuple[str, ...]:
    """Those that have an expert."""
    return tuple(name for name, kind in zip(self.names, self.kinds) if kind == "expert")

  def __getitem__(self, name: str) -> TrainedModel:
    row = self.names.index(name)
    return TrainedModel(self.config, jax.device_put(jax.tree.map(lambda x_Rx: x_Rx[row], self.params)), self.tokenizer, self.steps[row])


def side_by_side(models: Mapping[str, TrainedModel]) -> TrainedModels:
  """Models by name, which must be of one shape, as one object. InputError where they are not."""
  (first, config), *others = ((name, model.config) for name, model in models.items())
  for name, other in others:
    if other != config or models[name].tokenizer.fingerprint != models[first].tokenizer.fingerprint:
      raise InputError(f"{name} and {first} are of different shapes or tokenizers, and cannot be measured side by side")
  params = jax.tree.map(lambda *each: np.stack(each), *(jax.device_get(model.params) for model in models.values()))
  return TrainedModels(tuple(models), ("model",) * len(models), config, params, models[first].tokenizer,
                       tuple(model.steps for model in models.values()))


@functools.cache
def _logits(config: ModelConfig, end_of_document: int) -> Callable[[Params, jax.Array], jax.Array]:
  # Any T, on any machine: kernels take some, on some.
  config = dataclasses.replace(config, attention="dense", remat="none")

  def logits(params, tokens_BxT):
    x_BxTxD, unembed_DxV = config.apply(params, tokens_BxT, end_of_document)
    return project(x_BxTxD, unembed_DxV.astype(x_BxTxD.dtype), 1, jnp.float32)

  return jax.jit(logits)
