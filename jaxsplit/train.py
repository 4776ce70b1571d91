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
from collections.abc import Sequence

from jaxsplit import cli
from jaxsplit.data.corpus import Corpus
from jaxsplit.data.phonebook import Phonebook, phonebook_store
from jaxsplit.data.preparation import prepare_store
from jaxsplit.data.store import Store, open_store
from jaxsplit.data.tokenizer import Tokenization
from jaxsplit.errors import RETRY_EXIT_CODE, InputError
from jaxsplit.law import FitSettings
from jaxsplit.model.config import Architecture
from jaxsplit.report.page import try_report
from jaxsplit.split import experiment
from jaxsplit.split.experiment import Experiment, Settings
from jaxsplit.split.probe import Probe
from jaxsplit.split.progress import Progress
from jaxsplit.split.workdir import Workdir
from jaxsplit.training import cluster, hosts
from jaxsplit.training.interruption import Interrupted, Interruption
from jaxsplit.training.loop import Training
from jaxsplit.training.optimizer import Optimizer
from jaxsplit.training.program_cache import keep_programs
from jaxsplit.training.sharding import Layout, present_devices

SETTINGS = (Experiment, Corpus, Tokenization, Phonebook, Probe, Architecture, Optimizer, Training, Layout, FitSettings)


def main(argv: Sequence[str] | None = None) -> int:
  given = cli.parse("train", __doc__, SETTINGS, argv, flags={"workdir": "where everything is written; required", **cluster.FLAGS})
  if not given.flags["workdir"]:
    raise InputError("--workdir is missing; name a folder, as in --workdir=runs/mine")
  settings = Settings(given[Experiment], given[Probe], given[Architecture], given[Optimizer], given[Training], given[Layout],
                      given[FitSettings])
  with hosts.together(cluster.find(*(given.flags[name] for name in cluster.FLAGS))):
    return run(given, settings)


def run(given: cli.Settings, settings: Settings) -> int:
  """The experiment, from its tokens to its report."""
  present_devices(settings.layout)
  keep_programs()
  with Interruption() as interruption, Progress(settings.training.batch_tokens) as progress:
    try:
      with Workdir(given.flags["workdir"], progress.say) as workdir:
        workdir.claim({cls.__name__: dataclasses.asdict(given[cls]) for cls in SETTINGS}, given.operative)
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
  """The experiment's tokens: the corpus, tokenized once, or the phonebook."""
  folder = workdir.path / "store"

  def prepare() -> None:
    if given[Experiment].data == "phonebook":
      phonebook_store(given[Phonebook], folder)
    else:
      progress.stage("reading the corpus")
      prepare_store(given[Corpus], given[Tokenization], folder, progress.say)

  hosts.share(prepare)
  return open_store(folder)


if __name__ == "__main__":
  cli.run(main)
