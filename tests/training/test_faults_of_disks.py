"""Disks that turn read-only or are gone: one line that says what and where, the exit code for it, and nothing half-written.

Each experiment is a process of its own (this file, run as a program): the train entry point, and a fault at a given block of a stage.
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


def experiment(corpus, workdir, fault="none", stage=""):
  """A process that trains a trunk and two experts, with a fault in the third block of a stage.

  Returns its exit code, the line that it ends with, and whether TensorStore has printed tracebacks before it.
  """
  flags = arguments(
      corpus, workdir, "--gin.Experiment.sizes=()", "--gin.Experiment.compare=(0.5,)", "--gin.Experiment.target=(8, 1)",
      "--gin.Training.steps_per_dispatch=16", "--gin.Training.save_every_steps=32", "--gin.Layout.devices=1")
  environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "JAX_PLATFORMS": "cpu",
                              # Its processes compile the same programs.
                              "JAX_ENABLE_COMPILATION_CACHE": "true", "JAX_COMPILATION_CACHE_DIR": str(corpus.parent / "programs"),
                              "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
  done = subprocess.run(
      [sys.executable, __file__, fault, stage, str(workdir), *flags], env=environment, cwd=ROOT,
      timeout=300, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
  traced = "Traceback" in done.stdout
  # TensorStore's threads print what they meet where a snapshot is being written at that moment; nobody can catch that.
  assert not traced or "Event loop is closed" in done.stdout, done.stdout
  said = [line for line in done.stdout.splitlines() if line.startswith("jaxsplit: ")]
  assert len(said) == (done.returncode != 0), done.stdout
  return done.returncode, "".join(said), traced


def mount_read_only(folder):
  """Mounts a folder over itself, so that nobody can write there: whether that could be done.

  It is made read-only elsewhere first: a mount that somebody is writing to already cannot be any more.
  """
  mount = lambda *arguments: subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0
  elsewhere = f"{folder}.read-only"
  os.makedirs(elsewhere, exist_ok=True)
  done = mount("--bind", folder, elsewhere) and mount("-o", "remount,ro,bind", elsewhere) and mount("--bind", elsewhere, folder)
  subprocess.run(["umount", "-l", elsewhere], capture_output=True, check=False)
  return done


@pytest.fixture
def workdir(tmp_path):
  """A folder over which a read-only file system may be mounted, or is; none is left there."""
  path = tmp_path / "w"
  path.mkdir()
  yield path
  if shutil.which("umount"):
    unmount(path)


def unmount(path):
  """Until nothing is mounted there; os.path.ismount does not see a folder that is mounted over itself."""
  while subprocess.run(["umount", "-l", str(path)], capture_output=True, check=False).returncode == 0:
    pass


@pytest.fixture
def mounts(workdir):
  possible = shutil.which("mount") and shutil.which("umount") and mount_read_only(workdir)
  unmount(workdir)
  if not possible:
    pytest.skip("needs the right to mount")


def test_a_folder_that_cannot_be_written_is_refused_at_the_start(corpus, workdir, mounts):
  mount_read_only(workdir)
  code, line, traced = experiment(corpus, workdir)
  assert not traced and code in (2, FAULT_EXIT_CODE) and f"{workdir}: cannot be written" in line
  unmount(workdir)
  assert not any(workdir.iterdir())


@pytest.mark.long
def test_a_folder_that_turns_read_only_ends_it_and_the_same_command_goes_on_afterwards(corpus, workdir, mounts):
  code, line, traced = experiment(corpus, workdir, "read-only", "trunk")
  assert code == FAULT_EXIT_CODE, line
  assert re.search(rf"^jaxsplit: {workdir}/\S+: Read-only file system; {GOES_ON}$", line)
  unmount(workdir)
  assert experiment(corpus, workdir) == (0, "", False)
  steps = {}
  for block in read_metrics(workdir / "metrics.jsonl"):
    steps.setdefault(block["stage"], []).extend(range(block["first_step"], block["first_step"] + block["steps"]))
  assert len(steps) == 2 and all(sorted(those) == list(range(len(those))) for those in steps.values())


@pytest.mark.long
@pytest.mark.parametrize("stage", ["trunk", "experts"])
def test_a_folder_that_is_deleted_while_training_ends_it_and_can_be_used_again(corpus, workdir, stage):
  code, line, traced = experiment(corpus, workdir, "deleted", stage)
  assert code == FAULT_EXIT_CODE, line
  assert re.search(rf"^jaxsplit: {workdir}\S*: .*; {GOES_ON}$", line)
  code, line, _ = experiment(corpus, workdir)
  assert (code, line) == (0, "")


def main(fault, stage, workdir, *flags):
  """The train entry point, with a fault once the third block of the stage has been recorded."""
  import jax
  jax.config.update("jax_platforms", "cpu")

  from jaxsplit import cli, train
  from jaxsplit.training.metrics import Metrics

  append, blocks = Metrics.append, []

  def delete():
    os.rename(workdir, f"{workdir}.away")  # At once, also where a snapshot is being written.
    shutil.rmtree(f"{workdir}.away", ignore_errors=True)

  def turn_read_only():
    if not mount_read_only(workdir):
      raise RuntimeError("could be mounted before, but not now")

  faults = {"read-only": turn_read_only, "deleted": delete}

  def appends(self, name, *arguments):
    append(self, name, *arguments)
    blocks.append(name)
    if stage in name and sum(stage in one for one in blocks) == 3:
      faults[fault]()

  if fault in faults:
    Metrics.append = appends
  cli.run(lambda argv: train.main(flags))


if __name__ == "__main__":
  main(*sys.argv[1:])
