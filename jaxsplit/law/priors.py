"""Priors of a law's constants: weak ones, and those from laws of earlier sweeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.law.cells import Cells
from jaxsplit.law.damped import EACH, ROOTS, minimise, place
from jaxsplit.law.law import Law, load_law
from jaxsplit.law.problem import Layout, Model

_EXACT = 0.003  # Of ln L: how closely a form follows what an earlier law says, wherever that law can be followed.
_FINEST = 30.0  # The least D' that an earlier law is asked about is this part of its largest, where it knows of D' = 0.
_OTHERWISE = 0.25  # Between experiments constants differ as much as this share of the weak priors' widths, ...
_BELIEF = 3.0  # ... which counts as much as this many laws that say so.


@dataclasses.dataclass(frozen=True)
class Priors:
  """Where the priors on constants come from.

  Attributes:
    laws: of earlier sweeps. None: the forms' own weak priors alone.
  """

  laws: tuple[Law, ...] = ()

  def of(self, model: Model, layout: Layout, pooled: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [q] of a form's constants.

    An earlier law has another form, other units, and a corpus whose losses are higher or lower. So each is asked what it expects on
    a grid over what it and this table have measured; its draws, brought to this table's mean, are fitted by the form. Constants
    are expected to be as they are
    on average, and to vary as they do within each law, between laws, and between experiments.

    Args:
      model, layout: the form in log space, of one domain.
      pooled: the table.
    """
    centre, width = np.array([q.normal for q in model.parameters]).T
    if not self.laws:
      return centre, width
    low, high = np.array([np.log([q.low, q.high]) if q.kind == "positive" else (q.low, q.high) for q in model.parameters]).T
    mean, within = [], []
    for law in self.laws:
      here, grid = (pooled.params, pooled.seed_tokens, pooled.expert_tokens), _grid(law, pooled)
      losses, weights = law.draws(*(np.concatenate(pair) for pair in zip(here, grid)))
      chosen = np.random.default_rng(0).choice(len(losses), ROOTS * EACH, p=weights)
      log = np.log(losses[chosen])
      log = log[:, len(pooled):] + np.log(pooled.loss).mean() - log[:, :len(pooled)].mean(1, keepdims=True)
      theta, _ = minimise(model, place(layout, *grid), np.eye(log.shape[1]) / _EXACT, log, centre, width, low, high, centre)
      mean.append(theta.mean(0))
      within.append(theta.var(0))
    count = len(self.laws)
    between = (np.sum((mean - np.mean(mean, 0)) ** 2, 0) + _BELIEF * (_OTHERWISE * width) ** 2) / (count - 1 + _BELIEF)
    variance = np.mean(within, 0) + between * (1 + 1 / count)
    # Never less than the weak priors know.
    precision = width**-2 + 1 / variance
    return (centre / width**2 + np.mean(mean, 0) / variance) / precision, precision**-0.5


def _grid(law: Law, pooled: Cells) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """N, D and D' [48] over all that an earlier law and this table have measured, with D' = 0 where either has."""
  axes = []
  for name, count in zip(("params", "seed_tokens", "expert_tokens"), (3, 4, 4)):
    here, (low, high) = getattr(pooled, name), law.data["ranges"][name]
    least = min(here[here > 0].min(initial=high), low if low > 0 else high / _FINEST)
    axis = np.geomspace(least, max(here.max(), high), count - (name == "expert_tokens"))
    axes.append(np.append(0.0, axis) if name == "expert_tokens" and min(low, here.min()) == 0 else axis)
  return tuple(axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))


def read_priors(paths: Sequence[str]) -> Priors:
  """The priors of law.json files.

  Raises:
    InputError: one that cannot be read, or tells nothing of seed and expert tokens.
  """
  laws = tuple(map(load_law, paths))
  for path, law in zip(paths, laws):
    if law.data["ranges"]["expert_tokens"][1] == 0:
      raise InputError(f"--prior={path}: no expert was measured for this law, so it tells nothing of splits; give laws of sweeps")
  return Priors(laws)
