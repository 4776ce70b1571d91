"""The task of a sweep, and the cost of its cells: their tree of stages is built, and its steps are counted."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

from jaxsplit.experiment.ladder import Size, ladder
from jaxsplit.models.family import ModelConfig
from jaxsplit.results.stages import Point
from jaxsplit.experiment import tree
from jaxsplit.experiment.budget import Steps
from jaxsplit.experiment.probe import Probe, probe_stages
from jaxsplit.experiment.settings import Settings, budget_of

_WARM = 1.5  # Times the warm-up.


@dataclasses.dataclass(frozen=True)
class Task:
  """The task of a sweep, by which its cells are priced.

  Attributes:
    target: the model to plan a split for.
    candidates: smaller models that may be measured, by size.
    budget: C.
    batch_tokens: tokens of a step.
    seeds: independent seeds per replica.
    replicas: of everything.
    warmup_steps: no cell is within them.
    rewarms: whether experts warm up again.
    cooldown: (D, D') in steps -> length of the cooldown in steps.
    probe: how learning rates are found.
    averaged: whether cells are means of weights, in place of cooldowns.
  """

  target: ModelConfig
  candidates: Mapping[Size, ModelConfig]
  budget: Steps
  batch_tokens: int
  seeds: int
  replicas: int
  warmup_steps: int
  rewarms: bool
  cooldown: Callable[[int, int], int]
  probe: Probe
  averaged: bool

  @property
  def final_flops(self) -> float:
    """Of the planned training: C tokens of the target. With a budget per model, at a split of 50 %."""
    half = self.budget.point(0.5)
    steps = self.budget.seeds * half.seed_steps + self.budget.num_domains * half.expert_steps
    return steps * self.batch_tokens * self.target.flops_per_token

  @property
  def warm_steps(self) -> float:
    """Minimum steps of a cell, so that its learning rate has risen before it falls."""
    return _WARM * self.warmup_steps

  @functools.cached_property
  def probed_steps(self) -> int:
    """Steps of all runs of one size's probe together."""
    if len(self.probe.rates) == 1:
      return 0
    lengths = [self.budget.seed_steps(fraction) for fraction in self.probe.fractions]
    return steps_of_stages(probe_stages(self.probe, [("", self.target)], lengths, self.cooldown))

  def steps(self, requests: Sequence[Sequence[Point]]) -> int:
    """Steps of all runs of the trees of successive requests together; the same at any size. One domain's stages stand for all."""
    shape = tree.Shape("", self.target, ("",), self.replicas, 1.0, 1, self.cooldown, not self.rewarms, False, self.averaged)
    stages = tree.build_all([(shape, points) for points in requests])
    times = lambda stage: self.budget.num_domains if stage.runs[0].domain is not None else self.seeds
    return sum(len(stage.runs) * stage.steps * times(stage) for stage in stages)

  def price(self, model: ModelConfig, steps: int) -> float:
    """The cost of so many steps of a model, as a fraction of the final training's FLOPs."""
    return steps * self.batch_tokens * model.flops_per_token / self.final_flops


def task_of(settings: Settings, num_domains: int, vocab_size: int) -> Task:
  """The task for given settings, K and vocabulary."""
  experiment, training = settings.experiment, settings.training
  target = settings.architecture.at(*experiment.target, vocab_size, training.sequence_length)
  return Task(target, ladder(settings.architecture, experiment.target, vocab_size, training.sequence_length),
              budget_of(experiment, training, num_domains), training.batch_tokens, 1 if experiment.trunk == "shared" else num_domains,
              experiment.replicas, round(settings.optimizer.warmup_tokens / training.batch_tokens), not experiment.keep_moments,
              experiment.cooldown_steps, settings.probe, experiment.averages)


def steps_of_stages(stages: Sequence[tree.Stage]) -> int:
  """Steps of all runs of all stages together."""
  return sum(len(stage.runs) * stage.steps for stage in stages)
