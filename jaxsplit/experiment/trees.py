"""The stages of all requests of an experiment, size by size, for the experiment itself and for models added to it."""

from __future__ import annotations

from collections.abc import Sequence

from jaxsplit.experiment import tree
from jaxsplit.experiment.settings import Settings
from jaxsplit.experiment.sizes import Sizes
from jaxsplit.experiment.tree import Shape, Stage
from jaxsplit.models.family import ModelConfig

_ANY_RATE = 1.0  # For stages of which only the shapes and lengths matter yet.


class Trees:
  """An experiment's models, and the trees of stages in which they are trained.

  Args:
    settings: of the experiment.
    domains: its domains.
    vocab_size: of its tokenizer.
    sizes: decisions and requests of each size.
  """

  def __init__(self, settings: Settings, domains: Sequence[str], vocab_size: int, sizes: Sizes):
    self._settings, self._domains, self._vocab_size, self._sizes = settings, tuple(domains), vocab_size, sizes

  def model(self, size: tuple[int, int]) -> ModelConfig:
    """The model of a size (width, depth)."""
    return self._settings.architecture.at(*size, self._vocab_size, self._settings.training.sequence_length)

  def shape(self, size: tuple[int, int], seeds: int, keep: bool, domains: tuple[str, ...] = ()) -> Shape:
    """The shape of a tree at the size; `seeds` and `keep` as in `Shape`, domains all if none are given."""
    experiment = self._settings.experiment
    return Shape(name_of(size), self.model(size), domains or self._domains, experiment.replicas, self._sizes.rate(size) or _ANY_RATE, seeds,
                 experiment.cooldown_steps, experiment.keep_moments, keep, experiment.averages and not keep)

  def stages(self, size: tuple[int, int]) -> list[Stage]:
    """The stages of all requests at a size: each request's start from the trunks of those before it."""
    shape = lambda request: self.shape(size, request.seeds, any(point.role != "grid" for point in request.points), request.domains)
    return tree.build_all([(shape(request), request.points) for request in self._sizes.requests(size)])


def name_of(size: tuple[int, int]) -> str:
  """The name of a size (width, depth) in stages' names."""
  return f"d{size[0]}-l{size[1]}"
