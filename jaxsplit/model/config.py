"""The shape of a model, and what follows from the shape alone: head counts, parameter counts, FLOPs."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from jaxsplit.errors import InputError

Remat = Literal["none", "dots", "full"]
Kernel = Literal["auto", "dense", "splash", "cudnn"]


@dataclasses.dataclass(frozen=True)
class Architecture:
  """What models of every size have in common; `at` gives the model of one size.

  Attributes:
    head_dim: width of one attention head; a model of width D has D / head_dim query heads.
    queries_per_kv: query heads that share one key/value head (grouped-query attention, arXiv 2305.13245); 1 is multi-head.
    mlp_ratio: hidden width of the SwiGLU over the model's width, before rounding up to a multiple of 16.
    qk_norm: RMS-normalise queries and keys per head (arXiv 2302.05442): calms training at high rates.
    tie_embeddings: the output projection is the embedding, transposed.
    document_masking: attention stays inside a document.
    attention: dense computes whole [T, T] scores; splash is JAX's flash attention for TPUs (T and head_dim in multiples of 128);
      cudnn is NVIDIA's for GPUs from Ampere on (bfloat16, T even, head_dim a multiple of 8 up to 128; with document masking, up
      to 112 at T = 2,048 but on Hopper).
      auto is splash on a TPU and cudnn on a GPU where they suit the model, dense elsewhere.
    rope_theta: base of the rotary frequencies.
    remat: what the backward pass recomputes: nothing, all but matmul outputs, or whole layers.
    compute_dtype: dtype of activations; parameters stay float32. auto is float32 on CPU, bfloat16 elsewhere.
  """

  head_dim: int = 16
  queries_per_kv: int = 1
  mlp_ratio: float = 8 / 3
  qk_norm: bool = True
  tie_embeddings: bool = False
  document_masking: bool = True
  attention: Kernel = "auto"
  rope_theta: float = 10_000.0
  remat: Remat = "none"
  compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"

  def __post_init__(self):
    for name, least in (("head_dim", 2), ("queries_per_kv", 1)):
      if getattr(self, name) < least:
        raise InputError(f"Architecture.{name} = {getattr(self, name)}: must be {least} or more")
    for name in ("mlp_ratio", "rope_theta"):
      if not 0 < getattr(self, name) < math.inf:
        raise InputError(f"Architecture.{name} = {getattr(self, name)}: must be positive")

  def at(self, width: int, depth: int, vocab_size: int, sequence_length: int) -> ModelConfig:
    """The model of one size. Raises InputError where there is none, or heads do not divide the width."""
    if width < 1 or depth < 1:
      raise InputError(f"a model of width {width} and depth {depth} is none; give (width, depth) of 1 or more in "
                       "Experiment.target and Experiment.sizes")
    if width * self.mlp_ratio < 1:
      raise InputError(f"Architecture.mlp_ratio = {self.mlp_ratio} leaves a model of width {width} no hidden unit; use more, "
                       "such as 8 / 3 = 2.667")
    if width % self.head_dim or self.head_dim % 2:
      raise InputError(f"Architecture.head_dim = {self.head_dim} must be even and divide the width {width}; "
                       f"use a width of {-(-width // self.head_dim) * self.head_dim}")
    heads = width // self.head_dim
    if heads % self.queries_per_kv:
      raise InputError(f"Architecture.queries_per_kv = {self.queries_per_kv} must divide the {heads} heads of width {width}; "
                       "use a multiple of queries_per_kv * head_dim as width")
    if self.attention == "splash" and (sequence_length % 128 or self.head_dim % 128):
      raise InputError(f"Architecture.attention = 'splash' takes multiples of 128, not Training.sequence_length = "
                       f"{sequence_length} and Architecture.head_dim = {self.head_dim}; use 'auto'")
    suits_cudnn = sequence_length % 2 == 0 and self.head_dim % 8 == 0 and self.head_dim <= 128
    if self.attention == "cudnn" and (self.compute_dtype == "float32" or not suits_cudnn):
      raise InputError(f"Architecture.attention = 'cudnn' takes compute_dtype = 'bfloat16', not {self.compute_dtype!r}, head_dim in "
                       f"multiples of 8 up to 128, not {self.head_dim}, and an even Training.sequence_length, not {sequence_length}; "
                       "use 'auto'")
    return ModelConfig(
        vocab_size=vocab_size, sequence_length=sequence_length, width=width, depth=depth, heads=heads,
        kv_heads=heads // self.queries_per_kv, head_dim=self.head_dim, mlp_width=-(-int(width * self.mlp_ratio) // 16) * 16,
        qk_norm=self.qk_norm, tie_embeddings=self.tie_embeddings, document_masking=self.document_masking,
        attention=self.attention, rope_theta=self.rope_theta, remat=self.remat, compute_dtype=self.compute_dtype)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """One decoder-only transformer. Fields as in `Architecture`, with the counts that a width fixes."""

  vocab_size: int
  sequence_length: int
  width: int
  depth: int
  heads: int
  kv_heads: int
  head_dim: int
  mlp_width: int
  qk_norm: bool
  tie_embeddings: bool
  document_masking: bool
  attention: Kernel
  rope_theta: float
  remat: Remat
  compute_dtype: Literal["auto", "float32", "bfloat16"]

  @property
  def params(self) -> int:
    """N: parameters outside the embedding and the output projection."""
    attention = self.width * self.head_dim * (2 * self.heads + 2 * self.kv_heads) + 2 * self.head_dim * self.qk_norm
    layer = attention + 3 * self.width * self.mlp_width + 2 * self.width
    return self.depth * layer + self.width

  @property
  def params_total(self) -> int:
    """All parameters."""
    return self.params + self.vocab_size * self.width * (1 if self.tie_embeddings else 2)

  @property
  def flops_per_token(self) -> float:
    """Training FLOPs per token: 6 per parameter of a matmul, plus attention (arXiv 2204.02311, appendix B).

    The output projection multiplies as any other matrix and is counted (it dominates small models); the embedding is a
    lookup and is not. Attention scores and sums cost 12 * depth * heads * head_dim * T, with no discount for causality.
    """
    return (6.0 * (self.params + self.vocab_size * self.width)
            + 12.0 * self.depth * self.heads * self.head_dim * self.sequence_length)
