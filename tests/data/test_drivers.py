"""Steps in processes of their own: the same store as without, errors in words, and what was finished is not done again."""

import json

import pytest

from jaxsplit.data import drivers
from jaxsplit.data.corpus import Corpus
from jaxsplit.data.drivers import Local
from jaxsplit.data.preparation import prepare_store
from jaxsplit.data.tokenizer import Tokenization
from jaxsplit.errors import InputError
from jaxsplit.files import file_hash
from jaxsplit.registry import run_extension

_READER = '''
from jaxsplit.data.formats import READERS
print("read by a worker")
READERS.add(".words", lambda path: ({"text": line} for line in path.read_text().splitlines()))
'''


@pytest.fixture
def corpus(tmp_path, monkeypatch):
  """Three domains, one of them of a reader's own; parts of a few documents."""
  monkeypatch.setattr(drivers, "_ALONE", 0)
  folder = tmp_path / "corpus"
  folder.mkdir()
  for name in ("one", "two"):
    lines = [json.dumps({"text": f"{name} {i} " + "abc " * (i % 50)}) for i in range(400)]
    (folder / f"{name}.jsonl").write_text("\n".join(lines))
  (folder / "three.words").write_text("\n".join(f"number {i} of three" for i in range(300)))
  return Corpus(str(folder), valid_tokens_min=5)


def hashes(store):
  return {path.name: file_hash(path) for path in store.directory.iterdir() if path.is_file() and path.name != "times.json"}


def test_processes_make_the_same_store(corpus, tmp_path, extensions):
  (tmp_path / "words.py").write_text(_READER)
  run_extension(tmp_path / "words.py")
  settings = Tokenization("bpe", 300)
  alone = hashes(prepare_store(corpus, settings, tmp_path / "alone", driver=Local(1)))
  assert hashes(prepare_store(corpus, settings, tmp_path / "two", driver=Local(2))) == alone and len(alone) == 10
  with (tmp_path / "corpus" / "two.jsonl").open("a") as file:
    file.write("\nno json")
  with pytest.raises(InputError, match="two.jsonl:401: not a JSON line"):
    prepare_store(corpus, settings, tmp_path / "bad", driver=Local(2))


@pytest.mark.parametrize("more", [[], ["--gin.Corpus.test_fraction=0.1"]])
def test_beam_makes_the_same_store(corpus, tmp_path, more, capfd):
  pytest.importorskip("apache_beam")
  from jaxsplit import prepare
  from jaxsplit.data.store import open_store
  (tmp_path / "corpus" / "three.words").unlink()
  flags = [f"--gin.Corpus.path={corpus.path}", "--gin.Corpus.valid_tokens_min=5", *more]
  prepare.main([*flags, f"--store={tmp_path / 'local'}"])
  prepare.main([*flags, f"--store={tmp_path / 'beam'}", "--runner=DirectRunner", "--runner_args=--direct_num_workers=1"])
  assert hashes(open_store(tmp_path / "beam")) == hashes(open_store(tmp_path / "local"))
  with pytest.raises(InputError, match="--runner=Nothing"):
    prepare.main([*flags, f"--store={tmp_path / 'x'}", "--runner=Nothing"])
