"""Model sizes of the same proportions: a ladder of sizes below a target, and the size with about N parameters."""

from __future__ import annotations

import math

import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.models.config import Architecture
from jaxsplit.models.family import ModelConfig

Size = tuple[int, int]  # (width, depth).

_SMALLEST, _LARGEST = 1 / 2000, 1 / 1.5  # N over the target's.
_RUNGS = 10  # At most.
_GPT3 = 2048, 24  # One of GPT-3's shapes (arXiv 2005.14165, table 2.1).
_DEPTH_POWER = 0.63  # Depth against width, in these shapes.


def ladder(architecture: Architecture, target: Size, vocab_size: int, sequence_length: int) -> dict[Size, ModelConfig]:
  """Models below the target, of its proportions, from small to large: at most ten, evenly spaced in ln N."""
  width, depth = target
  share = lambda size: size[0] ** 2 * size[1] / (width**2 * depth)  # Of the target's N, about.
  sizes = []
  for narrow in range(architecture.head_dim, width + 1, architecture.head_dim):
    shallow = depth * (narrow / width) ** _DEPTH_POWER
    sizes += [(narrow, max(1, levels)) for levels in ({math.floor(shallow), math.ceil(shallow)} if shallow < 4 else {round(shallow)})]
  sizes = sorted((size for size in set(sizes) if _SMALLEST <= share(size) <= _LARGEST), key=lambda size: (share(size), size))
  if len(sizes) > _RUNGS:
    logs = np.log([share(size) for size in sizes])
    sizes = [sizes[i] for i in sorted({int(np.abs(logs - at).argmin()) for at in np.linspace(logs[0], logs[-1], _RUNGS)})]
  found: dict[int, tuple[Size, ModelConfig]] = {}
  for size in sizes:
    try:
      model = architecture.at(*size, vocab_size, sequence_length)
    except InputError:  # Heads that do not divide this width.
      continue
    found.setdefault(model.params_total, (size, model))  # The size of a cell is identified by that number.
  return dict(sorted(found.values(), key=lambda one: one[1].params))


def size_near(architecture: Architecture, params: float) -> Size:
  """The size of about GPT-3's proportions (arXiv 2005.14165, table 2.1) that has about so many parameters."""
  best, least = (architecture.head_dim, 1), math.inf
  for width in range(architecture.head_dim, 2 * math.isqrt(int(params)) + 2 * architecture.head_dim, architecture.head_dim):
    ideal = max(1.0, _GPT3[1] * (width / _GPT3[0]) ** _DEPTH_POWER)
    for depth in range(max(1, int(ideal) - 1), int(ideal) + 3):
      off = abs(math.log(12 * width**2 * depth / params)) + abs(math.log(depth / ideal)) / 4
      if off < least:
        best, least = (width, depth), off
  return best
