"""python -m jaxsplit.train: from a corpus and a budget to a recommended, trained and proven split.

Probes learning rates, trains trunks at several sizes and forks their snapshots into experts, fits the split law to the cells,
plans, trains the plan and the dense model of the same compute at a size that the law has not seen, and reports. The same
command again finishes what is missing and recomputes nothing.
"""

from __future__ import annotations

from jaxsplit import signals

signals.end_at_once(__name__)  # The imports below take seconds.

# ruff: noqa: E402
from collections.abc import Mapping, Sequence
from typing import Any

from jaxsplit import cli
from jaxsplit.errors import RETRY_EXIT_CODE, InputError, Interrupted
from jaxsplit.experiment.settings import Settings
from jaxsplit.parallel import cluster, hosts
from jaxsplit.running import run

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
  flags = [f"--gin_file={file}" for file in files] + [f"--gin.{name}={value!r}" for name, value in (bindings or {}).items()]
  given = cli.parse("train", "", SETTINGS, flags)
  return Settings(*(given[cls] for cls in SETTINGS))


def main(argv: Sequence[str] | None = None) -> int:
  """Trains, and reports."""
  given = cli.parse("train", __doc__, SETTINGS, argv, flags={
      "workdir": cli.Path("where everything is written; required"),
      "store": cli.Path("a token store that prepare made, instead of a corpus"),
      **cluster.FLAGS})
  if not given.flags["workdir"]:
    raise InputError("--workdir is missing; name a folder, as in --workdir=runs/mine")
  settings = Settings(*(given[cls] for cls in SETTINGS), given.flags["store"])
  with hosts.joined(cluster.find(*(given.flags[name] for name in cluster.FLAGS))):
    try:
      run(settings, given.flags["workdir"])
    except Interrupted:
      return RETRY_EXIT_CODE
  return 0


if __name__ == "__main__":
  cli.run(main)
