"""Disks that turn read-only or are gone: one line that says what and where, the exit code for it, and nothing half-written.

Each experiment is a process of its own (this file, run as a program): the train door, and a fault at a given block of a leg.
Root may write to whatever is forbidden, so read-only is a mount; where none can be made, those tests are skipped.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from small import arguments

from jaxsplit.errors import FAULT_EXIT_CODE
from jaxsplit.training.metrics import read_metrics

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOES_ON = "when that is mended, the same command goes on from here"
TRACED = "Orbax logs tracebacks of its own where a snapshot was being written at that moment"


def experiment(corpus, workdir, fault="none", leg=""):
  """A process that trains a trunk and two experts, with a fault in the third block of a leg.

  Returns its exit code, the line that it ends with, and whether Orbax has written tracebacks of its own before it.
  """
  flags = arguments(
      corpus, workdir, "--gin.Experiment.sizes=()", "--gin.Experiment.compare=(0.5,)", "--gin.Experiment.target=(8, 1)",
      "--gin.Training.steps_per_dispatch=16", "--gin.Training.save_every_steps=32", "--gin.Layout.devices=1")
  environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "JAX_PLATFORMS": "cpu"}
  done = subprocess.run(
      [sys.executable, __file__, fault, leg, str(workdir), *flags], env=environment, cwd=ROOT,
      timeout=300, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
  traced = "Traceback" in done.stdout
  assert not traced or "ERROR:absl" in done.stdout, done.stdout
  said = [line for line in done.stdout.splitlines() if line.startswith("jaxsplit: ")]
  assert len(said) == (done.returncode != 0), done.stdout
  return done.returncode, "".join(said), traced


def mount_read_only(folder):
  return subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(folder)], capture_output=True, check=False)


@pytest.fixture
def workdir(tmp_path):
  """A folder over which a read-only file system may be mounted, or is; none is left there."""
  path = tmp_path / "w"
  path.mkdir()
  yield path
  unmount(path)


def unmount(path):
  while os.path.ismount(path):
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def mounts(workdir):
  if shutil.which("mount") is None or mount_read_only(workdir).returncode:
    pytest.skip("needs the right to mount a tmpfs")
  unmount(workdir)


def test_a_folder_that_cannot_be_written_is_refused_at_the_start(corpus, workdir, mounts):
  mount_read_only(workdir)
  code, line, traced = experiment(corpus, workdir)
  assert not traced and code in (2, FAULT_EXIT_CODE) and f"{workdir}: cannot be written" in line
  unmount(workdir)
  assert not any(workdir.iterdir())


def test_a_folder_that_turns_read_only_ends_it_and_the_same_command_goes_on_afterwards(corpus, workdir, mounts):
  code, line, traced = experiment(corpus, workdir, "read-only", "trunk")
  assert code == FAULT_EXIT_CODE
  assert re.search(rf"^jaxsplit: {workdir}/\S+: Read-only file system; {GOES_ON}$", line)
  unmount(workdir)
  assert experiment(corpus, workdir) == (0, "", False)
  steps = {}
  for block in read_metrics(workdir / "metrics.jsonl"):
    steps.setdefault(block["leg"], []).extend(range(block["first_step"], block["first_step"] + block["steps"]))
  assert len(steps) == 2 and all(sorted(those) == list(range(len(those))) for those in steps.values())
  if traced:
    pytest.xfail(TRACED)


@pytest.mark.parametrize("leg", ["trunk", "experts"])
def test_a_folder_that_is_deleted_while_training_ends_it_and_can_be_used_again(corpus, workdir, leg):
  code, line, traced = experiment(corpus, workdir, "deleted", leg)
  if (code, line) == (2, f"jaxsplit: {workdir}/config.json: no such file"):
    pytest.xfail("a folder that is lost in the last leg is missed by the report alone, which takes it for the user's input")
  assert code == FAULT_EXIT_CODE
  assert re.search(rf"^jaxsplit: {workdir}\S*: .*; {GOES_ON}$", line)
  code, line, _ = experiment(corpus, workdir)
  if code == 2 and "holds results but no config.json" in line:
    pytest.xfail("the folder is made again where it was, and what is saved there has no config.json")
  assert (code, line) == (0, "")
  if traced:
    pytest.xfail(TRACED)


def main(fault, leg, workdir, *flags):
  """The train door, with a fault once the third block of the leg has been recorded."""
  import jax
  jax.config.update("jax_platforms", "cpu")

  from jaxsplit import cli, train
  from jaxsplit.training.metrics import Metrics

  append, blocks = Metrics.append, []

  def delete():
    os.rename(workdir, f"{workdir}.away")  # At once, also where a snapshot is being written.
    shutil.rmtree(f"{workdir}.away", ignore_errors=True)

  faults = {"read-only": lambda: mount_read_only(workdir).check_returncode(), "deleted": delete}

  def appends(self, name, *arguments):
    append(self, name, *arguments)
    blocks.append(name)
    if leg in name and sum(leg in one for one in blocks) == 3:
      faults[fault]()

  if fault in faults:
    Metrics.append = appends
  cli.run(lambda argv: train.main(flags))


if __name__ == "__main__":
  main(*sys.argv[1:])
