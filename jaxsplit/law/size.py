"""The best model size for a compute budget under a law, at the best split of its tokens."""

from __future__ import annotations

import numpy as np

from jaxsplit.law.law import Law
from jaxsplit.results.budget import Budget

FLOPS_PER_PARAM_TOKEN = 6  # Training FLOPs: forward 2, backward 4.
_SIZES = 41  # Sizes tried at a time, evenly in log N ...
_BEYOND = 4.0  # ... first as far as this outside the measured ones, and where the best is at an end, on from there ...
_MOVES = 12  # ... at most so many times.
_FRACTIONS = np.linspace(0, 1, 51)


def best_size(law: Law, budget_flops: float, num_domains: int, accounting: str,
              fractions: np.ndarray = _FRACTIONS) -> tuple[float, str]:
  """The N whose best split has the least expected loss under a FLOP budget, and what to know of it, mostly nothing.

  Args:
    law: the fitted law.
    budget_flops: 6 N a token.
    num_domains, accounting: as of `results.budget.Budget`.
    fractions: the splits to choose from.
  """
  expected = law.expect if len(fractions) > 1 else law.mean_of_forms  # As plans print it; a surface is read for splits alone.

  def losses(sizes: np.ndarray) -> np.ndarray:
    budget = Budget(budget_flops / (FLOPS_PER_PARAM_TOKEN * sizes[:, None]), num_domains, accounting)
    return expected(sizes[:, None], *budget.divided(fractions)).min(1)

  low, high = law.data["ranges"]["params"]
  most = np.log(budget_flops / FLOPS_PER_PARAM_TOKEN)  # That size gets one token.
  ends = np.minimum(np.log([low / _BEYOND, high * _BEYOND]), [most - 1, most])
  for move in range(_MOVES + 1):
    sizes = np.exp(np.linspace(*ends, _SIZES))
    best = int(losses(sizes).argmin())
    at_end = best in (0, _SIZES - 1)
    if not at_end or move == _MOVES or (best and ends[1] >= most):
      break
    ends = np.minimum(ends + (0.75 if best else -0.75) * np.ptp(ends), [most - 1, most])
  if at_end:
    return float(sizes[best]), (f"no size is best under this budget as far as N = {sizes[best]:.3g}: the law's loss still falls "
                                "there, so give --params, or measure sizes at several numbers of tokens")
  for _ in range(2):
    sizes = np.geomspace(sizes[best - 1], sizes[best + 1], _SIZES)
    best = int(np.clip(losses(sizes).argmin(), 1, _SIZES - 2))
  return float(sizes[best]), ""
