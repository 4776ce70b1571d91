"""An experiment's tokens: checks before they are read, reading them, and the check that they have not changed."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

from jaxsplit.data.concerns import describe_files
from jaxsplit.data.corpus import real
from jaxsplit.data.listing import check_apart
from jaxsplit.data.phonebook import phonebook_store
from jaxsplit.data.preparation import check_domain_count, check_settings, prepare_store
from jaxsplit.data.store import Store, check_tokens, open_store
from jaxsplit.errors import InputError
from jaxsplit.experiment import guards
from jaxsplit.experiment.cell_table import CellTable
from jaxsplit.experiment.checks import check_grid
from jaxsplit.experiment.progress import Progress
from jaxsplit.experiment.settings import Settings
from jaxsplit.experiment.workdir import Workdir
from jaxsplit.parallel import hosts
from jaxsplit.results.cells import BESIDE, read_whole_rows

_LEAST_DOMAINS = 2  # Of which there is something to split.


def check_data(settings: Settings, workdir: pathlib.Path) -> None:
  """Refuses, before anything is read, written or trained, data that is given twice, settings of it that contradict each other,
  a work directory within its corpus, or a grid to which no law can be fitted."""
  store = settings.store
  if store:
    changed = [*_changed(settings.corpus), *_changed(settings.clustering), *_changed(settings.tokenization)]
    if settings.experiment.data == "phonebook":
      changed.append("Experiment.data = 'phonebook'")
    if changed:
      raise InputError(f"--store={store}: already determines corpus and tokenizer, but {changed[0]} is given too; leave one of them "
                       "out")
    if real(store) in (real(workdir), *real(workdir).parents):
      raise InputError(f"--workdir={workdir}: lies in the token store, {real(store)}, and would be deleted when that is replaced; name a "
                       "folder outside")
    if open_store(store).record:
      raise InputError(f"--store={store}: is the store of a phonebook; give Experiment.data='phonebook' and no store")
  elif settings.experiment.data == "text":
    check_settings(settings.corpus, settings.tokenization, settings.clustering)
    check_apart(settings.corpus, "--workdir", workdir, workdir / "store")
  cells = read_whole_rows(workdir / "cells.csv")[0] if (workdir / "cells.csv").exists() else []
  check_grid(settings, {cell.domain: cell.unique_tokens for cell in cells if cell.role not in BESIDE}, cells)


def read_store(settings: Settings, workdir: Workdir, progress: Progress) -> Store:
  """The experiment's tokens: the given store, or the corpus, tokenized once, or the phonebook."""
  folder = pathlib.Path(settings.store or workdir.path / "store")
  same = same_tokens(workdir)

  def prepare() -> None:
    if settings.experiment.data == "phonebook":
      phonebook_store(settings.phonebook, folder)
      return
    if settings.store:
      check_tokens(open_store(folder))
    else:
      progress.begin("reading the corpus")
      prepare_store(settings.corpus, settings.tokenization, folder, progress.log, check=same, clustering=settings.clustering,
                    least_domains=_LEAST_DOMAINS)
    for line in describe_files(open_store(folder)):
      progress.log(f"  {line}")

  hosts.broadcast(prepare)
  store = open_store(folder)
  check_domain_count(store.domains, _LEAST_DOMAINS)
  return store


def same_tokens(workdir: Workdir) -> Callable[[Store], None]:
  """A check, for the lead only, that refuses a store other than that of the existing cells."""
  tables = [CellTable(workdir.path / name, workdir.log) for name in ("cells.csv", "probe.csv")]

  def check(store: Store) -> None:
    for table in tables:
      guards.check_same_corpus(table, workdir.path, store)

  return check


def _changed(settings: Any) -> list[str]:
  """Settings that are not their defaults, as `Corpus.path = 'x'`."""
  plain = vars(type(settings)())
  return [f"{type(settings).__name__}.{name} = {value!r}" for name, value in vars(settings).items() if value != plain[name]]
