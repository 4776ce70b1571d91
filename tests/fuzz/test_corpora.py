"""Whatever names the files of a corpus have, and whatever becomes of a store: all is accounted for, or refused in one line."""

import os
import pathlib
import random
import shutil
import tempfile

from damage import damaged, damaged_bytes, fuzzed, survives
from hypothesis import given
from hypothesis import strategies as st

from jaxsplit.data.concerns import describe_files
from jaxsplit.data.corpus import Corpus
from jaxsplit.data.file_table import CorpusFile, FileTable, load_file_table
from jaxsplit.data.formats import format_of
from jaxsplit.data.listing import list_files
from jaxsplit.data.paths import SPLITS, split_name
from jaxsplit.data.parts import MANIFEST, TIMES
from jaxsplit.data.store import check_tokens, open_store

PLAIN = ("law", "prose", "law_val", "law_train", "c4-validation", "trained-models", "Law", "train", "val", "Test", "held-out", "dev",
         "part", "00000-of-00001", "README", "metadata", ".git")
ODD = ("a", "SOURCE", "x\ny", "ü", os.fsdecode(b"\xff"), " ", "-", "[law]", "\x1b[2J", "\u202e", "x" * 250)
SUFFIXES = (".jsonl",) * 9 + ("", ".JSONL", ".json.gz", ".txt", ".csv", ".zst", ".parquet", ".ndjson.bz2")
PATTERNS = ((),) * 15 + (("*",), ("law*",), ("*.jsonl", "*/val*"), ("[",))


def entries(rng):
  """Paths to make, with what they are to be; mostly of words that mean something, so that many corpora can be read."""
  word = lambda: rng.choice(PLAIN if rng.random() < 0.97 else ODD)
  name = lambda: rng.choice("_-. ").join(word() for _ in range(rng.choice((1, 1, 2))))
  kind = lambda: rng.choices(("file", "folder", "link", "dead"), (40, 1, 1, 1))[0]
  for _ in range(rng.randint(1, 6)):
    yield [name() for _ in range(rng.randint(0, 2))], name() + rng.choice(SUFFIXES), kind()


def make(root, rng):
  """Makes what can be made of these: files of some text, folders, links upwards and links to nothing."""
  for folders, name, kind in entries(rng):
    path = root.joinpath(*folders, name)
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      if kind == "file":
        path.write_text('{"text": "x"}\n')
      elif kind == "folder":
        path.mkdir()
      else:
        path.symlink_to(root if kind == "link" else "nowhere")
    except OSError:
      continue  # Taken by another of them, or too long a name.


@fuzzed
@given(seed=st.integers(0, 2**32))
def test_every_file_of_a_corpus_is_accounted_for(good, seed):
  rng = random.Random(seed)
  root = pathlib.Path(tempfile.mkdtemp(dir=good))
  make(root, rng)
  include, exclude = rng.choice(PATTERNS), rng.choice(PATTERNS)

  def read():
    table = list_files(Corpus(str(root), include=include, exclude=exclude))
    paths = [file.path for file in table.files]
    assert len(set(paths)) == len(paths)
    for folder, _, names in os.walk(root):
      for inside in (os.path.relpath(os.path.join(folder, name), root) for name in names):
        assert any(inside == path or inside.startswith(path.rstrip("/") + "/") for path in paths)
    for file in table.files:
      assert bool(file.ignored) or (file.split in SPLITS and file.domain and format_of(file.path))
    for domain in table.domains:
      assert split_name(domain) is None or split_name(domain).rest  # No split's name is a domain.
    assert not any(set("\n\r") & set(line) for line in table.lines())
    table.save(good / "table.csv")
    assert load_file_table(good / "table.csv", root) == table

  survives(read)
  shutil.rmtree(root)


@fuzzed
@given(data=st.data())
def test_a_file_table(good, data):
  FileTable(good, (CorpusFile("law/a.jsonl", 100, "law", "train", documents=3), CorpusFile("x.png", 1, ignored="hidden"))).save(good / "right.csv")
  (good / "files.csv").write_bytes(data.draw(damaged_bytes((good / "right.csv").read_bytes())))
  survives(lambda: load_file_table(good / "files.csv", good).lines())


@fuzzed
@given(data=st.data())
def test_noted_times(good, data):
  (good / "store" / "times.json").write_bytes(data.draw(damaged(b'{"tokens": {"a.train.bin": [10, 1], "a.valid.bin": [10, 1]}, "source": {"": "/x"}}')))
  survives(lambda: check_tokens(open_store(good / "store")))


@fuzzed
@given(data=st.data())
def test_a_store_that_is_named(good, data):
  """What `train --store` opens: tokens that are taken are those that were written."""
  store = good / "other"
  shutil.rmtree(store, ignore_errors=True)
  shutil.copytree(good / "store", store)
  check_tokens(open_store(store))  # As at an earlier start, which notes times.
  path = data.draw(st.sampled_from(sorted(store.glob("*.bin")) + [store / name for name in (MANIFEST, TIMES, "tokenizer.json")]))
  right = path.read_bytes()
  path.write_bytes(data.draw(damaged_bytes(right)))

  def read():
    check_tokens(opened := open_store(store))
    describe_files(opened)
    assert path.suffix != ".bin" or path.read_bytes() == right

  survives(read)
