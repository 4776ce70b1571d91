"""The stages of all that was asked of an experiment, size by size, whoever asks: the experiment itself, or what is added to it."""

from __future__ import annotations

from collections.abc import Sequence

from jaxsplit.experiment import tree
from jaxsplit.experiment.settings import Settings
from jaxsplit.experiment.sizes import Sizes
from jaxsplit.experiment.tree import Shape, Stage
from jaxsplit.models.family import ModelConfig

_ANY_RATE = 1.0  # For stages of which only the shapes and lengths matter yet.


class Trees:
  """An experiment's models, and the trees of stages that they are trained in.

  Args:
    settings: of the experiment.
    domains: its domains.
    vocab_size: ids of its tokens.
    sizes: what is decided for each size, and was asked of it.
  """

  def __init__(self, settings: Settings, domains: Sequence[str], vocab_size: int, sizes: Sizes):
    self._settings, self._domains, self._vocab_size, self._sizes = settings, tuple(domains), vocab_size, sizes

  def model(self, size: tuple[int, int]) -> ModelConfig:
    """The model of a size (width, depth)."""
    return self._settings.architecture.at(*size, self._vocab_size, self._settings.training.sequence_length)

  def shape(self, size: tuple[int, int], seeds: int, keep: bool, domains: tuple[str, ...] = ()) -> Shape:
    """What a tree of the size is built for; `seeds` and `keep` as `Shape` has them, domains all where none are named."""
    experiment = self._settings.experiment
    return Shape(name_of(size), self.model(size), domains or self._domains, experiment.replicas, self._sizes.rate(size) or _ANY_RATE, seeds,
                 experiment.cooldown_steps, experiment.keep_moments, keep)

  def stages(self, size: tuple[int, int]) -> list[Stage]:
    """The stages of all that was asked of a size: each request's, starting from the trunks of those before it."""
    shape = lambda request: self.shape(size, request.seeds, any(point.role != "grid" for point in request.points), request.domains)
    return tree.build_all([(shape(request), request.points) for request in self._sizes.requests(size)])


def name_of(size: tuple[int, int]) -> str:
  """What stages call a size (width, depth)."""
  return f"d{size[0]}-l{size[1]}"
