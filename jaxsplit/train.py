"""python -m jaxsplit.train: from a corpus and a budget to a recommended, trained and measured split.

Probes learning rates, trains trunks at several sizes and forks their snapshots into experts, fits the split law to the cells,
plans, trains the plan and the dense model of the same compute at a size that the law was not fitted to, and writes a report.
The same command again trains only what is missing.

With --add_domain, trains an expert on a further domain, forked from the experiment in --workdir; with --add_small_models,
trains small models for routing. Both use the experiment's settings.
"""

from __future__ import annotations

from jaxsplit import signals

signals.end_at_once(__name__)  # The imports below take seconds.

# ruff: noqa: E402
from collections.abc import Mapping, Sequence
from typing import Any

from jaxsplit import cli
from jaxsplit.adding import add_domain, add_small_models
from jaxsplit.cli.values import of_text
from jaxsplit.data.corpus import Corpus
from jaxsplit.errors import RETRY_EXIT_CODE, InputError, Interrupted
from jaxsplit.experiment.settings import Experiment, Settings
from jaxsplit.parallel import cluster, hosts
from jaxsplit.parallel.sharding import Layout
from jaxsplit.running import dry_run, run

SETTINGS = tuple(map(type, Settings().parts))


def read_settings(*files: str, bindings: Mapping[str, Any] | None = None) -> Settings:
  """The settings of gin files, for Python: `jaxsplit.run` takes them.

      settings = jaxsplit.read_settings("quickstart.gin", bindings={"Experiment.budget_tokens": 1_000_000})

  Args:
    files: as --gin_file takes them: paths, or names of configs that come with jaxsplit; later ones win.
    bindings: values by name, which win over files.

  Raises:
    InputError: an unknown file or name, or a value of another type.
  """
  if bindings is not None and not isinstance(bindings, Mapping):
    raise InputError(f"read_settings: bindings = {bindings!r}: must be a dictionary, as {{'Experiment.budget_tokens': 1_000_000}}")
  flags = [f"--gin_file={file}" for file in files] + [f"--gin.{name}={value!r}" for name, value in (bindings or {}).items()]
  given = cli.parse("train", "", SETTINGS, flags)
  return Settings(*(given[cls] for cls in SETTINGS))


def main(argv: Sequence[str] | None = None) -> int:
  """Trains, and reports."""
  given = cli.parse("train", __doc__, SETTINGS, argv, flags={
      "workdir": cli.Path("where everything is written; required"),
      "store": cli.Path("a token store that prepare made, instead of a corpus"),
      "add_domain": cli.Path("texts of a further domain, a folder, file or URL: trains and measures its expert, forked from the same "
                             "snapshot as the experts in --workdir, and changes nothing else"),
      "name": "with --add_domain: the name of the domain; without it, the last component of its path",
      "seed_tokens": "with --add_domain: D of the measured split to train the expert for; without it, the planned split",
      **cluster.FLAGS}, switches={
          "add_small_models": "train a small model of every domain in --workdir, with which evaluate's --router=prefix chooses experts",
          "dry_run": "show what would be trained, with its FLOPs, memory and time on this machine, and train nothing"})
  if not given.flags["workdir"]:
    raise InputError("--workdir is missing; name a folder, as in --workdir=runs/mine")
  if given.flags["add_domain"] and given.flags["add_small_models"]:
    raise InputError("--add_domain and --add_small_models cannot be given together; run one after the other")
  if given.flags["dry_run"] and (given.flags["add_domain"] or given.flags["add_small_models"]):
    raise InputError("--dry_run cannot be given with --add_domain or --add_small_models; leave one out")
  if not given.flags["add_domain"]:
    for flag in ("name", "seed_tokens"):
      if given.flags[flag] is not None:
        raise InputError(f"--{flag} needs --add_domain, which is missing; name the texts of the domain to add")
  with hosts.joined(cluster.find(*(given.flags[name] for name in cluster.FLAGS))):
    try:
      if given.flags["add_domain"] or given.flags["add_small_models"]:
        _add(given)
      else:
        act = dry_run if given.flags["dry_run"] else run
        act(Settings(*(given[cls] for cls in SETTINGS), given.flags["store"]), given.flags["workdir"])
    except Interrupted:
      return RETRY_EXIT_CODE
  return 0


def _add(given: cli.Settings) -> None:
  """Adds models to an existing experiment."""
  flags, flag = given.flags, "--add_domain" if given.flags["add_domain"] else "--add_small_models"
  own = (Corpus, Layout) if flags["add_domain"] else (Layout,)
  for cls in SETTINGS:
    if cls not in own and given[cls] != cls():
      name = next(name for name, value in vars(given[cls]).items() if value != getattr(cls(), name))
      if flags["add_domain"] and cls is Experiment and given[cls].resample:
        raise InputError("Experiment.resample is given with --add_domain, whose expert reads no text that is resampled from other domains; "
                         "leave it out, or train the domain among the others in another --workdir, where Experiment.resample may name it")
      raise InputError(f"{cls.__name__}.{name} is given with {flag}, which takes the settings of the experiment in --workdir; leave it "
                       f"out. Only {' and '.join(f'{one.__name__}.*' for one in own)} may be given")
  layout = None if given[Layout] == Layout() else given[Layout]
  if flags["add_small_models"]:
    add_small_models(flags["workdir"], layout=layout, store=flags["store"])
    return
  tokens = None if flags["seed_tokens"] is None else of_text(int, flags["seed_tokens"], "--seed_tokens")
  add_domain(flags["workdir"], flags["add_domain"], flags["name"] or "", corpus=given[Corpus], layout=layout, seed_tokens=tokens,
             store=flags["store"])


if __name__ == "__main__":
  cli.run(main, kept="the same command goes on from here")
