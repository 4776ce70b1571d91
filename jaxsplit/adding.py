"""What is trained beside a finished experiment: a domain that comes later, and small models to route by. What the train entry
point runs with --add_domain and --add_small_models, and Python may."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable

from jaxsplit import devices
from jaxsplit.data.concerns import describe_files, shared_documents
from jaxsplit.data.corpus import ONE, Corpus
from jaxsplit.data.formats import format_of
from jaxsplit.data.joined import ADDED, JoinedStore, added_stores, join_all
from jaxsplit.data.listing import check_apart, check_cases, check_domain_name
from jaxsplit.data.parts import TOKENIZER
from jaxsplit.data.preparation import prepare_store
from jaxsplit.data.store import Store, open_store
from jaxsplit.data.tokenizer import Tokenization
from jaxsplit.errors import InputError, Interrupted
from jaxsplit.experiment import addition, guards
from jaxsplit.experiment.addition import add_expert, fork_point
from jaxsplit.experiment.base_model import from_base
from jaxsplit.experiment.experiment import recipe_of
from jaxsplit.experiment.progress import Progress
from jaxsplit.experiment.settings import Settings, kept_settings
from jaxsplit.experiment.tokens import same_tokens
from jaxsplit.experiment.workdir import Workdir
from jaxsplit.files import from_home
from jaxsplit.parallel import hosts
from jaxsplit.parallel.sharding import Layout, present_devices
from jaxsplit.report.page import try_report
from jaxsplit.results.cells import Cell
from jaxsplit.running import claimed
from jaxsplit.training.interruption import Interruption
from jaxsplit.training.program_cache import keep_programs


def add_domain(workdir: str | os.PathLike, texts: str | os.PathLike, name: str = "", *, corpus: Corpus = Corpus(),
               layout: Layout | None = None, seed_tokens: int | None = None, store: str | os.PathLike | None = None) -> list[Cell]:
  """Forks the snapshot that an experiment's experts were forked from once more, for a domain that comes later, and measures it.

      cell, = jaxsplit.add_domain("runs/mine", "texts/chemistry")
      model = jaxsplit.load_model("runs/mine", "chemistry")

  No other expert changes, and no row of a table: the mixture and its seed stay what they were. Called again, it recomputes nothing.

  Args:
    workdir: the experiment's; its settings are taken from there.
    texts: a folder, file or URL, all of which is the domain; its files may name splits (train, valid, test).
    name: the domain's; without one, the last name of `texts`.
    corpus: how the files are read, where not as the experiment's; its path and domains count for nothing.
    layout: how the expert is laid out on devices; None: as the experiment's settings say.
    seed_tokens: D of the measured split that the expert is for; None: the planned one, or the only one.
    store: where the experiment's tokens lie, if it was trained with --store=DIR and that was moved.

  Returns:
    The expert's cells, one a replica.

  Raises:
    InputError: one line: what cannot work, where, and what to do.
    Interrupted: as `run` says; the same call goes on.
  """
  path, settings = _experiment(workdir, layout, store)
  name = name or _last_name(os.fspath(texts))
  check_domain_name(name, "--name")
  read = dataclasses.replace(_corpus(settings.corpus, corpus), path=os.fspath(texts), domains_from=f"{ONE}{name}", domains=())
  folder = path / ADDED / name
  hosts.broadcast(lambda: check_apart(read, "--workdir", path, folder))

  def train(base: Store, opened: Workdir, progress: Progress, interruption: Interruption) -> list[Cell]:
    if name in base.domains:  # Joining would say so too, but after the texts were read.
      raise InputError(f"--name={name}: {base.directory} has a domain {name} already; take another name")
    check_cases([*base.domains, name], "--name")
    split, is_new = fork_point(settings, opened, seed_tokens), not folder.exists()
    try:
      hosts.broadcast(lambda: _prepare(read, base, name, folder, path, progress))
      everything = join_all(base, path / ADDED)
      opened.once(f"disjoint {base.manifest_hash} {sorted(everything.added.values())}", lambda: guards.check_disjoint(everything))
      joined, based = JoinedStore(base, [open_store(folder)]), from_base(settings)
      return add_expert(based, joined, name, split, recipe_of(based, base), opened, progress, interruption)
    except InputError:
      if is_new and hosts.is_lead():  # A domain without an expert would be a column without its row wherever models are compared.
        shutil.rmtree(folder, ignore_errors=True)
      raise

  return _beside(path, settings, train)


def add_small_models(workdir: str | os.PathLike, *, layout: Layout | None = None, store: str | os.PathLike | None = None) -> list[Cell]:
  """Trains a small model of every domain, by which the router `prefix` chooses experts, beside an experiment, and measures them.

  Called again, it trains those of domains that were added since. Arguments and errors are as of `add_domain`.
  """
  path, settings = _experiment(workdir, layout, store)
  if settings.experiment.init_from:
    raise InputError(f"--workdir={path}: its models begin with {settings.experiment.init_from}, which has no small size to route by; use "
                     "another router")

  def train(base: Store, opened: Workdir, progress: Progress, interruption: Interruption) -> list[Cell]:
    split = fork_point(settings, opened, None)
    joined = join_all(base, path / ADDED)
    return addition.add_small_models(settings, joined, split, recipe_of(settings, base), opened, progress, interruption)

  return _beside(path, settings, train)


def _experiment(workdir: str | os.PathLike, layout: Layout | None, store: str | os.PathLike | None) -> tuple[pathlib.Path, Settings]:
  """A work directory, and the settings of the experiment in it."""
  path = pathlib.Path(from_home(os.fspath(workdir), "--workdir"))
  settings = kept_settings(path, store)
  if settings.experiment.data != "text":
    raise InputError(f"--workdir={path}: a phonebook's records, which are no domains of texts")
  return path, dataclasses.replace(settings, layout=layout) if layout else settings


def _beside(path: pathlib.Path, settings: Settings, train: Callable[[Store, Workdir, Progress, Interruption], list[Cell]]) -> list[Cell]:
  """Runs `train` in an experiment's work directory, given its store, and says what it measured."""
  used = present_devices(settings.layout)
  keep_programs()
  with Interruption() as interruption, Progress(settings.training.batch_tokens) as progress:
    try:
      with Workdir(path, progress.log) as opened:
        opened.claim(claimed(settings))
        progress.log(f"on {devices.described(used)}")
        base = open_store(settings.store or path / "store")
        same = same_tokens(opened)
        hosts.broadcast(lambda: same(base))
        cells = train(base, opened, progress, interruption)
        progress.begin("writing the report")
        report = hosts.broadcast(lambda: try_report(path, progress.log))
    except Interrupted:
      progress.log("stopped and saved; the same command goes on from here")
      raise
  for cell in cells:
    progress.log(f"  {cell.domain}{'' if cell.domain in base.domains else ', added later'}: N = {cell.params:,}, seed "
                 f"{cell.seed_tokens:,} tokens, then {cell.expert_tokens:,} of its own: loss {cell.loss:.4f} nats per token, "
                 f"{cell.bits_per_byte:.4f} bits per byte")
  progress.log(report)
  return cells


