"""Hugging Face folders as models, and models as Hugging Face folders.

    model = huggingface.load("folder")               # what jaxsplit.load_model gives, of somebody else's model
    huggingface.save(model, pathlib.Path("out"))     # transformers, vLLM and mergekit read that

Weights go through float32 both ways: a model that was read and is written in its own dtype has the same bits.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxsplit.data.tokenizer import Tokenizer
from jaxsplit.errors import InputError
from jaxsplit.files import content_hash, file_hash, from_home, write_json
from jaxsplit.interop import configs, tensors, tokenizers
from jaxsplit.interop.layouts import Leaf, layout_of
from jaxsplit.interop.tensors import Tensor
from jaxsplit.models.family import ModelConfig, Params
from jaxsplit.training.trained import TrainedModel

_DTYPES = {"float32": np.dtype("<f4"), "bfloat16": np.dtype(jnp.bfloat16)}
_BUFFERS = re.compile(r"rotary_emb\.inv_freq$|\.attn\.(masked_)?bias$")  # No parameters, but kept in older files.


def load(directory: str | os.PathLike, context: int | None = None) -> TrainedModel:
  """A Llama-family or GPT-2 model with its tokenizer, out of a folder that `save_pretrained` has written.

  Args:
    directory: the folder: config.json, model.safetensors or its shards, tokenizer.json.
    context: T, where that is to be shorter than what the model reads.

  Raises:
    InputError: one line: it is no such folder, or there is no model here that computes what that one does.
  """
  folder = open_folder(directory, context)
  params = jax.tree.map(jnp.asarray, folder.params())
  return TrainedModel(folder.config, params, folder.tokenizer, steps=0)


@dataclasses.dataclass(frozen=True, eq=False)
class Folder:
  """An open folder, of which no weights have been read yet.

  Attributes:
    directory: where it lies.
    config: the model.
    tokenizer: its own.
  """

  directory: pathlib.Path
  config: ModelConfig
  tokenizer: Tokenizer
  _tensors: Mapping[str, Tensor]

  @functools.cached_property
  def content(self) -> str:
    """A hash of the model: of its config, its weights and its tokenizer."""
    files = {self.directory / configs.CONFIG, self.directory / tokenizers.FILE, *(tensor.path for tensor in self._tensors.values())}
    return content_hash(*(part for path in sorted(files) for part in (path.name, file_hash(path))))

  def params(self) -> Params:
    """All parameters: float32 arrays of NumPy's, as `config.abstract_params` has them."""
    whole = lambda path, x: self.part(path, (slice(None),) * x.ndim)
    flat = traverse_util.flatten_dict(self.config.abstract_params, sep=".")
    return traverse_util.unflatten_dict({path: whole(path, x) for path, x in flat.items()}, sep=".")

  def part(self, path: str, index: tuple[slice, ...]) -> np.ndarray:
    """A part of one parameter, float32; of one with layers, no more than a layer of it is read at a time.

    Args:
      path: of the parameter, as in "layers.mlp.out_FxD".
      index: which part, a slice for each axis.
    """
    leaf = layout_of(self.config)[path]
    if not leaf.layered:
      return self._read(leaf, 0)[index]
    return np.stack([self._read(leaf, i)[index[1:]] for i in range(*index[0].indices(self.config.depth))])

  def _read(self, leaf: Leaf, layer: int) -> np.ndarray:
    return leaf.join(*(self._finite(name.format(layer))[tuple(map(slice, shape))] for name, shape in zip(leaf.names, leaf.shapes)))

  def _finite(self, name: str) -> np.ndarray:
    """A tensor as float32. InputError where it has numbers that are none."""
    values = self._tensors[name].read().astype(np.float32)
    if not np.isfinite(values).all():
      raise InputError(f"{self._tensors[name].path}: {name} is NaN or infinite in {np.sum(~np.isfinite(values)):,} of {values.size:,} "
                       "places; fetch or save it again")
    return values


