"""Refuses a corpus in which nothing is left of a domain's split, and names the domains that have its documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jaxsplit.data.index import Index
from jaxsplit.data.keys import by_key
from jaxsplit.data.paths import SPLITS
from jaxsplit.data.reading import HELD_OUT, KEPT, PART, REPEATED
from jaxsplit.errors import InputError

_NAMED = 5  # Domains that a line names.


def check_left(index: Index, names: Sequence[str], splits: Mapping[int, Sequence[str]], counts: np.ndarray) -> None:
  """Makes sure that documents are left in every split of every domain, once repeated ones and those held out were left out.

  Args:
    index: the documents, divided.
    names: of the domains, by their number.
    splits: those that each domain, by its number, shall have.
    counts: of the documents and passages that are kept of each domain and split, [K, 3].

  Raises:
    InputError: nothing is left; it names the domains that have the same documents.
  """
  for k in sorted(splits, key=names.__getitem__):
    for split in splits[k]:
      if not counts[k, SPLITS.index(split)]:
        raise InputError(_reason(index, names, k, split))


def _reason(index: Index, names: Sequence[str], domain: int, split: str) -> str:
  """Why nothing is left of a domain's split, and what to do."""
  repeated = held_out = 0
  owners: set[int] = set()
  for part in by_key(index.rows):
    rows = index.rows[part.rows]
    mine = (rows["domain"] == domain) & (rows["split"] == SPLITS.index(split))
    again, held = mine & (rows["reason"] == REPEATED), mine & (rows["reason"] == HELD_OUT)
    alike = np.isin(part.groups, part.groups[again | held]) & np.isin(rows["reason"], (KEPT, PART))
    owners.update(rows["domain"][alike].tolist())
    repeated += int(again.sum())
    held_out += int(held.sum())
    index.release()
  name, others = names[domain], sorted(names[owner] for owner in owners if owner != domain)
  called = ", ".join(others[:_NAMED]) + f" and {len(others) - _NAMED} more" * (len(others) > _NAMED)
  among = f"domain{'s' * (len(others) > 1)} {called}"
  remedy = f"add documents to {name}" + f", or name only one of {name} and {called} in Corpus.domains" * bool(others)
  total = f"domain {name}: nothing is left of its {split} split: its {repeated + held_out:,} documents and passages"
  if not repeated + held_out:
    return f"domain {name}: no text for its {split} split; {remedy}"
  if not repeated:
    return f"{total} are all held out too{f', by {among}' if others else ''}; {remedy}"
  also = f" or are held out ({held_out:,})" if held_out else ""
  return (f"{total} are all in {among} too{also}, and of equal documents Corpus.duplicates = 'drop' keeps the first; {remedy}, or give "
          "Corpus.duplicates='keep'")
