"""The steps of accelerator.sh, which says how it is run: each a command in a process of its own, under a time limit of its own.

Of the standard library alone, so that it can say what is missing. What a step leaves of its time, those after it may have.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]
MINUTES = 8
MARGIN = 10  # Seconds of them that no step gets: for what is between the steps, and for ending one that is at its limit.
LEAST = 15  # Seconds that a step without a limit of its own is worth starting for.
NOT_NEEDED = {"tensorflow-datasets", "scikit-learn", "threadpoolctl", "pyarrow"}  # Of pyproject.toml's: by none of the steps.
KEPT = ("jax", "jaxlib", "numpy", "scipy", "ml-dtypes", "nvidia-", "jax-")  # Never replaced, whatever wheels ask for.
NOTHING_TO_RUN = 2  # The exit code of a step without which there is no point in the others.


@dataclasses.dataclass(frozen=True)
class Step:
  """One thing to show.

  Attributes:
    name, shows: what it is called, and what it shows.
    seconds: its time limit, of MINUTES in all; 0: it is run in what the others leave, if that is LEAST.
    command: of Python's arguments.
    rehearsal: those of a rehearsal.
  """

  name: str
  shows: str
  seconds: int
  command: tuple[str, ...]
  rehearsal: tuple[str, ...]


def bench(name: str, real: str, tiny: str) -> dict[str, tuple[str, ...]]:
  """The commands of a bench: its flags on an accelerator, and at tiny sizes."""
  script = f"scripts/bench/{name}.py"
  return {"command": (script, *real.split()), "rehearsal": (script, *tiny.split())}


def tests(arguments: str) -> dict[str, tuple[str, ...]]:
  """The commands of tests, which are the same everywhere: in four processes, as most of a test is compiling."""
  command = ("-m", "pytest", "-q", "-rfEs", "--tb=short", "--numprocesses=4", "-p", "no:cacheprovider", *arguments.split())
  return {"command": command, "rehearsal": command}


PACKAGES_SECONDS = 45
STEPS = (
    Step("machine", "which device and versions are here, and its ceilings", 20,
         **bench("machine", "--accelerator", "--side=256 --gigabytes=0.001")),
    Step("cudnn", "cuDNN's attention computes what a mask computes, and stacks train with it", 50,
         **tests("tests/models/kernels/test_cudnn.py")),
    Step("350m", "one run of 350M at T = 2,048 (aim: an MFU of 0.5)", 65,
         **bench("train", "--size=350m --steps=8 --rounds=5", "--size=tiny --steps=2 --rounds=1")),
    Step("1.3b", "one run of 1.3B at T = 2,048 (aim: an MFU of 0.5)", 75,
         **bench("train", "--size=1.3b --steps=4 --rounds=4", "--size=tiny --remat=dots --steps=2 --rounds=1")),
    Step("stack", "8 runs of 50M in a stack against the same in sequence (aim: 3 x)", 70,
         **bench("stack", "--size=50m --runs=8 --steps=4 --rounds=5", "--size=tiny --runs=2 --steps=2 --rounds=1")),
    Step("attention", "attention that stays inside documents, cuDNN's against dense", 30,
         **bench("attention", "", "--batch=1 --length=64 --heads=2 --calls=1 --rounds=1")),
    Step("fork", "a snapshot of 50M forked into 8 experts", 40,
         **bench("fork", "--size=50m --repeats=1", "--size=tiny --experts=2 --repeats=1")),
    Step("snapshots", "what snapshots of 50M cost", 30,
         **bench("checkpoint", "--size=50m --steps=200 --every=50 --repeats=1", "--size=tiny --steps=20 --every=10 --repeats=1")),
    Step("model", "the rest of tests/models", 40, **tests("tests/models --ignore=tests/models/kernels/test_cudnn.py")),
    Step("350m, all kept", "one run of 350M of which nothing is computed again backwards", 0,
         **bench("train", "--size=350m --remat=none --steps=8 --rounds=5", "--size=tiny --depth=1 --steps=2 --rounds=1")))


class Record:
  """What has been found so far, on disk: a line a step in results.jsonl, all of this run in summary.md, output in log.txt."""

  def __init__(self, folder: pathlib.Path, began: str):
    folder.mkdir(parents=True, exist_ok=True)
    self.log = folder / "log.txt"
    self._results, self._summary, self._began, self._lines = folder / "results.jsonl", folder / "summary.md", began, []

  def add(self, step: Step, state: str, seconds: float, limit: float, command: Sequence[str], output: str) -> None:
    """Writes what came of a step, and says it."""
    last = output.strip().splitlines()[-12 if state == "passed" else -40:]
    measured = [json.loads(line) for line in output.splitlines() if line.startswith("{") and line.endswith("}")]
    line = {"run": self._began, "step": step.name, "shows": step.shows, "state": state, "seconds": round(seconds, 1),
            "limit": round(limit), "command": " ".join(command), "measured": measured, "last_lines": last}
    with self._results.open("a") as f:
      f.write(json.dumps(line) + "\n")
      f.flush()
      os.fsync(f.fileno())
    self._lines.append(line)
    self.write_summary()
    print(f"{step.name}: {state}, {seconds:.0f} s", *last[-6:], sep="\n  ", flush=True)

  def write_summary(self, under_way: str = "") -> None:
    """Writes the summary anew."""
    parts = [f"# What this machine showed, {self._began}\n", "| step | shows | state | seconds | of |\n|---|---|---|---|---|"]
    parts += ["| {step} | {shows} | {state} | {seconds} | {limit} |".format(**line) for line in self._lines]
    parts += [f"| {under_way} | | under way | | |"] * bool(under_way)
    for line in self._lines:
      parts.append("\n## {step}: {state}\n\n    python {command}\n\n```".format(**line))
      parts += [*line["last_lines"], "```"]
    self._summary.write_text("\n".join(parts) + "\n")


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  path = lambda text: pathlib.Path(text).expanduser().resolve()
  parser.add_argument("--wheels", type=path, help="a folder of wheels, from which what is missing is installed")
  parser.add_argument("--out", type=path, default=ROOT / "runs/accelerator", help="where what was found is written")
  parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on the CPU")
  parser.add_argument("--minutes", type=float, default=MINUTES, help="for everything; the steps' limits follow")
  parser.add_argument("--requirements", action="store_true", help="print what the steps need, and end")
  flags = parser.parse_args()
  if flags.requirements:
    print(*requirements(), sep="\n")
    return 0
  if flags.wheels and not any(flags.wheels.glob("*.whl")):
    parser.error(f"--wheels={flags.wheels}: no wheels are there; make them with scripts/bench/accelerator_wheels.sh DIR")
  began, scale = time.monotonic(), flags.minutes / MINUTES
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  record = Record(flags.out, time.strftime("%Y-%m-%d %H:%M:%S"))
  with tempfile.TemporaryDirectory(prefix="accelerator-") as folder:
    python = sys.executable
    if flags.wheels:
      python = environment(pathlib.Path(folder))
      install(python, flags.wheels, pathlib.Path(folder), record, PACKAGES_SECONDS * scale)
    if missing := absent(python):
      print(f"accelerator.sh: missing here: {', '.join(missing)}; make a folder of wheels with scripts/bench/accelerator_wheels.sh "
            "DIR where there is a package index, and give --wheels=DIR", file=sys.stderr)
      return 2
    return run(STEPS, python, record, flags.rehearse, began + (60 * MINUTES - MARGIN) * scale, scale)


def run(steps: Sequence[Step], python: str, record: Record, rehearse: bool, end: float, scale: float = 1.0) -> int:
  """Runs the steps, one after another, until `end` on time.monotonic(): 0 where all passed."""
  states = []
  for i, step in enumerate(steps):
    limit = end - time.monotonic() - sum(scale * one.seconds for one in steps[i + 1:])
    command = step.rehearsal if rehearse else step.command
    if limit < (1 if step.seconds else LEAST * scale):
      record.add(step, "not run: too little time was left", 0, limit, command, "")
      states.append(1)
      continue
    states.append(run_step(step, python, command, record, limit, rehearse))
    if i == 0 and states[0] == NOTHING_TO_RUN:
      return NOTHING_TO_RUN
  print(f"all of it: {record.log.with_name('summary.md')}")
  return int(any(states))


def run_step(step: Step, python: str, command: Sequence[str], record: Record, limit: float, rehearse: bool) -> int:
  """Runs one step for at most `limit` seconds; its exit code."""
  record.write_summary(under_way=step.name)
  with record.log.open("a") as log:
    print(f"\n==== {step.name}: python {' '.join(command)}", file=log, flush=True)
    start, began = log.tell(), time.monotonic()
    # timeout ends what the step has started, too, also where this process has been killed meanwhile.
    ended = ["timeout", "--kill-after=2", f"{max(1.0, limit - 2):.0f}"]
    process = subprocess.Popen([*ended, python, *command], stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT,
                               env=variables(rehearse, shared="pytest" in command))
    try:
      code = process.wait()
    except BaseException:
      process.terminate()
      process.wait()
      record.add(step, "cut off from outside", time.monotonic() - began, limit, command, output_from(record.log, start))
      raise
  states = {0: "passed", 124: "cut off at its limit", 137: "killed at its limit, or for its memory"}
  record.add(step, states.get(code, f"failed with exit code {code}"), time.monotonic() - began, limit, command,
             output_from(record.log, start))
  return code


def output_from(log: pathlib.Path, start: int) -> str:
  """What has been written to the log since it had so many bytes."""
  with log.open("rb") as f:
    f.seek(start)
    return f.read().decode(errors="replace")


def variables(rehearse: bool, shared: bool) -> dict[str, str]:
  """The environment variables of a step, several processes of which may share the device."""
  paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
  # XLA's own level of optimization, named, so that tests take no lower one to compile faster: kernels are as in training.
  flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=3".strip()
  return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1",
          **({"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if shared else {}),
          **({"JAX_PLATFORMS": "cpu"} if rehearse else {"XLA_FLAGS": flags})}


def requirements() -> list[str]:
  """What the steps need, of what pyproject.toml asks for."""
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  asked = [*project["dependencies"], *[one for one in project["optional-dependencies"]["test"] if name_of(one).startswith("pytest")]]
  return [one.split(";")[0].strip() for one in asked if name_of(one) not in NOT_NEEDED]


def name_of(requirement: str) -> str:
  """A package's name, as indices write it."""
  return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def environment(folder: pathlib.Path) -> str:
  """Makes an environment on top of the one that is there, whose packages it sees (a virtual environment's, too); its Python."""
  venv.create(folder / "env", symlinks=True, with_pip=importlib.util.find_spec("pip") is None)
  there = [entry for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))]
  site_packages, = (folder / "env/lib").glob("python*/site-packages")
  (site_packages / "there.pth").write_text("".join(f"import site; site.addsitedir({entry!r})\n" for entry in there))
  return str(folder / "env/bin/python")


