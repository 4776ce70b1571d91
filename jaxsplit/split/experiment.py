"""The experiment: from a token store and a budget to a measured, fitted, planned and proven split."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Literal

from jaxsplit.data.store import Store
from jaxsplit.errors import InputError, Interrupted
from jaxsplit.files import content_hash, write_json
from jaxsplit.law import Cells, FitSettings, Law, Plan, check_fit, check_plan, fit_law, load_law, load_plan, plan_split
from jaxsplit.law import read_cells as read_law_cells
from jaxsplit.law.split import paid_for
from jaxsplit.model import attention
from jaxsplit.model.config import Architecture, ModelConfig
from jaxsplit.split import guards, ledger, tree
from jaxsplit.split.cells import CellTable
from jaxsplit.split.closing import closing_lines, closing_text
from jaxsplit.split.probe import Probe, RateRule, fit_rates, probe_legs
from jaxsplit.split.progress import Progress
from jaxsplit.split.course import Rules
from jaxsplit.split.runner import Runner
from jaxsplit.split.sizes import FILE as SIZES
from jaxsplit.split.sizes import Sizes
from jaxsplit.split.tree import Leg, Point, Shape
from jaxsplit.split.workdir import Workdir
from jaxsplit.training import hosts, sharding
from jaxsplit.training.interruption import Interruption
from jaxsplit.training.loop import Training
from jaxsplit.training.optimizer import Optimizer
from jaxsplit.training.sharding import Layout


_LEAST_STEPS = 100  # Of a budget: its fractions are whole steps.
_ANY_VOCABULARY = 256  # Where it decides nothing.
_ANY_RATE = 1.0  # For legs of which only the shapes and lengths matter yet.


@dataclasses.dataclass(frozen=True)
class Experiment:
  """What is asked, and which cells answer it. Tokens D and D' of every cell follow from the budget and the domains' number K.

  A work directory may be asked again with other `sizes`, fractions, `target` and `compare`: it grows, and keeps what it has.

  Attributes:
    data: text (a `Corpus`) or phonebook (a `Phonebook`).
    budget_tokens: C, the tokens that the recommended split and the dense baseline may each train on.
    accounting: total: C = D + K D' (K seeds: K D + K D'); per_model: C = D + D'. The dense baseline is one model of C tokens.
    target: (width, depth) of the models that are wanted; their N is not in the law's data.
    sizes: (width, depth) of the models that the law is fitted on; none: no law, only `compare` is measured.
    seed_fractions: shares of C at which the trunk is snapshotted and forked: the D of the law's cells. D' = 0 is measured at
      each of them too.
    expert_fractions: shares of C that all experts of a fork train on together: the D' of the law's cells, times K or not,
      as accounting has it.
    compare: split fractions measured at the target, besides the recommended one; 1 is the dense baseline. Experts have the whole
      number of steps that is nearest, seeds the rest: a split trains on as many tokens as the dense baseline.
    replicas: repetitions of everything, with other weights and data order.
    trunk: shared by all domains, or one independent seed per_domain.
    mixture: domains in the mixture weigh the same (uniform), or as the tokens that they have (tokens).
    cooldown: share of training over which the learning rate falls to 0 at the end of a cell.
    cooldown_of: what it is a share of: the model's D + D' (at most all of D'), or the branch's D' alone (of D where D' = 0).
    keep_moments: experts start with their seed's Adam moments; else from zero, warming up again.
    validation_tokens: held-out tokens per domain that losses are measured on.
    seed: of all randomness.
  """

  data: Literal["text", "phonebook"] = "text"
  budget_tokens: int = 2_000_000
  accounting: Literal["total", "per_model"] = "total"
  target: tuple[int, int] = (64, 4)
  sizes: tuple[tuple[int, int], ...] = ((16, 2), (32, 2), (48, 3))
  seed_fractions: tuple[float, ...] = (0.25, 0.5, 0.9)
  expert_fractions: tuple[float, ...] = (0.1, 0.3, 0.75)
  compare: tuple[float, ...] = (1.0,)
  replicas: int = 1
  trunk: Literal["shared", "per_domain"] = "shared"
  mixture: Literal["uniform", "tokens"] = "uniform"
  cooldown: float = 0.2
  cooldown_of: Literal["total", "branch"] = "total"
  keep_moments: bool = True
  validation_tokens: int = 32_768
  seed: int = 0

  def __post_init__(self):
    if self.budget_tokens <= 0 or self.replicas < 1:
      raise InputError(f"Experiment.budget_tokens = {self.budget_tokens} and replicas = {self.replicas} must be positive")
    for name, low_open in (("seed_fractions", True), ("expert_fractions", True), ("compare", False)):
      for value in getattr(self, name):
        if not (0 <= value <= 1) or (low_open and value == 0):
          raise InputError(f"Experiment.{name} = {getattr(self, name)}: {value} is not a share of the budget")
    if self.sizes and (len(self.seed_fractions) < 1 or len(self.expert_fractions) < 1):
      raise InputError("Experiment.seed_fractions and expert_fractions: a law needs at least one of each")
    for size in self.sizes:
      if self.sizes.count(size) > 1:
        raise InputError(f"Experiment.sizes = {self.sizes}: {size} is there twice; give each once")
    if not 0 <= self.cooldown <= 1:
      raise InputError(f"Experiment.cooldown = {self.cooldown}: must be a share between 0 and 1")
    if self.target in self.sizes:
      raise InputError(f"Experiment.target = {self.target} is one of Experiment.sizes; take a size that the law has not seen")


@dataclasses.dataclass(frozen=True)
class Settings:
  """Everything that decides an experiment's numbers."""

  experiment: Experiment
  probe: Probe
  architecture: Architecture
  optimizer: Optimizer
  training: Training
  layout: Layout
  fit: FitSettings


