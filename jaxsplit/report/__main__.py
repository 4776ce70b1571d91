"""The report entry point: report.html of an experiment, drawn anew; or several experiments on one page.

    python -m jaxsplit.report --workdir=runs/mine
    python -m jaxsplit.report --workdir=runs/mine --workdir=runs/other --out=comparison.html
    python -m jaxsplit.report --workdir=runs/mine --tensorboard=events

With --tensorboard, the curves of all stages as TensorBoard's event files instead (pip install 'jaxsplit[tensorboard]').

Measures nothing, and works while the experiment goes on: what is missing yet is said.
"""

from __future__ import annotations

from jaxsplit import signals

signals.end_at_once(__name__)  # The imports below take seconds.

# ruff: noqa: E402
import pathlib
from collections.abc import Sequence

from jaxsplit import cli
from jaxsplit.errors import InputError
from jaxsplit.files import check_replaceable
from jaxsplit.report.page import write_report
from jaxsplit.report.side_by_side import compare_experiments
from jaxsplit.report.tensorboard import write_tensorboard

FLAGS = {
    "workdir": cli.Paths("the work directory of an experiment; required; give several to compare them"),
    "out": cli.Path("the page that compares several; comparison.html by default"),
    "tensorboard": cli.Path("in place of a page, write TensorBoard's event files of one experiment into this folder; needs tensorboardX"),
}


def main(argv: Sequence[str] | None = None) -> int:
  """Writes the page and says where it is."""
  flags = cli.parse("report", __doc__, [], argv, flags=FLAGS).flags
  if not flags["workdir"]:
    raise InputError("--workdir is missing; name the work directory of an experiment, as in --workdir=runs/mine")
  if flags["tensorboard"]:
    if len(flags["workdir"]) > 1 or flags["out"]:
      raise InputError("--tensorboard takes one --workdir and no --out; TensorBoard compares the folders of several experiments itself")
    count = write_tensorboard(flags["workdir"][0], flags["tensorboard"])
    print(f"{count:,} runs; look at them with tensorboard --logdir={flags['tensorboard']}")
    return 0
  if len(flags["workdir"]) > 1:
    out = flags["out"] or "comparison.html"
    check_replaceable(out, "--out", None)
    page = compare_experiments(flags["workdir"], out)
  else:
    workdir = pathlib.Path(flags["workdir"][0])
    if flags["out"]:
      raise InputError("--out names the page of a comparison; that of one experiment lies in its work directory")
    if not (workdir / "config.json").is_file():
      raise InputError(f"--workdir={workdir}: holds no experiment (config.json is missing); name a work directory of train")
    page = write_report(workdir)
  print(f"report: {page}")
  return 0


if __name__ == "__main__":
  cli.run(main, kept="files that were finished stay")
