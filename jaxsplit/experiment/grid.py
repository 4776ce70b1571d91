"""The law's cells: those given in the settings, or those that a sweep chooses for its price, round by round."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable

from jaxsplit.data.store import Store
from jaxsplit.errors import InputError
from jaxsplit.experiment.checks import check_grid
from jaxsplit.experiment.ladder import Size
from jaxsplit.experiment.rounds import FILE, Rounds
from jaxsplit.experiment.settings import Settings, budget_of
from jaxsplit.experiment.sizes import Sizes
from jaxsplit.experiment.task import task_of
from jaxsplit.experiment.workdir import Workdir
from jaxsplit.law import Plan
from jaxsplit.models.family import ModelConfig
from jaxsplit.parallel import hosts
from jaxsplit.results.cells import Cell
from jaxsplit.results.stages import Point

_PROBE = 0.2  # Maximum cost of probing the target, as a fraction of the sweep's price.


class Grid:
  """The cells that an experiment's law is fitted to, and the models that they are measured with.

  Attributes:
    requests: by size, the requested points, one request after the other.
    models: by size, including the target's.
    task: the task of this experiment's sweep, which prices cells.

  Args:
    settings, store, workdir: the experiment's.
    sizes, cells: the decisions and measurements so far.
    log: gets a line on the chosen cells.
    keep: whether choices are recorded.

  Raises:
    InputError: no law can be fitted to the cells, there is no sweep for the price, or two sizes have as many parameters.
  """

  def __init__(self, settings: Settings, store: Store, workdir: Workdir, sizes: Sizes, cells: Iterable[Cell],
               log: Callable[[str], None], keep: bool = True):
    experiment = settings.experiment
    self._settings, self._store, self._workdir, self._sizes, self._cells, self._log = settings, store, workdir, sizes, cells, log
    self.task = task_of(settings, len(store.domains), store.vocab_size)
    self._probe = 0.0
    self._rounds: Rounds | None = None
    self.requests: dict[Size, list[tuple[Point, ...]]] = {}
    self.models: dict[Size, ModelConfig] = {}
    if experiment.sizes is None:
      self._begin(keep)
    self._update()
    unique_tokens = {domain: store.counts(domain, "train").unique_tokens for domain in store.domains}
    hosts.broadcast(lambda: check_grid(settings, unique_tokens, self._cells, {size: self.points(size) for size in self.requests}))

  def points(self, size: Size) -> list[Point]:
    """All requested points of a size."""
    return sorted({point for points in self.requests.get(size, ()) for point in points})

  def grow(self, plan: Plan) -> bool:
    """Chooses more cells by a plan if the sweep has another round; returns whether it has."""
    if self._rounds is None:
      return False
    if not self._rounds.go_on(plan):
      if missed := self._rounds.missed(plan):
        self._log(missed)
      return False
    self._log(f"  {self._rounds.text}")
    self._update()
    return True

  @property
  def price(self) -> float:
    """The cost of probing and measuring all of it, as a fraction of the final training's FLOPs."""
    return self._probe + sum(self.task.price(model, self.task.probed_steps + self.task.steps(self.requests[size]))
               for size, model in self.models.items() if size in self.requests)

  @property
  def later_price(self) -> float:
    """What rounds that are still to come may cost, likewise."""
    return self._rounds.left if self._rounds else 0.0

  @property
  def probes_target(self) -> bool:
    """Whether full pretraining is probed at the target too, within the sweep's price; otherwise the rule gives its rate."""
    return self._probe > 0

  def _begin(self, keep: bool) -> None:
    """Chooses the first cells, for the sweep's price less that of probing the target, if it is probed."""
    sweep, workdir = self._settings.sweep, self._workdir

    def begun(flops: float) -> Rounds:
      rounds = Rounds(workdir.path / FILE, workdir.config_hash, self._settings.experiment.target, self.task,
                      dataclasses.replace(sweep, flops=flops), workdir.log, keep)
      rounds.begin()
      return rounds

    probe = self.task.price(self.task.target, self.task.probed_steps)
    if 0 < probe <= _PROBE * sweep.flops:
      with contextlib.suppress(InputError):  # Too little would be left for the cells.
        self._rounds = begun(sweep.flops - probe)
        self._probe = probe
    if self._rounds is None:
      self._rounds = begun(sweep.flops)
    self._log(f"  {self._rounds.text}")

  def _update(self) -> None:
    """Derives requests and models from the chosen cells."""
    experiment = self._settings.experiment
    if self._rounds is not None:
      self.requests = self._rounds.requests
    else:
      line = budget_of(experiment, self._settings.training, len(self._store.domains)).line(experiment.line)
      if experiment.sizes:
        for name in ("seed_fractions", "expert_fractions"):
          line.check_shares(name, getattr(experiment, name))
      self.requests = {size: [tuple(line.grid(experiment.seed_fractions, experiment.expert_fractions))] for size in experiment.sizes}
    self.models = {size: self._model(size) for size in (*self.requests, experiment.target)}
    sizes = {model.params_total: size for size, model in self.models.items()}
    for size, model in self.models.items():
      if sizes[model.params_total] != size:
        raise InputError(f"Experiment.sizes and target: {size} and {sizes[model.params_total]} have {model.params_total:,} "
                         "parameters each, by which cells are identified; change one")
    hosts.broadcast(self._check_sizes)

  def _check_sizes(self) -> None:
    """Refuses sizes that conflict with existing cells."""
    target = self._settings.experiment.target
    totals = {cell.params_total for cell in self._cells if cell.role == "grid"}
    if self.models[target].params_total in totals and not self._settings.experiment.init_from:
      raise InputError(f"Experiment.target = {target}: the law's cells in {self._workdir.path} were measured at that size too; take "
                       "another one, or another --workdir")
    averages = self._settings.experiment.averages
    if any(cell.role == "grid" and (cell.weights == "mean") != averages for cell in self._cells):
      how = "at the end of cooldowns" if averages else "with means of weights"
      raise InputError(f"--workdir={self._workdir.path}: the law's cells there are measured {how}; give Experiment.averaged = "
                       f"{not averages}, or another --workdir")
    measured = {cell.params_total for cell in self._cells}
    for size, model in self.models.items():
      other = self._sizes.other_of(size, model.params_total)
      if other and model.params_total in measured:
        raise InputError(f"Experiment.sizes and target: {size} has as many parameters as {other}, {model.params_total:,}, of which "
                         f"{self._workdir.path} has cells, and cells are identified by that; take another size")

  def _model(self, size: Size) -> ModelConfig:
    return self._settings.architecture.at(*size, self._store.vocab_size, self._settings.training.sequence_length)
