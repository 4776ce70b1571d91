"""Tokenizers: known ids, round trips, and files that are no tokenizers."""

import json
import pathlib

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings, strategies

from jaxsplit.data.bpe import END_OF_TEXT
from jaxsplit.data.plain_tokenizers import AlphabetTokenizer, ByteTokenizer
from jaxsplit.data.tokenizer import Tokenization, load_tokenizer, make_tokenizer, train_bpe
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
  assert [encoding.ids.tolist() for encoding in bpe.encode_batch(DOCUMENTS)] == [bpe.encode(text).tolist() for text in DOCUMENTS]


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
    ({"kind": "bpe", "path": ""}, "path"), ({"end_of_document": "</s>"}, "end_of_document"), ({"unknown_max": 1.5}, "unknown_max"),
    ({"kind": "word"}, "kind"), ({"kind": "bpe", "vocab_size": 256}, "vocab_size"), ({"path": "x.json"}, "path")])
def test_bad_settings_are_refused(arguments, name):
  with pytest.raises(InputError, match=f"Tokenization.{name}"):
    Tokenization(**arguments)


LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
NO_SEPARATOR = {"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}


@pytest.mark.parametrize("name, content, message", [
    ("t.json", "{", "not JSON"),
    ("t.json", LFS_POINTER, "a pointer of Git LFS, not the file itself"),
    ("vocab.bpe", LFS_POINTER, "a pointer of Git LFS, not the file itself"),
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


def saved(path, model, pre_tokenizer=tokenizers.pre_tokenizers.WhitespaceSplit(), special=()):
  tokenizer = tokenizers.Tokenizer(model)
  tokenizer.pre_tokenizer = pre_tokenizer
  tokenizer.add_special_tokens(list(special))
  tokenizer.save(str(path))
  return path


def test_a_separator_of_another_name_can_be_named(tmp_path):
  path = saved(tmp_path / "t.json", tokenizers.models.WordLevel({"a": 0, "<doc>": 1, "[UNK]": 2}, "[UNK]"), special=["<doc>"])
  with pytest.raises(InputError, match=r"no token that can separate documents .*it has <doc>; name one .* as Tokenization.end_of_document"):
    load_tokenizer(path)
  with pytest.raises(InputError, match=r"no token '<dok>' in the tokenizer; did you mean <doc>\?"):
    load_tokenizer(path, "<dok>")
  tokenizer = load_tokenizer(path, "<doc>")
  assert (tokenizer.end_of_document, tokenizer.separator) == (1, "<doc>")
  assert tokenizer.fingerprint != load_tokenizer(path, "a").fingerprint


def test_what_has_a_separator_of_its_own_takes_no_other(tmp_path):
  (tmp_path / "vocab.bpe").write_text("a b\n")
  ByteTokenizer().save(tmp_path / "bytes.json")
  for name in ("vocab.bpe", "bytes.json"):
    with pytest.raises(InputError, match=f"{name}: has a separator of its own, and cannot have 'a'; leave out Tokenization.end_of_document"):
      load_tokenizer(tmp_path / name, "a")


def encoding(path, text):
  ids, unknown, dropped = load_tokenizer(path).encode_batch([text])[0]
  return ids.tolist(), unknown, dropped


def test_unknown_pieces_are_counted_by_every_model(tmp_path):
  vocabulary = {"a": 0, "b": 1, "</s>": 2, "[UNK]": 3}
  path = tmp_path / "t.json"
  assert encoding(saved(path, tokenizers.models.WordLevel(vocabulary, "[UNK]")), "a x b y") == ([0, 3, 1, 3], 2, 0)
  assert encoding(saved(path, tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]")), "a xb") == ([0, 3], 1, 0)
  assert encoding(saved(path, tokenizers.models.Unigram([("</s>", 0.0), ("<unk>", 0.0), ("a", -1.0), ("b", -1.0)], 1)), "axb")[1:] == (1, 0)
  assert encoding(saved(path, tokenizers.models.BPE(vocabulary, [], unk_token="[UNK]")), "axb") == ([0, 3, 1], 1, 0)
  # A BPE without an unknown token leaves out what it does not know; a separator in the text is left out by all.
  assert encoding(saved(path, tokenizers.models.BPE({"a": 0, "b": 1, "</s>": 2}, [])), "axyb") == ([0, 1], 2, 2)
  assert encoding(saved(path, tokenizers.models.WordLevel(vocabulary, "[UNK]")), "a </s> b") == ([0, 1], 1, 1)
  assert ByteTokenizer().encode_batch(["a\0b\0\0"])[0][1:] == (3, 3)


@pytest.mark.parametrize("model", [
    tokenizers.models.WordLevel({"a": 0, "</s>": 1}, "[UNK]"), tokenizers.models.WordPiece({"a": 0, "</s>": 1}, unk_token="[UNK]"),
    tokenizers.models.Unigram([("</s>", 0.0), ("a", -1.0)])])
def test_a_model_without_an_unknown_token_is_one_line(tmp_path, model):
  with pytest.raises(InputError, match=r"^the tokenizer cannot encode a text \(.*\); give one that has a token for what it does not know$"):
    load_tokenizer(saved(tmp_path / "t.json", model)).encode("a x")
