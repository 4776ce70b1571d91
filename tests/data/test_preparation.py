"""Making a token store: when one is reused, what replaces it, and what is refused or fails on the way."""

import os
import pathlib
import resource
import shutil
import signal

import pytest
from short_texts import TRAIN, VALID, write

from jaxsplit.data import preparation
from jaxsplit.data.corpus import Corpus
from jaxsplit.data.documents import read_records
from jaxsplit.data.domains import read_corpus
from jaxsplit.data.file_table import load_file_table
from jaxsplit.data.parts import FILE_TABLE
from jaxsplit.data.listing import list_files
from jaxsplit.data.preparation import check_store, prepare_store
from jaxsplit.data.store import open_store
from jaxsplit.data.tokenizer import Tokenization
from jaxsplit.data.unfinished import unfinished
from jaxsplit.errors import InputError
from jaxsplit.files import file_hash


def test_an_unchanged_store_is_reused(corpus, store, tmp_path):
  before = os.stat(tmp_path / "store" / "manifest.json").st_mtime_ns
  again = prepare_store(corpus, Tokenization(), tmp_path / "store")
  assert os.stat(tmp_path / "store" / "manifest.json").st_mtime_ns == before
  assert again.manifest_hash == store.manifest_hash


@pytest.mark.parametrize("change", ["text", "file", "settings", "damage", "bit", "table", "times", "documents"])
def test_a_changed_store_is_made_again(corpus, store, tmp_path, change):
  tokenization = Tokenization()
  if change == "text":
    write(tmp_path / "corpus" / "one" / "train.jsonl", ["more", *TRAIN])
  elif change == "file":
    write(tmp_path / "corpus" / "three" / "train.jsonl", TRAIN)
    write(tmp_path / "corpus" / "three" / "valid.jsonl", VALID)
  elif change == "settings":
    tokenization = Tokenization("bpe", 280)
  elif change == "bit":
    file = tmp_path / "store" / "one.train.bin"
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
  elif change in ("table", "times", "documents"):
    (tmp_path / "store" / {"table": "files.csv", "times": "times.json", "documents": "documents.parquet"}[change]).write_bytes(b"\0{")
  else:
    (tmp_path / "store" / "one.train.bin").unlink()
  again = prepare_store(corpus, tokenization, tmp_path / "store")
  assert (again.manifest_hash == store.manifest_hash) == (change in ("damage", "bit", "table", "times", "documents"))
  assert len(again.tokens("one", "train")) == again.count("one", "train")
  assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus", "store"], "nothing is left beside the store"


@pytest.fixture
def hashed(monkeypatch):
  """The names of the files that are hashed from now on."""
  names = []
  for module in ("store", "source", "preparation"):
    monkeypatch.setattr(f"jaxsplit.data.{module}.file_hash", lambda path: (names.append(pathlib.Path(path).name), file_hash(path))[1])
  return names


def test_files_of_the_same_size_and_time_are_not_read_but_on_request(corpus, store, tmp_path, hashed):
  assert prepare_store(corpus, Tokenization(), tmp_path / "store").manifest_hash == store.manifest_hash
  assert hashed == []
  check_store(tmp_path / "store", corpus, Tokenization())
  assert sorted(set(hashed)) == ["one.train.bin", "one.valid.bin", "train.jsonl", "two.train.bin", "two.valid.bin", "valid.jsonl"] and len(hashed) == 8
  hashed.clear()
  os.utime(tmp_path / "corpus" / "one" / "train.jsonl")
  os.utime(tmp_path / "store" / "two.valid.bin")
  for read in (["train.jsonl", "two.valid.bin"], []):  # What was found the same is not read again.
    prepare_store(corpus, Tokenization(), tmp_path / "store", lambda line: pytest.fail(line))
    assert hashed == read
    hashed.clear()


