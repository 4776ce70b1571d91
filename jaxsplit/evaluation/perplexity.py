"""Held-out loss of the runs of a stack."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from jaxsplit.training import sharding, stack
from jaxsplit.training.stack import StackSpec, State


def held_out(spec: StackSpec, state: State, windows: Sequence[Sequence[np.ndarray]], exact_match: bool = False) -> dict[str, np.ndarray]:
  """Each run's mean loss on its own sets of windows.

  Args:
    spec, state: the stack.
    windows: [R][M] arrays int32 [V, T + 1]; every run reads M sets of equal V.
    exact_match: also count the windows whose every scored target is the most likely token.

  Returns:
    float64 [R, M] each: `loss` in nats per scored token and, if asked for, `exact` as a share of the windows.
  """
  tokens_RxMxVxT1 = np.stack([np.stack(sets) for sets in windows])
  tokens = jax.device_put(tokens_RxMxVxT1, sharding.run_sharding(spec.mesh))
  sums = jax.device_get(stack.evaluate_block(spec, exact_match)(state["params"], tokens))
  count, length = tokens_RxMxVxT1.shape[2], tokens_RxMxVxT1.shape[3] - 1
  scored = count * (length if spec.loss_mask is None else sum(spec.loss_mask))
  means = {"loss": np.asarray(sums["loss"], np.float64) / scored}
  if exact_match:
    means["exact"] = np.asarray(sums["exact"], np.float64) / count
  return means
