"""Several processes, one experiment: begun by some, continued by others, and ended with what one process alone ends with.

Processes on this machine, with emulated CPU devices and Gloo between them. Every wait has an end, and what was started is ended
by its id.
"""

import contextlib
import csv
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from small import arguments

from jaxsplit.checkpoint.checkpoints import Checkpoints
from jaxsplit.errors import RETRY_EXIT_CODE
from jaxsplit.models.config import model_of
from jaxsplit.parallel.sharding import Layout
from jaxsplit.training.metrics import read_metrics
from jaxsplit.training.optimizer import Optimizer
from jaxsplit.training.stack import StackSpec

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECONDS = 400  # Far more than it takes: a bound, so that nothing hangs.
# Loss and parameters are sums in another order where a batch is spread over other devices: float32's last bits.
CELLS, PARAMS = 1e-6, 1e-5


@contextlib.contextmanager
def started(corpus, workdir, processes, *more, each=lambda process: ()):
  """The train entry point in that many processes, with 4 devices among them."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  flags = arguments(
      corpus, workdir, "--gin.Experiment.sizes=()", "--gin.Experiment.compare=(0.9,)", "--gin.Experiment.budget_tokens=6_400",
      "--gin.Experiment.target=(16, 1)", "--gin.Training.sequence_length=8", "--gin.Training.batch_sequences=8",
      "--gin.Training.steps_per_dispatch=2", "--gin.Training.save_every_steps=8", "--gin.Layout.devices=4", *more)
  environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
  group = []
  try:
    for process in range(processes):
      meet = [f"--coordinator=127.0.0.1:{port}", f"--processes={processes}", f"--process={process}"] if processes > 1 else []
      with open(f"{workdir}.{process}.log", "ab") as log:
        group.append(subprocess.Popen([sys.executable, "-m", "jaxsplit.train", *flags, *meet, *each(process)], stdout=log,
                                      stderr=subprocess.STDOUT, env=environment, cwd=ROOT))
    yield group
  finally:
    for one in group:
      if one.poll() is None:
        one.kill()
      one.wait()


def codes(group):
  """The exit codes, or None for a process that does not end."""
  end, found = time.monotonic() + SECONDS, []
  for one in group:
    try:
      found.append(one.wait(max(end - time.monotonic(), 0.1)))
    except subprocess.TimeoutExpired:
      found.append(None)
  return found


def wait_for(group, workdir, stage, steps):
  """Returns when so many steps of a stage are in the metrics."""
  end = time.monotonic() + SECONDS
  while sum(line["steps"] for line in read_metrics(workdir / "metrics.jsonl") if line["stage"].endswith(stage)) < steps:
    assert time.monotonic() < end and all(one.poll() is None for one in group), said(workdir, len(group))
    time.sleep(0.05)


def said(workdir, processes):
  return "\n".join(pathlib.Path(f"{workdir}.{process}.log").read_text()[-3000:] for process in range(processes))


def cells(workdir):
  with (workdir / "cells.csv").open() as f:
    return {(row["domain"], row["role"]): float(row["loss"]) for row in csv.DictReader(f)}


def losses(workdir):
  return {(line["stage"], line["first_step"] + i): loss for line in read_metrics(workdir / "metrics.jsonl")
          for i, loss in enumerate(line["loss"])}


def last_states(workdir):
  """The parameters of every stage's last state, without idle rows."""
  snapshots, found = Checkpoints(workdir / "checkpoints"), {}
  for manifest in sorted((workdir / "checkpoints").rglob("snapshot.json")):
    stage, step = manifest.parent.parent.relative_to(workdir / "checkpoints").as_posix(), int(manifest.parent.name)
    about = snapshots.about(stage, step)
    spec = StackSpec(model_of(about["model"]), Optimizer(), Layout(devices=1), about["rows"], 1, 8, 0)
    params = snapshots.restore(stage, step, spec.abstract)["params"]
    found[stage, step] = jax.tree.map(lambda x: np.asarray(x)[:len(about["runs"])], params)
  snapshots.close()
  return found


@pytest.mark.long
def test_begun_by_two_continued_by_one_and_finished_by_two_equals_one(corpus, tmp_path):
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  with started(corpus, whole, 1) as alone, started(corpus, parts, 2) as two:
    wait_for(two, parts, "trunk/90", 4)
    two[1].send_signal(signal.SIGTERM)  # To one of them: both save the same step, and stop.
    assert codes(two) == [RETRY_EXIT_CODE] * 2, said(parts, 2)
    trained = len(losses(parts))
    assert 4 <= trained < 90
    saved = max((parts / "checkpoints").rglob("snapshot.json"), key=lambda manifest: int(manifest.parent.name))
    assert int(saved.parent.name) == trained
    with started(corpus, parts, 1) as one:
      wait_for(one, parts, "trunk/90", 90)
      one[0].send_signal(signal.SIGTERM)
      assert codes(one) == [RETRY_EXIT_CODE], said(parts, 1)
    assert not (parts / "cells.csv").exists()
    with started(corpus, parts, 2) as two:
      assert codes(two) == [0, 0], said(parts, 2)
    assert codes(alone) == [0], said(whole, 1)
  assert cells(parts).keys() == cells(whole).keys()
  for key, loss in cells(whole).items():
    assert cells(parts)[key] == pytest.approx(loss, rel=CELLS)
  assert losses(parts).keys() == losses(whole).keys()  # Each step once, whoever trained it.
  assert last_states(parts).keys() == last_states(whole).keys() != set()
  for key, params in last_states(whole).items():
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=PARAMS), last_states(parts)[key], params)
  assert "report.html" in said(parts, 1) and "report" not in pathlib.Path(f"{parts}.1.log").read_text()


WAITS = """
import sys
from jaxsplit import cli
from jaxsplit.parallel import hosts
from jaxsplit.parallel.cluster import Address

def main(argv):
  with hosts.joined(Address("127.0.0.1:9", 2, 1, "deactivate", timeout=int(sys.argv[1]))):
    pass

cli.run(main)
"""


def waiting(seconds):
  """A process that waits so long for another, which does not come."""
  return subprocess.Popen([sys.executable, "-c", WAITS, str(seconds)], env=os.environ | {"PYTHONPATH": str(ROOT)},
                          stderr=subprocess.PIPE, text=True)


def test_processes_that_do_not_come_are_not_waited_for_for_ever():
  with waiting(6) as process:
    said = process.stderr.read().splitlines()
  assert process.returncode == 2 and len(said) == 2
  assert re.fullmatch(r"jaxsplit: waiting until \d\d:\d\d:\d\d for all 2 processes, of which this is number 1, to meet at 127.0.0.1:9", said[0])
  assert "did not all meet at 127.0.0.1:9 within 6 s; start as many as there are said to be" in said[1]


def test_a_signal_ends_the_waiting():
  with waiting(SECONDS) as process:
    assert "waiting until" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert "stopped" in process.stderr.read()
  assert process.returncode == RETRY_EXIT_CODE


@pytest.mark.long
def test_an_error_in_one_ends_all_and_is_named(corpus, tmp_path):
  workdir = tmp_path / "w"
  other = lambda process: ["--gin.Experiment.seed=1"] if process else []
  with started(corpus, workdir, 2, each=other) as two:
    assert codes(two) == [2, 2], said(workdir, 2)
  assert "process 1 on" in pathlib.Path(f"{workdir}.0.log").read_text()
  for line in ("need the same settings (Experiment.seed = 0 in process 0, 1 on", "start all with the same command"):
    assert line in said(workdir, 2)
  assert "Traceback" not in said(workdir, 2)
