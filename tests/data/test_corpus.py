"""Corpora: which file is which split, what is held out, and what never crosses."""

import json
import pathlib

import pytest

from jaxsplit.data.corpus import Corpus, corpus_files, open_corpus
from jaxsplit.errors import InputError

REAL = pathlib.Path(__file__).parents[3] / "shared" / "data" / "corpora"


def write(path, *texts):
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == ".txt":
    path.write_text("".join(texts))
  else:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def documents(corpus, domain, split):
  return list(next(d for d in open_corpus(corpus) if d.name == domain).documents(split))


def numbered(count, size=100):
  return [f"{i} ".ljust(size, "abcdefgh"[i % 8]) for i in range(count)]


def test_folders_and_files_are_domains_and_names_say_the_split(tmp_path):
  for name in ("train-0.jsonl", "other.jsonl", "train/nested/c.txt", "valid.jsonl", "dev.txt", "Validation/a.jsonl",
               "test_b.jsonl", "SOURCE.txt", "LICENSE.mit.txt", "README.txt", ".hidden.txt", ".git/x.txt", "picture.png"):
    write(tmp_path / "law" / name, "text")
  write(tmp_path / "books.txt", "text")
  write(tmp_path / "SOURCE.txt", "where this comes from")
  found = corpus_files(Corpus(str(tmp_path)))
  names = {domain: {split: [str(f.relative_to(tmp_path)) for f in files] for split, files in splits.items()}
           for domain, splits in found.items()}
  assert names == {
      "books": {"train": ["books.txt"]},
      "law": {
          "train": ["law/other.jsonl", "law/train/nested/c.txt", "law/train-0.jsonl"],
          "valid": ["law/Validation/a.jsonl", "law/dev.txt", "law/valid.jsonl"],
          "test": ["law/test_b.jsonl"],
      },
  }
  assert list(corpus_files(Corpus(str(tmp_path), domains=("books",)))) == ["books"]


@pytest.mark.parametrize("name, split", [
    ("testament.txt", "train"), ("devotions.txt", "train"), ("validity/a.txt", "train"), ("testé.txt", "train"), ("training.txt", "train"),
    ("test.jsonl", "test"), ("TEST-1.txt", "test"), ("test2.txt", "test"), ("valid_1.txt", "valid"), ("validation.txt", "valid"),
    ("validation-0.txt", "valid"), ("dev/testament.txt", "valid"), ("train-00.txt", "train")])
def test_a_split_is_a_whole_word(tmp_path, name, split):
  write(tmp_path / "law" / "laws.txt", "text")
  write(tmp_path / "law" / name, "text")
  found = corpus_files(Corpus(str(tmp_path)))["law"]
  assert [str(f.relative_to(tmp_path / "law")) for f in found[split] if f.name != "laws.txt"] == [name]


def test_held_out_documents_do_not_depend_on_files_or_their_order(tmp_path):
  texts = numbered(200)
  write(tmp_path / "a" / "one.jsonl", *texts)
  write(tmp_path / "b" / "x.jsonl", *texts[150:])
  write(tmp_path / "b" / "y.jsonl", *reversed(texts[:150]))
  corpus = Corpus(str(tmp_path), valid_fraction=0.15)
  valid = documents(corpus, "a", "valid")
  assert set(valid) == set(documents(corpus, "b", "valid"))
  assert len(valid) == 30
  assert sorted(valid + documents(corpus, "a", "train")) == sorted(texts)
  more = set(documents(Corpus(str(tmp_path), valid_fraction=0.3), "a", "valid"))
  assert set(valid) < more and len(more) == 60


def test_one_long_book_is_divided_by_passages(tmp_path):
  book = "\n\n".join(f"Paragraph {i}. " + "It was a dark night. " * 30 for i in range(300))
  write(tmp_path / "book.txt", book)
  corpus = Corpus(str(tmp_path))
  train, valid = documents(corpus, "book", "train"), documents(corpus, "book", "valid")
  assert 0.05 < sum(map(len, valid)) / len(book) <= 0.1
  assert sum(map(len, train)) + sum(map(len, valid)) == len(book)
  assert all(passage in book for passage in train + valid)