def install(python: str, wheels: pathlib.Path, folder: pathlib.Path, record: Record, limit: float) -> None:
  """Installs what is missing into the environment, and nothing in place of `KEPT`."""
  there = {name_of(d.metadata["Name"]): d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
  (folder / "kept.txt").write_text("".join(f"{name}=={version}\n" for name, version in there.items() if name.startswith(KEPT)))
  command = ("-m", "pip", "install", "--isolated", "--disable-pip-version-check", "--quiet", "--no-index", f"--find-links={wheels}",
             "--no-compile", "--no-cache-dir", f"--constraint={folder / 'kept.txt'}", *requirements())
  step = Step("packages", "what was missing is installed", PACKAGES_SECONDS, command, command)
  run_step(step, python, command, record, limit, rehearse=False)


def absent(python: str) -> list[str]:
  """Which of the packages that the steps need this Python does not see."""
  names = [name_of(one) for one in requirements()]
  find = ("import sys, importlib.metadata as m, re\n"
          "there = {re.sub(r'[-_.]+', '-', d.metadata['Name'] or '').lower() for d in m.distributions()}\n"
          "print(*[name for name in sys.argv[1:] if name not in there])")
  return subprocess.run([python, "-c", find, *names], check=True, capture_output=True, text=True).stdout.split()


if __name__ == "__main__":
  sys.exit(main())
