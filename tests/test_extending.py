"""The files and commands of docs/extending.md, as they stand there; commands are made small by settings that are added to them."""

import json
import pathlib
import re
import shlex
import sys

import numpy as np
import pytest
from small import arguments

from jaxsplit import cli, evaluate, fit, predict, prepare, train
from jaxsplit.clustering.clusters import load_clusters
from jaxsplit.data.store import open_store
from jaxsplit.errors import InputError

TEXT = (pathlib.Path(__file__).parent.parent / "docs" / "extending.md").read_text()
FILES = {block.split("\n", 1)[0].removeprefix("# "): block for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)}
COMMANDS = [shlex.split(command.replace("\\\n", "")) for command in re.findall(r"^    (python -m .*?[^\\])$", TEXT, re.M | re.S)]
FEW = ["--gin.Experiment.sizes=()", "--gin.Experiment.compare=(0.5,)", "--gin.Experiment.target=(16, 1)"]


@pytest.fixture
def written(extensions, tmp_path, monkeypatch):
  """The document's files, in the folder from which its commands are given."""
  for name, text in FILES.items():
    (tmp_path / name).write_text(text)
  (tmp_path / "configs").symlink_to(pathlib.Path(__file__).parent.parent / "configs")
  monkeypatch.chdir(tmp_path)
  return tmp_path


def command(entry_point, about=""):
  """The arguments of the document's command."""
  found = [words[3:] for words in COMMANDS if words[2] == f"jaxsplit.{entry_point}" and about in " ".join(words)]
  assert len(found) == 1
  return found[0]


def test_every_block_is_taken():
  assert set(FILES) == {"parallel.py", "lion.py", "tied.py", "mbox.py", "letters.py", "capitals.py", "naive_bayes.py"}
  assert {word.removeprefix("--extension=") for words in COMMANDS for word in words if word.startswith("--extension=")} == set(FILES)


@pytest.mark.long
@pytest.mark.parametrize("name, setting", [("parallel", "Architecture.family"), ("lion", "Optimizer.name")])
def test_a_family_and_an_optimizer(written, corpus, extensions, name, setting):
  given = command("train", name)
  small = [flag for flag in arguments(corpus, written / "w") if not flag.startswith("--workdir")]
  assert train.main([*given, *small, *FEW]) == 0
  workdir = written / "runs" / name
  losses = [line["loss"] for line in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())]
  assert np.isfinite(np.concatenate([np.ravel(loss) for loss in losses])).all()
  config = json.loads((workdir / "config.json").read_text())
  assert set(config["Extension"]) == {setting}
  assert train.main([*given, *small, *FEW]) == 0  # Recomputes nothing.
  extensions()
  (written / f"{name}.py").write_text(FILES[f"{name}.py"] + "# Changed.\n")
  with pytest.raises(InputError, match=f"holds another experiment's results .Extension.{setting} = "):
    train.main([*given, *small, *FEW])


def test_a_source_of_documents(written, extensions):
  (written / "mail").mkdir()
  for name in ("jan.mbox", "FEB.MBOX"):
    (written / "mail" / name).write_text("".join(
        f"From x\nList-Id: {'ab'[i % 2]}\n\nmessage {i} of {name} {'abcdefgh' * 12}\n\n" for i in range(300)))
  prepare.main(command("prepare", "mbox"))
  store = open_store("store")
  assert store.domains == ("a", "b") and sum(store.counts(d, s).documents for d in "ab" for s in ("train", "valid")) == 600
  extensions()
  (written / "mbox.py").write_text(FILES["mbox.py"].replace("yield", "yield 7\n    yield", 1))
  with pytest.raises(InputError, match="the token store of the corpus .* lies there, and differs: it was made by another rule .readers = "):
    prepare.main(command("prepare", "mbox"))
  with pytest.raises(InputError, match=r"mail/FEB.MBOX: row 1 is a int, where the reader of .mbox has to give fields"):
    prepare.main([*command("prepare", "mbox"), "--replace"])
  extensions()
  (written / "mbox.py").write_text(FILES["mbox.py"].replace("yield", "message.gone\n    yield", 1))
  with pytest.raises(InputError, match="FEB.MBOX: row 1: the reader of .mbox says AttributeError: .*; mend the file, or the reader"):
    prepare.main([*command("prepare", "mbox"), "--replace"])


def test_a_feature_map(written, extensions):
  (written / "texts").mkdir()
  for name, words in (("one", "eel tree sleet "), ("two", "moo fool loom ")):
    (written / "texts" / f"{name}.jsonl").write_text("".join(json.dumps({"text": f"{words * (20 + i)}{i}"}) + "\n" for i in range(60)))
  prepare.main(command("prepare", "letters"))
  store = open_store("found")
  clusters = load_clusters(store.directory / "clusters")
  assert sorted(clusters.assign(["tree eel", "fool moo"]).cluster) == [0, 1]
  assert {store.tokenizer.decode(store.tokens(domain, "train")[:3]) for domain in store.domains} == {"eel", "moo"}
  extensions()
  (written / "letters.py").write_text(FILES["letters.py"] + "# Changed.\n")
  with pytest.raises(InputError, match="differs: Corpus.clustering = "):
    prepare.main(command("prepare", "letters"))