def test_a_document_held_out_is_never_trained_on(tmp_path):
  texts = numbered(50)
  write(tmp_path / "given" / "train.jsonl", *texts, texts[0])
  write(tmp_path / "given" / "valid.jsonl", texts[0], "new", texts[1])
  write(tmp_path / "given" / "test.jsonl", texts[2])
  write(tmp_path / "drawn" / "train.jsonl", *texts, *texts)
  write(tmp_path / "drawn" / "test.jsonl", texts[2])
  corpus = Corpus(str(tmp_path))
  assert documents(corpus, "given", "train") == texts[3:]
  assert documents(corpus, "given", "valid") == [texts[0], "new", texts[1]]
  train, valid = documents(corpus, "drawn", "train"), documents(corpus, "drawn", "valid")
  assert not set(train) & set(valid) and texts[2] not in train + valid
  assert len(train) + len(valid) == 98


@pytest.mark.parametrize("make, settings, message", [
    (lambda root: None, {"path": "no/such"}, "Corpus.path: no such folder: "),
    (lambda root: write(root / "x.txt", "x"), {"path": "x.txt"}, "is no folder"),
    (lambda root: write(root / "picture.png", "x"), {}, "no domains here"),
    (lambda root: write(root / "speeches.txt", "x"), {"domains": ("speches",)}, "no domain 'speches'; did you mean speeches?"),
    (lambda root: write(root / "speeches.txt", "x"), {"domains": ("../x",)}, "no domain '../x'"),
    (lambda root: write(root / "law" / "picture.png", "x"), {}, "domain law: no text in"),
    (lambda root: write(root / "law" / "valid.jsonl", "x"), {}, "domain law: valid files but nothing to train on"),
    (lambda root: write(root / "law" / "a.jsonl", "x"), {}, "1 bytes in 1 distinct passages cannot be divided"),
    (lambda root: write(root / "law" / "a.txt", " "), {}, "0 bytes in 0 distinct passages cannot be divided"),
    (lambda root: (write(root / "law.txt", "x"), write(root / "law" / "a.txt", "x")), {}, "domain law is given twice"),
    (lambda root: write(root / "a\nb.txt", "x"), {}, "cannot name a domain"),
])
def test_a_bad_corpus_is_one_line(tmp_path, make, settings, message):
  make(tmp_path)
  settings = {**settings, "path": str(tmp_path / settings.get("path", ""))}
  with pytest.raises(InputError) as error:
    list(open_corpus(Corpus(**settings)))
  assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("settings", [{"valid_fraction": 0.0}, {"valid_fraction": 1.0}, {"valid_tokens_min": 0}])
def test_bad_settings_are_refused(settings):
  with pytest.raises(InputError, match=f"Corpus.{next(iter(settings))}"):
    Corpus(**settings)


def test_the_bundled_corpus_has_five_domains_with_their_source_beside_them():
  domains = list(open_corpus(Corpus()))
  assert [d.name for d in domains] == ["law_us", "prose_en", "prose_fr", "speeches", "standards"]
  assert all(len(list(d.documents("valid"))) >= 3 for d in domains)
  source = (domains[0].files["train"][0].parent / "SOURCE.txt").read_text()
  assert all(d.name in source for d in domains)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real corpora are not at {REAL}")
def test_real_corpora_have_their_splits_and_no_licence_texts():
  found = corpus_files(Corpus(str(REAL)))
  assert len(found) == 11
  assert all([f.name for f in files] == [f"{split}.jsonl.zst"] for splits in found.values() for split, files in splits.items())
  assert set(found["speeches_us"]) == {"train"} and set(found["wiki_en"]) == {"train", "valid", "test"}
