"""A domain that comes later: one more expert, forked from the snapshot that the others were forked from.

The mixture and its seed stay what they were, and so does every snapshot and every row that is there: tables gain rows. The
domain's tokens lie in a store of their own, made with the experiment's tokenizer. Its cells have a role of their own, so that no
law, plan or split curve takes them for domains that the seed has seen.
"""

from __future__ import annotations

import dataclasses

from jaxsplit.data.joined import JoinedStore
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

FOLDER = "added"  # In a work directory: the stores of such domains, each by its name.


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
  target, table = settings.experiment.target, CellTable(workdir.path / "cells.csv", workdir.log)
  sizes = Sizes(workdir.path / SIZES, workdir.config_hash, workdir.log)
  before = [name for name in store.domains if name not in store.added]
  there = Trees(settings, before, store.vocab_size, sizes).stages(target)
  shape = Trees(settings, (domain,), store.vocab_size, sizes).shape(target, seeds=1, keep=True)
  trunk = tree.trunk_of(there, rows=shape.replicas)
  point = dataclasses.replace(split, role="added")
  new = tree.build(shape, [point], trunk, f"+domain-{domain}")
  stages = tree.needed([*there, *new], [point])
  recipe = dataclasses.replace(recipe, weights={**dict.fromkeys(store.added, 0.0), **recipe.weights})
  with Runner(store, recipe, workdir, progress, interruption) as runner:
    counts = hosts.broadcast(lambda: {name: (*count, 1)[0] for name, count in waves.begun(
        stages, workdir.metrics.trained()).items()})
    in_waves = waves.in_waves(stages, counts)
    lacking = hosts.broadcast(lambda: sorted(runner.missing(in_waves, table)))
    own = {stage.name for stage in new}
    gone = [stage.name for stage in in_waves if stage.name in lacking and waves.whole(stage)[0] not in own]
    if gone:
      raise InputError(f"{workdir.path}: the snapshot of {gone[-1]} that the others were forked from is not there; snapshots of seeds "
                       "stay with Training.retention = 'trunks' (the default) or 'all', and once their experiment is finished")

    def account() -> None:
      trained = [stage for stage in runner.trained if waves.whole(stage)[0] in own]
      ledger.add(workdir.path / "ledger.json", "added", trained, runner.repairs(trained), settings.training.batch_tokens, workdir.log)

    try:
      runner.run(stages, table, what=f"training an expert on {domain}, off the seed of {split.seed_steps} steps")
    except Interrupted:
      hosts.broadcast(account)
      raise
    hosts.broadcast(account)
  return [cell for cell in table if cell.role == "added" and cell.domain == domain]
