"""A budget and what it pays for: how many seeds and experts, and the tokens of each for a share of it. In whole steps:
experiment.budget."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

Accounting = Literal["total", "separate", "per_model"]


@dataclasses.dataclass(frozen=True)
class Budget:
  """C, shared between seeds and experts.

  Attributes:
    amount: C, in tokens or steps; an array of them for several budgets.
    num_domains: K.
    accounting: total: one seed and K experts, C = D + K D'; separate: K of each, C = K D + K D'; per_model: what one final model
      has seen, C = D + D'.
  """

  amount: Any
  num_domains: int
  accounting: Accounting = "total"

  @property
  def seeds(self) -> int:
    """The seeds that it pays for."""
    return self.num_domains if self.accounting == "separate" else 1

  @property
  def experts(self) -> int:
    """The experts that it pays for."""
    return 1 if self.accounting == "per_model" else self.num_domains

  def divided(self, fraction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """D of each seed and D' of each expert where seeds have this share.

    Without experts nothing tells seeds apart: one has all the budget, the dense model.
    """
    return (np.where(fraction == 1, self.amount, fraction * self.amount / self.seeds),
            (1 - fraction) * self.amount / self.experts)

  def fraction(self, seed: int, expert: int) -> float:
    """The seeds' share of what D and D' come to."""
    return self.seeds * seed / (self.seeds * seed + self.experts * expert)


def accounting_of(accounting: Literal["total", "per_model"], shared_seed: bool) -> Accounting:
  """How an experiment's budget is accounted for, by its settings."""
  return accounting if shared_seed or accounting == "per_model" else "separate"
