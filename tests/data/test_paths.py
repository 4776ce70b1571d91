"""What paths say: split words as whole words anywhere, domains that are never splits, and doubt that is told or refused."""

import pathlib
import re

import pytest

from jaxsplit.data.formats import format_of
from jaxsplit.data.paths import SPLITS, names_a_split, place, split_name
from jaxsplit.errors import InputError


def placed(*paths):
  return {"/".join(path): (where.domain, where.split) for path, where in place([tuple(path.split("/")) for path in paths]).items()}


@pytest.mark.parametrize("name, split", [
    ("testament", None), ("devotions", None), ("validity", None), ("testé", None), ("upheld_outcome", None), ("trained-models", None),
    ("development", None), ("contest", None), ("training", "train"), ("TEST-1", "test"), ("test2", "test"), ("test_b", "test"),
    ("valid_1", "valid"), ("Validation", "valid"), ("validation-0", "valid"), ("val", "valid"), ("dev", "valid"), ("eval", "valid"),
    ("heldout", "valid"), ("holdout", "valid"), ("hold-out", "valid"), ("hold_out_2", "valid"), ("validate", "valid"),
    ("validating", None), ("vali", None), ("tst", None), ("trn", None), ("upholdout", None), ("household_outing", None), ("held-out", "valid"), ("held_out_3", "valid"), ("devset", "valid"), ("test-00000-of-00001", "test"),
    ("train_data", "train"), ("part-3-val", "valid")])
def test_a_name_of_nothing_but_a_split_word_is_that_split(name, split):
  assert split_name(name) == (split and (split, "", True))
  assert names_a_split(("law", name)) == (split is not None)


@pytest.mark.parametrize("name, said", [
    ("c4-validation.00000", ("valid", "c4", True)), ("law_val", ("valid", "law", True)), ("wiki.test", ("test", "wiki", True)),
    ("dev-blog", ("valid", "blog", False)), ("test_prep_books", ("test", "prep_books", False)), ("law_train_en", ("train", "law_en", False)),
    ("dev_test", (None, "", True)), ("train and test", (None, "train and test", True))])
def test_a_split_word_beside_others(name, said):
  assert split_name(name) == said


@pytest.mark.parametrize("paths", [
    {"law/a": ("law", "train"), "law/val": ("law", "valid"), "law/eval": ("law", "valid"), "law/data/test-00000-of-00001": ("law", "test")},
    {"en/c4-train.00000": ("en", "train"), "en/c4-validation.00000": ("en", "valid")},
    {"train/law": ("law", "train"), "valid/law": ("law", "valid"), "train/med/0": ("med", "train"), "test/med/1": ("med", "test")},
    {"train/00000/C4": ("C4", "train"), "train/1/C4": ("C4", "train"), "train/00000/CC": ("CC", "train"),
     "valid/C4_small/C4_small": ("C4", "valid"), "valid/CC_small/CC_small": ("CC", "valid")},
    {"train/law_train": ("law", "train"), "valid/law_valid": ("law", "valid"), "held-out/law": ("law", "valid")},
    {"train/web-dev": ("web-dev", "train"), "valid/web-dev": ("web-dev", "valid"), "test/web-dev": ("web-dev", "test")},
    {"law_train": ("law", "train"), "law_val": ("law", "valid"), "wiki.train": ("wiki", "train"), "wiki.test": ("wiki", "test"), "x": ("x", "train")},
    {"train-law/0": ("law", "train"), "dev-law/0": ("law", "valid")},
    {"law": ("law", "train"), "law.valid": ("law", "valid")},
    {"dev-blog/a": ("dev-blog", "train"), "blog/a": ("blog", "train"), "web-dev": ("web-dev", "train"), "evaluation_reports/a": ("evaluation_reports", "train"),
     "test_prep_books/a": ("test_prep_books", "train"), "testament": ("testament", "train"), "trained-models/x": ("trained-models", "train")},
    {"law/train/Litmus Test": ("law", "train"), "law/train/Dev and Test": ("law", "train"), "law/valid/The Last Train": ("law", "valid")},
    {"law/x": ("law", "train"), "law/test_clean": ("law", "test"), "law/dev/testament": ("law", "valid")},
])
def test_domains_and_splits(paths):
  assert placed(*paths) == paths


def test_the_examples_of_the_docs():
  page = (pathlib.Path(__file__).parents[2] / "docs" / "your_corpus.md").read_text()
  rows = [[re.findall("`(.*?)`", cell) for cell in line.split("|")[1:-1]] for line in page.partition("## Splits")[2].splitlines()
          if line.startswith("| `")]
  assert len(rows) == 9
  for files, (domain,), *splits in rows:
    names = {file: (*file.split("/")[:-1], format_of(file.split("/")[-1]).stem) for file in files}
    places = place(names.values())
    assert {file: places[names[file]][:2] for file in files} == {
        file: (domain, split) for split, of in zip(SPLITS, splits, strict=True) for file in of}


@pytest.mark.parametrize("path, doubt", [
    ("dev-blog/a", "a domain of the name dev-blog"), ("web-dev", "a domain of the name web-dev"), ("law.test", "test of the domain law"),
    ("law/c4-validation", "valid, by a word in the name"), ("law/dev-blog/a", "valid, by a word in the name"), ("law/the-train", ""),
    ("law/val-03", ""), ("train/web-dev", "a domain of the name web-dev"), ("valid/med_small", "valid of the domain med"), ("train/med", ""),
    ("law/tst-00000", "train, though a name is like that of another split"), ("tst", "train, though a name is like that of another split"),
    ("law/evals", "train, though a name is like that of another split"), ("law/Tests/a", "train, though a name is like that of another split"),
    ("law/valid/evals", ""), ("law/my_evals", ""), ("law/valid/tst", ""), ("law/tst_case", "")])
def test_doubt_is_told(path, doubt):
  paths = [tuple(p.split("/")) for p in (path, "law", "train/med", "train/med_a")]
  assert place(paths)[paths[0]].doubt == doubt


@pytest.mark.parametrize("path, message", [
    ("train/law/test", "names more than one split"), ("law/dev_test", "names more than one split"), ("law/test/a_val_b/valid", "more than one split"),
    ("law/x_dev/y_test", "more than one split"), ("law_val/train", "more than one split"), ("train-test/law", "more than one split"),
    ("train", "a split and no domain"), ("train/00000-of-00001", "a split and no domain"), ("valid/part-1/2", "a split and no domain")])
def test_two_splits_and_no_domain_are_refused_with_the_path(path, message):
  with pytest.raises(InputError) as error:
    place([tuple(path.split("/")), ("law_train",), ("law",)])
  assert message in str(error.value) and path in str(error.value) and "\n" not in str(error.value)
