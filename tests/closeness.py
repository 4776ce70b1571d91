"""Whether numbers are the same but for rounding."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def assert_near(found: Any, expected: Any, within: float) -> None:
  """Arrays, or trees of them, of which each is off by `within` times its size at most: that of its largest number.

  What is compared together has sizes of one kind, and none of it is held to less than a hundredth of the largest: arrays may be
  zero (gradients by what has no influence), but for the rounding of what cancels out in them.
  """
  there, here = (jax.tree.map(lambda x: np.asarray(x, np.float64), tree) for tree in (expected, found))
  largest = max(np.abs(x).max() for x in jax.tree.leaves(there))
  assert np.isfinite(largest) and largest > 0
  jax.tree.map(lambda x, y: np.testing.assert_allclose(
      x, y, rtol=0, atol=within * max(np.abs(y).max(), largest / 100)), here, there)
