"""The recipe of an experiment, applied to stages: their runs, programs, schedules and data streams."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping

import numpy as np

from jaxsplit.data.resampling import WindowClusters
from jaxsplit.data.store import Store
from jaxsplit.data.stream import Stream, interleaved, mixture, windows
from jaxsplit.experiment.tree import Run, Stage
from jaxsplit.files import content_hash
from jaxsplit.interop.huggingface import Folder
from jaxsplit.parallel import hosts
from jaxsplit.parallel.sharding import Layout
from jaxsplit.training import capacity, stack
from jaxsplit.training.loop import Training
from jaxsplit.training.optimizer import NEVER, Optimizer, Schedule
from jaxsplit.training.stack import StackSpec, State


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What all stages of an experiment have in common.

  Attributes:
    training, optimizer, layout: execution, optimizer and mesh settings.
    weights: the mixture's weights by domain.
    seed: of initial weights and data order.
    keep_moments: experts start with their seed's moments.
    validation_tokens: held-out tokens per domain that a cell's loss is measured on.
    exact_match: also measure accuracy.
    replay: fraction of an expert's stream that is the mixture.
    resample: of scarce domains, the fraction of their expert's stream that is resampled from the other domains.
    resample_clusters: number of clusters by which it is.
    base: the model whose weights all runs start from; None: initial weights.
  """

  training: Training
  optimizer: Optimizer
  layout: Layout
  weights: dict[str, float]
  seed: int
  keep_moments: bool
  validation_tokens: int
  exact_match: bool
  replay: float = 0.0
  resample: Mapping[str, float] = dataclasses.field(default_factory=dict)
  resample_clusters: int = 0
  base: Folder | None = None

  def passes(self, domain: str, seed_tokens: int, expert_tokens: int) -> float:
    """The tokens of a domain that a seed and its expert for that domain train on together."""
    share = self.weights[domain] / sum(self.weights.values())
    return seed_tokens * share + expert_tokens * (self.own_share(domain) + self.replay * share)

  def own_share(self, domain: str) -> float:
    """The fraction of the stream of a domain's expert that is the domain's own, without what the mixture has of it."""
    return round(1 - self.replay - self.resample.get(domain, 0.0), 9)  # Of decimals, which should stay what they are.


