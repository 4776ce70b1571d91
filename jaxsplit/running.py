"""The whole of an experiment: from its settings and a folder to its report. What the train entry point runs, and Python may."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any, TypeVar

from jaxsplit import devices
from jaxsplit.data.store import Store, open_store
from jaxsplit.errors import InputError, Interrupted
from jaxsplit.evaluation import hidden_states  # noqa: F401 Adds "hidden_states" to Clustering.features.
from jaxsplit.experiment import experiment
from jaxsplit.experiment.base_model import base_of, from_base
from jaxsplit.experiment.checks import check
from jaxsplit.experiment.progress import Progress
from jaxsplit.experiment.settings import Settings
from jaxsplit.experiment.tokens import check_data, read_store, same_tokens
from jaxsplit.experiment.workdir import Workdir
from jaxsplit.files import from_home
from jaxsplit.models.family import FAMILIES
from jaxsplit.parallel import hosts
from jaxsplit.parallel.sharding import present_devices
from jaxsplit.report.domains import try_domain_report
from jaxsplit.report.page import try_report
from jaxsplit.result import Result
from jaxsplit.training.interruption import Interruption
from jaxsplit.training.optimizer import OPTIMIZERS
from jaxsplit.training.program_cache import keep_programs

Outcome = TypeVar("Outcome")


def run(settings: Settings, workdir: str | os.PathLike) -> Result:
  """The whole experiment, as the train entry point runs it: from a corpus to a recommended, trained and proven split.

      settings = jaxsplit.Settings(jaxsplit.Experiment(budget_tokens=5_000_000), corpus=jaxsplit.Corpus("texts"))
      result = jaxsplit.run(settings, "runs/mine")
      result.plan.fraction, result.law.r2, result.cells.loss.min(), result.plot_split()

  Called again, it finishes what is missing and recomputes nothing. Progress is printed, in a notebook as a table that changes. On
  the main thread alone, as it listens to signals.

  Args:
    settings: what is asked, and of what data; every part has defaults.
    workdir: the folder where everything is written; made if it is not there.

  Raises:
    InputError: one line: what cannot work, where, and what to do.
    Interrupted: SIGINT or SIGTERM came; all that was trained is saved, and the same call goes on from there.
    OSError: the disk is full or lost.
  """
  def train(store: Store, opened: Workdir, progress: Progress, interruption: Interruption) -> Result:
    findings = experiment.run(from_base(settings), store, opened, progress, interruption)
    progress.begin("writing the report")
    try:
      report = hosts.broadcast(lambda: try_report(opened.path, progress.log))
    finally:
      if findings.summary:
        progress.log(f"\n{findings.summary}\n")
    progress.log(report)
    return Result(opened.path)

  return _opened(settings, workdir, train)


def dry_run(settings: Settings, workdir: str | os.PathLike) -> str:
  """What `run` would train, and what that takes of memory and time here, as text, which is printed. The corpus is read and tokenized,
  and some stacks are trained for seconds to time them; nothing else is done. Arguments and errors as of `run`."""
  def outline(store: Store, opened: Workdir, progress: Progress, interruption: Interruption) -> str:
    del interruption
    text = experiment.outlook(from_base(settings), store, opened, progress)
    progress.log(text)
    return text

  return _opened(settings, workdir, outline)


def _opened(settings: Settings, workdir: str | os.PathLike,
            act: Callable[[Store, Workdir, Progress, Interruption], Outcome]) -> Outcome:
  """What `act` returns, with the experiment's tokens read and its work directory claimed and locked."""
  if not isinstance(settings, Settings):
    raise InputError(f"settings = {settings!r:.80}: must be a jaxsplit.Settings; jaxsplit.read_settings reads them from gin files")
  if "://" in os.fspath(workdir):
    raise InputError(f"--workdir={os.fspath(workdir)}: has to be a folder on a disk, whose files can be renamed and locked; keep a copy "
                     "in a bucket by scripts/mirror.sh (docs/tpu.md)")
  path = pathlib.Path(from_home(os.fspath(workdir), "--workdir"))
  given, settings = settings, from_base(settings)
  used = present_devices(settings.layout)
  check(settings)
  hosts.broadcast(lambda: check_data(settings, path))
  keep_programs()
  with Interruption() as interruption, Progress(settings.training.batch_tokens) as progress:
    try:
      with Workdir(path, progress.log) as opened:
        if settings.store:  # Before the claim: a store that is refused leaves no trace.
          same = same_tokens(opened)
          hosts.broadcast(lambda: same(open_store(settings.store)))
        opened.claim(claimed(given))
        progress.log(f"on {devices.described(used)}")
        store = read_store(settings, opened, progress)
        if settings.corpus.clustered:
          progress.log(hosts.broadcast(lambda: try_domain_report(store.directory)))
        return act(store, opened, progress, interruption)
    except Interrupted:
      progress.log("stopped and saved; the same command goes on from here")
      raise


def claimed(given: Settings) -> dict[str, dict[str, Any]]:
  """The settings that make an experiment: of a store that is given, its hash stands for corpus and tokenizer. Of a family and an
  optimizer that an extension adds, its hash says which, and likewise of a base model; `given` does not know yet what that decides."""
  settings = from_base(given)
  base = base_of(settings)
  claimed = {type(part).__name__: dataclasses.asdict(part) for part in given.parts}
  claimed["Experiment"] = dataclasses.asdict(settings.experiment)
  claimed["Base"] = {"content": base.content if base else None}
  named = (FAMILIES, settings.architecture.family), (OPTIMIZERS, settings.optimizer.name)
  claimed["Extension"] = {registry.setting: registry.origins[name] for registry, name in named if name in registry.origins}
  if settings.store:
    del claimed["Corpus"], claimed["Clustering"], claimed["Tokenization"]
    claimed["Store"] = {"manifest_hash": open_store(settings.store).manifest_hash, "path": os.path.abspath(settings.store)}
  return claimed
