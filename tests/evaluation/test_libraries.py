"""Rows of tasks from libraries: the same questions as from files of the Hugging Face hub's schema; refusals in a line."""

import importlib.util
import json

import pytest
import tensorflow_datasets as tfds

from jaxsplit.errors import InputError
from jaxsplit.evaluation import benchmarks, libraries  # noqa: F401 (Benchmarks add themselves to TASKS.)
from jaxsplit.evaluation.tasks import read_questions

ROWS = [{"question": f"What is {i} and {i}?", "choices": {"text": [str(i), str(2 * i)], "label": ["A", "B"]}, "answerKey": "B"}
        for i in (1, 2, 3)]
GAPS = [{"sentence": "The _ sat.", "option1": "cat", "option2": "mat", "answer": "1"}]
FEATURES = {
    "small_arc": tfds.features.FeaturesDict({
        "question": tfds.features.Text(), "answerKey": tfds.features.ClassLabel(names=["A", "B", "C"]),
        "choices": tfds.features.Sequence({"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=["A", "B", "C"])})}),
    "small_gaps": tfds.features.FeaturesDict({
        "sentence": tfds.features.Text(), "option1": tfds.features.Text(), "option2": tfds.features.Text(),
        "label": tfds.features.ClassLabel(names=["1", "2"])})}


class Small(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Rows as they are given, prepared without TensorFlow."""

  VERSION, code_path = tfds.core.Version("1.0.0"), None

  def __init__(self, rows, **kwargs):
    self._rows = rows
    super().__init__(**kwargs)

  def _info(self):
    return tfds.core.DatasetInfo(builder=self, features=FEATURES[self.name], disable_shuffling=True)

  def _split_generators(self, dl_manager):
    return {"test": self._generate_examples()}

  def _generate_examples(self):
    yield from enumerate(self._rows)


@pytest.mark.parametrize("task, name, rows, prepared, renamed", [
    ("arc_easy", "small_arc", ROWS, ROWS, {}),
    ("winogrande", "small_gaps", GAPS, [{**{k: v for k, v in GAPS[0].items() if k != "answer"}, "label": "1"}], {"label": "answer"})])
def test_rows_of_tensorflow_datasets_are_those_of_files(tmp_path, monkeypatch, task, name, rows, prepared, renamed):
  builder = type(name, (Small,), {"name": name}, skip_registration=True)  # So that it is read as what others have prepared is.
  builder(prepared, data_dir=str(tmp_path / "tfds"), file_format="array_record").download_and_prepare()
  monkeypatch.setitem(libraries._TFDS, task, libraries._DataSet(name, None, "test", renamed))
  (tmp_path / f"{task}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  found = read_questions(task, f"tfds:{tmp_path / 'tfds'}")
  assert found == read_questions(task, tmp_path) and len(found) == len(rows)
  assert read_questions(task, f"tfds:{tmp_path / 'tfds'}", limit=1) == found[:1]


def test_refusals(tmp_path, monkeypatch):
  with pytest.raises(InputError, match="--data=tfds:: there are no rows of task sciq; those of arc_easy, .* are there"):
    read_questions("sciq", "tfds:")
  monkeypatch.setitem(libraries._TFDS, "piqa", libraries._DataSet("no_such_set", None, "test"))
  with pytest.raises(InputError, match=f"--data=tfds:{tmp_path}: no_such_set/test cannot be read .*; prepare it, or give a folder"):
    read_questions("piqa", f"tfds:{tmp_path}")


@pytest.mark.skipif(importlib.util.find_spec("datasets") is not None, reason="datasets is installed")
def test_a_library_that_is_not_there_is_named():
  with pytest.raises(InputError, match="--data=datasets:: a package is missing .*; pip install datasets, or give a folder"):
    read_questions("piqa", "datasets:")


def test_rows_of_datasets(tmp_path, monkeypatch):
  datasets = pytest.importorskip("datasets", reason="datasets is not installed")
  source = tmp_path / "source"
  source.mkdir()
  datasets.Dataset.from_list(ROWS).to_parquet(source / "test.parquet")
  monkeypatch.setitem(libraries._DATASETS, "arc_easy", libraries._DataSet(str(source), None, "test"))
  (tmp_path / "arc_easy.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
  assert read_questions("arc_easy", f"datasets:{tmp_path / 'cache'}") == read_questions("arc_easy", tmp_path)