class StageSetup:
  """The recipe applied to the stages of one store, and the layout of the stages' stacks on the devices.

  `window_clusters` are what the streams of scarce domains are resampled by; needed for the streams of a recipe that has any.
  """

  def __init__(self, store: Store, recipe: Recipe, window_clusters: WindowClusters | None = None):
    self.store, self.recipe, self._window_clusters = store, recipe, window_clusters
    any_parts = not recipe.training.accumulation
    self._fitted = functools.cache(lambda wanted: capacity.fitted(wanted, any_parts))
    self._waves = functools.cache(lambda wanted: capacity.waves(wanted, any_parts))
    self._specs: dict[StackSpec, StackSpec] = {}  # Requested by the settings -> trained.

  def settle(self, stages: Iterable[Stage]) -> None:
    """Decides the layout of these stages' stacks, the number of parts of a batch and the number of idle runs.

    It depends on the devices' memory, and each process sees only its own devices: the lead decides for all processes, which call
    this at the same point of the program.
    """
    new = [wanted for wanted in dict.fromkeys(map(self._wanted, stages)) if wanted not in self._specs]
    decided = hosts.broadcast(lambda: [_decisions(self._fitted(wanted) or capacity.as_given(wanted)) for wanted in new])
    self._specs |= {wanted: dataclasses.replace(wanted, runs=runs, accumulation=parts, layout=Layout(**layout))
                    for wanted, (runs, parts, layout) in zip(new, decided)}

  def padded_runs(self, stage: Stage) -> tuple[Run, ...]:
    """The runs of a settled stage, padded with idle copies of the first to the size of its stack."""
    return stage.runs + stage.runs[:1] * (self.spec(stage).runs - len(stage.runs))

  def spec(self, stage: Stage) -> StackSpec:
    """The spec that a settled stage's programs are compiled for."""
    return self._specs[self._wanted(stage)]

  def fits(self, stage: Stage) -> bool:
    """Whether the stage's stack fits into the devices' memory, as this process sees it.

    Raises:
      InputError: the settings' layout is not possible for a whole stage.
    """
    if not stage.wave:
      _ = capacity.as_given(self._wanted(stage)).mesh  # Raises.
    return self._fitted(self._wanted(stage)) is not None

  def waves(self, stage: Stage) -> int:
    """The best number of waves for the stage, as this process sees the devices.

    Raises:
      InputError: not even one of its runs fits.
    """
    return self._waves(self._wanted(stage))

  def _wanted(self, stage: Stage) -> StackSpec:
    """The stage's stack as requested by the settings, without idle runs."""
    training = self.recipe.training
    whole = StackSpec(
        model=stage.model, optimizer=self.recipe.optimizer, layout=self.recipe.layout, runs=len(stage.runs),
        runs_per_map=training.runs_per_map, batch=training.batch_sequences, end_of_document=self.store.end_of_document,
        weighted=self.store.weighted, accumulation=training.accumulation or 1,
        averages=any(run.mean_start is not None for run in stage.runs))
    return capacity.wave(whole, stage.wave.runs) if stage.wave else whole

  def keeps_moments(self, stage: Stage) -> bool:
    """Whether the stage begins with its parents' moments."""
    return self.recipe.keep_moments or not stage.forks

  def first_state(self, stage: Stage) -> State:
    """The state of a stage that has no parents: the base model's weights, or fresh ones."""
    if self.recipe.base:
      return stack.begin(self.spec(stage), self.recipe.base.part)
    return stack.initialize(self.spec(stage), self.weight_seeds(stage))

  def weight_seeds(self, stage: Stage) -> list[int]:
    """Init seed per run, idle copies included."""
    return [self._seed("weights", run.replica, run.seed_index) for run in self.padded_runs(stage)]

  def schedule(self, stage: Stage) -> Schedule:
    """The runs' schedules, idle copies included."""
    warmup = round(self.recipe.optimizer.warmup_tokens / self.recipe.training.batch_tokens)
    runs = self.padded_runs(stage)
    return Schedule(
        peak=np.array([run.learning_rate for run in runs], np.float32),
        warmup_start=np.array([run.rewarm for run in runs], np.int32),
        warmup_end=np.array([run.rewarm + warmup for run in runs], np.int32),
        decay_start=np.array([run.decay[0] for run in runs], np.int32),
        decay_end=np.array([run.decay[1] for run in runs], np.int32),
        mean_start=np.array([NEVER if run.mean_start is None else run.mean_start for run in runs], np.int32))

  def streams(self, stage: Stage, attempt: int = 0) -> list[Stream]:
    """The data stream of each run, idle copies included; in another order if a run is trained again."""
    return [self._stream(run, (attempt,) if attempt else ()) for run in self.padded_runs(stage)]

  def _stream(self, run: Run, again: tuple[int, ...]) -> Stream:
    length = self.recipe.training.sequence_length
    if run.domain is None:
      return mixture(self.store, self.recipe.weights, self._seed("mixture", run.replica, run.seed_index, *again), length)
    # Experts of one domain and replica read the same order from whichever snapshot they fork, so that cells differ by D only.
    parts = [(windows(self.store, run.domain, self._seed("expert", run.replica, *again), length), self.recipe.own_share(run.domain))]
    if run.domain in self.recipe.resample:
      resampled = self._window_clusters.stream(run.domain, self._seed("resample", run.replica, *again))
      parts.append((resampled, self.recipe.resample[run.domain]))
    if self.recipe.replay:
      general = mixture(self.store, self.recipe.weights, self._seed("replay", run.replica, *again), length)
      parts.append((general, self.recipe.replay))
    return interleaved(*zip(*(part for part in parts if part[1])))

  def _seed(self, *purpose) -> int:
    return int(content_hash(str(self.recipe.seed), *map(str, purpose)), 16) % (1 << 31)


def _decisions(spec: StackSpec) -> list:
  """The decisions for a stack that depend on its devices' memory, as JSON."""
  return [spec.runs, spec.accumulation, dataclasses.asdict(spec.layout)]
