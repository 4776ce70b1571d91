"""Rows of text as lines whose columns line up, for terminals."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def aligned(rows: Iterable[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
  """A line a row: the columns of these numbers (-1 is the last) begin at one place, the others end at one."""
  rows = list(rows)
  widths = [max(map(len, column)) for column in zip(*rows)]
  to_left = {i % len(widths) for i in left}
  return ["  ".join((str.ljust if i in to_left else str.rjust)(text, widths[i]) for i, text in enumerate(row)).rstrip() for row in rows]
