"""Models added to an experiment, forked from its trunks: experts on domains added later, and small models for routing.

The mixture, the seed, all snapshots and all existing rows of tables stay as they are: tables gain rows. An added
domain's tokens are in a separate store, made with the experiment's tokenizer. The cells have separate roles, so that no law,
plan or split curve includes them.
"""

from __future__ import annotations

import dataclasses

from jaxsplit.data.joined import JoinedStore
from jaxsplit.data.store import Store
from jaxsplit.errors import InputError, Interrupted
from jaxsplit.experiment import ledger, tree, waves
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
  """The split of a new expert, at the experiment's target size.

  Args:
    settings: of the experiment, whose `workdir` is claimed.
    seed_tokens: D of a measured split; None for the planned one, or for the only one.

  Raises:
    InputError: there is no split, none with that D, or several.
  """
  experiment, batch_tokens = settings.experiment, settings.training.batch_tokens
  sizes = Sizes(workdir.path / SIZES, workdir.config_hash, workdir.log)
  if experiment.trunk == "per_domain":
    raise InputError(f"{workdir.path}: each domain has its own seed (Experiment.trunk), so there is none that an expert on a new "
                     "domain could be forked from; train the domains together in another --workdir")
  splits = sorted({point for request in sizes.requests(experiment.target) for point in request.points if point.role == "split"})
  known = ", ".join(f"{point.seed_steps * batch_tokens:,}" for point in splits)
  if not splits:
    raise InputError(f"{workdir.path}: has no trained experts, so none can be added; request a split, such as by "
                     "--gin.Experiment.compare='(0.5, 1.0)', and finish it first")
  if seed_tokens is not None:
    found = [point for point in splits if point.seed_steps * batch_tokens == seed_tokens]
    if not found:
      raise InputError(f"--seed_tokens={seed_tokens}: no split with that D is trained at Experiment.target; there are {known}")
    return found[0]
  plan = hosts.broadcast(lambda: _planned(workdir))
  found = [point for point in splits if [point.seed_steps, point.expert_steps] == plan] if plan else splits
  if len(found) != 1:
    raise InputError(f"{workdir.path}: {'the plan is not to split' if plan else 'has several trained splits'}; choose one "
                     f"by its D, as --seed_tokens=N, N one of {known}")
  return found[0]


def _planned(workdir: Workdir) -> list[int] | None:
  path = workdir.path / "plan.json"
  point = load_plan(path).point if path.exists() else None
  return point and [point.seed_steps, point.expert_steps]


def add_expert(settings: Settings, store: JoinedStore, domain: str, split: Point, recipe: Recipe, workdir: Workdir,
               progress: Progress, interruption: Interruption) -> list[Cell]:
  """Trains and measures the expert on one domain of `store.added`, at a split of the other experts.

  Args:
    settings: of the experiment.
    store: the experiment's store joined with the domain's.
    domain: its name.
    split: D and D'.
    recipe: the experiment's.

  Returns:
    The expert's cells, one per replica.

  Raises:
    InputError: the snapshot to fork from is missing, or a guard failed.
  """
  fork = Fork(settings.experiment.target, dataclasses.replace(split, role="added"), (domain,), f"+domain-{domain}")
  return train_beside(settings, store, fork, recipe, workdir, progress, interruption)


def add_small_models(settings: Settings, store: Store, split: Point, recipe: Recipe, workdir: Workdir, progress: Progress,
                     interruption: Interruption) -> list[Cell]:
  """Trains and measures a small model of each domain for routing (SmallTalk LM, arXiv 2410.03529).

  They have the smallest size of the law's grid, are forked from its snapshot nearest to the split's D, and trained for
  the split's D'. Domains that were added later have one too.

  Args:
    settings, store, recipe: of the experiment; the store with the domains that were added later.
    split: D and D' of the experts.

  Raises:
    InputError: there is no smaller size than the experts', a snapshot to fork from is missing, or a guard failed.
  """
  experiment = settings.experiment
  if experiment.trunk == "per_domain":
    raise InputError(f"{workdir.path}: each domain has its own seed (Experiment.trunk), so there is none to fork small models from; "
                     "use another router")
  sizes = Sizes(workdir.path / SIZES, workdir.config_hash, workdir.log)
  before = tuple(name for name in store.domains if name not in store.added)
  trees = Trees(settings, before, store.vocab_size, sizes)
  total = lambda size: trees.model(size).params_total
  smaller = [size for size in sizes.requested if total(size) < total(experiment.target)]
  if not smaller:
    raise InputError(f"{workdir.path}: has no smaller size than the experts', and small models are forked from its seed; "
                     "use another router")
  size = min(smaller, key=total)
  steps = sorted(tree.trunk_of(trees.stages(size), rows=experiment.replicas))
  point = Point(min(steps, key=lambda step: abs(step - split.seed_steps)) if split.seed_steps else 0, split.expert_steps, "router")
  forks = [Fork(size, point, before, "+routers"), *(Fork(size, point, (name,), f"+routers-{name}") for name in store.added)]
  return [cell for fork in forks for cell in train_beside(settings, store, fork, recipe, workdir, progress, interruption)]


@dataclasses.dataclass(frozen=True)
class Fork:
  """Runs forked from an experiment's trunk in addition to its own.

  Attributes:
    size: (width, depth) of the trunk.
    point: D and D', and the role of their cells, which is also their purpose in the ledger.
    domains: of the runs.
    mark: suffix of their stages' names.
  """

  size: tuple[int, int]
  point: Point
  domains: tuple[str, ...]
  mark: str


def train_beside(settings: Settings, store: Store, fork: Fork, recipe: Recipe, workdir: Workdir, progress: Progress,
                 interruption: Interruption) -> list[Cell]:
  """Trains and measures what is missing of a fork; nothing else is trained, and no snapshot of the trunk is removed.

  Raises:
    InputError: the snapshot to fork from is missing, or a guard failed.
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
      raise InputError(f"{workdir.path}: the snapshot of {gone[-1]} that the others were forked from is missing; snapshots of seeds "
                       "are kept with Training.retention = 'trunks' (the default) or 'all', once the experiment is finished")

    def account() -> None:
      trained = [stage for stage in runner.trained if waves.whole(stage)[0] in own]
      ledger.add(workdir.path / "ledger.json", fork.point.role, trained, runner.repairs(trained), settings.training.batch_tokens,
                 workdir.log)

    models = f"an expert on {fork.domains[0]}" if len(fork.domains) == 1 else f"{len(fork.domains)} models"
    try:
      runner.run(stages, table, what=f"training {models} of {shape.name}, forked from the seed at {fork.point.seed_steps} steps")
    except Interrupted:
      hosts.broadcast(account)
      raise
    hosts.broadcast(account)
  seed_tokens = fork.point.seed_steps * settings.training.batch_tokens
  return [cell for cell in table if (cell.role, cell.seed_tokens) == (fork.point.role, seed_tokens) and cell.domain in fork.domains]
