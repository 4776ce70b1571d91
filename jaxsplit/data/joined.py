"""A token store and the stores of domains added later, read as one."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable

import numpy as np

from jaxsplit.data.parts import MANIFEST
from jaxsplit.data.store import Store, open_store
from jaxsplit.errors import InputError

ADDED = "added"  # In a work directory: the stores of domains that came later, each in a folder of its name.


class JoinedStore(Store):
  """A store's domains and those of others. `manifest_hash` and `source` stay those of the first: what its seed was trained on.

  Args:
    store: the first; of text.
    others: stores of the same tokenizer.

  Raises:
    InputError: another tokenizer, or a domain that is there already.
  """

  def __init__(self, store: Store, others: Iterable[Store]):
    self._store_of = dict.fromkeys(store.domains, store)
    for other in others:
      if other.tokenizer.fingerprint != store.tokenizer.fingerprint:
        raise InputError(f"{other.directory}: its tokens are of another tokenizer than those of {store.directory}; delete the folder "
                         "to have them made again")
      for domain in other.domains:
        if domain in self._store_of:
          raise InputError(f"{other.directory}: {store.directory} has a domain {domain} already; take another name")
        self._store_of[domain] = other
    counts = {domain: {split: one.counts(domain, split) for split in one.splits(domain)} for domain, one in self._store_of.items()}
    super().__init__(store.directory, store.tokenizer, counts, store.record, store.source, store.overlaps, store.left_out)
    self.manifest_hash = store.manifest_hash
    self.added = {domain: one.manifest_hash for domain, one in self._store_of.items() if one is not store}

  def tokens(self, domain: str, split: str) -> np.memmap:
    self.counts(domain, split)  # Raises.
    return self._store_of[domain].tokens(domain, split)


def join_all(store: Store, folder: pathlib.Path) -> Store:
  """The store with the domains that have stores in the folder; itself where there are none."""
  others = added_stores(folder)
  return JoinedStore(store, others) if others else store


def added_stores(folder: pathlib.Path) -> list[Store]:
  """The stores in the folder."""
  return [open_store(path.parent) for path in sorted(folder.glob(f"*/{MANIFEST}"))]
