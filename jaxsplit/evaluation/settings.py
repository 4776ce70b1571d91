"""What is measured, and how."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxsplit.errors import InputError


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """How models are evaluated.

  Attributes:
    tasks: names of zero-shot tasks, with commas between them; none: only the matrix.
    limit: rows of each task, the first ones; 0: all.
    unconditional: also score answers without their question (acc_uncond); takes longer.
    split: of the documents of the matrix, valid or test; auto is test where every domain has that.
    tokens: of each domain's split that suffice for the matrix, in whole documents from all over it; 0: all.
    stride: tokens by which windows move on in documents longer than the models' context; 0: half of it.
    context: tokens that models read at most; 0: as many as they can.
    batch_tokens: tokens of a batch; 0: 2,048 on a CPU, 32,768 elsewhere.
    replica: which repetition of an experiment's models.
  """

  tasks: str = ""
  limit: int = 0
  unconditional: bool = False
  split: Literal["auto", "valid", "test"] = "auto"
  tokens: int = 200_000
  stride: int = 0
  context: int = 0
  batch_tokens: int = 0
  replica: int = 0

  def __post_init__(self):
    for name in ("limit", "tokens", "stride", "context", "batch_tokens", "replica"):
      if getattr(self, name) < 0:
        raise InputError(f"Evaluation.{name} = {getattr(self, name)}: must be 0 or more")

  @property
  def task_names(self) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in self.tasks.split(",") if name.strip()))
