"""The evaluate entry point, on a finished experiment."""

import json
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

from jaxsplit import evaluate, load_model, load_models
from jaxsplit.data.store import open_store
from jaxsplit.errors import InputError
from jaxsplit.evaluation.documents import read_documents

ROWS = [{"goal": goal, "sol1": first, "sol2": second, "label": label} for goal, first, second, label in (
    ("arma", "virumque", "12 93", 0), ("cano", "7 100 4", "troiae qui", 1), ("1 2 3", "44 5", "primus", 0))]


@pytest.fixture
def data(tmp_path):
  (tmp_path / "piqa.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
  return tmp_path


def test_an_experiment_has_a_matrix_and_accuracies(finished, data, tmp_path, capsys):
  out = tmp_path / "new" / "results.json"
  assert evaluate.main([f"--workdir={finished}", "--tasks=piqa", f"--data={data}", "--limit=2", "--tokens=1500", f"--out={out}"]) == 0
  found, told = json.loads(out.read_text()), capsys.readouterr().out
  assert [(model["name"], model["kind"]) for model in found["models"]] == [
      ("latin", "expert"), ("numbers", "expert"), ("seed", "seed"), ("dense", "dense")]
  matrix = found["matrix"]
  assert matrix["domains"] == ["latin", "numbers"] and matrix["split"] == "valid" and min(matrix["tokens"]) >= 1500
  loss = np.array([row["loss"] for row in matrix["rows"]])
  assert loss[:2].argmin(0).tolist() == [0, 1] and (np.diag(loss[:2]) < loss[2]).all()
  # The words are bytes, and windows of 16 tokens, of which half are new, are all that a model reads.
  np.testing.assert_allclose(loss / np.log(2), [row["bits_per_byte"] for row in matrix["rows"]], rtol=1e-6)
  task = found["tasks"]["piqa"]
  assert (task["num"], task["model"], found["routers"]) == (2, "dense", {}) and list(task["models"]) == ["latin", "numbers", "seed", "dense"]
  assert {"acc", "acc_norm", "acc_stderr", "acc_interval"} <= task.keys() and task["acc"] == task["models"]["dense"]["acc"]
  assert re.search(rf"latin \(expert\) +{np.exp(loss[0, 0]):.4g} ", told)
  assert "piqa: 4 of 4 answers with their contexts are longer than the models' 16 tokens, and were cut from the left" in told


@pytest.mark.parametrize("flags, message", [
    (["--limit=3"], "--limit is of tasks, and there are none"), (["--unconditional"], "--unconditional is of tasks"),
    (["--temperature=1"], "--temperature is of routers, and there are none; give --router, or leave it out"),
    (["--compare", "--tokens=100"], "--compare is of measured cells alone; leave --tokens out")])
def test_flags_that_would_do_nothing_are_refused(finished, flags, message):
  with pytest.raises(InputError, match=message):
    evaluate.main([f"--workdir={finished}", *flags])


def test_the_commands_of_the_page_run(finished, data, tmp_path, monkeypatch):
  page = (pathlib.Path(__file__).parent.parent / "docs" / "evaluation.md").read_text()
  commands = [line for line in re.findall(r"^    python -m jaxsplit.evaluate (.*)$", page, re.MULTILINE) if "# needs" not in line]
  (tmp_path / "runs").mkdir()
  (tmp_path / "runs" / "mine").symlink_to(finished)
  (tmp_path / "benchmarks").symlink_to(tmp_path)
  (tmp_path / "arc_easy.jsonl").write_text(json.dumps(
      {"question": "Quis?", "choices": {"text": ["arma", "9"], "label": ["A", "B"]}, "answerKey": "A"}))
  monkeypatch.chdir(tmp_path)
  for command in commands:
    assert evaluate.main([*shlex.split(command), "--tokens=1500"]) == 0
  found = json.loads((tmp_path / "results.json").read_text())
  assert len(commands) == 2 and list(found["tasks"]) == ["arc_easy", "piqa"] and found["tasks"]["piqa"]["num"] == 3


def test_all_models_are_loaded_at_once_as_each_is_alone(finished):
  models = load_models(finished)
  assert models.domains == ("latin", "numbers") and models.steps[2] < models.steps[3]
  tokens = models.tokenizer.encode("virumque cano")[None]
  for name, domain in (("latin", "latin"), ("numbers", "numbers"), ("seed", None), ("dense", "dense")):
    np.testing.assert_array_equal(models[name](tokens), load_model(finished, domain)(tokens))


def test_a_larger_number_of_tokens_has_the_documents_of_a_smaller_one(finished):
  store = open_store(finished / "store")
  few, more, every = (read_documents(store, "valid", tokens) for tokens in (300, 1500, 0))
  texts = [{(one.domain, one.tokens.tobytes()) for one in documents} for documents in (few, more, every)]
  assert len(texts[0]) < len(texts[1]) < len(texts[2])
  for smaller, larger in ((texts[0], texts[1]), (texts[1], texts[2])):  # The same ones, or more of them.
    assert all(any(own == domain and whole.startswith(begins) for own, whole in larger) for domain, begins in smaller)
  for domain in store.domains:
    of = [one for one in every if one.domain == domain]
    assert sum(one.targets + 1 for one in of) == store.count(domain, "valid")
    assert sum(one.bytes for one in of) == store.bytes(domain, "valid")
    assert all(one.tokens[0] == store.end_of_document and one.first == 1 for one in of)


def test_of_a_document_that_is_longer_than_asked_for_its_beginning_is_read(finished):
  store = open_store(finished / "store")
  every = read_documents(store, "valid", 0)
  for document in read_documents(store, "valid", 20):
    assert 1 <= document.targets <= 20
    whole = [one for one in every if one.domain == document.domain and one.tokens[:len(document.tokens)].tobytes() == document.tokens.tobytes()]
    assert whole and (document.targets == 20 or any(one.targets == document.targets for one in whole))
    assert document.bytes == len(store.tokenizer.decode(document.tokens[1:]).encode())


@pytest.mark.parametrize("tokens, errors", [(1500, True), (1, False)])  # The latter are one document of each domain.
def test_a_title_names_standard_errors_where_there_are_any(finished, capsys, tokens, errors):
  assert evaluate.main([f"--tokens={tokens}", f"--workdir={finished}"]) == 0
  told = capsys.readouterr().out
  assert ("perplexity per token, valid documents, ± standard error\n" in told) == errors == (" ±" in told)


def test_what_flags_alone_tell_waits_for_no_import_that_takes_long():
  code = ("import sys; from jaxsplit import evaluate, errors\ntry: evaluate.main(['--workdir=w', '--tasks=piqa'])\n"
          "except errors.InputError as error: assert '--tasks needs --data' in str(error) and 'jax' not in sys.modules\nelse: assert False")
  subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("flags, message", [
    ([], "give the models to evaluate: either --workdir"), (["--workdir=w", "--model=hf:x"], "either --workdir"),
    (["--model=x"], "--model=x: must be hf:DIR"), (["--model=hf:x"], "nothing to evaluate it on"),
    (["--workdir=w", "--tasks=piqa"], "--tasks needs --data"), (["--workdir=w", "--tasks=pica", "--data=w"], "did you mean piqa"),
    (["--workdir=w", "--limit=-1"], "Evaluation.limit = -1: must be 0 or more"), (["--workdir=w", "--split=dev"], "must be one of auto"),
    (["--workdir=w"], "w: no experiment that has trained anything"), (["--workdir=w", "--out=."], "is a folder"),
    (["--workdir=w", "--out=/proc/r.json"], "--out=/proc/r.json: cannot be written"), (["--workdir=w", "--data=w"], "--data needs --tasks"),
    (["--workdir=w", "--compare", "--router=bayes"], "--compare is of measured cells alone; leave --router out"),
    (["--workdir=w", "--compare", "--tasks=piqa", "--data=w"], "leave --tasks out")])
def test_what_cannot_be_evaluated_is_one_line(tmp_path, monkeypatch, flags, message):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(InputError, match=message):
    evaluate.main(flags)
