"""Tokenizers: known ids, round trips, and files that are no tokenizers."""

import json
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings, strategies

from jaxsplit.data.tokenizer import (
    END_OF_TEXT, AlphabetTokenizer, ByteTokenizer, Tokenization, load_tokenizer, make_tokenizer, train_bpe)
from jaxsplit.errors import InputError

REAL = pathlib.Path(__file__).parents[3] / "shared" / "data" / "tokenizers"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the published tokenizers are not at {REAL}")

DOCUMENTS = ["the cat sat on the mat", "the hat of the cat", "a rat that sat", "Die Würde des Menschen", "naïve café 😀"] * 4


@pytest.fixture(scope="module")
def bpe():
  return train_bpe(DOCUMENTS, 300)


def test_bytes_are_ids_and_nul_is_left_to_separate_documents():
  tokenizer = ByteTokenizer()
  ids = tokenizer.encode("a\0é")
  assert ids.tolist() == [97, 0xC3, 0xA9] and ids.dtype == np.uint16
  assert (tokenizer.vocab_size, tokenizer.end_of_document) == (256, 0)
  assert tokenizer.decode([97, 0, 0xC3]) == "a\ufffd"


@settings(deadline=None, max_examples=100)
@given(text=strategies.text())
def test_any_text_survives_bytes_and_bpe(text, bpe):
  assert ByteTokenizer().decode(ByteTokenizer().encode(text)) == text.replace("\0", "")
  ids = bpe.encode(text)
  assert bpe.decode(ids) == text
  assert bpe.end_of_document not in ids and (len(ids) == 0 or ids.max() < bpe.vocab_size)


def test_a_trained_bpe_is_deterministic_in_any_order_and_shortens_its_text(bpe):
  again = train_bpe(reversed(DOCUMENTS), 300)
  assert again.fingerprint == bpe.fingerprint
  assert train_bpe(DOCUMENTS, 280).fingerprint != bpe.fingerprint
  assert bpe.vocab_size <= 300
  assert len(bpe.encode(DOCUMENTS[0])) < len(DOCUMENTS[0]) * 0.6
  assert [ids.tolist() for ids in bpe.encode_batch(DOCUMENTS)] == [bpe.encode(text).tolist() for text in DOCUMENTS]


def test_the_separator_written_in_a_text_is_text(bpe):
  ids = bpe.encode(f"a{END_OF_TEXT}b")
  assert bpe.end_of_document not in ids and bpe.decode(ids) == f"a{END_OF_TEXT}b"
  assert bpe.decode([*bpe.encode("a"), bpe.end_of_document]) == "a"


@pytest.mark.parametrize("kind", ["bytes", "alphabet", "bpe"])
def test_a_saved_tokenizer_is_the_same_tokenizer(tmp_path, kind, bpe):
  tokenizer = {"bytes": ByteTokenizer(), "alphabet": AlphabetTokenizer("abc"), "bpe": bpe}[kind]
  tokenizer.save(tmp_path / "tokenizer.json")
  loaded = load_tokenizer(tmp_path / "tokenizer.json")
  assert type(loaded) is type(tokenizer)
  assert (loaded.fingerprint, loaded.vocab_size, loaded.end_of_document) == (
      tokenizer.fingerprint, tokenizer.vocab_size, tokenizer.end_of_document)
  assert loaded.encode("abcab").tolist() == tokenizer.encode("abcab").tolist()


def test_an_alphabet_has_one_id_a_symbol():
  tokenizer = AlphabetTokenizer("abc")
  assert tokenizer.encode("cab").tolist() == [3, 1, 2] and tokenizer.vocab_size == 4
  assert tokenizer.decode([3, 0, 1, 2]) == "cab"
  with pytest.raises(InputError, match="'d' is not in the alphabet"):
    tokenizer.encode("bad")


def test_settings_choose_the_tokenizer(tmp_path, bpe):
  assert make_tokenizer(Tokenization(), []).kind == "bytes"
  assert make_tokenizer(Tokenization("bpe", 300), DOCUMENTS).fingerprint == bpe.fingerprint
  bpe.save(tmp_path / "t.json")
  assert make_tokenizer(Tokenization("bpe", path=str(tmp_path / "t.json")), []).fingerprint == bpe.fingerprint


@pytest.mark.parametrize("arguments, name", [
    ({"kind": "word"}, "kind"), ({"kind": "bpe", "vocab_size": 256}, "vocab_size"), ({"path": "x.json"}, "path")])
def test_bad_settings_are_refused(arguments, name):
  with pytest.raises(InputError, match=f"Tokenization.{name}"):
    Tokenization(**arguments)


NO_SEPARATOR = {"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}


@pytest.mark.parametrize("name, content, message", [
    ("t.json", "{", "not JSON"),
    ("t.json", "{}", "not a tokenizer.json"),
    ("t.json", json.dumps(NO_SEPARATOR), "no token that can separate documents"),
    ("vocab.bpe", "#version: 0.2\na b\nab zz\n", "vocab.bpe:3: not a merge of two known tokens"),
    ("vocab.bpe", "a b\nc d e\n", "vocab.bpe:2: not a merge"),
    ("vocab.bpe", "a b\na b\n", "repeats a merge"),
    ("vocab.bpe", "#version: 0.2\n", "no merges"),
    ("vocab.bpe", b"\xff\xfe", "cannot be read as UTF-8"),
])
def test_a_file_that_is_no_tokenizer_is_one_line(tmp_path, name, content, message):
  path = tmp_path / name
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  with pytest.raises(InputError) as error:
    load_tokenizer(path)
  assert message in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_merges_alone_fix_the_ids(tmp_path):
  (tmp_path / "vocab.bpe").write_text("#version: 0.2\nh e\nl l\nhe ll\n")
  tokenizer = load_tokenizer(tmp_path / "vocab.bpe")
  assert tokenizer.vocab_size == 260 and tokenizer.end_of_document == 259
  assert tokenizer.encode("hello").tolist() == [258, ord("o") - ord("!")]


@needs_real
def test_gpt2_merges_give_the_published_ids():
  tokenizer = load_tokenizer(REAL / "gpt2_merges.vocab.bpe")
  assert (tokenizer.vocab_size, tokenizer.end_of_document) == (50257, 50256)
  assert tokenizer.encode("Hello world").tolist() == [15496, 995]
  assert tokenizer.encode("Hello world").dtype == np.uint16


@needs_real
def test_gpt_neox_gives_the_published_ids():
  tokenizer = load_tokenizer(REAL / "gpt-neox-20b.tokenizer.json")
  assert tokenizer.end_of_document == 0
  assert tokenizer.encode("Hello world").tolist() == [12092, 1533]
