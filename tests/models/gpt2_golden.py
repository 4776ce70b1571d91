"""A small GPT-2 whose logits `transformers` computed (scripts/gpt2_logits.py): its weights, drawn from a seed, and its tokens.

Needs NumPy alone, so that the script can use it where there is no JAX.
"""

from __future__ import annotations

import pathlib

import numpy as np

LOGITS = pathlib.Path(__file__).with_name("gpt2_logits.npy")  # float32 [B, T, V].
VOCAB, LENGTH, WIDTH, DEPTH, HEADS = 23, 10, 16, 2, 4
_LAYER = {"ln_1": (WIDTH,), "attn.c_attn": (WIDTH, 3 * WIDTH), "attn.c_proj": (WIDTH, WIDTH), "ln_2": (WIDTH,),
          "mlp.c_fc": (WIDTH, 4 * WIDTH), "mlp.c_proj": (4 * WIDTH, WIDTH)}


def weights() -> dict[str, np.ndarray]:
  """By the names that `transformers` has, in its shapes. All are drawn, scales and biases too, so that each counts."""
  shapes = {"wte.weight": (VOCAB, WIDTH), "wpe.weight": (LENGTH, WIDTH)}
  for layer in (*(f"h.{i}.{name}" for i in range(DEPTH) for name in _LAYER), "ln_f"):
    shape = _LAYER.get(layer.split(".", 2)[-1], (WIDTH,))
    shapes |= {f"{layer}.weight": shape, f"{layer}.bias": shape[-1:]}
  random = np.random.default_rng(0)
  return {name: random.normal(1.0 if "ln_" in name and "weight" in name else 0.0, 0.3, shape).astype(np.float32)
          for name, shape in shapes.items()}


def tokens() -> np.ndarray:
  """int [B, T], of which none ends a document."""
  return np.random.default_rng(1).integers(1, VOCAB, (3, LENGTH))
