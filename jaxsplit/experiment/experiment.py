"""The experiment: from a token store and a budget to cells, law, plan, and the measured split."""

from __future__ import annotations

import dataclasses

from jaxsplit.data.store import Store
from jaxsplit.errors import InputError
from jaxsplit.experiment import guards
from jaxsplit.experiment.base_model import base_of
from jaxsplit.experiment.forecast import forecast
from jaxsplit.experiment.progress import Progress
from jaxsplit.experiment.recipe import Recipe, StageSetup
from jaxsplit.experiment.runner import Runner
from jaxsplit.experiment.settings import Settings
from jaxsplit.experiment.story import Story
from jaxsplit.experiment.tokens import same_tokens
from jaxsplit.experiment.workdir import Workdir
from jaxsplit.law import Law, Plan
from jaxsplit.parallel import hosts
from jaxsplit.results.cells import Cell
from jaxsplit.training.interruption import Interruption


@dataclasses.dataclass(frozen=True)
class Findings:
  """Results of an experiment.

  Attributes:
    cells: all measured cells, as in cells.csv; with several hosts, complete in process 0 only.
    law, plan: the fitted law and its plan; None if no law was requested.
    summary: the closing table, as text.
  """

  cells: tuple[Cell, ...]
  law: Law | None
  plan: Plan | None
  summary: str


def run(settings: Settings, store: Store, workdir: Workdir, progress: Progress, interruption: Interruption) -> Findings:
  """Probes, trains the grid, fits, plans, and trains the plan and its baselines. Resumes what an earlier call began."""
  check = same_tokens(workdir)
  hosts.broadcast(lambda: check(store))
  workdir.once(f"disjoint {store.manifest_hash}", lambda: guards.check_disjoint(store))
  with Runner(store, recipe_of(settings, store), workdir, progress, interruption) as runner:
    story = Story(settings, store, workdir, progress, runner)
    story.probe()
    if settings.experiment.sizes == ():
      story.prove(None)
      return Findings(story.cells, None, None, story.compared())
    story.measure_grid()
    law = story.fit()
    plan = story.plan(law)
    while story.grow(plan):
      story.probe()
      story.measure_grid()
      law = story.fit()
      plan = story.plan(law)
    story.prove(plan)
    return Findings(story.cells, law, plan, story.close(law, plan))


def outlook(settings: Settings, store: Store, workdir: Workdir, progress: Progress) -> str:
  """What `run` would train, with its cost, as text (experiment.forecast); nothing is trained or written."""
  story = Story(settings, store, workdir, progress, runner=None)
  return forecast(story.outline(), story.likely_split, story.grid, StageSetup(store, recipe_of(settings, store)),
                  settings.experiment.uneven, settings.law, workdir.path, progress.log)


def recipe_of(settings: Settings, store: Store) -> Recipe:
  """What all stages of the experiment have in common."""
  experiment = settings.experiment
  tokens = lambda domain: store.counts(domain, "train").tokens
  weights = {domain: 1.0 if experiment.mixture == "uniform" else float(tokens(domain)) for domain in store.domains}
  for domain in experiment.resample:
    store.counts(domain, "train")  # Raises where there is no such domain.
  scarce = dict.fromkeys(experiment.resample, experiment.resample_share)
  if scarce and len(store.domains) == 1:
    raise InputError(f"Experiment.resample = {experiment.resample}: {store.domains[0]} is the only domain, so there is no text of others "
                     "to resample; leave it out")
  return Recipe(settings.training, settings.optimizer, settings.layout, weights, experiment.seed, experiment.keep_moments,
               experiment.validation_tokens, experiment.data == "phonebook", experiment.replay, scarce, experiment.resample_clusters,
               base_of(settings))
