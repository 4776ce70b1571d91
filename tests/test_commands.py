"""Every command in README, CONTRIBUTING, docs/ and configs/: its flags, settings and configs are there; the README's are run, shortened.

Not tried, here or anywhere: what needs a TPU, several GPUs or a cluster (docs/tpu.md says so), beyond its flags.
"""

import functools
import importlib.util
import json
import pathlib
import re
import shlex
import shutil

import pytest

from jaxsplit import cli, design, evaluate, export, fit, generate, plan, predict, prepare, train
from jaxsplit.report.__main__ import main as report

ROOT = pathlib.Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
reference = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(reference)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "configs").rglob("*.gin"))]
FILES = {"--extension", "--gin_search_paths"}  # Of the user's own: what they name is not here.


def commands(page):
  """(line number, words) of each command line, one that goes on over several lines as one."""
  text = page.read_text()
  found = re.finditer(r"^(?:    |#   |\$ )((?:EXTRAS=\S+ )?(?:\.venv/bin/)?(?:python|bash|sbatch) (?:[^\n]*\\\n)*[^\n]*)$", text, re.MULTILINE)
  for match in found:
    line = re.sub(r"\\\n#?", " ", match[1])
    yield text[:match.start()].count("\n") + 1, shlex.split(re.sub(r"\s#\s.*|\s\.\.\.|\s\[[^\]]*\]", " ", re.split(r"   +[a-z]|  # |[;`]", line)[0]))


ALL = [pytest.param(words, id=f"{page.relative_to(ROOT)}:{number}") for page in PAGES for number, words in commands(page)]


@functools.cache
def asked(name):
  return reference.asked(name)


@pytest.mark.parametrize("words", ALL)
def test_a_command_is_one_that_there_is(words):
  words = [word for word in words if not word.startswith("EXTRAS=")]
  if "-m" in words and words[words.index("-m") + 1].startswith("jaxsplit"):
    at = words.index("-m") + 1
    name, argv = words[at].removeprefix("jaxsplit."), words[at + 1:]
    assert name in reference.entry_points()
    argv = [word for word in argv if word.split("=")[0] not in FILES and not word.startswith(("--gin.Architecture.family", "--gin.Optimizer.name"))]
    if "--extension" in " ".join(words):
      argv = [word for word in argv if not word.startswith("--form")]
    interface = asked(name)
    cli.parse(name, "", interface["settings"], argv, flags=interface["flags"], switches=interface["switches"],
              fields_as_flags=interface["fields_as_flags"])
  elif "pytest" not in words:
    scripts = [word for word in words if word.startswith("scripts/")]
    assert scripts and all((ROOT / script).exists() for script in scripts)


def test_there_are_commands():
  assert len(ALL) > 60 and sum("README" in case.id for case in ALL) >= 10


@pytest.fixture
def place(corpus, finished, tmp_path, monkeypatch):
  """A folder in which the README's names mean something small."""
  monkeypatch.chdir(tmp_path)
  shutil.copytree(corpus, "path/to/corpus")
  (tmp_path / "FOLDER").symlink_to("path/to/corpus")
  shutil.copytree(finished, "runs/mine")
  shutil.copytree(finished, "runs/other")
  rows = [f"{n},{d},{x},{1.5 + 20 * n**-0.3 + 150 * (d + 3 * x) ** -0.3}" for n in (1, 3, 10, 30) for d in (1e8, 3e8, 1e9) for x in (0, 1e8, 3e8)]
  (tmp_path / "FILE").with_suffix(".csv").write_text("\n".join(["N,D,X,L", *rows]))
  return tmp_path


@pytest.mark.long
def test_the_commands_of_the_readme_work(place, capsys):
  mains = {"prepare": prepare.main, "fit": fit.main, "plan": plan.main, "predict": predict.main, "report": report,
           "evaluate": evaluate.main, "design": design.main, "export": export.main, "generate": generate.main}
  ran = []
  for _, words in commands(ROOT / "README.md"):
    if words[:2] != ["python", "-m"] or words[2] == "jaxsplit.train":
      continue  # Training is what the quickstart and the wheel's try do, from these commands.
    name, argv = words[2].removeprefix("jaxsplit."), words[3:]
    argv = [word.replace("=FILE", "=FILE.csv").replace("seed_tokens=D,", "seed_tokens=D,expert_tokens=X,") for word in argv]
    more = {"fit": ["--bootstrap=20", "--starts=8", "--form=effective_data", "--holdout=params:1"], "evaluate": ["--tokens=1000"]}.get(name, [])
    assert mains[name]([*argv, *more]) in (0, None), words
    ran.append(name)
  assert sorted(set(ran)) == sorted(mains)
  assert json.loads((place / "law.json").read_text())["form"] == "effective_data" and (place / "comparison.html").exists()
  assert "recommended" not in capsys.readouterr().err


@pytest.mark.long
def test_the_training_of_the_readme_works_from_an_empty_folder(place, capsys):
  (words,) = [words for _, words in commands(ROOT / "README.md") if words[2:3] == ["jaxsplit.train"]]
  few = ["--gin.Experiment.budget_tokens=30_000", "--gin.Experiment.sizes=()", "--gin.Experiment.target=(8, 1)", "--gin.Experiment.compare=(0.5, 1)",
         "--gin.Probe.rates=(16e-3,)", "--gin.Training.sequence_length=16", "--gin.Optimizer.warmup_tokens=1_000"]
  argv = [word.replace("runs/mine", "runs/new") for word in words[3:]]
  assert train.main([*argv, *few]) == 0
  assert (place / "runs/new/report.html").exists()
