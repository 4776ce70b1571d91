"""What cannot work is refused before anything is spent: by the settings alone, and by the grid that they ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from jaxsplit.errors import InputError
from jaxsplit.experiment.settings import Settings
from jaxsplit.law import Cells, check_fit, check_plan
from jaxsplit.models.kernels import attention
from jaxsplit.parallel import hosts, sharding
from jaxsplit.results.cells import Cell
from jaxsplit.results.stages import Point

_LEAST_STEPS = 100  # Of a budget: its fractions are whole steps.
_ANY_VOCABULARY = 256  # Where it has no influence.
_ANY_DOMAINS = "abcdefgh"  # Before the corpus is read: enough for every constant that domains of a law share.


def check(settings: Settings) -> None:
  """Refuses settings that cannot work here whatever the data: a budget of too few steps, sizes without a model, a kernel or
  a mesh that these devices do not support.

  Raises:
    InputError: it names the setting.
  """
  experiment, training = settings.experiment, settings.training
  if 0 in experiment.seed_fractions and experiment.sizes and not experiment.init_from:
    raise InputError(f"Experiment.seed_fractions = {experiment.seed_fractions}: 0 is a base model, which Experiment.init_from names; "
                     "without one, give shares above 0")
  steps = experiment.budget_tokens // training.batch_tokens
  if steps < _LEAST_STEPS:
    raise InputError(f"Experiment.budget_tokens = {experiment.budget_tokens} is {steps} steps of {training.batch_tokens} tokens; give "
                     f"at least {_LEAST_STEPS} steps, which are {_LEAST_STEPS * training.batch_tokens} tokens, or a smaller "
                     "Training.batch_sequences")
  if experiment.validation_tokens < training.sequence_length:
    raise InputError(f"Experiment.validation_tokens = {experiment.validation_tokens} is less than one window of "
                     f"Training.sequence_length = {training.sequence_length}; give some thousands, so that losses are not mostly noise")
  at = lambda size: settings.architecture.at(*size, _ANY_VOCABULARY, training.sequence_length)
  target = at(experiment.target)
  attention.check_here(target)
  for size in experiment.sizes or ():
    attention.check_here(at(size))
    if at(size).params > target.params:
      raise InputError(f"Experiment.sizes = {experiment.sizes}: {size} has N = {at(size).params:,}, more than Experiment.target = "
                       f"{experiment.target} with {target.params:,}; take sizes smaller than the target")
  if hosts.count() == 1:  # With several processes, it depends on the number of runs too.
    sharding.make_mesh(settings.layout, settings.layout.expert or 1, training.batch_sequences // (training.accumulation or 1))


def check_grid(settings: Settings, unique_tokens: Mapping[str, int], measured: Iterable[Cell] = (),
               grid: Mapping[tuple[int, int], Sequence[Point]] | None = None) -> None:
  """Refuses a grid from which no law can be fitted or no split planned, once all of it is measured.

  Args:
    settings: of the experiment.
    unique_tokens: of each domain; empty before they are known.
    measured: the cells measured so far.
    grid: the points of each size; None before they are chosen, when the fractions of the settings are taken.

  Raises:
    InputError: with what is missing.
  """
  experiment, batch_tokens = settings.experiment, settings.training.batch_tokens
  if grid is not None:
    tokens = {size: [(point.seed_steps * batch_tokens, point.expert_steps * batch_tokens) for point in points]
              for size, points in grid.items()}
  else:  # The number of steps of a fraction depends on K.
    shares = [(seed * experiment.budget_tokens, min(expert, 1 - seed) * experiment.budget_tokens)
              for seed in experiment.seed_fractions for expert in (0, *experiment.expert_fractions) if seed or expert]
    tokens = dict.fromkeys(experiment.sizes or (), shares)
  if not tokens:
    return
  rows = {(cell.params, cell.seed_tokens, cell.expert_tokens, cell.domain, cell.replica, cell.unique_tokens)
          for cell in measured if (cell.role, cell.status) == ("grid", "ok")}
  for size, points in tokens.items():
    params = settings.architecture.at(*size, _ANY_VOCABULARY, settings.training.sequence_length).params
    rows |= {(params, *point, domain, replica, unique) for point in points for replica in range(experiment.replicas)
             for domain, unique in (unique_tokens or dict.fromkeys(_ANY_DOMAINS, experiment.budget_tokens)).items()}
  names = ("params", "seed_tokens", "expert_tokens", "domain", "replica", "unique_tokens")
  columns = dict(zip(names, zip(*sorted(rows)))) | {"loss": [1.0] * len(rows)}
  try:
    cells = Cells.from_columns(columns, {"file": "Experiment.sizes, seed_fractions and expert_fractions"})
    check_fit(cells, settings.law)
    check_plan(cells, settings.law.form)
  except InputError as error:
    raise InputError(f"{error}. Nothing was trained: change the grid, or FitSettings") from None
