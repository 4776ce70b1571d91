"""Texts that a model writes, a token at a time, greedily or at random; keys and values of what was read are kept.

Prompts of a batch are padded in front to one length, and programs are compiled for a few lengths alone.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.models import cache as caches
from jaxsplit.models.cache import Cache
from jaxsplit.models.family import ModelConfig, Params
from jaxsplit.models.kernels.projection import project
from jaxsplit.training.trained import TrainedModel

_USUAL = 128  # Tokens that follow where nothing else is said.
_STEP = 32  # Prompts are padded to a multiple of it; so many tokens are made between two looks at whether that is enough.


@dataclasses.dataclass(frozen=True)
class Generation:
  """How a text is continued.

  Attributes:
    tokens: maximum number of generated tokens; fewer if the text ends before. 0: 128, or half of the model's context if that is less.
    temperature: 0 is greedy decoding; otherwise tokens are sampled from probabilities to the power of 1 / temperature.
    top_k: sample from the k most likely tokens only; 0: all.
    top_p: sample from the smallest set of most likely tokens whose probabilities sum to this (nucleus sampling, arXiv 1904.09751).
    seed: random seed of sampling.
  """

  tokens: int = 0
  temperature: float = 0.0
  top_k: int = 0
  top_p: float = 1.0
  seed: int = 0

  def __post_init__(self):
    if self.tokens < 0:
      raise InputError(f"Generation.tokens = {self.tokens}: must be 0 (as suits the model) or more")
    if not 0 <= self.temperature < float("inf"):
      raise InputError(f"Generation.temperature = {self.temperature}: must be 0 (greedy) or more")
    if self.top_k < 0:
      raise InputError(f"Generation.top_k = {self.top_k}: must be 0 (all) or more")
    if not 0 < self.top_p <= 1:
      raise InputError(f"Generation.top_p = {self.top_p}: must be above 0, at most 1")
    if self.temperature == 0 and (self.top_k or self.top_p < 1):
      raise InputError(f"Generation.{'top_k' if self.top_k else 'top_p'} is given without Generation.temperature, and greedy decoding does "
                       "not sample; give a temperature too, as 1")


def room_for(model: TrainedModel, settings: Generation) -> int:
  """How many tokens follow a prompt at most."""
  return settings.tokens or max(min(_USUAL, model.config.sequence_length // 2), 1)


def fitted(model: TrainedModel, prompt: np.ndarray, tokens: int) -> np.ndarray:
  """A prompt, int [n], cut from the left so that the context holds `tokens` more tokens.

  Raises:
    InputError: the model's context is not longer than that.
  """
  most = model.config.sequence_length - tokens
  if most < 1:
    raise InputError(f"Generation.tokens = {tokens}: this model reads {model.config.sequence_length} tokens, the prompt's and those that "
                     f"follow together; give {model.config.sequence_length - 1} at most")
  return prompt[-most:]


def generate(model: TrainedModel, prompts: Sequence[np.ndarray], settings: Generation,
             enough: Callable[[np.ndarray], bool] = lambda tokens: False) -> list[np.ndarray]:
  """What follows each prompt.

  Args:
    model: the model.
    prompts: ids [n] each; an empty one is begun as a document is. Where they are too long, their ends are read (see `fitted`).
    settings: how.
    enough: tells, of the tokens that follow so far, whether no more are wanted; asked every few tokens.

  Returns:
    For each prompt the tokens that follow, without the end of the document.

  Raises:
    InputError: the model reads too few tokens, or its family does not generate.
  """
  end, config = model.tokenizer.end_of_document, dataclasses.replace(model.config, attention="dense", remat="none")
  most = room_for(model, settings)
  prompts = [fitted(model, np.asarray(prompt if len(prompt) else [end], np.int32), most) for prompt in prompts]
  longest = -(-max(map(len, prompts)) // _STEP) * _STEP
  tokens = np.stack([np.pad(prompt, (longest - len(prompt), 0), constant_values=end) for prompt in prompts])
  first = np.array([longest - len(prompt) for prompt in prompts], np.int32)
  room = longest + -(-most // _STEP) * _STEP
  cache, logits_BxV = _reading(config, end, room)(model.params, *jax.device_put((tokens, first)))
  step = _writing(config, end, settings.temperature > 0)
  chosen = np.zeros((len(prompts), 0), np.int32)
  key, how = jax.random.key(jax.device_put(settings.seed)), jax.device_put((
      np.float32(settings.temperature), np.int32(settings.top_k or config.vocab_size), np.float32(settings.top_p)))
  while chosen.shape[1] < most:
    key, now = jax.random.split(key)
    cache, logits_BxV, made = step(model.params, cache, logits_BxV, now, *how)
    chosen = np.concatenate([chosen, jax.device_get(made)], axis=1)
    texts = [_ended(row[:most], end) for row in chosen]
    if all(len(text) < min(chosen.shape[1], most) or enough(text) for text in texts):
      break
  return texts


def _ended(tokens: np.ndarray, end: int) -> np.ndarray:
  """The tokens before the first that ends the document."""
  ends = np.flatnonzero(tokens == end)
  return tokens[:ends[0]] if len(ends) else tokens


@functools.cache
def _reading(config: ModelConfig, end_of_document: int, room: int):
  """The jitted program (params, tokens int32 [B, T], first_B) -> (cache, logits [B, V] of the next token)."""
  def read(params, tokens_BxT, first_B):
    return _extend(config, end_of_document, params, config.unembedding(params), tokens_BxT, caches.empty(config, first_B, room))

  return jax.jit(read)


@functools.cache
def _writing(config: ModelConfig, end_of_document: int, random: bool):
  """The jitted program that adds tokens: (params, cache, logits, key, temperature, top_k, top_p) -> (cache, logits, int32 [B, S])."""
  def write(params, cache, logits_BxV, key, temperature, top_k, top_p):
    # What every token reads is laid out once, before the loop: layers as arrays of their own, and the output projection.
    params, unembed_DxV = jax.lax.optimization_barrier((config.layers_apart(params), config.unembedding(params)))

    def step(carry, key):
      cache, logits_BxV = carry
      made_B = _draw(key, logits_BxV / temperature, top_k, top_p) if random else jnp.argmax(logits_BxV, axis=1)
      made_B = made_B.astype(jnp.int32)
      return _extend(config, end_of_document, params, unembed_DxV, made_B[:, None], cache), made_B

    (cache, logits_BxV), made_SxB = jax.lax.scan(step, (cache, logits_BxV), jax.random.split(key, _STEP))
    return cache, logits_BxV, made_SxB.T

  return jax.jit(write, donate_argnums=(1, 2))


def _extend(config: ModelConfig, end_of_document: int, params: Params, unembed_DxV: jax.Array, tokens_BxT: jax.Array,
            cache: Cache) -> tuple[Cache, jax.Array]:
  """Reads tokens: the cache with them, and the logits of the token that follows, float32 [B, V]."""
  x_BxTxD, _, cache = config.extend(params, tokens_BxT, end_of_document, cache)
  return cache, project(x_BxTxD[:, -1], unembed_DxV.astype(x_BxTxD.dtype), 1, jnp.float32)


def _draw(key: jax.Array, logits_BxV: jax.Array, top_k: jax.Array, top_p: jax.Array) -> jax.Array:
  """A token of each row, of the `top_k` most likely, and of the fewest most likely that have `top_p` of the probability."""
  order_BxV = jnp.argsort(-logits_BxV, axis=1)
  sorted_BxV = jnp.take_along_axis(logits_BxV, order_BxV, axis=1)
  p_BxV = jax.nn.softmax(sorted_BxV, axis=1)
  before_BxV = jnp.cumsum(p_BxV, axis=1) - p_BxV
  allowed_BxV = (before_BxV < top_p) & (jnp.arange(logits_BxV.shape[1])[None] < top_k)
  which_B = jax.random.categorical(key, jnp.where(allowed_BxV, sorted_BxV, -jnp.inf), axis=1)
  return jnp.take_along_axis(order_BxV, which_B[:, None], axis=1)[:, 0]
