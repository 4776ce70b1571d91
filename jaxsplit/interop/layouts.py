"""Which tensors of a Hugging Face model each of our parameters is, and back: one table a family, read in both directions.

Theirs are [outputs, inputs] a layer in Llama's family, [inputs, outputs] in GPT-2's; ours have all layers on a leading axis, and what
is multiplied by the same activations lies together (models/families).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.models.families.gpt2 import GPT2
from jaxsplit.models.families.llama import Llama
from jaxsplit.models.family import ModelConfig


@dataclasses.dataclass(frozen=True)
class Leaf:
  """One of our parameters, or one layer of it.

  Attributes:
    names: the tensors that it is made of; `{}` stands for the layer's number.
    shapes: theirs.
    join: theirs to ours.
    split: ours to theirs.
  """

  names: tuple[str, ...]
  shapes: tuple[tuple[int, ...], ...]
  join: Callable[..., np.ndarray]
  split: Callable[[np.ndarray], tuple[np.ndarray, ...]]

  @property
  def layered(self) -> bool:
    """Whether every layer has its own."""
    return "{}" in self.names[0]


Layout = dict[str, Leaf]
"""Leaves by the path in our tree of parameters, as in "layers.mlp.out_FxD"."""


def layout_of(config: ModelConfig) -> Layout:
  """The table of a model. InputError where its family has no counterpart."""
  table = {Llama: _llama, GPT2: _gpt2}.get(type(config))
  if table is None:
    raise InputError(f"Architecture.family = {config.family!r}: no Hugging Face model is like that family; only llama's and gpt2's "
                     "models are written")
  return table(config)


def _llama(c: Llama) -> Layout:
  d, q, kv = c.head_dim, c.heads * c.head_dim, c.kv_heads * c.head_dim
  layer = "model.layers.{}."

  def join_heads(q_HdxD, k_GdxD, v_GdxD):  # To [D, G, Q + 2, d].
    grouped = [x.reshape(c.kv_heads, -1, d, c.width) for x in (q_HdxD, k_GdxD, v_GdxD)]
    return np.moveaxis(np.concatenate(grouped, axis=1), -1, 0)

  def split_heads(in_DxGxMxd):
    x_GxMxdxD = np.moveaxis(in_DxGxMxd, 0, -1)
    return tuple(x.reshape(-1, c.width) for x in (x_GxMxdxD[:, :-2], x_GxMxdxD[:, -2], x_GxMxdxD[:, -1]))

  table = {
      "embed_VxD": _same("model.embed_tokens.weight", (c.vocab_size, c.width)),
      "layers.attention_norm.scale": _same(layer + "input_layernorm.weight", (c.width,)),
      "layers.attention.in_DxGxMxd": Leaf(
          tuple(f"{layer}self_attn.{x}_proj.weight" for x in "qkv"), ((q, c.width), (kv, c.width), (kv, c.width)),
          join_heads, split_heads),
      "layers.attention.out_GxQxdxD": Leaf(
          (layer + "self_attn.o_proj.weight",), ((c.width, q),),
          lambda o_DxHd: o_DxHd.T.reshape(c.kv_heads, -1, d, c.width), lambda out_GxQxdxD: (out_GxQxdxD.reshape(q, c.width).T,)),
      "layers.mlp_norm.scale": _same(layer + "post_attention_layernorm.weight", (c.width,)),
      "layers.mlp.in_Dx2xF": Leaf(
          (layer + "mlp.gate_proj.weight", layer + "mlp.up_proj.weight"), ((c.mlp_width, c.width),) * 2,
          lambda gate_FxD, up_FxD: np.stack([gate_FxD.T, up_FxD.T], axis=1), lambda in_Dx2xF: (in_Dx2xF[:, 0].T, in_Dx2xF[:, 1].T)),
      "layers.mlp.out_FxD": _transposed(layer + "mlp.down_proj.weight", (c.width, c.mlp_width)),
      "norm.scale": _same("model.norm.weight", (c.width,))}
  if c.qk_norm:
    table["layers.attention.norm.scale"] = Leaf(
        (layer + "self_attn.q_norm.weight", layer + "self_attn.k_norm.weight"), ((d,), (d,)),
        lambda *scales: np.stack(scales), lambda scale_2xd: tuple(scale_2xd))
  if not c.tie_embeddings:
    table["unembed_DxV"] = _transposed("lm_head.weight", (c.vocab_size, c.width))
  return table


def _gpt2(c: GPT2) -> Layout:
  layer, heads = "transformer.h.{}.", (c.heads, c.head_dim)
  table = {"embed_VxD": _same("transformer.wte.weight", (c.vocab_size, c.width)),
           "positions_TxD": _same("transformer.wpe.weight", (c.sequence_length, c.width))}
  norms = {"layers.attention_norm": layer + "ln_1", "layers.mlp_norm": layer + "ln_2", "norm": "transformer.ln_f"}
  for ours, theirs in norms.items():
    table |= {f"{ours}.scale": _same(f"{theirs}.weight", (c.width,)), f"{ours}.bias": _same(f"{theirs}.bias", (c.width,))}
  projections = {"qkv": ("attn.c_attn", (c.width,), (3, *heads)), "out": ("attn.c_proj", heads, (c.width,)),
                 "up": ("mlp.c_fc", (c.width,), (c.mlp_width,)), "down": ("mlp.c_proj", (c.mlp_width,), (c.width,))}
  for ours, (theirs, inputs, outputs) in projections.items():
    table[f"layers.{ours}.weight"] = _reshaped(f"{layer}{theirs}.weight", (math.prod(inputs), math.prod(outputs)), (*inputs, *outputs))
    table[f"layers.{ours}.bias"] = _reshaped(f"{layer}{theirs}.bias", (math.prod(outputs),), outputs)
  return table


def _same(name: str, shape: tuple[int, ...]) -> Leaf:
  return _reshaped(name, shape, shape)


def _reshaped(name: str, theirs: tuple[int, ...], ours: tuple[int, ...]) -> Leaf:
  return Leaf((name,), (theirs,), lambda x: x.reshape(ours), lambda x: (x.reshape(theirs),))


def _transposed(name: str, theirs: tuple[int, int]) -> Leaf:
  return Leaf((name,), (theirs,), lambda x: x.T, lambda x: (x.T,))
