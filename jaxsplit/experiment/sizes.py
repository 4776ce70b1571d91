"""sizes.json: the learning rate and the requested cells of each model size of an experiment, in order of request.

A work directory grows: more sizes, fractions, targets and splits to compare. Decisions for a size do not change: its rate
stays the same when another size is probed, and its training stays divided into the same stages; cells requested later are a
separate request, whose stages start from existing ones.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jaxsplit.errors import InputError
from jaxsplit.files import read_json, write_json
from jaxsplit.models.family import ModelConfig
from jaxsplit.parallel import hosts
from jaxsplit.results.record import parsed
from jaxsplit.results.stages import Point

FILE = "sizes.json"


@dataclasses.dataclass(frozen=True)
class Request:
  """Cells that were requested together.

  Attributes:
    seeds: independent seeds per replica that they are forked from, see `tree.Shape`.
    points: of the cells.
    domains: of the cells; empty for all.
  """

  seeds: int
  points: tuple[Point, ...]
  domains: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Size:
  """The decisions for one size.

  Attributes:
    size: (width, depth).
    params, params_total: N without and with embeddings.
    rate: the learning rate.
    requests: of its cells, so far.
  """

  size: tuple[int, int]
  params: int
  params_total: int
  rate: float
  requests: tuple[Request, ...] = ()


class Sizes:
  """The sizes of an experiment, the same in all its processes; the lead writes their file.

  Args:
    path: the file.
    config: hash of the settings that it belongs to; a file of other settings is ignored.
    log: gets a line if the file is damaged.
  """

  def __init__(self, path: pathlib.Path, config: str, log: Callable[[str], None] = print):
    self._path, self._config = path, config
    self._sizes = {size.size: size for size in _sizes(hosts.broadcast(lambda: _read(path, config, log)))}

  def rate(self, size: tuple[int, int]) -> float | None:
    """The size's learning rate; None before it is decided."""
    return self._sizes[size].rate if size in self._sizes else None

  def other_of(self, size: tuple[int, int], params_total: int) -> tuple[int, int] | None:
    """Another size that has as many parameters."""
    return next((other for other, one in self._sizes.items() if other != size and one.params_total == params_total), None)

  @property
  def requested(self) -> tuple[tuple[int, int], ...]:
    """The sizes that cells were requested at."""
    return tuple(size for size, one in self._sizes.items() if one.requests)

  def requests(self, size: tuple[int, int]) -> tuple[Request, ...]:
    """The requests at the size, oldest first."""
    return self._sizes[size].requests if size in self._sizes else ()

  def decide(self, models: Mapping[tuple[int, int], ModelConfig], rate: Callable[[ModelConfig], float]) -> None:
    """Records the learning rates of the sizes that have none yet."""
    new = {size: Size(size, model.params, model.params_total, rate(model)) for size, model in models.items()
           if size not in self._sizes}
    if new:
      self._sizes |= new
      self._save()

  def ask(self, size: tuple[int, int], seeds: int, points: Iterable[Point], domains: tuple[str, ...] = ()) -> None:
    """Records the points that were not requested at a decided size before, as one request."""
    asked = {point for request in self.requests(size) if (request.seeds, request.domains) == (seeds, domains) for point in request.points}
    new = tuple(sorted(set(points) - asked))
    if new:
      known = self._sizes[size]
      self._sizes[size] = dataclasses.replace(known, requests=(*known.requests, Request(seeds, new, domains)))
      self._save()

  def _save(self) -> None:
    content = {"config": self._config, "sizes": [dataclasses.asdict(size) for size in self._sizes.values()]}
    hosts.broadcast(lambda: write_json(self._path, content))


def read_params_total(path: pathlib.Path, size: tuple[int, int]) -> int | None:
  """The parameters, with embeddings, of a size in a work directory's file; None if the file does not have it."""
  return next((one.params_total for one in _sizes(_read(path, None, lambda line: None)) if one.size == size), None)


def _read(path: pathlib.Path, config: str | None, log: Callable[[str], None]) -> list[dict[str, Any]]:
  """The records in a file, as JSON; none if it does not exist, belongs to other settings, or is damaged."""
  try:
    content = read_json(path) if path.exists() else {"config": None, "sizes": []}
    if any(size.rate <= 0 or min([0, *(steps for request in size.requests for point in request.points
                                       for steps in (point.seed_steps, point.expert_steps))]) < 0
           for size in _sizes(content["sizes"])):
      raise ValueError("an impossible rate or number of steps")
    return content["sizes"] if config in (None, content["config"]) else []
  except (InputError, KeyError, TypeError, ValueError) as error:
    log(f"{path}: damaged ({error}), so it is started anew; sizes with cells keep the learning rates of these")
    return []


def _sizes(records: list[dict[str, Any]]) -> tuple[Size, ...]:
  """ValueError for anything that `Sizes` would not have written."""
  return parsed(tuple[Size, ...], records)
