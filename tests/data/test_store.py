"""The token store: exact contents and counts, and damage that is noticed."""

import dataclasses
import json
import os

import numpy as np
import pytest
import tokenizers
from short_texts import TRAIN, VALID, write

from jaxsplit.data.corpus import Corpus
from jaxsplit.data.domains import document_hash
from jaxsplit.data.plain_tokenizers import AlphabetTokenizer, ByteTokenizer
from jaxsplit.data.preparation import prepare_store
from jaxsplit.data.store import open_store
from jaxsplit.data.store_writer import Document, write_store
from jaxsplit.data.tokenizer import Tokenization
from jaxsplit.errors import InputError


def test_documents_are_joined_and_each_is_followed_by_the_separator(store):
  expected = b"".join(text.encode() + b"\0" for text in TRAIN)
  assert store.domains == ("one", "two") and store.splits("one") == ("train", "valid")
  assert store.tokens("one", "train").tolist() == list(expected)
  assert store.tokens("one", "train").dtype == np.uint16


def test_counts_are_of_tokens_text_bytes_and_distinct_documents(store):
  counts = store.counts("one", "train")
  assert (counts.documents, counts.tokens, counts.unique_tokens, counts.bytes) == (3, 15, 11, 12)
  assert (store.count("two", "train"), store.bytes("two", "train")) == (4, 3)


def test_bpe_ids_read_back_as_the_documents(corpus, tmp_path):
  store = prepare_store(corpus, Tokenization("bpe", 280), tmp_path / "bpe")
  ids = store.tokens("one", "valid")
  ends = np.flatnonzero(ids == store.end_of_document)
  assert len(ends) == 2 and ends[-1] == len(ids) - 1
  assert [store.tokenizer.decode(part) for part in np.split(ids, ends[:-1] + 1)] == VALID
  assert store.tokenizer.kind == "bpe" and open_store(tmp_path / "bpe").manifest_hash == store.manifest_hash


def test_windows_are_a_view_that_makes_each_token_a_target_once(store):
  tokens = np.asarray(store.tokens("one", "train"))
  windows = store.windows("one", "train", 4)
  assert windows.shape == (3, 5) and not windows.flags.owndata
  assert windows[:, 1:].ravel().tolist() == tokens[1:13].tolist()
  assert windows[:, 0].tolist() == tokens[:9:4].tolist()
  assert store.windows("one", "train", 14).shape == (1, 15)
  assert store.weights("one", "train", 4) is None and not store.weighted
  with pytest.raises(InputError, match="train split has 15 tokens, fewer than one window of 16"):
    store.windows("one", "train", 15)


def test_overlaps_are_the_different_training_documents_that_two_domains_share(tmp_path):
  document = lambda text: Document(ByteTokenizer().encode(text), len(text), document_hash(text))
  texts = {"a": ["x", "y", "x", "z"], "b": ["y", "x", "u"], "c": ["q"], "d": ["z"]}
  splits = [(d, split, [document(t) for t in (ts if split == "train" else ["v"])]) for d, ts in texts.items() for split in ("train", "valid")]
  store = write_store(tmp_path / "store", ByteTokenizer(), splits, {})
  assert store.overlaps == (("a", "b", 2), ("a", "d", 1))


def test_the_hash_of_a_store_is_that_of_its_tokens_wherever_it_lies(corpus, store, tmp_path):
  os.rename(tmp_path / "corpus", tmp_path / "elsewhere")
  moved = prepare_store(Corpus(str(tmp_path / "elsewhere"), valid_tokens_min=5), Tokenization(), tmp_path / "other")
  assert moved.manifest_hash == store.manifest_hash


NO_COUNTS = {"documents": 1, "tokens": None, "unique_tokens": 1, "bytes": 1, "content": "0"}


