"""The prepare door: a table of what it made, and one line with exit code 2 for what it cannot do."""

import pathlib
import subprocess
import sys

import pytest

from jaxsplit.data.store import open_store
from jaxsplit.errors import InputError
from jaxsplit.prepare import main


def test_it_prepares_a_store_and_tells_what_it_holds(tmp_path, capsys):
  main([f"--store={tmp_path / 'store'}", "--gin.Corpus.domains=('speeches', 'standards')"])
  header, *rows, last = capsys.readouterr().out.splitlines()
  assert header.split() == ["domain", "documents", "tokens", "bytes", "unique", "tokens", "valid", "tokens"]
  store = open_store(tmp_path / "store")
  train = store.counts("speeches", "train")
  assert rows[0].split() == ["speeches", *(f"{n:,}" for n in (
      train.documents, train.tokens, train.bytes, train.unique_tokens, store.count("speeches", "valid")))]
  assert len(rows) == 2 and last == f"{tmp_path / 'store'}: bytes, 256 ids, store {store.manifest_hash}"


def test_tokenization_is_bound_by_gin(tmp_path, capsys):
  (tmp_path / "bpe.gin").write_text("Tokenization.kind = 'bpe'\nTokenization.vocab_size = 400\n")
  main([f"--store={tmp_path / 'store'}", f"--gin_file={tmp_path / 'bpe.gin'}", "--gin.Corpus.domains=('speeches',)"])
  assert "bpe, 400 ids" in capsys.readouterr().out
  assert open_store(tmp_path / "store").vocab_size == 400


@pytest.mark.parametrize("argv, message", [
    ([], "--store is missing"),
    (["--store=s", "--gin.Corpus.pth=x"], "Corpus has no setting pth; did you mean path?"),
    (["--store=s", "--gin.Corpus.path=no/such"], "Corpus.path: no such folder: no/such"),
    (["--store=s", "--gin.Corpus.domains=('prose',)"], "no domain 'prose'; did you mean prose_"),
    (["--store=s", "--gin.Corpus.valid_tokens_min=1000000"], "fewer than Corpus.valid_tokens_min = 1000000"),
])
def test_what_cannot_be_is_one_line(argv, message, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(InputError) as error:
    main(argv)
  assert message in str(error.value) and "\n" not in str(error.value)
  assert list(tmp_path.iterdir()) == []


def test_the_command_exits_with_2_and_no_traceback():
  command = [sys.executable, "-m", "jaxsplit.prepare", "--stor=x"]
  done = subprocess.run(command, cwd=pathlib.Path(__file__).parents[1], capture_output=True, text=True, check=False)
  assert (done.returncode, done.stdout) == (2, "")
  assert done.stderr == "jaxsplit: unknown flag --stor; did you mean --store?\n"