@pytest.mark.parametrize("where", ["slash", "relative", "link", "copy", "moved"])
def test_the_same_corpus_by_another_path_reuses_its_store(corpus, store, tmp_path, monkeypatch, where, hashed):
  folder = tmp_path / "corpus"
  path = {"slash": f"{folder}/", "relative": "store/../corpus", "link": str(tmp_path / "link"), "copy": str(tmp_path / "copy"),
          "moved": str(tmp_path / "moved")}[where]
  monkeypatch.chdir(tmp_path)
  if where == "link":
    (tmp_path / "link").symlink_to("corpus")
  elif where == "copy":
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
  elif where == "moved":
    folder.rename(tmp_path / "moved")
  before = (store.directory / "manifest.json").stat().st_mtime_ns
  lines = []
  prepare_store(Corpus(path, valid_tokens_min=5), Tokenization(), store.directory, lines.append)
  assert (store.directory / "manifest.json").stat().st_mtime_ns == before and lines == []
  assert (len(hashed) == 4) == (where in ("copy", "moved"))
  if where == "copy":
    (tmp_path / "copy" / "two" / "train.jsonl").write_text('{"text": "abc"}\n')  # Of the same size.
    again = prepare_store(Corpus(path, valid_tokens_min=5), Tokenization(), store.directory)
    assert again.manifest_hash != store.manifest_hash


def test_a_store_keeps_the_file_table_as_it_is_now(corpus, store, tmp_path):
  (tmp_path / "corpus" / "one" / "notes.md").write_text("x")
  prepare_store(corpus, Tokenization(), store.directory, lambda line: pytest.fail(line))
  table = load_file_table(store.directory / FILE_TABLE, tmp_path / "corpus")
  assert [(f.path, f.documents, bool(f.ignored)) for f in table.files] == [
      ("one/notes.md", None, True), ("one/train.jsonl", 3, False), ("one/valid.jsonl", 2, False), ("two/train.jsonl", 1, False),
      ("two/valid.jsonl", 2, False)]


def test_a_full_disk_names_the_file(corpus, tmp_path, monkeypatch):
  write(tmp_path / "corpus" / "one" / "train.jsonl", ["x" * 500] * 4000)
  resource_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource_limit[1]))  # As a quota has it: EFBIG at a file's first byte too many.
  try:
    with pytest.raises(OSError) as error:
      prepare_store(corpus, Tokenization(), tmp_path / "store")
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, resource_limit)
    signal.signal(signal.SIGXFSZ, handler)
  assert str(error.value.filename).startswith(str(tmp_path)) and error.value.filename.endswith("texts")
  assert sorted(p.name for p in tmp_path.iterdir()) == [".store.parts", "corpus"]


def test_a_failed_preparation_leaves_the_old_store_alone_and_loses_nothing(corpus, store, tmp_path, monkeypatch):
  write(tmp_path / "corpus" / "two" / "train.jsonl", ["changed"])
  (tmp_path / "corpus" / "two" / "valid.jsonl").write_text("no json\n")
  with pytest.raises(InputError, match="valid.jsonl:1"):
    prepare_store(corpus, Tokenization(), tmp_path / "store")
  assert open_store(tmp_path / "store").manifest_hash == store.manifest_hash
  assert sorted(p.name for p in tmp_path.iterdir()) == [".store.parts", "corpus", "store"]
  write(tmp_path / "corpus" / "two" / "valid.jsonl", VALID)
  read = []
  monkeypatch.setattr("jaxsplit.data.reading.read_records", lambda path, *others: (read.append(path.name), read_records(path, *others))[1])
  assert prepare_store(corpus, Tokenization(), tmp_path / "store").count("two", "train") == len("changed") + 1
  assert read == ["valid.jsonl", "train.jsonl"]  # What was finished before the bad file is not read again.
  assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus", "store"]


def test_a_store_is_prepared_by_one_process_at_a_time(corpus, tmp_path):
  with unfinished(tmp_path / "store"), pytest.raises(InputError, match="another process is preparing this store"):
    prepare_store(corpus, Tokenization(), tmp_path / "store")


def test_a_folder_of_something_else_is_never_replaced(corpus, tmp_path):
  write(tmp_path / "mine" / "thesis.txt", ["years of work"])
  with pytest.raises(InputError, match="exists and is no token store"):
    prepare_store(corpus, Tokenization(), tmp_path / "mine")
  assert (tmp_path / "mine" / "thesis.txt").exists()


