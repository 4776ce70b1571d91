"""What is trained beside an experiment, off its trunks: the expert on a domain that comes later, and small models to route by.

The mixture and its seed stay what they were, and so does every snapshot and every row that is there: tables gain rows. A later
domain's tokens lie in a store of their own, made with the experiment's tokenizer. Cells have roles of their own, so that no law,
plan or split curve takes them for the experiment's.
"""

from __future__ import annotations

import dataclasses

from jaxsplit.data.joined import JoinedStore
from jaxsplit.data.store import Store
from jaxsplit.errors import InputError, Interrupted
from jaxsplit.experiment import guards, ledger, tree, waves
from jaxsplit.experiment.cell_table import CellTable
from jaxsplit.experiment.progress import Progress
from jaxsplit.experiment.recipe import Recipe
from jaxsplit.experiment.runner import Runner
from jaxsplit.experiment.settings import Settings
from jaxsplit.experiment.sizes import FILE as SIZES
from jaxsplit.experiment.sizes import Sizes
from jaxsplit.experiment.trees import Trees
from jaxsplit.experiment.workdir import Workdir
from jaxsplit.parallel import hosts
from jaxsplit.results.cells import Cell
from jaxsplit.results.plan import load_plan
from jaxsplit.results.stages import Point
from jaxsplit.training.interruption import Interruption


def fork_point(settings: Settings, workdir: Workdir, seed_tokens: int | None) -> Point:
  """The split that a new expert is trained for, at the experiment's target size.

  Args:
    settings: of the experiment, whose `workdir` is claimed.
    seed_tokens: D of a split that was measured; None for the planned one, or for the only one.

  Raises:
    InputError: there is none, or no such one, or it is not clear which.
  """
  experiment, batch_tokens = settings.experiment, settings.training.batch_tokens
  sizes = Sizes(workdir.path / SIZES, workdir.config_hash, workdir.log)
  if experiment.trunk == "per_domain":
    raise InputError(f"{workdir.path}: every domain has a seed of its own (Experiment.trunk), so there is none that an expert on a new "
                     "domain could be forked from; train the domains together in another --workdir")
  splits = sorted({point for request in sizes.requests(experiment.target) for point in request.points if point.role == "split"})
  known = ", ".join(f"{point.seed_steps * batch_tokens:,}" for point in splits)
  if not splits:
    raise InputError(f"{workdir.path}: no experts are trained there, so none can be added; ask for a split, as in "
                     "--gin.Experiment.compare='(0.5, 1.0)', and finish it first")
  if seed_tokens is not None:
    found = [point for point in splits if point.seed_steps * batch_tokens == seed_tokens]
    if not found:
      raise InputError(f"--seed_tokens={seed_tokens}: no split of that D is trained at Experiment.target; there are {known}")
    return found[0]
  plan = hosts.broadcast(lambda: _planned(workdir))
  found = [point for point in splits if [point.seed_steps, point.expert_steps] == plan] if plan else splits
  if len(found) != 1:
    raise InputError(f"{workdir.path}: {'the plan is not to split' if plan else 'several splits are trained there'}; say which the "
                     f"expert is for by its D, as --seed_tokens=N, N one of {known}")
  return found[0]


def _planned(workdir: Workdir) -> list[int] | None:
  path = workdir.path / "plan.json"
  point = load_plan(path).point if path.exists() else None
  return point and [point.seed_steps, point.expert_steps]


def add_expert(settings: Settings, store: JoinedStore, domain: str, split: Point, recipe: Recipe, workdir: Workdir,
               progress: Progress, interruption: Interruption) -> list[Cell]:
  """Trains the expert on one domain of `store.added`, for a split that the others were trained for, and measures it.

  Args:
    settings: of the experiment.
    store: its store, and the domain's.
    domain: its name.
    split: D and D'.
    recipe: the experiment's.

  Returns:
    The expert's cells, one a replica.

  Raises:
    InputError: the snapshot to fork from is not there, or a guard has tripped.
  """
  workdir.once(f"disjoint {store.manifest_hash} {store.added[domain]}", lambda: guards.check_disjoint(store))
  fork = Fork(settings.experiment.target, dataclasses.replace(split, role="added"), (domain,), f"+domain-{domain}")
  return train_beside(settings, store, fork, recipe, workdir, progress, interruption)


