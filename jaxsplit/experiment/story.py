"""The phases of an experiment: probe, grid, law, plan, proof. Each trains what the settings request and does not exist yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from jaxsplit.data.store import Store
from jaxsplit.errors import InputError, Interrupted
from jaxsplit.experiment import ledger, tree
from jaxsplit.experiment.budget import uneven_points
from jaxsplit.experiment.cell_table import CellTable
from jaxsplit.experiment.base_model import base_text
from jaxsplit.experiment.closing import USUAL, closing_lines, closing_text, rate_text
from jaxsplit.experiment.curve import curve_text, measured_curve
from jaxsplit.experiment.grid import Grid
from jaxsplit.experiment.probe import RateRule, doubts, fit_rates, probe_stages
from jaxsplit.experiment.progress import Progress
from jaxsplit.experiment.runner import Runner
from jaxsplit.experiment.settings import Settings, budget_of
from jaxsplit.experiment.sizes import FILE as SIZES
from jaxsplit.experiment.sizes import Sizes
from jaxsplit.experiment.tree import Stage
from jaxsplit.experiment.trees import Trees, name_of
from jaxsplit.experiment.workdir import Workdir
from jaxsplit.files import content_hash
from jaxsplit.law import Cells, Law, Plan, fit_law, load_law, load_plan, plan_split
from jaxsplit.law.forms import FORMS
from jaxsplit.parallel import hosts
from jaxsplit.results.cells import Cell
from jaxsplit.results.stages import Point, Purpose

_ALWAYS = USUAL, 1.0  # Splits that a plan is always compared with: the usual one, and full pretraining.
_LIKELY = 0.5, 0.45, 0.55  # Splits the first of which that is not compared anyway stands for the recommended one, before there is a plan.


class Story:
  """The phases of `experiment.run`, and their common state."""

  def __init__(self, settings: Settings, store: Store, workdir: Workdir, progress: Progress, runner: Runner | None):
    """Without a runner only `outline` can be called, and nothing is written."""
    self._settings, self._store, self._workdir, self._progress = settings, store, workdir, progress
    self._runner = runner
    experiment = settings.experiment
    self._cells, self._probed = (CellTable(workdir.path / name, workdir.log) for name in ("cells.csv", "probe.csv"))
    self._sizes = Sizes(workdir.path / SIZES, workdir.config_hash, workdir.log)
    self._own_seeds = 1 if experiment.trunk == "shared" else len(store.domains)
    self._budget = budget_of(experiment, settings.training, len(store.domains))
    self._budget.check_splits(experiment.compare)
    self._trees = Trees(settings, store.domains, store.vocab_size, self._sizes)
    self._grid = Grid(settings, store, workdir, self._sizes, self._cells, progress.log, keep=runner is not None)

  @property
  def grid(self) -> Grid:
    """The law's cells."""
    return self._grid

  @property
  def likely_split(self) -> float | None:
    """The fraction that stands for the recommended split before there is a plan; None where there will be none."""
    if not self._grid.requests:
      return None
    compared = self._proof_points(None)
    return next((fraction for fraction in _LIKELY if self._budget.point(fraction) not in compared), _LIKELY[0])

  def outline(self) -> dict[Purpose, list[Stage]]:
    """All stages, with `likely_split` as the recommended one, as if nothing were trained yet."""
    probed = len(self._settings.probe.rates) > 1
    return {"probe": self._probe_stages() if probed else [], "grid": self._likely_grid_stages(), "proof": self._likely_proof_stages()}

  def probe(self) -> None:
    """Finds the learning rates of the sizes that have none yet."""
    probe = self._settings.probe
    table = self._probed
    if len(probe.rates) > 1:
      self._run("probe", f"probing {len(probe.rates)} learning rates at each size", self._probe_stages(), table,
                later=[*self._likely_grid_stages(), *self._likely_proof_stages()])
    rule = RateRule(**hosts.broadcast(lambda: dataclasses.asdict(fit_rates(probe, list(table)))))
    trained_at = hosts.broadcast(lambda: {str(cell.params_total): cell.learning_rate for cell in self._cells})
    self._sizes.decide(self._grid.models, lambda model: trained_at.get(str(model.params_total), rule.rate(model.params)))
    for size, model in self._grid.models.items():
      rate, tried = self._sizes.rate(size), probe.rates
      beyond = "" if len(tried) == 1 or min(tried) <= rate <= max(tried) else (
          f", by the rule of all sizes; {min(tried):g} to {max(tried):g} were tried")
      self._progress.log(f"  {name_of(size)}: N = {model.params:,}, learning rate {rate:.3g}{beyond}")
    for doubt in hosts.broadcast(lambda: doubts(list(table))):
      self._progress.log(f"  {doubt}")

  def measure_grid(self) -> None:
    """Measures the law's cells."""
    requests = self._grid.requests
    for size, parts in requests.items():
      for points in parts:
        self._sizes.ask(size, self._own_seeds, points)
    stages = [stage for size in requests for stage in tree.needed(self._trees.stages(size), self._grid.points(size))]
    count = lambda number, noun: f"{number} {noun}{'s' * (number != 1)}"
    points = max((self._grid.points(size) for size in requests), key=len)
    self._run("grid", f"training {count(len(requests), 'size')}, each with {count(len({p.seed_steps for p in points}), 'snapshot')}, "
              f"{count(len(self._store.domains), 'domain')}, {count(len(points), 'split')}", stages, self._cells,
              later=self._likely_proof_stages())

  def grow(self, plan: Plan) -> bool:
    """Requests more cells by a plan if the sweep has another round; returns whether it has."""
    return self._grid.grow(plan)

  def fit(self) -> Law:
    """The law of the grid's cells: fitted now, or an earlier fit to the same cells with the same settings."""
    hosts.broadcast(self._fit)
    # As in the file, so that a plan from the file is the same to the last bit.
    return load_law(self._workdir.path / "law.json")

  def _fit(self) -> None:
    path, grid = self._workdir.path / "law.json", [cell for cell in self._cells if cell.role == "grid"]
    fitted_to = {"cells": content_hash(*map(repr, grid)),
                 "settings": content_hash(repr(self._settings.law), *map(repr, FORMS.origins.items()))}
    diverged = [cell for cell in grid if cell.status != "ok"]
    if diverged:
      if len(diverged) == len(grid):
        rates = ", ".join(f"{rate:g}" for rate in sorted({cell.learning_rate for cell in grid}))
        raise InputError(f"{self._cells.path}: all {len(grid)} of the law's cells are from runs that diverged, at learning rates {rates}; "
                         "give lower Probe.rates, and another --workdir")
      self._progress.log(f"  {len(diverged)} of {len(grid)} cells are from runs that diverged, and are excluded; see divergence.json")
    if not self._workdir.is_committed(path.name, fitted_to):
      self._progress.begin("fitting the split law" + " with priors" * (self._settings.law.reading == "prior"))
      fit_law(Cells.of_experiment(self._cells.path), self._settings.law).save(path)
      self._workdir.commit(path.name, fitted_to)

  def plan(self, law: Law) -> Plan:
    """The best split of the budget at the target size by the law, with the point in whole steps that is trained for it."""
    experiment, path = self._settings.experiment, self._workdir.path / "plan.json"
    model = self._grid.models[experiment.target]

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
    splits = ", ".join(f"{self._budget.share(point):.0%} seed" if point.expert_steps else point.role for point in points)
    for seeds, some in self._by_seeds(points):
      self._sizes.ask(target, seeds, some)
    uneven = self._uneven(plan)
    for domain, point in uneven.items():
      self._sizes.ask(target, self._own_seeds, [point], (domain,))
    stages = tree.needed(self._trees.stages(target), [*points, *uneven.values()])
    self._run("proof", f"training at the target size: {splits}{', and the uneven plan' if uneven else ''}", stages, self._cells)

  def close(self, law: Law, plan: Plan) -> str:
    """The closing table, what to know of its law, and what was measured."""
    lines = lambda: closing_lines(self._cells, law, plan, self._budget, self._uneven(plan))
    table = hosts.broadcast(lambda: closing_text(lines(), plan, law.warnings))
    said = hosts.broadcast(lambda: base_text(self._settings, self._cells, plan))
    return "\n".join(filter(None, (table, self.compared(plan, law.scatter), said)))

  def compared(self, plan: Plan | None = None, scatter: float = 0.0) -> str:
    """The measured losses at the target size, split by split, in words."""
    target = self._grid.models[self._settings.experiment.target]

    def text() -> str:
      cells = [cell for cell in self._cells if cell.params_total == target.params_total and cell.role in ("split", "dense")]
      whole = [cell for cell in cells if cell.status == "ok"]
      lost = (f"{len(cells) - len(whole)} of {len(cells)} cells of splits are from runs that diverged, and are excluded; see "
              "divergence.json" if len(whole) < len(cells) else "")
      curve = curve_text(measured_curve(whole, self._store.domains, self._budget), plan, scatter)
      return "\n".join(filter(None, (curve, rate_text(whole, self._probed), lost)))

    return hosts.broadcast(text)

  @property
  def cells(self) -> tuple[Cell, ...]:
    """All measured cells."""
    return tuple(self._cells)

  def _uneven(self, plan: Plan | None) -> dict[str, Point]:
    """The uneven plan by domain, if it is requested."""
    return uneven_points(plan, self._settings.training.batch_tokens) if plan and self._settings.experiment.uneven else {}

  def _probe_stages(self) -> list[Stage]:
    experiment, probe = self._settings.experiment, self._settings.probe
    sizes = [*self._grid.requests]
    target, known = experiment.target, {cell.params_total for cell in self._probed}
    # Its rate never changes once it is decided, so it is probed at the beginning or not at all.
    if not sizes or self._grid.probes_target and (
        self._sizes.rate(target) is None or self._grid.models[target].params_total in known):
      sizes.append(target)
    models = [(name_of(size), self._grid.models[size]) for size in sizes]
    return probe_stages(probe, models, [self._budget.seed_steps(fraction) for fraction in probe.fractions], experiment.cooldown_steps)

  def _likely_grid_stages(self) -> list[Stage]:
    """Stages like the grid's, before their learning rates are known."""
    return [stage for size, requests in self._grid.requests.items()
            for stage in tree.build_all([(self._trees.shape(size, self._own_seeds, keep=False), points) for points in requests])]

  def _likely_proof_stages(self) -> list[Stage]:
    """Stages like the proof's, before there is a plan."""
    split = self.likely_split
    points = self._proof_points(None if split is None else self._budget.point(split))
    return [stage for seeds, some in self._by_seeds(points)
            for stage in tree.build(self._trees.shape(self._settings.experiment.target, seeds, keep=True), some)]

  def _by_seeds(self, points: Iterable[Point]) -> list[tuple[int, list[Point]]]:
    """The proof's points by number of seeds: the dense model is one run, even if splits have one seed per domain."""
    groups: dict[int, list[Point]] = {}
    for point in points:
      groups.setdefault(1 if point.role in ("dense", "base") else self._own_seeds, []).append(point)
    return list(groups.items())

  def _proof_points(self, planned: Point | None) -> list[Point]:
    compared = {self._budget.point(fraction) for fraction in (*self._settings.experiment.compare, *(_ALWAYS if planned else ()))}
    base = {Point(0, 0, "base")} if self._settings.experiment.init_from else set()
    return sorted(compared | base | ({planned} if planned else set()))

  def _run(self, purpose: Purpose, what: str, stages: Sequence[Stage], table: CellTable, later: Sequence[Stage] = ()) -> None:
    try:
      self._runner.run(stages, table, later, what)
    except Interrupted:  # The next command may request other cells.
      hosts.broadcast(lambda: self._account(purpose))
      raise
    hosts.broadcast(lambda: self._account(purpose))

  def _account(self, purpose: Purpose) -> None:
    ledger.add(self._workdir.path / "ledger.json", purpose, self._runner.trained, self._runner.repairs(self._runner.trained),
               self._settings.training.batch_tokens, self._workdir.log)
