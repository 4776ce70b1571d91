"""The settings of an evaluation."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxsplit.errors import InputError


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """How models are evaluated.

  Attributes:
    tasks: names of zero-shot tasks, separated by commas; empty for the matrix of models by domains only.
    limit: number of rows of each task, from the first; 0: all.
    unconditional: also score answers without their question (acc_uncond); takes longer.
    split: split of the matrix's documents, valid or test; auto is test if every domain has one.
    tokens: number of tokens of each domain for the matrix, in documents spread over the split, of longer ones the beginning; 0: all.
    stride: tokens between windows of documents longer than the models' context; 0: half of the context.
    context: maximum context in tokens; 0: that of the models.
    batch_tokens: tokens per batch; 0: 32,768, on a CPU 1,024 for each device that shares a batch.
    replica: which replica of an experiment's models to evaluate.
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