def test_what_is_no_part_of_a_store_is_never_deleted_with_it(corpus, tmp_path):
  prepare_store(corpus, Tokenization(), tmp_path / "store")
  held = sorted(path.name for path in (tmp_path / "store").iterdir())
  write(tmp_path / "store" / "runs" / "thesis.txt", ["years of work"])
  write(tmp_path / "corpus" / "one" / "more.jsonl", ["another document of text"])
  with pytest.raises(InputError, match="store/runs: is no part of the token store that it lies in, .*; move it away"):
    prepare_store(corpus, Tokenization(), tmp_path / "store")
  assert (tmp_path / "store" / "runs" / "thesis.txt").exists() and open_store(tmp_path / "store")
  (tmp_path / "store" / "runs").rename(tmp_path / "runs")
  prepare_store(corpus, Tokenization(), tmp_path / "store")
  assert sorted(path.name for path in (tmp_path / "store").iterdir()) == held


def test_a_tokenizer_that_cannot_work_is_refused_before_anything_is_read(corpus, tmp_path, monkeypatch):
  (tmp_path / "broken.json").write_text("{")
  monkeypatch.setattr("jaxsplit.data.preparation.read_corpus", lambda *_: pytest.fail("the corpus was read"))
  said = []
  with pytest.raises(InputError, match="broken.json:1: not JSON"):
    prepare_store(corpus, Tokenization(kind="bpe", path=str(tmp_path / "broken.json")), tmp_path / "store", said.append)
  assert not said and not (tmp_path / "store").exists()


def test_a_folder_that_cannot_be_made_is_one_line(corpus, tmp_path):
  (tmp_path / "file").write_text("x")
  with pytest.raises(InputError, match="file/store: cannot be made"):
    prepare_store(corpus, Tokenization(), tmp_path / "file" / "store")


def test_a_bpe_of_a_large_corpus_is_trained_on_an_even_sample(tmp_path, monkeypatch):
  texts = [f"{word} number {i}" for i in range(400) for word in ("alpha", "omega")]
  write(tmp_path / "corpus" / "one.jsonl", texts)
  corpus = Corpus(str(tmp_path / "corpus"), valid_tokens_min=5)
  (tmp_path / "scratch").mkdir()
  read = read_corpus(corpus, list_files(corpus), tmp_path / "scratch")
  whole = list(preparation._training_sample(read))
  monkeypatch.setattr(preparation, "_BPE_TRAINING_CHARACTERS", sum(map(len, whole)) // 4)
  sample = list(preparation._training_sample(read))
  assert 0.85 < len(whole) / len(texts) < 0.95 and set(sample) < set(whole)
  assert 0.15 < len(sample) / len(whole) < 0.35 and 0.3 < sum("alpha" in text for text in sample) / len(sample) < 0.7


def test_too_small_a_validation_set_names_the_numbers(corpus, tmp_path):
  corpus = Corpus(corpus.path, valid_tokens_min=21)
  with pytest.raises(InputError) as error:
    prepare_store(corpus, Tokenization(), tmp_path / "store")
  assert str(error.value) == (
      "domain one: its validation set has 20 tokens, fewer than Corpus.valid_tokens_min = 21; add text, "
      "add documents to its valid files, or lower Corpus.valid_tokens_min")


def test_a_domain_whose_train_text_is_all_held_out_is_refused(corpus, tmp_path):
  write(tmp_path / "corpus" / "two" / "train.jsonl", VALID)
  with pytest.raises(InputError, match="domain two: nothing is left of its train split: its .* are all held out too"):
    prepare_store(corpus, Tokenization(), tmp_path / "store")


def test_progress_is_told_while_tokenizing(corpus, tmp_path, monkeypatch):
  monkeypatch.setattr("jaxsplit.data.pace._SECONDS_BETWEEN_LINES", 0.0)
  lines = []
  prepare_store(corpus, Tokenization(), tmp_path / "store", lines.append)
  assert [line.partition(", ")[0] for line in lines[:2]] == [
      "reading one/valid.jsonl: 2 documents", "reading one/train.jsonl: 3 documents"]
  assert lines[3].endswith(", 100%, 0:00 left") and lines[7] == "tokenizing two, 100%, 0:00 left" and len(lines) == 8
