"""The command that shows what a GPU can do, without one: its steps' limits, and what it keeps of steps that go wrong."""

import importlib.util
import json
import pathlib
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent
SCRIPT = ROOT / "scripts/bench/accelerator.py"


@pytest.fixture(scope="module")
def accelerator():
  spec = importlib.util.spec_from_file_location("accelerator", SCRIPT)
  module = importlib.util.module_from_spec(spec)
  sys.modules["accelerator"] = module  # Dataclasses look their module up.
  spec.loader.exec_module(module)
  yield module
  del sys.modules["accelerator"]


def test_all_limits_together_are_eight_minutes(accelerator):
  assert accelerator.PACKAGES_SECONDS + sum(step.seconds for step in accelerator.STEPS) + accelerator.MARGIN <= 480


def test_every_step_has_its_script(accelerator):
  for step in accelerator.STEPS:
    for command in (step.command, step.rehearsal):
      assert command[0] == "-m" or (ROOT / command[0]).is_file()


def test_a_step_that_goes_wrong_costs_no_other(accelerator, tmp_path):
  python = lambda name, seconds, code: accelerator.Step(name, "what it shows", seconds, ("-c", code), ())
  steps = [
      python("good", 2, "print('{\"mfu\": 0.5}'); print('a line')"),
      python("wrong", 2, "print('so far'); raise RuntimeError('out of memory')"),
      python("long", 2, "import time; print('under way'); time.sleep(60)"),
      python("last", 5, "print('done')"),
      python("no time", 0, "print('never')")]
  record = accelerator.Record(tmp_path, "now")
  assert accelerator.run(steps, sys.executable, record, rehearse=False, end=time.monotonic() + 12) == 1
  found = {line["step"]: line for line in map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())}
  assert {name: line["state"] for name, line in found.items()} == {
      "good": "passed", "wrong": "failed with exit code 1", "long": "cut off at its limit", "last": "passed",
      "no time": "not run: too little time was left"}
  assert found["good"]["measured"] == [{"mfu": 0.5}] and found["good"]["last_lines"][-1] == "a line"
  assert found["wrong"]["last_lines"][-1] == "RuntimeError: out of memory"
  assert found["long"]["last_lines"] == ["under way"]
  summary = (tmp_path / "summary.md").read_text()
  assert all(f"## {step.name}: " in summary for step in steps) and "under way |" not in summary


def test_without_an_accelerator_it_says_so_at_once(tmp_path):
  ended = subprocess.run(["bash", SCRIPT.with_suffix(".sh"), f"--out={tmp_path}"], capture_output=True, text=True,
                         env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"})
  assert ended.returncode == 2, ended.stderr
  assert "sees no accelerator here" in ended.stdout and "--rehearse" in ended.stdout


def test_what_is_missing_is_named(tmp_path):
  bare = tmp_path / "bare"
  subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
  ended = subprocess.run([bare / "bin/python", SCRIPT, f"--out={tmp_path}"], capture_output=True, text=True)
  assert ended.returncode == 2 and "Traceback" not in ended.stderr
  assert "missing here: jax, flax, " in ended.stderr and "--wheels=DIR" in ended.stderr


def test_cut_off_from_outside_it_keeps_what_there_is_and_ends_its_step(tmp_path):
  process = subprocess.Popen(["bash", SCRIPT.with_suffix(".sh"), "--rehearse", f"--out={tmp_path}"], stdout=subprocess.DEVNULL,
                             env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable})
  log = tmp_path / "log.txt"
  while process.poll() is None and not (log.exists() and "==== machine" in log.read_text()):
    time.sleep(0.05)
  step, = [int(path.parent.name) for path in pathlib.Path("/proc").glob("[0-9]*/stat") if parent(path) == process.pid]
  process.terminate()
  assert process.wait(30) == 143
  assert not pathlib.Path(f"/proc/{step}").exists()
  assert json.loads((tmp_path / "results.jsonl").read_text())["state"] == "cut off from outside"
  assert "## machine: cut off from outside" in (tmp_path / "summary.md").read_text()


def parent(stat):
  """The parent of a process, by its /proc/ID/stat; 0 where it has ended."""
  try:
    return int(stat.read_text().rpartition(")")[2].split()[1])
  except OSError:
    return 0
