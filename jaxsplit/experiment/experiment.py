"""The experiment: from a token store and a budget to a measured, fitted, planned and proven split."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from jaxsplit.data.store import Store
from jaxsplit.errors import InputError, Interrupted
from jaxsplit.experiment import guards, ledger, tree
from jaxsplit.experiment.cell_table import CellTable
from jaxsplit.experiment.closing import closing_lines, closing_text
from jaxsplit.experiment.curve import curve_text, measured_curve
from jaxsplit.experiment.probe import RateRule, fit_rates, probe_stages
from jaxsplit.experiment.progress import Progress
from jaxsplit.experiment.recipe import Recipe
from jaxsplit.experiment.runner import Runner
from jaxsplit.experiment.settings import Settings, check_grid, steps_of
from jaxsplit.experiment.sizes import FILE as SIZES
from jaxsplit.experiment.sizes import Sizes
from jaxsplit.experiment.tokens import same_tokens
from jaxsplit.experiment.tree import Stage
from jaxsplit.experiment.trees import Trees, name_of
from jaxsplit.experiment.workdir import Workdir
from jaxsplit.files import content_hash
from jaxsplit.law import Cells, Law, Plan, fit_law, load_law, load_plan, plan_split
from jaxsplit.law.forms import FORMS
from jaxsplit.parallel import hosts
from jaxsplit.results.cells import Cell
from jaxsplit.results.stages import Point, Purpose
from jaxsplit.training.interruption import Interruption


@dataclasses.dataclass(frozen=True)
class Findings:
  """What came out.

  Attributes:
    cells: all that were measured, as in cells.csv; on several hosts, those of process 0 are all.
    law, plan: fitted and read off it; None where no law was asked for.
    summary: the closing table, as text.
  """

  cells: tuple[Cell, ...]
  law: Law | None
  plan: Plan | None
  summary: str


def run(settings: Settings, store: Store, workdir: Workdir, progress: Progress, interruption: Interruption) -> Findings:
  """Probes, trains the grid, fits, plans, and trains the plan and its rivals. Finishes what an earlier call began."""
  check = same_tokens(workdir)
  hosts.broadcast(lambda: check(store))
  workdir.once(f"disjoint {store.manifest_hash}", lambda: guards.check_disjoint(store))
  with Runner(store, recipe_of(settings, store), workdir, progress, interruption) as runner:
    story = _Story(settings, store, workdir, progress, runner)
    story.probe()
    if not settings.experiment.sizes:
      story.prove(None)
      return story.findings(None, None, story.compared())
    story.measure_grid()
    law = story.fit()
    plan = story.plan(law)
    story.prove(plan)
    return story.findings(law, plan, story.close(law, plan))


def recipe_of(settings: Settings, store: Store) -> Recipe:
  """What every stage of the experiment shares."""
  experiment = settings.experiment
  tokens = lambda domain: store.counts(domain, "train").tokens
  weights = {domain: 1.0 if experiment.mixture == "uniform" else float(tokens(domain)) for domain in store.domains}
  return Recipe(settings.training, settings.optimizer, settings.layout, weights, experiment.seed, experiment.keep_moments,
               experiment.validation_tokens, exact_match=experiment.data == "phonebook")


class _Story:
  """The chapters of `run`, and the numbers that they share."""

  def __init__(self, settings: Settings, store: Store, workdir: Workdir, progress: Progress, runner: Runner):
    self._settings, self._store, self._workdir, self._progress = settings, store, workdir, progress
    self._runner = runner
    experiment = settings.experiment
    self._cells = CellTable(workdir.path / "cells.csv", workdir.log)
    self._sizes = Sizes(workdir.path / SIZES, workdir.config_hash, workdir.log)
    self._own_seeds = 1 if experiment.trunk == "shared" else len(store.domains)
    self._budget = steps_of(settings, len(store.domains))
    if experiment.sizes:
      for name in ("seed_fractions", "expert_fractions"):
        self._budget.check_shares(name, getattr(experiment, name))
    self._budget.check_splits(experiment.compare)
    self._grid = self._budget.grid(experiment.seed_fractions, experiment.expert_fractions)
    self._trees = Trees(settings, store.domains, store.vocab_size, self._sizes)
    self._models = {size: self._trees.model(size) for size in (*experiment.sizes, experiment.target)}
    sizes = {model.params_total: size for size, model in self._models.items()}
    for size, model in self._models.items():
      if sizes[model.params_total] != size:
        raise InputError(f"Experiment.sizes and target: {size} and {sizes[model.params_total]} have {model.params_total:,} "
                         "parameters each, and cells are told apart by that; change one")
    hosts.broadcast(self._check_sizes)
    unique_tokens = {domain: store.counts(domain, "train").unique_tokens for domain in store.domains}
    hosts.broadcast(lambda: check_grid(settings, unique_tokens, self._cells))

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

  def probe(self) -> None:
    """Finds the learning rates of the sizes that have none yet."""
    probe = self._settings.probe
    table = CellTable(self._workdir.path / "probe.csv", self._workdir.log)
    if len(probe.rates) > 1:
      self._run("probe", f"probing {len(probe.rates)} learning rates at each size", self._probe_stages(), table,
                later=[*self._likely_grid_stages(), *self._likely_proof_stages()])
    rule = RateRule(**hosts.broadcast(lambda: dataclasses.asdict(fit_rates(probe, list(table)))))
    trained_at = hosts.broadcast(lambda: {str(cell.params_total): cell.learning_rate for cell in self._cells})
    self._sizes.decide(self._models, lambda model: trained_at.get(str(model.params_total), rule.rate(model.params)))
    for size, model in self._models.items():
      self._progress.log(f"  {name_of(size)}: N = {model.params:,}, learning rate {self._sizes.rate(size):g}")

  def measure_grid(self) -> None:
    """Measures the law's cells."""
    experiment = self._settings.experiment
    count = lambda part, noun: f"{len(part)} {noun}{'s' * (len(part) != 1)}"
    for size in experiment.sizes:
      self._sizes.ask(size, self._own_seeds, self._grid)
    stages = [stage for size in experiment.sizes for stage in tree.needed(self._trees.stages(size), self._grid)]
    self._run("grid", f"training {count(experiment.sizes, 'size')}, each with {count(experiment.seed_fractions, 'snapshot')}, "
              f"{count(self._store.domains, 'domain')}, {count(experiment.expert_fractions, 'expert length')}",
              stages, self._cells, later=self._likely_proof_stages())

  def fit(self) -> Law:
    """The law of the grid's cells: fitted anew, or the one that was fitted to the same cells, in the same way, before."""
    hosts.broadcast(self._fit)
    # As it is in the file, so that a plan read off it later is the same to the last bit.
    return load_law(self._workdir.path / "law.json")

  def _fit(self) -> None:
    path, grid = self._workdir.path / "law.json", [cell for cell in self._cells if cell.role == "grid"]
    fitted_to = {"cells": content_hash(*map(repr, grid)),
                 "settings": content_hash(repr(self._settings.fit), *map(repr, FORMS.origins.items()))}
    diverged = [cell for cell in grid if cell.status != "ok"]
    if diverged:
      self._progress.log(f"  {len(diverged)} of {len(grid)} cells are of runs that diverged, and left out; see divergence.json")
    if not self._workdir.is_committed(path.name, fitted_to):
      self._progress.begin("fitting the split law")
      fit_law(Cells.of_experiment(self._cells.path), self._settings.fit).save(path)
      self._workdir.commit(path.name, fitted_to)

  def plan(self, law: Law) -> Plan:
    """Reads the best split of the budget at the target size off the law, and what is trained for it."""
    experiment, path = self._settings.experiment, self._workdir.path / "plan.json"
    model = self._models[experiment.target]

    def write() -> None:
      plan = plan_split(law, params=float(model.params), budget_tokens=float(experiment.budget_tokens),
                        num_domains=len(self._store.domains), accounting=self._budget.accounting)
      point = self._budget.planned(plan.fraction, model.params_total, self._settings.training.batch_tokens)
      dataclasses.replace(plan, point=point).save(path)

    hosts.broadcast(write)
    return load_plan(path)

  def prove(self, plan: Plan | None) -> None:
    """Trains the planned split and the fractions to compare it with, at the target size."""
    target = self._settings.experiment.target
    points = self._proof_points(self._budget.point(plan.fraction) if plan else None)
    splits = ", ".join(f"{self._budget.share(point):.0%} seed" if point.expert_steps else "dense" for point in points)
    for seeds, some in self._by_seeds(points):
      self._sizes.ask(target, seeds, some)
    self._run("proof", f"training at the target size: {splits}", tree.needed(self._trees.stages(target), points), self._cells)

  def close(self, law: Law, plan: Plan) -> str:
    """The closing table."""
    table = hosts.broadcast(lambda: closing_text(closing_lines(self._cells, law, plan.point), plan))
    return f"{table}\n{self.compared(plan, law.scatter)}"

  def compared(self, plan: Plan | None = None, scatter: float = 0.0) -> str:
    """What was measured at the target size, split by split."""
    target = self._models[self._settings.experiment.target]

    def told() -> str:
      cells = [cell for cell in self._cells if cell.params_total == target.params_total and cell.role in ("split", "dense")]
      whole = [cell for cell in cells if cell.status == "ok"]
      lost = (f"{len(cells) - len(whole)} of {len(cells)} cells of splits are of runs that diverged, and left out; see "
              "divergence.json" if len(whole) < len(cells) else "")
      text = curve_text(measured_curve(whole, self._store.domains, self._budget), plan, scatter)
      return "\n".join(filter(None, (text, lost)))

    return hosts.broadcast(told)

  def findings(self, law: Law | None, plan: Plan | None, summary: str) -> Findings:
    """What came out, with the cells."""
    return Findings(tuple(self._cells), law, plan, summary)

  def _probe_stages(self) -> list[Stage]:
    experiment, probe = self._settings.experiment, self._settings.probe
    models = [(name_of(size), self._models[size]) for size in experiment.sizes or (experiment.target,)]
    return probe_stages(probe, models, [self._budget.seed_steps(fraction) for fraction in probe.fractions], self._trees.cooldown)

  def _likely_grid_stages(self) -> list[Stage]:
    """The grid's stages in kind, before their rates are known."""
    return [stage for size in self._settings.experiment.sizes
            for stage in tree.build(self._trees.shape(size, self._own_seeds, keep=False), self._grid)]

  def _likely_proof_stages(self) -> list[Stage]:
    """The proof's stages in kind, before there is a plan."""
    points = self._proof_points(self._budget.point(0.5) if self._settings.experiment.sizes else None)
    return [stage for seeds, some in self._by_seeds(points)
            for stage in tree.build(self._trees.shape(self._settings.experiment.target, seeds, keep=True), some)]

  def _by_seeds(self, points: Iterable[Point]) -> list[tuple[int, list[Point]]]:
    """The proof's points by the number of their seeds: the dense model is one, however many seeds a split has."""
    groups: dict[int, list[Point]] = {}
    for point in points:
      groups.setdefault(1 if point.role == "dense" else self._own_seeds, []).append(point)
    return list(groups.items())

  def _proof_points(self, planned: Point | None) -> list[Point]:
    compared = {self._budget.point(fraction) for fraction in self._settings.experiment.compare}
    return sorted(compared | ({planned} if planned else set()))

  def _run(self, purpose: Purpose, what: str, stages: Sequence[Stage], table: CellTable, later: Sequence[Stage] = ()) -> None:
    try:
      self._runner.run(stages, table, later, what)
    except Interrupted:  # What is asked next may be something else.
      hosts.broadcast(lambda: self._account(purpose))
      raise
    hosts.broadcast(lambda: self._account(purpose))

  def _account(self, purpose: Purpose) -> None:
    ledger.add(self._workdir.path / "ledger.json", purpose, self._runner.trained, self._runner.repairs(self._runner.trained),
               self._settings.training.batch_tokens, self._workdir.log)
