"""Every command in README, CONTRIBUTING, docs/ and configs/: its flags, settings and configs are there; the README's and those of the
pages below are run, shortened.

Those of corpora.md, evaluation.md, extending.md and python.md are run by the tests of these pages. Not tried, here or anywhere: what
needs a TPU, several GPUs or a cluster (docs/tpu.md says so), beyond its flags; and benches, which take hours (docs/speed.md,
docs/calibration.md).
"""

import functools
import importlib.util
import json
import pathlib
import re
import shlex
import shutil

import pytest
from small import base_bindings, write_base

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
  (tmp_path / "FILE").with_suffix(".csv").write_text("\n".join(["N,D1,D2,L", *rows]))
  return tmp_path


MAINS = {"prepare": prepare.main, "fit": fit.main, "plan": plan.main, "predict": predict.main, "report": report,
         "evaluate": evaluate.main, "design": design.main, "export": export.main, "generate": generate.main}
FEW_REFITS = ["--bootstrap=20", "--starts=8"]
TINY = ["--gin.Experiment.budget_tokens=30_000", "--gin.Experiment.sizes=()", "--gin.Experiment.target=(8, 1)", "--gin.Experiment.compare=(0.5, 1)",
        "--gin.Experiment.seed_fractions=(0.5,)", "--gin.Probe.rates=(16e-3,)", "--gin.Training.sequence_length=16",
        "--gin.Training.batch_sequences=8", "--gin.Architecture.head_dim=8", "--gin.Optimizer.warmup_tokens=1_000"]


@pytest.mark.long
def test_the_commands_of_the_readme_work(place, capsys):
  mains = MAINS
  ran = []
  for _, words in commands(ROOT / "README.md"):
    if words[:2] != ["python", "-m"] or words[2] == "jaxsplit.train":
      continue  # Training is what the quickstart and the wheel's try do, from these commands.
    name, argv = words[2].removeprefix("jaxsplit."), words[3:]
    argv = [word.replace("=FILE", "=FILE.csv") for word in argv]
    more = {"fit": [*FEW_REFITS, "--form=effective_data", "--holdout=params:1"], "evaluate": ["--tokens=1000"]}.get(name, [])
    assert mains[name]([*argv, *more]) in (0, None), words
    ran.append(name)
  assert sorted(set(ran)) == sorted(mains)
  assert json.loads((place / "law.json").read_text())["form"] == "effective_data" and (place / "comparison.html").exists()
  assert "recommended" not in capsys.readouterr().err


@pytest.mark.long
def test_the_training_of_the_readme_works_from_an_empty_folder(place, capsys):
  (words,) = [words for _, words in commands(ROOT / "README.md") if words[2:3] == ["jaxsplit.train"]]
  argv = [word.replace("runs/mine", "runs/new") for word in words[3:]]
  assert train.main([*argv, *TINY]) == 0
  assert (place / "runs/new/report.html").exists()


def shortened(name, argv, corpus):
  """The same command on what is here, and what makes it short."""
  names = {"--domain=law_us": "--domain=latin", "--domain=prose": "--domain=latin", "--tokens=64": "--tokens=8"}
  argv = [names.get(word, word) for word in argv]
  if name == "fit":
    return [*argv, *FEW_REFITS]
  if name == "evaluate":
    return [*argv, "--tokens=1000"] if "--compare" not in argv else argv
  if name != "train" or any(word.startswith("--add_") for word in argv):
    return argv
  argv = [word.replace("runs/mine", "runs/new").replace("runs/quickstart", "runs/dry") for word in argv]
  if any("init_from" in word for word in argv):
    return [*argv, *(f"--gin.{name}={value!r}" for name, value in base_bindings(corpus).items())]
  return [*argv, *TINY]


@pytest.mark.long
@pytest.mark.parametrize("page, count", [("choosing", 2), ("experts", 4), ("law", 5), ("routing", 6), ("sweep", 2), ("your_corpus", 5)])
def test_the_commands_of_a_page_work(place, corpus, page, count):
  shutil.copytree(corpus, "corpus")
  shutil.copytree(corpus, "path/to/corpora")
  shutil.copytree(corpus / "latin", "path/to/texts")
  write_base(place / "path/to/folder")
  shutil.copytree("runs/mine", "runs/quickstart")
  shutil.copy("runs/mine/cells.csv", "cells.csv")
  (place / "benchmarks").mkdir()
  row = {"question": "Quis?", "choices": {"text": ["arma", "9"], "label": ["A", "B"]}, "answerKey": "A"}
  (place / "benchmarks" / "arc_easy.jsonl").write_text(json.dumps(row))
  ran = 0
  for number, words in commands(ROOT / "docs" / f"{page}.md"):
    name = words[2].removeprefix("jaxsplit.")
    assert {**MAINS, "train": train.main}[name](shortened(name, words[3:], corpus)) in (0, None), f"{page}.md:{number}"
    ran += 1
  assert ran == count