def edit(path, **changes):
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("damage, message", [
    (lambda d: (d / "manifest.json").unlink(), "no token store here"),
    (lambda d: (d / "manifest.json").write_text("{"), "manifest.json:1: not JSON"),
    (lambda d: (d / "manifest.json").write_text("[]"), "not a token store of version 1"),
    (lambda d: edit(d / "manifest.json", version=7), "not a token store of version 1"),
    (lambda d: edit(d / "manifest.json", domains=[]), "a field is missing or wrong"),
    (lambda d: edit(d / "manifest.json", domains={"one": {"train": {"tokens": 3}}}), "a field is missing or wrong"),
    (lambda d: edit(d / "manifest.json", domains={"one": {"train": NO_COUNTS}}), "a field is missing or wrong (tokens is not a whole number)"),
    (lambda d: edit(d / "manifest.json", record={"length": "7", "prompt": 3}), "a field is missing or wrong (length is not a whole number)"),
    (lambda d: edit(d / "manifest.json", domains={"../../one": {}}), "'../../one' cannot name a file"),
    (lambda d: (d / "tokenizer.json").unlink(), "tokenizer.json: no such file"),
    (lambda d: AlphabetTokenizer("ab").save(d / "tokenizer.json"), "not the tokenizer that manifest.json names"),
    (lambda d: (d / "two.valid.bin").write_bytes(b"x"), "two.valid.bin: 1 bytes where manifest.json says 40"),
])
def test_damage_is_noticed_on_opening(store, damage, message):
  damage(store.directory)
  with pytest.raises(InputError) as error:
    open_store(store.directory)
  assert message in str(error.value) and "\n" not in str(error.value)


WORDS = {"a": 0, "b": 1, "c": 2, "[UNK]": 3, "<sep>": 4}


def words(path, unknown="[UNK]"):
  tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for w, i in WORDS.items() if w != "[UNK]" or unknown}, unk_token="[UNK]"))
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  tokenizer.add_special_tokens(["<sep>"])
  tokenizer.save(str(path))
  return str(path)


@pytest.mark.parametrize("text, share, counted", [("a b c a x", 0.2, 0.2), ("a b <sep> c", 0.25, 0.25), ("a b", 0.0, 0.0)])
def test_what_a_tokenizer_does_not_know_is_counted_and_refused_above_a_level(tmp_path, text, share, counted):
  write(tmp_path / "corpus" / "one" / "train.jsonl", [text] * 3)
  write(tmp_path / "corpus" / "one" / "valid.jsonl", ["a b c c c"])
  corpus = Corpus(str(tmp_path / "corpus"), valid_tokens_min=5)
  tokenization = Tokenization("bpe", path=words(tmp_path / "t.json"), end_of_document="<sep>", unknown_max=share)
  store = prepare_store(corpus, tokenization, tmp_path / "store")
  assert store.counts("one", "train").unknown == pytest.approx(counted) and store.counts("one", "valid").unknown == 0
  assert (store.tokens("one", "train") == 4).sum() == 3, "only ends of documents are separators"
  assert open_store(tmp_path / "store").end_of_document == 4
  if share:
    with pytest.raises(InputError, match=f"domain one: {share:.1%} of its train text is unknown to the tokenizer, more than Tokenization.unknown_max = 0.01"):
      prepare_store(corpus, dataclasses.replace(tokenization, unknown_max=0.01), tmp_path / "store")


def test_text_of_another_encoding_is_not_halved_in_silence(tmp_path):
  (tmp_path / "corpus" / "one").mkdir(parents=True)
  (tmp_path / "corpus" / "one" / "a.txt").write_bytes("some text\n\n".encode("utf-16-le") * 2000)
  with pytest.raises(InputError, match="domain one: 50.0% of its train text is unknown to the tokenizer"):
    prepare_store(Corpus(str(tmp_path / "corpus")), Tokenization(), tmp_path / "store")


def test_a_tokenizer_that_cannot_encode_a_text_is_one_line_with_the_domain(tmp_path):
  write(tmp_path / "corpus" / "one" / "train.jsonl", ["a x"])
  write(tmp_path / "corpus" / "one" / "valid.jsonl", ["a b"])
  tokenization = Tokenization("bpe", path=words(tmp_path / "t.json", unknown=None), end_of_document="<sep>")
  with pytest.raises(InputError, match=r"domain one: the tokenizer cannot encode a text \(WordLevel error: Missing \[UNK\] token"):
    prepare_store(Corpus(str(tmp_path / "corpus"), valid_tokens_min=5), tokenization, tmp_path / "store")


def test_unknown_domains_and_splits_name_the_known_ones(store):
  with pytest.raises(InputError, match="no domain 'onn'; did you mean one?"):
    store.tokens("onn", "train")
  with pytest.raises(InputError, match="no split 'test'; known: train, valid"):
    store.tokens("one", "test")
