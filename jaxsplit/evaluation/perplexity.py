"""Held-out loss of the runs of a stack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxsplit.training import placement, sharding, stack
from jaxsplit.training.stack import StackSpec, State


def held_out(spec: StackSpec, state: State, windows: Sequence[Sequence[np.ndarray]], exact_match: bool = False) -> dict[str, np.ndarray]:
  """Each run's mean loss on its own sets of windows.

  Args:
    spec, state: the stack.
    windows: [R][M] arrays int32 [V, T + 1]; V may differ between sets.
    exact_match: also count the windows whose every scored target is the most likely token.

  Returns:
    float64 [R, M] each: `loss` in nats per scored token and, if asked for, `exact` as a share of the windows.
  """
  program = stack.evaluate_block(spec, exact_match)
  most = stack.evaluated_windows(spec, max(len(one) for sets in windows for one in sets))
  means: dict[str, list[np.ndarray]] = {}
  for column in zip(*windows, strict=True):  # One set for every run at a time: one program serves any M.
    counts_R = np.array([len(one) for one in column], np.int32)
    tokens_RxVxT1 = np.stack([np.pad(one, ((0, most - len(one)), (0, 0))) for one in column])
    sums = placement.fetch(program(
        state["params"], placement.put(tokens_RxVxT1, sharding.windows_sharding(spec.mesh)),
        placement.put(counts_R, sharding.run_sharding(spec.mesh))))
    scored = tokens_RxVxT1.shape[2] - 1 if spec.loss_mask is None else sum(spec.loss_mask)
    for name, sum_R in sums.items():
      means.setdefault(name, []).append(np.asarray(sum_R, np.float64) / counts_R / (scored if name == "loss" else 1))
  return {name: np.stack(columns, axis=1) for name, columns in means.items()}