def test_a_task(written, finished, capsys):
  (written / "runs").mkdir()
  (written / "runs" / "mine").symlink_to(finished)
  (written / "benchmarks").mkdir()
  row = re.search(r"such as `(.*)`", TEXT)[1]
  (written / "benchmarks" / "capitals.jsonl").write_text(f"{row}\n{row.replace('Lyon', 'Nice')}\n")
  assert evaluate.main([*command("evaluate", "capitals"), "--tokens=1"]) == 0
  assert "capitals, 2 questions" in capsys.readouterr().out
  (written / "benchmarks" / "capitals.jsonl").write_text(f'{row}\n{row.replace("country", "land")}\n')
  with pytest.raises(InputError, match="capitals.jsonl:2: field 'country' is missing; there are 'land'"):
    evaluate.main(command("evaluate", "capitals"))


@pytest.mark.parametrize("body, message", [
    ("1 / 0", r"capitals.jsonl:1: task capitals: .*capitals.py:4: ZeroDivisionError: division by zero; mend the extension, or the row"),
    ("None", "capitals.jsonl:1: its function gives a NoneType, where a Question is needed; mend the function .task capitals")])
def test_a_task_that_fails_says_where(written, extensions, body, message):
  (written / "benchmarks").mkdir()
  (written / "benchmarks" / "capitals.jsonl").write_text("{}\n")
  head, _, _ = FILES["capitals.py"].partition("TASKS.add")
  (written / "capitals.py").write_text(f'{head}TASKS.add("capitals", lambda row: {body})\n')
  (written / "runs" / "mine").mkdir(parents=True)
  with pytest.raises(InputError, match=message):
    evaluate.main(command("evaluate", "capitals"))


def test_a_form(written):
  rows = [f"{n},{d},{1.5 + 20 * n**-0.3 + 150 * d**-0.3}" for n in (1e5, 3e5, 1e6, 3e6) for d in (1e6, 3e6, 1e7)]
  (written / "cells.csv").write_text("\n".join(["params,seed_tokens,loss", *rows]))
  assert fit.main([*command("fit"), "--bootstrap=20", "--starts=8", "--holdout=params:1"]) == 0
  law = json.loads((written / "law.json").read_text())
  assert law["form"] == "tied" and law["parameters"]["alpha"] == pytest.approx(0.3, abs=1e-3)
  assert predict.main(command("predict")) == 0


def test_a_form_is_compared_with_ours(written):
  rows = [f"{n},{d},{1.5 + 20 * n**-0.3 + 150 * d**-0.3}" for n in (1e5, 3e5, 1e6, 3e6) for d in (1e6, 3e6, 1e7)]
  (written / "cells.csv").write_text("\n".join(["params,seed_tokens,loss", *rows]))
  fit.main(["--cells=cells.csv", "--extension=tied.py", "--form=auto", "--bootstrap=0", "--starts=8", "--holdout=params:1"])
  assert "tied" in {row["form"] for row in json.loads((written / "law.json").read_text())["candidates"]}


def test_a_router(written, finished, capsys):
  (written / "runs").mkdir()
  (written / "runs" / "quickstart").symlink_to(finished)
  assert evaluate.main([*command("evaluate", "naive_bayes"), "--tokens=1000", "--context_tokens=8", "--out=r.json"]) == 0
  chosen = json.loads((written / "r.json").read_text())["routers"]["naive_bayes@1"]["chosen"]
  assert min(chosen[domain][domain] for domain in ("latin", "numbers")) > 0.9


def test_what_an_extension_raises_is_one_line_that_says_where(written, finished, capsys, monkeypatch):
  (written / "runs").mkdir()
  (written / "runs" / "quickstart").symlink_to(finished)
  text = FILES["naive_bayes.py"].replace("return self.classifier", "raise KeyError('gone')\n    return self.classifier", 1)
  (written / "naive_bayes.py").write_text(text)
  line = 1 + text[:text.index("raise KeyError")].count("\n")
  monkeypatch.setattr(sys, "argv", ["evaluate", *command("evaluate", "naive_bayes"), "--tokens=1000", "--context_tokens=8",
                                    "--out=kept.json"])
  with pytest.raises(SystemExit) as ended:
    cli.run(evaluate.main)
  told = capsys.readouterr().err.splitlines()[-1]
  assert json.loads((written / "kept.json").read_text())["matrix"]["rows"]  # What was found before is not lost.
  assert ended.value.code == 2 and told == f"jaxsplit: {written / 'naive_bayes.py'}:{line}: KeyError: 'gone'; mend the extension"