def open_folder(directory: str | os.PathLike, context: int | None = None) -> Folder:
  """Checks a folder's config, tokenizer and tensors, by their headers. Arguments and errors as in `load`."""
  path = pathlib.Path(from_home(os.fspath(directory), "hf:"))
  if not path.is_dir():
    raise InputError(f"hf:{path}: no such folder; name one that a Hugging Face model was saved in (nothing is downloaded)")
  config, found, tokenizer = configs.read_config(path, context), tensors.find_tensors(path), tokenizers.read_tokenizer(path)
  if tokenizer.vocab_size > config.vocab_size:
    raise InputError(f"{path}: its tokenizer has ids up to {tokenizer.vocab_size - 1:,}, and its model a vocab_size of "
                     f"{config.vocab_size:,}; put the tokenizer of that model there")
  return Folder(path, config, tokenizer, _checked(path, config, found))


def _checked(path: pathlib.Path, config: ModelConfig, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
  """The model's tensors by the names that `layouts` has. InputError where one is missing, of another shape, or not of it."""
  left = {name: tensor for name, tensor in found.items() if not _BUFFERS.search(name)}
  if config.family == "gpt2":  # Published as the model without its head.
    left = {name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}": tensor for name, tensor in left.items()}
  kept = {}
  for leaf in layout_of(config).values():
    for names, shape in zip(leaf.names, leaf.shapes):
      for name in [names.format(i) for i in range(config.depth)] if leaf.layered else [names]:
        if name not in left:
          raise InputError(f"{path}: has no tensor {name}, which its {configs.CONFIG} asks for; save the model again")
        kept[name] = tensor = left.pop(name)
        # Positions that are not read may be left out.
        longer = name == "transformer.wpe.weight" and tensor.shape[0] >= shape[0] and tensor.shape[1:] == shape[1:]
        if tensor.shape != shape and not longer:
          raise InputError(f"{tensor.path}: {name} has shape {list(tensor.shape)}, where {configs.CONFIG} asks for {list(shape)}; "
                           "save the model again")
  head = left.pop("lm_head.weight", None)
  if head is not None:  # Of a tied model: only a copy of the embedding.
    embedding = kept[layout_of(config)["embed_VxD"].names[0]]
    if head.shape != embedding.shape or not np.array_equal(head.read(), embedding.read()):
      raise InputError(f"{head.path}: lm_head.weight is not the embedding, though {configs.CONFIG} says that they are tied; save the "
                       "model again with tie_word_embeddings=False")
  if left:
    name = sorted(left)[0]
    why = "this family has no biases here" if name.endswith(".bias") else "no model here has it"
    more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
    raise InputError(f"{left[name].path}: tensor {name}{more}: {why}, so this model would compute something else")
  return kept


def save(model: TrainedModel, directory: pathlib.Path, dtype: str = "float32", shard_bytes: int = tensors.SHARD_BYTES) -> None:
  """Writes a folder: config.json, generation_config.json, weights and tokenizer files.

  Args:
    model: of family llama or gpt2.
    directory: the folder, which is there and empty.
    dtype: of the weights, "float32" or "bfloat16".
    shard_bytes: above this, weights are several files.

  Raises:
    InputError: a model that has no counterpart, or a corpus of tokens without a tokenizer.
  """
  config, layout = model.config, layout_of(model.config)
  end = model.tokenizer.end_of_document
  tokenizers.write_tokenizer(directory, model.tokenizer, config.sequence_length)
  write_json(directory / configs.CONFIG, configs.config_of(config, dtype, end))
  write_json(directory / "generation_config.json", {"bos_token_id": end, "eos_token_id": end})
  params = traverse_util.flatten_dict(model.params, sep=".")
  shapes, sources = {}, {}
  for layer in (None, *range(config.depth)):
    for path, leaf in layout.items():
      if leaf.layered == (layer is not None):
        for part, (name, shape) in enumerate(zip(leaf.names, leaf.shapes)):
          shapes[name.format(layer)], sources[name.format(layer)] = shape, (path, leaf, layer, part)

  def read(name: str) -> np.ndarray:
    path, leaf, layer, part = sources[name]
    return leaf.split(np.asarray(params[path] if layer is None else params[path][layer]))[part]

  tensors.write_tensors(directory, shapes, read, _DTYPES[dtype], shard_bytes)
