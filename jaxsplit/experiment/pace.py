"""How long training takes: seconds a step and a FLOP, from stacks of several sizes that were timed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls


class Pace(NamedTuple):
  """The time of steps: on a GPU small models' are all overhead, on a CPU nearly all FLOPs.

  Attributes:
    step: seconds of each step, whatever it computes.
    flop: seconds of each FLOP.
  """

  step: float
  flop: float

  def seconds(self, steps: float, flops: float) -> float:
    """The time of steps that have so many FLOPs together."""
    return self.step * steps + self.flop * flops


def pace_of(steps: np.ndarray, flops: np.ndarray, seconds: np.ndarray) -> Pace:
  """The pace at which stacks were trained, by least squares of relative errors, neither part negative; of one, FLOPs alone.

  Args:
    steps, flops, seconds: [n] of each stack, in all; positive.
  """
  if len(steps) == 1:
    return Pace(0.0, float(seconds[0] / flops[0]))
  parts = np.stack([steps / seconds, flops / seconds], 1)
  scale = parts.max(0)
  return Pace(*map(float, nnls(parts / scale, np.ones(len(parts)))[0] / scale))
