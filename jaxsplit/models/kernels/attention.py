"""Causal self-attention over packed documents, by the kernel that suits the model and the device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from jaxsplit.errors import InputError
from jaxsplit.models.family import ModelConfig
from jaxsplit.models.kernels import cudnn, dense, splash

Attend = Callable[..., jax.Array]  # As `attender` gives it.


def segments(tokens_BxT: jax.Array, end_of_document: int) -> jax.Array:
  """Numbers the documents in each window: int32 [B, T], rising by one after every end-of-document token."""
  ends_BxT = (tokens_BxT == end_of_document).astype(jnp.int32)
  return jnp.cumsum(ends_BxT, axis=1) - ends_BxT


def kernel(config: ModelConfig) -> Literal["dense", "splash", "cudnn"]:
  """What computes this model's attention here, or as the config has it, which may be for another machine.

  Raises:
    InputError: cudnn was asked for, and heads are too wide for the GPU that is here.
  """
  shape = config.sequence_length, config.head_dim
  wide, widest = cudnn.width(*shape, config.document_masking), cudnn.widest()
  if config.attention == "cudnn" and 0 < widest < wide:
    raise InputError(f"Architecture.attention = 'cudnn' makes heads {wide} wide of Architecture.head_dim = {config.head_dim}, to keep "
                     f"documents apart, and this GPU takes {widest}; use 'auto'")
  if config.attention != "auto":
    return config.attention
  if splash.suits(*shape) and jax.default_backend() == "tpu":
    return "splash"
  if cudnn.suits(*shape) and wide <= widest and config.compute_dtype != "float32":
    return "cudnn"
  return "dense"


def check_here(config: ModelConfig) -> None:
  """Refuses a kernel that the devices which are here do not have.

  Raises:
    InputError: it says which they are.
  """
  needs = {"splash": "tpu", "cudnn": "cuda"}.get(kernel(config))
  platform = jax.devices()[0].client.platform_version if needs == "cuda" else jax.default_backend()
  if needs and needs not in platform:
    raise InputError(f"Architecture.attention = {config.attention!r} needs {needs.upper()} devices, and here is "
                     f"{jax.devices()[0].device_kind}; use 'auto'")


def attender(config: ModelConfig, tokens_BxT: jax.Array, end_of_document: int) -> Attend:
  """The model's attention over these windows: a function of q [B, T, G, Q, d], k and v [B, T, G, d] that gives [B, T, G, Q, d].

  The Q queries of a group share its key and value. Made once, outside the scan over layers.
  """
  if kernel(config) == "cudnn":
    digits = cudnn.digits(segments(tokens_BxT, end_of_document), config.head_dim) if config.document_masking else None
    return functools.partial(cudnn.attend, digits_BxTxe=digits)
  if kernel(config) == "splash":
    apart = segments(tokens_BxT, end_of_document) if config.document_masking else jnp.zeros_like(tokens_BxT)
    return functools.partial(splash.attend, segments_BxT=apart)
  starts_BxT = dense.document_starts(tokens_BxT, end_of_document) if config.document_masking else None
  return functools.partial(dense.attend, mask_Bx1xTxS=dense.causal_mask(starts_BxT, tokens_BxT.shape[1]))
