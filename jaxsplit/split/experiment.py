"""The experiment: from a token store and a budget to a measured, fitted, planned and proven split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from jaxsplit.data.store import Store
from jaxsplit.errors import InputError, Interrupted
from jaxsplit.files import content_hash, write_json
from jaxsplit.law import Law, Plan, fit_law, load_law, load_plan, plan_split
from jaxsplit.law import read_cells as read_law_cells
from jaxsplit.law.forms import FORMS
from jaxsplit.models.family import ModelConfig
from jaxsplit.split import guards, ledger, tree
from jaxsplit.split.budget import Budget
from jaxsplit.split.cells import CellTable
from jaxsplit.split.closing import closing_lines, closing_text
from jaxsplit.split.curve import curve_text, measured_curve
from jaxsplit.split.probe import RateRule, fit_rates, probe_legs
from jaxsplit.split.progress import Progress
from jaxsplit.split.course import Rules
from jaxsplit.split.runner import Runner
from jaxsplit.split.settings import Settings, check_grid
from jaxsplit.split.sizes import FILE as SIZES
from jaxsplit.split.sizes import Sizes
from jaxsplit.split.tree import Leg, Point, Shape
from jaxsplit.split.workdir import Workdir
from jaxsplit.training import hosts
from jaxsplit.training.interruption import Interruption


_ANY_RATE = 1.0  # For legs of which only the shapes and lengths matter yet.


@dataclasses.dataclass(frozen=True)
class Findings:
  """What came out, and the closing table; no law and no plan where none was asked for."""

  law: Law | None
  plan: Plan | None
  summary: str


def run(settings: Settings, store: Store, workdir: Workdir, progress: Progress, interruption: Interruption) -> Findings:
  """Probes, trains the grid, fits, plans, and trains the plan and its rivals. Finishes what an earlier call began."""
  check = same_tokens(workdir)
  hosts.share(lambda: check(store))
  workdir.once(f"disjoint {store.manifest_hash}", lambda: guards.check_disjoint(store))
  with Runner(store, _rules(settings, store), workdir, progress, interruption) as runner:
    story = _Story(settings, store, workdir, progress, runner)
    story.probe()
    if not settings.experiment.sizes:
      story.prove(None)
      return Findings(None, None, story.compared())
    story.measure_grid()
    law = story.fit()
    plan = story.plan(law)
    point = story.prove(plan)
    return Findings(law, plan, story.close(law, plan, point))


def same_tokens(workdir: Workdir) -> Callable[[Store], None]:
  """A check, for the lead alone, that refuses a store other than that of the cells that are there."""
  tables = [CellTable(workdir.path / name, workdir.say) for name in ("cells.csv", "probe.csv")]

  def check(store: Store) -> None:
    for table in tables:
      guards.check_same_corpus(table, workdir.path, store)

  return check


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
    self._budget = Budget.of(experiment.budget_tokens // training.batch_tokens, experiment.accounting,
                             experiment.trunk == "shared", len(store.domains))
    if experiment.sizes:
      for name in ("seed_fractions", "expert_fractions"):
        self._budget.check_shares(name, getattr(experiment, name))
    self._budget.check_splits(experiment.compare)
    self._grid = self._budget.grid(experiment.seed_fractions, experiment.expert_fractions)
    self._models = {size: self._model(size) for size in (*experiment.sizes, experiment.target)}
    sizes = {model.params_total: size for size, model in self._models.items()}
    for size, model in self._models.items():
      if sizes[model.params_total] != size:
        raise InputError(f"Experiment.sizes and target: {size} and {sizes[model.params_total]} have {model.params_total:,} "
                         "parameters each, and cells are told apart by that; change one")
    hosts.share(self._check_sizes)
    if experiment.sizes:
      hosts.share(self._check_grid)

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
             for size in experiment.sizes for point in self._grid for domain in self._store.domains
             for replica in range(experiment.replicas)}
    check_grid(sorted(rows), self._settings.fit)

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
    for size in experiment.sizes:
      self._sizes.ask(size, self._budget.independent_seeds, self._grid)
    legs = [leg for size in experiment.sizes for leg in tree.needed(self._legs(size), self._grid)]
    self._run("grid", legs, self._cells, later=self._likely_proof_legs())

  def fit(self) -> Law:
    """The law of the grid's cells: fitted anew, or the one that was fitted to the same cells, in the same way, before."""
    hosts.share(self._fit)
    # As it is in the file, so that a plan read off it later is the same to the last bit.
    return load_law(self._workdir.path / "law.json")

  def _fit(self) -> None:
    path, grid = self._workdir.path / "law.json", [cell for cell in self._cells if cell.role == "grid"]
    fitted_to = {"cells": content_hash(*map(repr, grid)), "settings": content_hash(repr(self._settings.fit), *map(repr, FORMS.origins.items()))}
    diverged = [cell for cell in grid if cell.status != "ok"]
    if diverged:
      self._progress.say(f"  {len(diverged)} of {len(grid)} cells are of runs that diverged, and left out; see divergence.json")
    if not self._workdir.is_sealed(path.name, fitted_to):
      self._progress.stage("fitting the split law")
      fit_law(read_law_cells(self._cells.path), self._settings.fit).save(path)
      self._workdir.seal(path.name, fitted_to)

  def plan(self, law: Law) -> Plan:
    """Reads the best split of the budget at the target size off the law."""
    experiment, path = self._settings.experiment, self._workdir.path / "plan.json"
    hosts.share(lambda: plan_split(
        law, params=float(self._models[experiment.target].params), budget_tokens=float(experiment.budget_tokens),
        num_domains=len(self._store.domains), accounting=self._budget.accounting).save(path))
    return load_plan(path)

  def prove(self, plan: Plan | None) -> Point | None:
    """Trains the planned split and the fractions to compare it with, at the target size. Returns the planned point."""
    target = self._settings.experiment.target
    planned = self._budget.point(plan.fraction) if plan else None
    points = self._proof_points(planned)
    self._progress.stage("training at the target size: " + ", ".join(
        f"{self._budget.share(point):.0%} seed" if point.expert_steps else "dense" for point in points))
    for seeds, some in self._by_seeds(points):
      self._sizes.ask(target, seeds, some)
    self._run("proof", tree.needed(self._legs(target), points), self._cells)
    return planned

  def close(self, law: Law, plan: Plan, point: Point) -> str:
    """The closing table."""
    tokens = [steps * self._settings.training.batch_tokens for steps in (point.seed_steps, point.expert_steps)]
    target = self._models[self._settings.experiment.target]
    table = hosts.share(lambda: closing_text(
        closing_lines(self._cells, law, *tokens, target.params_total), plan, *tokens,
        left_over=self._budget.left_over(point) * self._settings.training.batch_tokens))
    return f"{table}\n{self.compared(plan, self._budget.share(point), law.surface.scatter if law.surface else 0.0)}"

  def compared(self, plan: Plan | None = None, recommended: float | None = None, scatter: float = 0.0) -> str:
    """What was measured at the target size, split by split."""
    target, batch_tokens = self._models[self._settings.experiment.target], self._settings.training.batch_tokens
    share = lambda cell: self._budget.share(Point(cell.seed_tokens // batch_tokens, cell.expert_tokens // batch_tokens, cell.role))

    def told() -> str:
      cells = [cell for cell in self._cells if cell.params_total == target.params_total and cell.role in ("split", "dense")]
      whole = [cell for cell in cells if cell.status == "ok"]
      lost = (f"{len(cells) - len(whole)} of {len(cells)} cells of splits are of runs that diverged, and left out; see "
              "divergence.json" if len(whole) < len(cells) else "")
      text = curve_text(measured_curve(whole, self._store.domains, share), plan, recommended, scatter)
      return "\n".join(filter(None, (text, lost)))

    return hosts.share(told)

  def _probe_legs(self) -> list[Leg]:
    experiment, probe = self._settings.experiment, self._settings.probe
    models = [(_name(size), self._models[size]) for size in experiment.sizes or (experiment.target,)]
    return probe_legs(probe, models, [self._budget.seed_steps(fraction) for fraction in probe.fractions], self._cooldown)

  def _legs(self, size: tuple[int, int]) -> list[Leg]:
    """The legs of all that was asked of a size: each request's, starting from the trunks of those before it."""
    legs: list[Leg] = []
    for number, request in enumerate(self._sizes.requests(size)):
      shape = self._shape(size, request.seeds, keep=any(point.role != "grid" for point in request.points))
      trunk = tree.trunk_of(legs, rows=shape.replicas * shape.seeds)
      legs += tree.build(shape, request.points, trunk, f"+{number}" if number else "")
    return legs

  def _likely_grid_legs(self) -> list[Leg]:
    """The grid's legs in kind, before their rates are known."""
    return [leg for size in self._settings.experiment.sizes
            for leg in tree.build(self._shape(size, self._budget.independent_seeds, keep=False), self._grid)]

  def _likely_proof_legs(self) -> list[Leg]:
    """The proof's legs in kind, before there is a plan."""
    points = self._proof_points(self._budget.point(0.5) if self._settings.experiment.sizes else None)
    return [leg for seeds, some in self._by_seeds(points)
            for leg in tree.build(self._shape(self._settings.experiment.target, seeds, keep=True), some)]

  def _by_seeds(self, points: Iterable[Point]) -> list[tuple[int, list[Point]]]:
    """The proof's points by the number of their seeds: the dense model is one, however many seeds a split has."""
    groups: dict[int, list[Point]] = {}
    for point in points:
      groups.setdefault(1 if point.role == "dense" else self._budget.independent_seeds, []).append(point)
    return list(groups.items())

  def _proof_points(self, planned: Point | None) -> list[Point]:
    compared = {self._budget.point(fraction) for fraction in self._settings.experiment.compare}
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

  def _cooldown(self, seed_steps: int, expert_steps: int) -> int:
    experiment = self._settings.experiment
    branch = expert_steps or seed_steps
    of = branch if experiment.cooldown_of == "branch" else seed_steps + expert_steps
    return min(round(experiment.cooldown * of), branch)


def _name(size: tuple[int, int]) -> str:
  return f"d{size[0]}-l{size[1]}"