def _corpus(theirs: Corpus, given: Corpus) -> Corpus:
  """How the domain's files are read: as the experiment's are, but for what is given; which files is no question of theirs."""
  changed = {field.name: getattr(given, field.name) for field in dataclasses.fields(Corpus)
             if getattr(given, field.name) != field.default}
  return dataclasses.replace(theirs, **{"include": (), "exclude": (), "data_dir": "", **changed})


def _last_name(texts: str) -> str:
  last = texts.rstrip("/").split("/")[-1]
  found = format_of(last) if last and not pathlib.Path(from_home(texts, "--add_domain")).is_dir() else None
  return found.stem if found else last


def _prepare(corpus: Corpus, base: Store, name: str, folder: pathlib.Path, workdir: pathlib.Path, progress: Progress) -> None:
  """The tokens of the domain's texts, made with the experiment's tokenizer, once."""
  progress.begin(f"reading {corpus.path}")
  tokenizer = base.tokenizer
  tokenization = Tokenization(kind="bytes") if tokenizer.kind == "bytes" else Tokenization(
      kind=tokenizer.kind, path=str(base.directory / TOKENIZER), end_of_document=tokenizer.separator)

  def check(store: Store) -> None:
    JoinedStore(base, [store])  # Raises.
    guards.check_same_addition(workdir, name, store.manifest_hash)

  check(prepare_store(corpus, tokenization, folder, progress.log, check=check))
  store = open_store(folder)
  earlier = [one for one in added_stores(folder.parent) if one.directory != folder]
  for line in (*describe_files(store), *(f"note: {line}" for line in shared_documents(store, base, earlier))):
    progress.log(f"  {line}")
