"""The architecture settings that models of all sizes share, and the built-in families."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jaxsplit.errors import InputError
from jaxsplit.models.families import gpt2, llama  # noqa: F401 (They add themselves to FAMILIES.)
from jaxsplit.models.family import FAMILIES, Dtype, Kernel, ModelConfig, Remat

_OWN = ("queries_per_kv", "mlp_ratio", "qk_norm", "tie_embeddings", "rope_theta")  # Fields that not every family has.


@dataclasses.dataclass(frozen=True)
class Architecture:
  """The architecture that models of all sizes share; `at` gives the model of one size.

  Attributes:
    family: llama (RMSNorm, rotary positions, SwiGLU), gpt2 (LayerNorm, learned positions, GELU, biases, tied embeddings), or one
      that an extension adds.
    head_dim: width of one attention head; a model of width D has D / head_dim query heads.
    queries_per_kv: query heads that share one key/value head (grouped-query attention, arXiv 2305.13245). None, here and below:
      the family's default; llama's is 1, which is multi-head attention.
    mlp_ratio: hidden width of the MLP over the model's width, before rounding up to a multiple of 16; llama's is 8/3, gpt2's 4.
    qk_norm: RMS-normalise queries and keys per head (arXiv 2302.05442): stabilizes training at high rates; on for llama.
    tie_embeddings: the output projection is the transposed embedding; off for llama, always on for gpt2.
    rope_theta: base of the rotary frequencies. llama has 10,000.
    document_masking: attention stays inside a document.
    attention: dense computes whole [T, T] scores; splash is JAX's flash attention for TPUs (T and head_dim in multiples of 128);
      cudnn is NVIDIA's for GPUs from Ampere on (bfloat16, T even, head_dim a multiple of 8 up to 128; with document masking, up
      to 112 at T = 2,048 but on Hopper).
      auto is splash on a TPU and cudnn on a GPU where they suit the model, dense elsewhere.
    remat: what the backward pass recomputes: nothing, all but matmul outputs, or whole layers.
    compute_dtype: dtype of activations; parameters stay float32. auto is float32 on CPU, bfloat16 elsewhere.
  """

  family: str = "llama"
  head_dim: int = 16
  queries_per_kv: int | None = None
  mlp_ratio: float | None = None
  qk_norm: bool | None = None
  tie_embeddings: bool | None = None
  document_masking: bool = True
  attention: Kernel = "auto"
  rope_theta: float | None = None
  remat: Remat = "none"
  compute_dtype: Dtype = "auto"

  def __post_init__(self):
    for name, least in (("head_dim", 2), ("queries_per_kv", 1)):
      if getattr(self, name) is not None and getattr(self, name) < least:
        raise InputError(f"Architecture.{name} = {getattr(self, name)}: must be {least} or more")
    for name in ("mlp_ratio", "rope_theta"):
      if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
        raise InputError(f"Architecture.{name} = {getattr(self, name)}: must be positive")
    has = {field.name for field in dataclasses.fields(FAMILIES[self.family])}
    for name in _OWN:
      if getattr(self, name) is not None and name not in has:
        raise InputError(f"Architecture.{name} = {getattr(self, name)!r}: family {self.family!r} has no such setting; leave it out")

  def at(self, width: int, depth: int, vocab_size: int, sequence_length: int) -> ModelConfig:
    """The model of one size. Raises InputError where there is none, or heads do not divide the width."""
    given = {name: value for name, value in dataclasses.asdict(self).items() if name not in _OWN or value is not None}
    return FAMILIES[self.family](vocab_size=vocab_size, sequence_length=sequence_length, width=width, depth=depth, **given)


def model_of(record: Mapping[str, Any]) -> ModelConfig:
  """The model of a record that `dataclasses.asdict` made of it. Raises InputError where its family is not there."""
  return FAMILIES[record["family"]](**record)