@dataclasses.dataclass(frozen=True)
class Findings:
  """What came out, and its closing table; all None where no law was asked for."""

  law: Law | None
  plan: Plan | None
  summary: str | None


def run(settings: Settings, store: Store, workdir: Workdir, progress: Progress, interruption: Interruption) -> Findings:
  """Probes, trains the grid, fits, plans, and trains the plan and its rivals. Finishes what an earlier call began."""
  for name in ("cells.csv", "probe.csv"):
    table = CellTable(workdir.path / name, workdir.say)
    hosts.share(lambda: guards.check_same_corpus(table, workdir.path, store))
  workdir.once(f"disjoint {store.manifest_hash}", lambda: guards.check_disjoint(store))
  with Runner(store, _rules(settings, store), workdir, progress, interruption) as runner:
    story = _Story(settings, store, workdir, progress, runner)
    story.probe()
    if not settings.experiment.sizes:
      story.prove(None)
      return Findings(None, None, None)
    story.measure_grid()
    law = story.fit()
    plan = story.plan(law)
    point = story.prove(plan)
    return Findings(law, plan, story.close(law, plan, point))


def check(settings: Settings) -> None:
  """Refuses what cannot work here whatever the data: a budget of next to no steps, sizes of which there is no model, a kernel or
  a mesh that these devices do not have.

  Raises:
    InputError: it names the setting.
  """
  experiment, training = settings.experiment, settings.training
  steps = experiment.budget_tokens // training.batch_tokens
  if steps < _LEAST_STEPS:
    raise InputError(f"Experiment.budget_tokens = {experiment.budget_tokens} is {steps} steps of {training.batch_tokens} tokens; give "
                     f"at least {_LEAST_STEPS} steps, which are {_LEAST_STEPS * training.batch_tokens} tokens, or a smaller "
                     "Training.batch_sequences")
  for size in (*experiment.sizes, experiment.target):
    attention.check_here(settings.architecture.at(*size, _ANY_VOCABULARY, training.sequence_length))
  if hosts.count() == 1:  # Of several processes, the number of runs decides too.
    sharding.make_mesh(settings.layout, settings.layout.expert or 1, training.batch_sequences // (training.accumulation or 1))


def _rules(settings: Settings, store: Store) -> Rules:
  experiment = settings.experiment
  tokens = lambda domain: store.counts(domain, "train").tokens
  weights = {domain: 1.0 if experiment.mixture == "uniform" else float(tokens(domain)) for domain in store.domains}
  return Rules(settings.training, settings.optimizer, settings.layout, weights, experiment.seed, experiment.keep_moments,
               experiment.validation_tokens, exact_match=experiment.data == "phonebook")


class _Story:
  """The chapters of `run`, and the numbers that they share."""

  def __init__(self, settings: Settings, store: Store, workdir: Workdir, progress: Progress, runner: Runner):
    self._settings, self._store, self._workdir, self._progress = settings, store, workdir, progress
    self._runner = runner
    experiment, training = settings.experiment, settings.training
    self._cells = CellTable(workdir.path / "cells.csv", workdir.say)
    self._sizes = Sizes(workdir.path / SIZES, workdir.config_hash, workdir.say)
    self._budget_steps = experiment.budget_tokens // training.batch_tokens
    self._seeds = len(store.domains) if experiment.trunk == "per_domain" else 1
    self._accounting = "separate" if experiment.accounting == "total" and self._seeds > 1 else experiment.accounting
    self._experts_paid, self._seeds_paid = paid_for(self._accounting, len(store.domains))
    self._check_fractions()
    self._models = {size: self._model(size) for size in (*experiment.sizes, experiment.target)}
    sizes = {model.params_total: size for size, model in self._models.items()}
    for size, model in self._models.items():
      if sizes[model.params_total] != size:
        raise InputError(f"Experiment.sizes and target: {size} and {sizes[model.params_total]} have {model.params_total:,} "
                         "parameters each, and cells are told apart by that; change one")
    hosts.share(self._check_sizes)
    if experiment.sizes:
      hosts.share(self._check_grid)

  def _check_fractions(self) -> None:
    """Refuses shares of the budget that no whole number of steps can be, or that are the same number as another's."""
    experiment = self._settings.experiment
    seeds, experts = self._seeds_paid, self._experts_paid
    for name, share, steps in (("seed_fractions", seeds, self._steps), ("expert_fractions", experts, self._expert_steps)):
      fractions = getattr(experiment, name) if experiment.sizes else ()
      taken: dict[int, float] = {}
      for fraction in fractions:
        least = share / self._budget_steps
        if fraction / least < 1 - 1e-9:
          raise InputError(f"Experiment.{name} = {fractions}: {fraction} is less than a step; the least that works is "
                           f"{_rounded_up(least)}, or raise Experiment.budget_tokens")
        if steps(fraction) in taken:
          raise InputError(f"Experiment.{name} = {fractions}: {taken[steps(fraction)]} and {fraction} are both "
                           f"{steps(fraction):,} steps; steps are {_rounded_up(least)} apart")
        taken[steps(fraction)] = fraction
    for fraction in experiment.compare:
      for part, share, what in ((fraction, seeds, "the seed"), (1 - fraction, experts, "each expert")):
        least = share / self._budget_steps
        if 0 < part / least < 1 - 1e-9:
          bound = f"least above 0 that works is {_rounded_up(least)}" if part == fraction else (
              f"most below 1 that works is {1 - _rounded_up(least):g}")
          raise InputError(f"Experiment.compare = {experiment.compare}: {fraction} leaves {what} less than a step; the {bound}")

  def _check_sizes(self) -> None:
    """Refuses sizes that cells which are there say something else of."""
    target = self._settings.experiment.target
    totals = {cell.params_total for cell in self._cells if cell.role == "grid"}
    if self._models[target].params_total in totals:
      raise InputError(f"Experiment.target = {target}: the law's cells in {self._workdir.path} were measured at that size too; take "
                       "one that the law has not seen, or another --workdir")
    measured = {cell.params_total for cell in self._cells}
    for size, model in self._models.items():
      other = self._sizes.other_of(size, model.params_total)
      if other and model.params_total in measured:
        raise InputError(f"Experiment.sizes and target: {size} has as many parameters as {other}, {model.params_total:,}, of which "
                         f"{self._workdir.path} holds cells, and cells are told apart by that; take another size")

  def _check_grid(self) -> None:
    """Refuses a grid that no law can be fitted to and no split planned from, once all its cells are measured."""
    experiment, batch_tokens = self._settings.experiment, self._settings.training.batch_tokens
    rows = {(cell.params, cell.seed_tokens, cell.expert_tokens, cell.domain, cell.replica, cell.unique_tokens)
            for cell in self._cells if cell.role == "grid" and cell.status == "ok"}
    rows |= {(self._models[size].params, point.seed_steps * batch_tokens, point.expert_steps * batch_tokens, domain, replica,
              self._store.counts(domain, "train").unique_tokens)
             for size in experiment.sizes for point in self._grid_points() for domain in self._store.domains
             for replica in range(experiment.replicas)}
    names = ("params", "seed_tokens", "expert_tokens", "domain", "replica", "unique_tokens")
    columns = dict(zip(names, zip(*sorted(rows)))) | {"loss": [1.0] * len(rows)}
    try:
      cells = Cells.from_columns(columns, {"file": "Experiment.sizes, seed_fractions and expert_fractions"})
      check_fit(cells, self._settings.fit)
      check_plan(cells, self._settings.fit.form)
    except InputError as error:
      raise InputError(f"{error}. Nothing was trained: the law needs another grid, or another FitSettings") from None

  def probe(self) -> None:
    """Finds the learning rates of the sizes that have none yet."""
    probe = self._settings.probe
    table = CellTable(self._workdir.path / "probe.csv", self._workdir.say)
    if len(probe.rates) > 1:
      self._progress.stage(f"probing {len(probe.rates)} learning rates at each size")
      self._run("probe", self._probe_legs(), table, later=[*self._likely_grid_legs(), *self._likely_proof_legs()])
    rule = RateRule(**hosts.share(lambda: dataclasses.asdict(fit_rates(probe, list(table)))))
    trained_at = hosts.share(lambda: {str(cell.params_total): cell.learning_rate for cell in self._cells})
    self._sizes.decide(self._models, lambda model: trained_at.get(str(model.params_total), rule.rate(model.params)))
    for size, model in self._models.items():
      self._progress.say(f"  {_name(size)}: N = {model.params:,}, learning rate {self._sizes.rate(size):g}")

  def measure_grid(self) -> None:
    """Measures the law's cells."""
    experiment = self._settings.experiment
    self._progress.stage(f"training {len(experiment.sizes)} sizes, each with {len(experiment.seed_fractions)} snapshots, "
                         f"{len(self._store.domains)} domains, {len(experiment.expert_fractions)} expert lengths")
    points = self._grid_points()
    for size in experiment.sizes:
      self._sizes.ask(size, self._seeds, points)
    legs = [leg for size in experiment.sizes for leg in tree.needed(self._legs(size), points)]
    self._run("grid", legs, self._cells, later=self._likely_proof_legs())

  def fit(self) -> Law:
    """The law of the grid's cells: fitted anew, or the one that was fitted to the same cells, in the same way, before."""
    hosts.share(self._fit)
    # As it is in the file, so that a plan read off it later is the same to the last bit.
    return load_law(self._workdir.path / "law.json")

  def _fit(self) -> None:
    path, grid = self._workdir.path / "law.json", [cell for cell in self._cells if cell.role == "grid"]
    fitted_to = {"cells": content_hash(*map(repr, grid)), "settings": content_hash(repr(self._settings.fit))}
    if not self._workdir.is_sealed(path.name, fitted_to):
      self._progress.stage("fitting the split law")
      diverged = [cell for cell in grid if cell.status != "ok"]
      if diverged:
        self._progress.say(f"  {len(diverged)} of {len(grid)} cells are of runs that diverged, and left out; see divergence.json")
      fit_law(read_law_cells(self._cells.path), self._settings.fit).save(path)
      self._workdir.seal(path.name, fitted_to)

  def plan(self, law: Law) -> Plan:
    """Reads the best split of the budget at the target size off the law."""
    experiment, path = self._settings.experiment, self._workdir.path / "plan.json"
    hosts.share(lambda: plan_split(
        law, params=float(self._models[experiment.target].params), budget_tokens=float(experiment.budget_tokens),
        num_domains=len(self._store.domains), accounting=self._accounting).save(path))
    return load_plan(path)

  def prove(self, plan: Plan | None) -> Point | None:
    """Trains the planned split and the fractions to compare it with, at the target size. Returns the planned point."""
    target = self._settings.experiment.target
    planned = self._point(plan.fraction) if plan else None
    points = self._proof_points(planned)
    share = lambda point: self._seeds_paid * point.seed_steps / self._budget_steps
    self._progress.stage("training at the target size: " + ", ".join(
        f"{share(point):.0%} seed" if point.expert_steps else "dense" for point in points))
    for seeds, some in self._by_seeds(points):
      self._sizes.ask(target, seeds, some)
    self._run("proof", tree.needed(self._legs(target), points), self._cells)
    return planned

  def close(self, law: Law, plan: Plan, point: Point) -> str:
    """The closing table."""
    tokens = [steps * self._settings.training.batch_tokens for steps in (point.seed_steps, point.expert_steps)]
    target = self._models[self._settings.experiment.target]
    return hosts.share(lambda: closing_text(
        closing_lines(self._cells, law, *tokens, target.params_total), plan, *tokens,
        left_over=self._left_over(point) * self._settings.training.batch_tokens))

  def _probe_legs(self) -> list[Leg]:
    experiment, probe = self._settings.experiment, self._settings.probe
    models = [(_name(size), self._models[size]) for size in experiment.sizes or (experiment.target,)]
    return probe_legs(probe, models, [self._steps(fraction) for fraction in probe.fractions], self._cooldown)

  def _legs(self, size: tuple[int, int]) -> list[Leg]:
    """The legs of all that was asked of a size: each request's, starting from the trunks of those before it."""
    legs: list[Leg] = []
    for number, request in enumerate(self._sizes.requests(size)):
      shape = self._shape(size, request.seeds, keep=any(point.role != "grid" for point in request.points))
      trunk = tree.trunk_of(legs, rows=shape.replicas * shape.seeds)
      legs += tree.build(shape, request.points, trunk, f"+{number}" if number else "")
    return legs

  def _grid_points(self) -> list[Point]:
    experiment = self._settings.experiment
    seeds = {self._steps(fraction) for fraction in experiment.seed_fractions}
    experts = {self._expert_steps(fraction) for fraction in experiment.expert_fractions}
    return sorted(Point(seed, expert, "grid") for seed in seeds for expert in (0, *experts))

  def _likely_grid_legs(self) -> list[Leg]:
    """The grid's legs in kind, before their rates are known."""
    return [leg for size in self._settings.experiment.sizes
            for leg in tree.build(self._shape(size, self._seeds, keep=False), self._grid_points())]

  def _likely_proof_legs(self) -> list[Leg]:
    """The proof's legs in kind, before there is a plan."""
    points = self._proof_points(self._point(0.5) if self._settings.experiment.sizes else None)
    return [leg for seeds, some in self._by_seeds(points)
            for leg in tree.build(self._shape(self._settings.experiment.target, seeds, keep=True), some)]

  def _by_seeds(self, points: Iterable[Point]) -> list[tuple[int, list[Point]]]:
    """The proof's points by the number of their seeds: the dense model is one, however many seeds a split has."""
    groups: dict[int, list[Point]] = {}
    for point in points:
      groups.setdefault(1 if point.role == "dense" else self._seeds, []).append(point)
    return list(groups.items())

  def _proof_points(self, planned: Point | None) -> list[Point]:
    compared = {self._point(fraction) for fraction in self._settings.experiment.compare}
    return sorted(compared | ({planned} if planned else set()))

  def _run(self, stage: str, legs: Sequence[Leg], table: CellTable, later: Sequence[Leg] = ()) -> None:
    try:
      self._runner.run(legs, table, later)
    except Interrupted:  # What is asked next may be something else.
      hosts.share(lambda: self._account(stage))
      raise
    hosts.share(lambda: self._account(stage))

  def _account(self, stage: str) -> None:
    """Adds what was trained now, or is found to have been, to what the ledger has."""
    path, training = self._workdir.path / "ledger.json", self._settings.training
    found = {entry.leg: entry for entry in ledger.read(path, self._workdir.say)}
    for part, trained in ((stage, self._runner.trained), ("retry", self._runner.repairs(self._runner.trained))):
      found |= {entry.leg: entry for entry in ledger.entries(part, trained, training.batch_tokens)}
    write_json(path, ledger.as_json(found.values()))

  def _shape(self, size: tuple[int, int], seeds: int, keep: bool) -> Shape:
    experiment, model = self._settings.experiment, self._models[size]
    return Shape(_name(size), model, self._store.domains, experiment.replicas, self._sizes.rate(size) or _ANY_RATE, seeds,
                 self._cooldown, experiment.keep_moments, keep)

  def _model(self, size: tuple[int, int]) -> ModelConfig:
    return self._settings.architecture.at(*size, self._store.vocab_size, self._settings.training.sequence_length)

  def _steps(self, fraction: float) -> int:
    """D in steps, of each seed, when seeds take this share of the budget."""
    return max(1, round(fraction * self._budget_steps / self._seeds_paid)) if fraction else 0

  def _expert_steps(self, fraction: float) -> int:
    """D' in steps, of each expert, when experts take this share of the budget."""
    return int(fraction * self._budget_steps / self._experts_paid + 1e-9)

  def _point(self, fraction: float) -> Point:
    """The point that spends the whole budget with this share on seeds; too small a rest for a step is none.

    What is left where experts cannot have another step each goes to the seeds: all train on as many tokens as the dense model.
    """
    least = self._expert_steps(1 - fraction)
    if not least:
      return Point(self._budget_steps, 0, "dense")
    if not fraction:
      return Point(0, least, "split")
    rest = lambda expert_steps: (self._budget_steps - self._experts_paid * expert_steps) // self._seeds_paid
    nearest = round((1 - fraction) * (self._budget_steps - self._budget_steps % self._seeds_paid) / self._experts_paid)
    expert_steps = nearest if rest(nearest) > 0 else least
    return Point(rest(expert_steps), expert_steps, "split")

  def _left_over(self, point: Point) -> int:
    """Steps of the budget that a point does not spend: too few for another one of each of its seeds, or it has none."""
    spent = self._seeds_paid * point.seed_steps + self._experts_paid * point.expert_steps
    return self._budget_steps - spent if point.expert_steps else 0

  def _cooldown(self, seed_steps: int, expert_steps: int) -> int:
    experiment = self._settings.experiment
    branch = expert_steps or seed_steps
    of = branch if experiment.cooldown_of == "branch" else seed_steps + expert_steps
    return min(round(experiment.cooldown * of), branch)


def _rounded_up(share: float) -> float:
  """A share to three significant digits, not below it."""
  digit = 10.0 ** (math.floor(math.log10(share)) - 2)
  return float(f"{math.ceil(share / digit - 1e-9) * digit:.3g}")


def _name(size: tuple[int, int]) -> str:
  return f"d{size[0]}-l{size[1]}"
