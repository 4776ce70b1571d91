"""Whether numbers are the same but for rounding."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def assert_near(found: Any, expected: Any, within: float) -> None:
  """Arrays, or trees of them, that are apart by `within` times the size of what is compared, or less.

  The size is that of the largest number in all of `expected`: single numbers, and whole arrays (gradients of what has no
  influence), may be zero but for the rounding of what cancels out in them.
  """
  there, here = (jax.tree.map(lambda x: np.asarray(x, np.float64), tree) for tree in (expected, found))
  size = max(np.abs(x).max() for x in jax.tree.leaves(there))
  assert np.isfinite(size) and size > 0
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=within * size), here, there)
