"""The settings of an experiment, as they are given and as a work directory keeps them."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from typing import Any, Literal

from jaxsplit.clustering.settings import Clustering
from jaxsplit.data.corpus import Corpus
from jaxsplit.data.phonebook import Phonebook
from jaxsplit.data.tokenizer import Tokenization
from jaxsplit.errors import InputError
from jaxsplit.experiment.budget import Steps
from jaxsplit.experiment.probe import Probe
from jaxsplit.law import FitSettings
from jaxsplit.models.config import Architecture
from jaxsplit.parallel.sharding import Layout
from jaxsplit.results.budget import accounting_of
from jaxsplit.results.config import read_config
from jaxsplit.results.record import parsed
from jaxsplit.training.loop import Training
from jaxsplit.training.optimizer import Optimizer

GRID = "line", "seed_fractions", "expert_fractions"  # Settings that need `sizes`.


@dataclasses.dataclass(frozen=True)
class Experiment:
  """The budget, and the cells to measure. Tokens D and D' of each cell follow from the budget and the number of domains K.

  The same work directory may be used with other `sizes`, fractions, `target` and `compare`: cells are added, none is lost.

  Attributes:
    data: text (a `Corpus`) or phonebook (a `Phonebook`).
    budget_tokens: C, the tokens that the recommended split and the dense baseline each train on.
    accounting: total: C = D + K D' (K seeds: K D + K D'); per_model: C = D + D'. The dense baseline is one model of C tokens.
    target: (width, depth) of the models that the split is for; their N is not in the law's data.
    sizes: (width, depth) of the models that the law is fitted to. None: `Sweep` chooses them, and the line and fractions below;
      empty: no law, only `compare` is measured.
    line: fraction of C that the law's cells split; the fractions below are fractions of that.
    seed_fractions: fractions at which the trunk is snapshotted and forked: D of the law's cells. D' = 0 is measured at
      each of them too.
    expert_fractions: fractions that all experts of a fork train on together: D' of the law's cells, times K or not,
      by accounting. They get at most the tokens that their seed leaves, so a fraction of 1 adds, for each seed, the split
      that spends the whole line.
    compare: split fractions measured at the target, besides the recommended one, 80/20 and full pretraining, which are always
      measured if there is a plan; 1 is the dense baseline. Experts get the nearest whole number of steps, seeds the remaining
      ones, so a split trains on as many tokens as the dense baseline.
    uneven: also measure the best uneven plan, in which each domain has its own D and D'.
    replicas: repetitions of everything with different initial weights and data order.
    trunk: shared by all domains, or one independent seed per_domain.
    mixture: domains have equal weights in the mixture (uniform), or weights in proportion to their tokens (tokens).
    replay: fraction of each expert's stream that is the mixture: .01 nearly stops forgetting (Bethune et al. 2025, arXiv 2502.06042).
    resample: scarce domains. A part of their experts' streams is the text of the other domains, resampled by clusters: of each cluster as
      much as the scarce domain has of it (Grangier et al. 2024, arXiv 2410.03735).
    resample_share: fraction of these streams that is resampled text; 1: all of it.
    resample_clusters: number of clusters of the training text of all domains by which it is resampled.
    cooldown: fraction of D + D' over which the learning rate falls to 0 at the end of a cell; at most all of D' (of D where D' = 0).
    averaged: the law's cells are measured with the mean of a run's weights over its last steps at the constant rate, as many as half a
      cooldown, in place of cooldowns, so that one branch measures all its D' (docs/sweep.md). None: where `Sweep` chooses the cells.
    keep_moments: experts start with their seed's optimizer moments; otherwise from zero, with a new warm-up.
    validation_tokens: held-out tokens per domain that losses are measured on.
    seed: random seed of the whole experiment.
    init_from: "hf:DIR": all runs start from the weights of the Hugging Face model in that folder, with its tokenizer and size; sizes
      and target are left out. D counts the tokens that the seed is trained on the mixture after that, and seed_fractions may
      have 0: experts forked from the base model itself. None: initial weights.
  """

  data: Literal["text", "phonebook"] = "text"
  budget_tokens: int = 5_000_000
  accounting: Literal["total", "per_model"] = "total"
  target: tuple[int, int] = (96, 4)
  sizes: tuple[tuple[int, int], ...] | None = None
  line: float = 1.0
  seed_fractions: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)
  expert_fractions: tuple[float, ...] = (0.2, 1.0)
  compare: tuple[float, ...] = (1.0,)
  uneven: bool = False
  replicas: int = 1
  trunk: Literal["shared", "per_domain"] = "shared"
  mixture: Literal["uniform", "tokens"] = "uniform"
  replay: float = 0.0
  resample: tuple[str, ...] = ()
  resample_share: float = 0.5
  resample_clusters: int = 64
  cooldown: float = 0.2
  averaged: bool | None = None
  keep_moments: bool = True
  validation_tokens: int = 32_768
  seed: int = 0
  init_from: str | None = None

  def __post_init__(self):
    if self.init_from is not None and not (self.init_from.startswith("hf:") and self.init_from[3:]):
      raise InputError(f"Experiment.init_from = {self.init_from!r}: must be hf:DIR, where DIR is the folder of a Hugging Face model")
    if self.init_from and len(self.sizes or ()) > 1:
      raise InputError(f"Experiment.sizes = {self.sizes}: with Experiment.init_from there is one size, the base model's; leave it out")
    for name in ("budget_tokens", "replicas", "validation_tokens"):
      if getattr(self, name) < 1:
        raise InputError(f"Experiment.{name} = {getattr(self, name)}: must be 1 or more")
    if self.uneven and (self.trunk == "per_domain" or self.sizes == ()):
      raise InputError("Experiment.uneven = True: an uneven plan needs a law, and experts that share a trunk; leave "
                       "Experiment.trunk = 'shared', and give sizes or leave them to Sweep")
    if not 0 < self.line <= 1:
      raise InputError(f"Experiment.line = {self.line}: must be a fraction of the budget above 0")
    given = [name for name in GRID if getattr(self, name) != type(self).__dataclass_fields__[name].default]
    if self.sizes is None and given and not self.init_from:
      raise InputError(f"Experiment.{given[0]} = {getattr(self, given[0])}: needs Experiment.sizes, so give them too; "
                       "without sizes Sweep chooses the whole grid")
    if self.sizes == () and not self.compare:
      raise InputError("Experiment.sizes and Experiment.compare are both empty, so there is nothing to train: give sizes for a law "
                       "and a plan, or compare for splits to measure")
    for name, low_open in (("seed_fractions", False), ("expert_fractions", True), ("compare", False)):
      for value in getattr(self, name):
        if not (0 <= value <= 1) or (low_open and value == 0):
          raise InputError(f"Experiment.{name} = {getattr(self, name)}: {value} is not a fraction of the budget")
    if self.sizes and (len(self.seed_fractions) < 1 or len(self.expert_fractions) < 1):
      raise InputError("Experiment.seed_fractions and expert_fractions: a law needs at least one of each")
    for name in ("seed_fractions", "expert_fractions", "compare"):
      for fraction in (fractions := getattr(self, name)):
        if fractions.count(fraction) > 1:
          raise InputError(f"Experiment.{name} = {fractions}: {fraction} is given twice; give each once")
    for size in self.sizes or ():
      if self.sizes.count(size) > 1:
        raise InputError(f"Experiment.sizes = {self.sizes}: {size} is given twice; give each once")
    if not (self.replay == 0 or 1e-4 <= self.replay < 1):
      raise InputError(f"Experiment.replay = {self.replay}: must be 0, or a fraction from .0001 to below 1")
    self._check_resampling()
    if not 0 <= self.cooldown <= 1:
      raise InputError(f"Experiment.cooldown = {self.cooldown}: must be a fraction between 0 and 1")
    if self.target in (self.sizes or ()) and not self.init_from:
      raise InputError(f"Experiment.target = {self.target} is one of Experiment.sizes; take a size that the law is not fitted to")

  def _check_resampling(self) -> None:
    changed = [name for name in ("resample_share", "resample_clusters")
               if getattr(self, name) != type(self).__dataclass_fields__[name].default]
    if changed and not self.resample:
      raise InputError(f"Experiment.{changed[0]} = {getattr(self, changed[0])}: no domain is scarce; name some in Experiment.resample")
    if self.resample and self.data == "phonebook":
      raise InputError(f"Experiment.resample = {self.resample}: the entries of a phonebook have no topics; leave it out")
    if not 1e-4 <= self.resample_share <= 1 or self.replay + self.resample_share > 1 and self.resample:
      raise InputError(f"Experiment.resample_share = {self.resample_share}: must be a fraction from .0001 to 1, and at most 1 together "
                       f"with Experiment.replay = {self.replay}")
    if not 2 <= self.resample_clusters <= 1024:
      raise InputError(f"Experiment.resample_clusters = {self.resample_clusters}: must be 2 to 1,024")

  @property
  def averages(self) -> bool:
    """Whether the law's cells are means of weights."""
    return self.sizes is None if self.averaged is None else self.averaged

  def cooldown_steps(self, seed_steps: int, expert_steps: int) -> int:
    """The length of a cell's cooldown, in steps."""
    return min(round(self.cooldown * (seed_steps + expert_steps)), expert_steps or seed_steps)


@dataclasses.dataclass(frozen=True)
class Sweep:
  """The cost of the cells that the law is fitted to, if they are chosen automatically (`Experiment.sizes` is not given).

  Attributes:
    flops: fraction of the final training's FLOPs that probe, trunks, branches and cooldowns of all sizes may take together.
    rounds: number of rounds in which they are spent. Cells of a later round are chosen by the plan of the rounds before it.
    tolerance: expected regret, as a fraction of the loss, at which no further round begins.
  """

  flops: float = 0.1
  rounds: int = 1
  tolerance: float = 0.0

  def __post_init__(self):
    if not 0 < self.flops < math.inf:
      raise InputError(f"Sweep.flops = {self.flops}: must be positive, a fraction of the final training's FLOPs such as 0.1")
    if self.rounds < 1:
      raise InputError(f"Sweep.rounds = {self.rounds}: must be 1 or more")
    if not 0 <= self.tolerance < 1:
      raise InputError(f"Sweep.tolerance = {self.tolerance}: must be a fraction of the loss, such as 0.001; 0 spends the whole sweep")


@dataclasses.dataclass(frozen=True)
class Settings:
  """All settings of an experiment.

  Attributes:
    experiment: the budget, and the cells to measure.
    corpus, tokenization, phonebook: the text, and how it becomes tokens; or, by experiment.data, what is to be memorized.
    probe, architecture, optimizer, training, layout, fit: how it is measured and fitted.
    clustering: how domains are found in the text, if corpus.domains_from requests that.
    sweep: cost of the law's cells, if experiment.sizes is not given.
    store: a token store made by `prepare`, in place of the corpus.
  """

  experiment: Experiment = Experiment()
  corpus: Corpus = Corpus()
  tokenization: Tokenization = Tokenization()
  phonebook: Phonebook = Phonebook()
  probe: Probe = Probe()
  architecture: Architecture = Architecture()
  optimizer: Optimizer = Optimizer()
  training: Training = Training()
  layout: Layout = Layout()
  fit: FitSettings = FitSettings()
  clustering: Clustering = Clustering()
  sweep: Sweep = Sweep()
  store: str | None = None

  def __post_init__(self):
    for part in self.parts:
      for name, value in vars(part).items():
        try:
          hash(value)
        except TypeError:
          raise InputError(f"{type(part).__name__}.{name} = {value!r}: give tuples, not lists") from None
    if not isinstance(self.fit.form, str):
      raise InputError("FitSettings.form: must be the name of a form in an experiment; a Form object can be fitted to its cells.csv")

  @property
  def law(self) -> FitSettings:
    """How the law is fitted: the cells of an automatic sweep are few, so they are read with priors."""
    return self.fit if self.experiment.sizes is not None else dataclasses.replace(self.fit, reading="prior")

  @property
  def parts(self) -> tuple[Any, ...]:
    """The settings, one dataclass each."""
    return tuple(part for part in vars(self).values() if dataclasses.is_dataclass(part))


def kept_settings(workdir: pathlib.Path, store: str | os.PathLike | None = None) -> Settings:
  """The settings of the experiment in a work directory.

  Args:
    workdir: the folder.
    store: where its token store is now, if it was given as a store that has moved since.

  Raises:
    InputError: there is no experiment, or its config.json is damaged.
  """
  path = workdir / "config.json"
  if not path.is_file():
    raise InputError(f"--workdir={workdir}: no experiment there ({path.name} is missing); name the work directory of one")
  kinds = {field.name: type(field.default) for field in dataclasses.fields(Settings) if field.name != "store"}
  config = read_config(workdir)
  try:
    # Settings that an earlier version lacked have their defaults; if they change results, claiming the folder refuses it.
    plain = {kind.__name__: json.loads(json.dumps(dataclasses.asdict(kind()))) for kind in kinds.values()}
    parts = {name: parsed(kind, {**plain[kind.__name__], **config.get(kind.__name__, {})}) for name, kind in kinds.items()}
    own = config["Store"]["path"] if "Store" in config else None
  except (KeyError, TypeError, ValueError) as error:
    raise InputError(f"{path}: damaged, or written by another version of jaxsplit ({error}); run the experiment's command again to "
                     "rewrite it") from None
  if store is not None and own is None:
    raise InputError(f"--store={store}: the tokens of {workdir} are in {workdir / 'store'}; leave the flag out")
  return Settings(**parts, store=own if store is None else os.fspath(store))


def budget_of(experiment: Experiment, training: Training, num_domains: int) -> Steps:
  """An experiment's budget, in steps."""
  return Steps(experiment.budget_tokens // training.batch_tokens, num_domains,
               accounting_of(experiment.accounting, experiment.trunk == "shared"))
