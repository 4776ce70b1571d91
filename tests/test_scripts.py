"""The shell scripts: what they would run, and what they do where nothing but a shell is needed."""

import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

SCRIPTS = pathlib.Path(__file__).parents[1] / "scripts"
SLICE = {"TPU_NAME": "mine", "ZONE": "here-a"}


def bash(*words, **environment):
  return subprocess.run(["bash", *map(str, words)], capture_output=True, text=True, env=os.environ | environment, timeout=60, check=False)


@pytest.mark.parametrize("words, told", [
    (["create", "--type=v6e-8"], ["tpu-vm create mine --zone=here-a --accelerator-type=v6e-8 --version=v2-alpha-tpuv6e"]),
    (["queue", "--type=v5litepod-16", "--spot"], ["queued-resources create mine --node-id=mine", "--spot", "queued-resources describe mine"]),
    (["setup"], ["git archive", "tpu-vm scp", "--worker=all", "tpu_vm_setup.sh"]),
    (["mirror", "gs://bucket/x", "runs/mine"], ["--worker=0", "scripts/mirror.sh", "gs://bucket/x"]),
    (["launch", "--workdir=runs/mine"], ["--worker=all", "scripts/retry.sh", "jaxsplit.train", "--workdir=runs/mine", "nohup"]),
    (["logs"], ["tail", "jaxsplit/train.log"]), (["stop"], ["kill", "-TERM"]),
    (["fetch", "runs/mine"], ["--exclude=checkpoints", "tar -xzf runs/mine.tar.gz -C runs/mine"]),
    (["delete"], ["queued-resources delete mine", "tpu-vm delete mine"])])
def test_a_dry_run_on_a_tpu_prints_every_command(words, told):
  done = bash(SCRIPTS / "tpu.sh", *words, "--dry_run", PATH="/usr/bin:/bin", **SLICE)
  assert done.returncode == 0, done.stderr
  assert all(line.startswith(("gcloud ", "git ", "mkdir ", "tar ")) for line in done.stdout.splitlines())
  for text in told:
    assert text in done.stdout.replace("\\ ", " "), text


@pytest.mark.parametrize("words, message", [
    (["create", "--tpye=x"], "create: unknown flag --tpye=x; known: --type=, --runtime=, --spot"), (["fly"], "unknown command fly; give one of create, queue"),
    ([], "give one of create, queue, setup, mirror, launch, logs, stop, fetch, delete"), (["create"], "create needs the slice's type, as in --type="),
    (["queue", "--type="], "queue needs the slice's type"), (["setup", "x"], "setup does not take x; leave it out"),
    (["mirror"], "mirror needs the copy and the work directory"), (["mirror", "gs://b/x"], "mirror needs the copy and the work directory"),
    (["launch"], "launch needs the flags of train, --workdir=DIR among them"), (["fetch"], "fetch needs the work directory")])
def test_what_a_tpu_script_does_not_know_or_lacks_is_one_line(words, message):
  done = bash(SCRIPTS / "tpu.sh", "--dry_run", *words, **SLICE)
  assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith(f"tpu.sh: {message}") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", ["create", "queue", "setup", "mirror", "launch", "logs", "stop", "fetch", "delete"])
@pytest.mark.parametrize("missing, message", [("TPU_NAME", "needs the slice's name: export TPU_NAME=mine"), ("ZONE", "needs the slice's zone: export ZONE=")])
def test_every_command_on_a_tpu_asks_for_the_name_and_the_zone(verb, missing, message):
  done = bash(SCRIPTS / "tpu.sh", "--dry_run", verb, **{**SLICE, missing: ""})
  assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith(f"tpu.sh: {verb} {message}") and done.stderr.count("\n") == 1


def test_a_command_that_asks_for_it_is_given_again(tmp_path):
  command = f"echo x >> {tmp_path}/times; [ $(wc -l < {tmp_path}/times) = 3 ] && exit 7; exit 75"
  assert bash(SCRIPTS / "retry.sh", "bash", "-c", command).returncode == 7
  assert (tmp_path / "times").read_text() == "x\n" * 3


def test_a_signal_to_retry_reaches_the_command_and_ends_both(tmp_path):
  command = f"trap 'exit 75' TERM; echo x >> {tmp_path}/times; while true; do sleep 0.05; done"
  job = subprocess.Popen(["bash", SCRIPTS / "retry.sh", "bash", "-c", command])
  while not (tmp_path / "times").exists():
    time.sleep(0.02)
  job.send_signal(signal.SIGTERM)
  assert job.wait(timeout=20) == 75 and (tmp_path / "times").read_text() == "x\n"


def test_a_mirror_brings_what_is_there_and_copies_what_is_new(tmp_path):
  """With a gcloud of our own, which copies between folders."""
  (tmp_path / "bin").mkdir()
  (tmp_path / "bin" / "gcloud").write_text("""#!/usr/bin/env bash
while [ "${1:-}" != rsync ] && [ "${1:-}" != ls ]; do shift; done
verb=$1; shift
while [[ "${1:-}" == --* ]]; do shift; done
here() { echo "${1/gs:\\/\\//$CLOUD/}"; }
if [ $verb = ls ]; then [ -d "$(here "${1%/**}")" ]; else mkdir -p "$(here "$2")" && cp -r "$(here "$1")/." "$(here "$2")"; fi
""".replace("\\\\", "\\"))
  (tmp_path / "bin" / "gcloud").chmod(0o755)
  cloud = tmp_path / "cloud" / "b" / "w"
  cloud.mkdir(parents=True)
  (cloud / "cells.csv").write_text("there")
  environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "CLOUD": str(tmp_path / "cloud"), "EVERY": "1"}
  job = subprocess.Popen(["bash", SCRIPTS / "mirror.sh", "gs://b/w", tmp_path / "w"], env=environment)
  deadline = time.monotonic() + 30
  while not (tmp_path / "w" / "cells.csv").exists() and time.monotonic() < deadline:
    time.sleep(0.02)
  (tmp_path / "w" / "law.json").write_text("new")
  time.sleep(0.1)
  job.send_signal(signal.SIGTERM)
  assert job.wait(timeout=30) == 0
  assert (tmp_path / "w" / "cells.csv").read_text() == "there" and (cloud / "law.json").read_text() == "new"


def test_what_an_entry_point_says_lies_beside_the_work_directory_and_is_shown_where_it_fails(tmp_path):
  spec = importlib.util.spec_from_file_location("found_domains_script", SCRIPTS / "found_domains.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  log = tmp_path / "share_0.5.train.log"
  with pytest.raises(SystemExit, match=rf"train of .*share_0.5 ended with 2 \({log}\): jaxsplit: unknown flag --domain"):
    module.run(tmp_path / "share_0.5", "train", "--domain=x")
  assert log.read_text().startswith("jaxsplit: unknown flag --domain")
  module.run(tmp_path / "share_0.5", "train", "--help")
  assert log.read_text().startswith("usage: python -m jaxsplit.train")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
  done = subprocess.run(["shellcheck", *map(str, SCRIPTS.rglob("*.sh"))], capture_output=True, text=True, cwd=SCRIPTS.parent, check=False)
  assert done.returncode == 0, done.stdout
