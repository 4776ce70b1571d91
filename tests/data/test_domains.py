"""Domains: what is held out, what never crosses, and that every file is read once."""

import gzip
import hashlib
import json
import pathlib

import pytest

from jaxsplit.data.corpus import Corpus
from jaxsplit.data.documents import read_records
from jaxsplit.data.domains import read_corpus
from jaxsplit.data.listing import list_files
from jaxsplit.errors import InputError

REAL = pathlib.Path(__file__).parents[3] / "shared" / "data" / "corpora"


def write(path, *texts):
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == ".txt":
    path.write_text("".join(texts))
  else:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


@pytest.fixture
def documents(tmp_path_factory):
  """The documents of a split of a domain of a corpus."""
  def read(corpus, domain, split):
    read = read_corpus(corpus, list_files(corpus), tmp_path_factory.mktemp("scratch"))
    return [document.text for d in read.domains if d.name == domain for document in read.documents(split, d)]
  return read


def numbered(count, size=100):
  return [f"{i} ".ljust(size, "abcdefgh"[i % 8]) for i in range(count)]


def test_held_out_documents_do_not_depend_on_files_or_their_order(tmp_path, documents):
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


def test_one_long_book_is_divided_by_passages(tmp_path, documents):
  book = "\n\n".join(f"Paragraph {i}. " + "It was a dark night. " * 30 for i in range(300))
  write(tmp_path / "book.txt", book)
  corpus = Corpus(str(tmp_path))
  train, valid = documents(corpus, "book", "train"), documents(corpus, "book", "valid")
  assert 0.05 < sum(map(len, valid)) / len(book) <= 0.1
  assert sum(map(len, train)) + sum(map(len, valid)) == len(book)
  assert all(passage in book for passage in train + valid)


def test_a_document_held_out_is_never_trained_on(tmp_path, documents):
  texts = numbered(50)
  write(tmp_path / "given" / "train.jsonl", *texts, texts[0])
  write(tmp_path / "given" / "valid.jsonl", texts[0], "new", texts[1])
  write(tmp_path / "given" / "test.jsonl", texts[2])
  write(tmp_path / "drawn" / "train.jsonl", *texts, *texts)
  write(tmp_path / "drawn" / "test.jsonl", texts[2])
  corpus = Corpus(str(tmp_path), domains=("given",))
  assert documents(corpus, "given", "train") == texts[3:]
  assert documents(corpus, "given", "valid") == [texts[0], "new", texts[1]]
  corpus = Corpus(str(tmp_path), domains=("drawn",))
  train, valid = documents(corpus, "drawn", "train"), documents(corpus, "drawn", "valid")
  assert not set(train) & set(valid) and texts[2] not in train + valid
  assert len(train) + len(valid) == 98


@pytest.mark.parametrize("name, text, message", [
    ("valid.jsonl", "x", "domain law: valid files but nothing to train on"),
    ("a.jsonl", "x", "1 bytes in 1 distinct passages cannot be divided"),
    ("a.txt", " ", "domain law: no text in its train files (law/a.txt); add documents"),
])
def test_a_domain_that_cannot_be_divided_is_one_line(tmp_path, documents, name, text, message):
  write(tmp_path / "law" / name, text)
  with pytest.raises(InputError) as error:
    documents(Corpus(str(tmp_path)), "law", "train")
  assert message in str(error.value) and "\n" not in str(error.value)


def test_every_file_is_read_once_and_known_by_its_bytes(tmp_path, documents, monkeypatch):
  write(tmp_path / "c" / "law" / "a.jsonl", *numbered(50))
  write(tmp_path / "c" / "law" / "test.jsonl", "one", " ", "two")
  (tmp_path / "c" / "law" / "b.jsonl.gz").write_bytes(gzip.compress(json.dumps({"text": "packed"}).encode()))
  read = []
  monkeypatch.setattr("jaxsplit.data.reading.read_records", lambda path, *others: (read.append(path.name), read_records(path, *others))[1])
  corpus = Corpus(str(tmp_path / "c"))
  (tmp_path / "scratch").mkdir()
  found = read_corpus(corpus, list_files(corpus), tmp_path / "scratch")
  for split in ("train", "valid", "test", "train"):
    assert list(found.documents(split))
  assert sorted(read) == ["a.jsonl", "b.jsonl.gz", "test.jsonl"]
  assert {path: file.documents for path, file in found.files.items()} == {"law/a.jsonl": 50, "law/b.jsonl.gz": 1, "law/test.jsonl": 2}
  assert all(hashlib.sha256((tmp_path / "c" / path).read_bytes()).hexdigest().startswith(file.content) for path, file in found.files.items())
  read.clear()
  with (tmp_path / "c" / "law" / "a.jsonl").open("a") as file:
    file.write(json.dumps({"text": "one more"}) + "\n")
  assert read_corpus(corpus, list_files(corpus), tmp_path / "scratch").files["law/a.jsonl"].documents == 51
  assert read == ["a.jsonl"]  # Where a file is as it was, what was read of it is there.


def test_the_bundled_corpus_has_five_domains_with_their_source_beside_them(documents):
  table = list_files(Corpus())
  assert list(table.domains) == ["law_us", "prose_en", "prose_fr", "speeches", "standards"]
  assert all(len(documents(Corpus(), domain, "valid")) >= 3 for domain in table.domains)
  source = (table.root / "SOURCE.txt").read_text()
  assert all(domain in source for domain in table.domains)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real corpora are not at {REAL}")
def test_real_corpora_have_their_splits_and_no_licence_texts():
  found = list_files(Corpus(str(REAL))).domains
  assert len(found) == 11
  assert all([f.path for f in files] == [f"{domain}/{split}.jsonl.zst"] for domain, splits in found.items() for split, files in splits.items())
  assert set(found["speeches_us"]) == {"train"} and set(found["wiki_en"]) == {"train", "valid", "test"}