def add_small_models(settings: Settings, store: Store, split: Point, recipe: Recipe, workdir: Workdir, progress: Progress,
                     interruption: Interruption) -> list[Cell]:
  """Trains a small model of every domain, to route by (SmallTalk LM, arXiv 2410.03529), and measures them.

  They are of the smallest size that the law is fitted on, forked off its snapshot that is nearest to the split's D, and trained for
  the split's D'. Domains that came later have theirs too.

  Args:
    settings, store, recipe: of the experiment; the store with the domains that came later.
    split: D and D' of the experts.

  Raises:
    InputError: there is no smaller size than the experts', a snapshot to fork from is not there, or a guard has tripped.
  """
  experiment = settings.experiment
  if experiment.trunk == "per_domain":
    raise InputError(f"{workdir.path}: every domain has a seed of its own (Experiment.trunk), so there is none to fork small models from; "
                     "take another router")
  sizes = Sizes(workdir.path / SIZES, workdir.config_hash, workdir.log)
  asked = [size for size in experiment.sizes if sizes.requests(size)]
  if not asked:
    raise InputError(f"{workdir.path}: no smaller size is trained there (Experiment.sizes), and small models are forked from its seed; "
                     "take another router")
  before = tuple(name for name in store.domains if name not in store.added)
  trees = Trees(settings, before, store.vocab_size, sizes)
  size = min(asked, key=lambda one: trees.model(one).params_total)
  steps = sorted(tree.trunk_of(trees.stages(size), rows=experiment.replicas))
  point = Point(min(steps, key=lambda step: abs(step - split.seed_steps)) if split.seed_steps else 0, split.expert_steps, "router")
  forks = [Fork(size, point, before, "+routers"), *(Fork(size, point, (name,), f"+routers-{name}") for name in store.added)]
  return [cell for fork in forks for cell in train_beside(settings, store, fork, recipe, workdir, progress, interruption)]


@dataclasses.dataclass(frozen=True)
class Fork:
  """Runs that are forked off an experiment's trunk beside those that it has asked for.

  Attributes:
    size: (width, depth) of the trunk.
    point: D and D', and the role of their cells; the ledger knows them by that too.
    domains: of the runs.
    mark: ends the names of their stages.
  """

  size: tuple[int, int]
  point: Point
  domains: tuple[str, ...]
  mark: str


def train_beside(settings: Settings, store: Store, fork: Fork, recipe: Recipe, workdir: Workdir, progress: Progress,
                 interruption: Interruption) -> list[Cell]:
  """Trains what is missing of a fork, and measures it; nothing else is trained, and no snapshot of the trunk dropped.

  Raises:
    InputError: the snapshot to fork from is not there, or a guard has tripped.
  """
  table, sizes = CellTable(workdir.path / "cells.csv", workdir.log), Sizes(workdir.path / SIZES, workdir.config_hash, workdir.log)
  before = [name for name in store.domains if name not in store.added]
  there = Trees(settings, before, store.vocab_size, sizes).stages(fork.size)
  shape = Trees(settings, fork.domains, store.vocab_size, sizes).shape(fork.size, seeds=1, keep=True)
  new = tree.build(shape, [fork.point], tree.trunk_of(there, rows=shape.replicas), fork.mark)
  stages, own = tree.needed([*there, *new], [fork.point]), {stage.name for stage in new}
  recipe = dataclasses.replace(recipe, weights={**dict.fromkeys(store.added, 0.0), **recipe.weights})
  with Runner(store, recipe, workdir, progress, interruption) as runner:
    counts = hosts.broadcast(lambda: {name: (*count, 1)[0] for name, count in waves.begun(
        stages, workdir.metrics.trained()).items()})
    in_waves = waves.in_waves(stages, counts)
    lacking = hosts.broadcast(lambda: sorted(runner.missing(in_waves, table)))
    gone = [stage.name for stage in in_waves if stage.name in lacking and waves.whole(stage)[0] not in own]
    if gone:
      raise InputError(f"{workdir.path}: the snapshot of {gone[-1]} that the others were forked from is not there; snapshots of seeds "
                       "stay with Training.retention = 'trunks' (the default) or 'all', and once their experiment is finished")

    def account() -> None:
      trained = [stage for stage in runner.trained if waves.whole(stage)[0] in own]
      ledger.add(workdir.path / "ledger.json", fork.point.role, trained, runner.repairs(trained), settings.training.batch_tokens,
                 workdir.log)

    models = f"an expert on {fork.domains[0]}" if len(fork.domains) == 1 else f"{len(fork.domains)} models"
    try:
      runner.run(stages, table, what=f"training {models} of {shape.name}, off the seed of {fork.point.seed_steps} steps")
    except Interrupted:
      hosts.broadcast(account)
      raise
    hosts.broadcast(account)
  seed_tokens = fork.point.seed_steps * settings.training.batch_tokens
  return [cell for cell in table if (cell.role, cell.seed_tokens) == (fork.point.role, seed_tokens) and cell.domain in fork.domains]
