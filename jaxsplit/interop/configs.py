"""config.json of a Hugging Face model, from and to our description of a model."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxsplit.errors import InputError
from jaxsplit.files import read_json
from jaxsplit.models.families.gpt2 import GPT2
from jaxsplit.models.families.llama import Llama
from jaxsplit.models.family import ModelConfig

CONFIG = "config.json"
_COMMON = dict(document_masking=False, attention="auto", remat="none", compute_dtype="auto")
_GPT2_ONLY = {"activation_function": ("gelu_new", "gelu_pytorch_tanh"), "scale_attn_weights": (True,),
              "scale_attn_by_inverse_layer_idx": (False,), "reorder_and_upcast_attn": (False,),
              "add_cross_attention": (False,), "tie_word_embeddings": (True,)}


def read_config(directory: pathlib.Path, context: int | None = None) -> ModelConfig:
  """The model of a folder.

  Args:
    directory: the folder.
    context: T, where that is to be shorter than what the model reads.

  Returns:
    A model of family llama or gpt2 whose attention does not stop at the end of a document: such models are rarely trained so.

  Raises:
    InputError: no config.json, or one of a model that there is none of here; the setting is named.
  """
  path = directory / CONFIG
  config = read_json(path) if path.exists() else None
  if not isinstance(config, dict):
    raise InputError(f"{path}: no config.json of a model; name a folder that save_pretrained has written")
  readers = {"llama": _llama, "mistral": _llama, "qwen3": _llama, "gpt2": _gpt2}
  kind = config.get("model_type")
  if kind not in readers:
    raise InputError(f"{path}: model_type = {kind!r}: only {', '.join(readers)} are read")
  if config.get("quantization_config"):
    raise InputError(f"{path}: has a quantization_config; save the model unquantized")
  try:
    model = readers[kind](_Config(path, config), context)
  except InputError as error:
    raise error if str(error).startswith(str(path)) else InputError(f"{path}: no model here is like it: {error}") from None
  return model


class _Config:
  """Fields of a config.json; messages name them."""

  def __init__(self, path: pathlib.Path, fields: Mapping[str, Any]):
    self._path, self.fields = path, fields

  def number(self, name: str, default: float | None = None, kind: type = int) -> Any:
    """A positive number. InputError where it is none."""
    value = self.fields.get(name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf or value != kind(value):
      raise self.refused(name, "must be a positive number")
    return kind(value)

  def only(self, name: str, *allowed: Any) -> None:
    """Refuses a field that is there and has another value."""
    if self.fields.get(name, allowed[0]) not in allowed:
      raise self.refused(name, f"only {' or '.join(map(repr, allowed))} is read")

  def refused(self, name: str, why: str) -> InputError:
    return InputError(f"{self._path}: {name} = {self.fields.get(name)!r}: {why}")


def _llama(config: _Config, context: int | None) -> Llama:
  for name in ("attention_bias", "mlp_bias"):
    if config.fields.get(name):
      raise config.refused(name, "this family has no biases here, so this model would compute something else")
  config.only("hidden_act", "silu")
  length, width, heads = config.number("max_position_embeddings", 2048), config.number("hidden_size"), config.number("num_attention_heads")
  window = config.fields.get("sliding_window")
  if window is not None and config.fields.get("use_sliding_window", True) and window < (context or length):
    raise config.refused("sliding_window", f"attention over all of the {context or length:,} tokens that are to be read is what there "
                         f"is here; read at most {window:,}")
  kv_heads, hidden = config.number("num_key_value_heads", heads), config.number("intermediate_size")
  head_dim = config.number("head_dim", width / heads)
  if head_dim * heads != width:
    raise config.refused("head_dim", f"{heads} heads of {head_dim} are {heads * head_dim} wide, where hidden_size = {width}; here they "
                         "must be equal")
  if heads % kv_heads:
    raise config.refused("num_key_value_heads", f"must divide num_attention_heads = {heads}")
  if hidden % 16:
    raise config.refused("intermediate_size", "must be a multiple of 16")
  return Llama(
      family="llama", vocab_size=config.number("vocab_size"), sequence_length=_window(config, length, context), width=width,
      depth=config.number("num_hidden_layers"), head_dim=head_dim, queries_per_kv=heads // kv_heads, mlp_ratio=hidden / width,
      qk_norm=config.fields["model_type"] == "qwen3", tie_embeddings=bool(config.fields.get("tie_word_embeddings", False)),
      rope_theta=_theta(config, length), norm_epsilon=config.number("rms_norm_eps", 1e-6, float), **_COMMON)


def _theta(config: _Config, length: int) -> float:
  """The base of rotary positions, which transformers 5 keeps in rope_parameters."""
  of = config.fields.get("rope_parameters") or {}
  for name in ("rope_parameters", "rope_scaling"):  # Who reads a folder with both may go by either.
    scaling = config.fields.get(name) or {}
    kind = scaling.get("rope_type", scaling.get("type", "default")) if isinstance(scaling, dict) else scaling
    if kind not in ("default", "dynamic"):  # The latter changes nothing up to the length that the model was trained on.
      raise config.refused(name, f"rotary positions scaled by {kind!r} are not computed here; take a model without them")
  theta = of.get("rope_theta", config.fields.get("rope_theta", 10_000.0))
  if not isinstance(theta, (int, float)) or not 0 < theta < math.inf:
    raise config.refused("rope_theta", "must be a positive number")
  return float(theta)


def _gpt2(config: _Config, context: int | None) -> GPT2:
  for name, allowed in _GPT2_ONLY.items():
    config.only(name, *allowed)
  width, heads = config.number("n_embd", 768), config.number("n_head", 12)
  if width % heads:
    raise config.refused("n_head", f"must divide n_embd = {width}")
  hidden = config.number("n_inner", 4 * width)
  ratio = hidden / width if int(width * (hidden / width)) == hidden else math.nextafter(hidden / width, math.inf)
  length = config.number("n_positions", 1024)
  return GPT2(
      family="gpt2", vocab_size=config.number("vocab_size", 50257), sequence_length=_window(config, length, context),
      width=width, depth=config.number("n_layer", 12), head_dim=width // heads, mlp_ratio=ratio,
      norm_epsilon=config.number("layer_norm_epsilon", 1e-5, float), **_COMMON)


def _window(config: _Config, length: int, context: int | None) -> int:
  if context and context > length:
    raise config.refused("max_position_embeddings" if "max_position_embeddings" in config.fields else "n_positions",
                         f"{context:,} tokens are to be read, and the model reads {length:,}")
  return context or length


def config_of(model: ModelConfig, dtype: str, end_of_document: int) -> dict[str, Any]:
  """config.json of a model of family llama or gpt2.

  Args:
    model: ours; LlamaForCausalLM, Qwen3ForCausalLM where queries and keys are normalized, or GPT2LMHeadModel is like it.
    dtype: of the weights, "float32" or "bfloat16".
    end_of_document: the id that ends a text.
  """
  ends = {"bos_token_id": end_of_document, "eos_token_id": end_of_document}
  if isinstance(model, GPT2):
    return {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": model.vocab_size,
            "n_positions": model.sequence_length, "n_ctx": model.sequence_length, "n_embd": model.width, "n_layer": model.depth,
            "n_head": model.heads, "n_inner": model.mlp_width, "activation_function": "gelu_new", "layer_norm_epsilon": model.norm_epsilon,
            "tie_word_embeddings": True,
            "embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "torch_dtype": dtype, **ends}
  kind = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "use_sliding_window": False} if model.qk_norm else {
      "architectures": ["LlamaForCausalLM"], "model_type": "llama", "mlp_bias": False}
  return {**kind, "vocab_size": model.vocab_size, "max_position_embeddings": model.sequence_length, "hidden_size": model.width,
          "intermediate_size": model.mlp_width, "num_hidden_layers": model.depth, "num_attention_heads": model.heads,
          "num_key_value_heads": model.kv_heads, "head_dim": model.head_dim, "hidden_act": "silu", "attention_bias": False,
          "attention_dropout": 0.0, "rms_norm_eps": model.norm_epsilon, "rope_theta": model.rope_theta,
          "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta},  # Where transformers 5 looks.
          "tie_word_embeddings": model.tie_embeddings, "torch_dtype": dtype, **ends}
