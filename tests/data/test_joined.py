"""A store and a domain that came later, read as one."""

import numpy as np
import pytest

from jaxsplit.data.joined import JoinedStore, join_all
from jaxsplit.data.store import open_store
from jaxsplit.data.store_writer import Document, write_store
from jaxsplit.data.stream import mixture, windows
from jaxsplit.data.tokenizer import AlphabetTokenizer, ByteTokenizer
from jaxsplit.errors import InputError


def make(folder, *domains, tokenizer=ByteTokenizer()):
  documents = lambda domain: [Document(tokenizer.encode(f"{domain}{i}" * 9), 18, f"{domain}{i}".encode()) for i in range(9)]
  return write_store(folder, tokenizer, [(d, split, documents(d)) for d in domains for split in ("train", "valid")], {})


def test_streams_read_both_and_the_mixture_stays_what_it_was(tmp_path):
  first, later, whole = make(tmp_path / "s", "a", "c"), make(tmp_path / "added" / "b", "b"), make(tmp_path / "whole", *"abc")
  joined = join_all(first, tmp_path / "added")
  assert joined.domains == ("a", "b", "c") and joined.manifest_hash == first.manifest_hash
  assert joined.added == {"b": later.manifest_hash} and first.added == {}
  for domain in "abc":
    assert joined.counts(domain, "valid") == whole.counts(domain, "valid")
    np.testing.assert_array_equal(windows(joined, domain, 3, 8).rows(np.arange(40)), windows(whole, domain, 3, 8).rows(np.arange(40)))
  weights = {"a": 1.0, "b": 0.0, "c": 1.0}
  np.testing.assert_array_equal(mixture(joined, weights, 0, 8).rows(np.arange(9)), mixture(first, {"a": 1, "c": 1}, 0, 8).rows(np.arange(9)))
  assert join_all(first, tmp_path / "nothing") is first


def test_what_cannot_be_joined_is_refused(tmp_path):
  first = make(tmp_path / "s", "a")
  with pytest.raises(InputError, match="has a domain a already; take another name"):
    JoinedStore(first, [make(tmp_path / "other", "a")])
  with pytest.raises(InputError, match="are of another tokenizer"):
    JoinedStore(first, [make(tmp_path / "letters", "b", tokenizer=AlphabetTokenizer("b0123456789"))])
  with pytest.raises(InputError, match="has no domain 'b'"):
    JoinedStore(first, [open_store(tmp_path / "s")][:0]).tokens("b", "train")
