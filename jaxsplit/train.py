"""python -m jaxsplit.train: from a corpus and a budget to a recommended, trained and proven split.

Probes learning rates, trains trunks at several sizes and forks their snapshots into experts, fits the split law to the cells,
plans, trains the plan and the dense model of the same compute at a size that the law has not seen, and reports. The same
command again finishes what is missing and recomputes nothing.
"""

from __future__ import annotations

from jaxsplit import signals

signals.end_at_once(__name__)  # The imports below take seconds.

# ruff: noqa: E402
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxsplit import cli, devices
from jaxsplit.data.concerns import describe_files
from jaxsplit.data.corpus import Corpus
from jaxsplit.data.listing import check_apart
from jaxsplit.data.phonebook import Phonebook, phonebook_store
from jaxsplit.data.preparation import prepare_store
from jaxsplit.data.store import Store, check_tokens, open_store
from jaxsplit.data.tokenizer import Tokenization
from jaxsplit.errors import RETRY_EXIT_CODE, InputError
from jaxsplit.law import FitSettings
from jaxsplit.models.config import Architecture
from jaxsplit.models.family import FAMILIES
from jaxsplit.report.page import try_report
from jaxsplit.split import experiment
from jaxsplit.split.probe import Probe
from jaxsplit.split.progress import Progress
from jaxsplit.split.settings import Experiment, Settings, check, check_beginning
from jaxsplit.split.workdir import Workdir
from jaxsplit.training import cluster, hosts
from jaxsplit.training.interruption import Interrupted, Interruption
from jaxsplit.training.loop import Training
from jaxsplit.training.optimizer import OPTIMIZERS, Optimizer
from jaxsplit.training.program_cache import keep_programs
from jaxsplit.training.sharding import Layout, present_devices

SETTINGS = (Experiment, Corpus, Tokenization, Phonebook, Probe, Architecture, Optimizer, Training, Layout, FitSettings)


def main(argv: Sequence[str] | None = None) -> int:
  given = cli.parse("train", __doc__, SETTINGS, argv, flags={
      "workdir": cli.Path("where everything is written; required"),
      "store": cli.Path("a token store that prepare made, instead of a corpus"),
      **cluster.FLAGS})
  if not given.flags["workdir"]:
    raise InputError("--workdir is missing; name a folder, as in --workdir=runs/mine")
  settings = Settings(given[Experiment], given[Probe], given[Architecture], given[Optimizer], given[Training], given[Layout],
                      given[FitSettings])
  with hosts.together(cluster.find(*(given.flags[name] for name in cluster.FLAGS))):
    return run(given, settings)


def run(given: cli.Settings, settings: Settings) -> int:
  """The experiment, from its tokens to its report."""
  used = present_devices(settings.layout)
  check(settings)
  hosts.share(lambda: _check_data(given, settings))
  keep_programs()
  with Interruption() as interruption, Progress(settings.training.batch_tokens) as progress:
    try:
      with Workdir(given.flags["workdir"], progress.say) as workdir:
        progress.say(f"on {devices.described(used)}")
        if given.flags["store"]:  # Before the claim: a store that is refused leaves no trace.
          same = experiment.same_tokens(workdir)
          hosts.share(lambda: same(open_store(given.flags["store"])))
        workdir.claim(_claimed(given), given.operative)
        store = read_store(given, workdir, progress)
        findings = experiment.run(settings, store, workdir, progress, interruption)
        progress.stage("writing the report")
        try:
          report = hosts.share(lambda: try_report(workdir.path, progress.say))
        finally:
          if findings.summary:
            progress.say(f"\n{findings.summary}\n")
    except Interrupted:
      progress.say(f"stopped and saved; the same command goes on from here (exit code {RETRY_EXIT_CODE})")
      return RETRY_EXIT_CODE
  progress.say(report)
  return 0


def read_store(given: cli.Settings, workdir: Workdir, progress: Progress) -> Store:
  """The experiment's tokens: of the store that is given, or of the corpus, tokenized once, or of the phonebook."""
  folder = pathlib.Path(given.flags["store"] or workdir.path / "store")
  same = experiment.same_tokens(workdir)

  def prepare() -> None:
    if given[Experiment].data == "phonebook":
      phonebook_store(given[Phonebook], folder)
      return
    if given.flags["store"]:
      check_tokens(open_store(folder))
    else:
      progress.stage("reading the corpus")
      prepare_store(given[Corpus], given[Tokenization], folder, progress.say, check=same)
    for line in describe_files(open_store(folder)):
      progress.say(f"  {line}")

  hosts.share(prepare)
  return open_store(folder)


def _check_data(given: cli.Settings, settings: Settings) -> None:
  """Refuses, before anything is read, written or trained, data that is given twice, a work directory within its corpus, or a new
  experiment that cannot have a law."""
  store, workdir = given.flags["store"], pathlib.Path(given.flags["workdir"])
  if store:
    changed = [*_changed(given[Corpus], Corpus()), *_changed(given[Tokenization], Tokenization())]
    if given[Experiment].data == "phonebook":
      changed.append("Experiment.data = 'phonebook'")
    if changed:
      raise InputError(f"--store={store}: has its corpus and tokenizer already, but {changed[0]} is given too; leave one of them "
                       "out")
    if open_store(store).record:
      raise InputError(f"--store={store}: is a phonebook's; give Experiment.data='phonebook' and no store")
  elif given[Experiment].data == "text":
    check_apart(given[Corpus], "--workdir", workdir, workdir / "store")
  if not (workdir / "cells.csv").exists():
    check_beginning(settings)


def _changed(settings: Corpus | Tokenization, plain: Corpus | Tokenization) -> list[str]:
  """Settings that are not their defaults, as `Corpus.path = 'x'`."""
  return [f"{type(plain).__name__}.{field.name} = {getattr(settings, field.name)!r}" for field in dataclasses.fields(plain)
          if getattr(settings, field.name) != getattr(plain, field.name)]


def _claimed(given: cli.Settings) -> dict[str, dict[str, Any]]:
  """The settings that make an experiment: of a store that is given, its hash stands for corpus and tokenizer. Of a family and an
  optimizer that an extension adds, its hash says which."""
  claimed = {cls.__name__: dataclasses.asdict(given[cls]) for cls in SETTINGS}
  named = (FAMILIES, given[Architecture].family), (OPTIMIZERS, given[Optimizer].name)
  claimed["Extension"] = {registry.setting: registry.origins[name] for registry, name in named if name in registry.origins}
  if given.flags["store"]:
    del claimed["Corpus"], claimed["Tokenization"]
    claimed["Store"] = {"manifest_hash": open_store(given.flags["store"]).manifest_hash}
  return claimed


if __name__ == "__main__":
  cli.run(main)
