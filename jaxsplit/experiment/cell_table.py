"""The cells measured so far, kept in a cells.csv."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable, Iterator

from jaxsplit.parallel import hosts
from jaxsplit.results.cells import Cell, as_read, read_whole_rows, write_cells


class CellTable:
  """The cells measured so far, in a file sorted by their keys, so that it does not depend on the order of measurement.

  With several processes, only the lead's table is complete; the others' start empty and are not written.

  Args:
    path: the file.
    log: gets a line on damaged rows, which are measured again.
  """

  def __init__(self, path: pathlib.Path, log: Callable[[str], None] = print):
    self.path = path
    self._cells: dict[tuple, Cell] = {}
    hosts.broadcast(lambda: self._load(log))

  def _load(self, log: Callable[[str], None]) -> None:
    cells, damaged = read_whole_rows(self.path) if self.path.exists() else ([], [])
    self._cells = {cell.key: cell for cell in cells}
    if damaged:
      if not cells:
        raise damaged[0]
      log(f"{damaged[0]}: {len(damaged)} damaged rows are measured again")
      write_cells(self.path, self)

  def __contains__(self, key: tuple) -> bool:
    return key in self._cells

  def __iter__(self) -> Iterator[Cell]:
    return iter(self._cells[key] for key in sorted(self._cells))

  def __len__(self) -> int:
    return len(self._cells)

  def add(self, cells: Iterable[Cell]) -> None:
    """Records cells and writes the file."""
    # Rounded as in the file: a resumed process must see the same numbers as an uninterrupted one.
    self._cells |= {cell.key: cell for cell in map(as_read, cells)}
    if hosts.is_lead():
      write_cells(self.path, self)
