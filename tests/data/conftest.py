"""A corpus of short texts, and its token store."""

import pytest
from short_texts import TRAIN, VALID, write

from jaxsplit.data.corpus import Corpus
from jaxsplit.data.preparation import prepare_store
from jaxsplit.data.tokenizer import Tokenization


@pytest.fixture
def corpus(tmp_path):
  write(tmp_path / "corpus" / "one" / "train.jsonl", TRAIN)
  write(tmp_path / "corpus" / "one" / "valid.jsonl", VALID)
  write(tmp_path / "corpus" / "two" / "train.jsonl", ["xyz"])
  write(tmp_path / "corpus" / "two" / "valid.jsonl", VALID)
  return Corpus(str(tmp_path / "corpus"), valid_tokens_min=5)


@pytest.fixture
def store(corpus, tmp_path):
  return prepare_store(corpus, Tokenization(), tmp_path / "store")
