"""BPE by tiktoken: the ids of the `tokenizers` library, for every text and every tokenizer that it takes."""

import json
import pathlib
import sys
import unicodedata

import pytest
import tokenizers
from hypothesis import given, settings, strategies

from jaxsplit.data.bpe import learn_bpe, read_merges
from jaxsplit.data.byte_pairs import BytePairs

MERGES = pathlib.Path(__file__).parents[3] / "shared" / "data" / "tokenizers" / "gpt2_merges.vocab.bpe"
DOCUMENTS = ["the cat sat on the mat", "it's the hat of the cats  ", "a rat that sat 1984\n\n\tx", "Die Würde des Menschen",
             "aaaaab aaab aab"] * 4
PIECES = ["the", " cat", "'s", "'ll", "  ", "\n", "\t", "\u3000", " ", "1984", "٣", "!?", "…", "aaaa", "ab", "é",
          "Würde", "数", "\U0001f600", "\0", "\xad", "<|endoftext|>"]


def both(text):
  library = tokenizers.Tokenizer.from_str(text)
  library.encode_special_tokens = True
  return library, BytePairs.of(json.loads(text), library)


@pytest.fixture(scope="module", params=["learned", "gpt2"])
def pair(request):
  if request.param == "gpt2" and not MERGES.exists():
    pytest.skip(f"GPT-2's merges are not at {MERGES}")
  library, fast = both(learn_bpe(DOCUMENTS, 330) if request.param == "learned" else read_merges(MERGES))
  assert fast is not None
  return library, fast


@settings(deadline=None, max_examples=300)
@given(text=strategies.lists(strategies.one_of(strategies.sampled_from(PIECES), strategies.text(max_size=6))).map("".join))
def test_texts_have_the_librarys_ids(pair, text):
  library, fast = pair
  if fast.knows(text):
    assert fast.encode(text).tolist() == library.encode(text, add_special_tokens=False).ids


def test_characters_are_letters_numbers_spaces_or_neither_to_both(pair):
  library, fast = pair
  numbers = [*range(0x3400), *range(0x3400, sys.maxunicode, 16)]  # Every sixteenth where blocks are large.
  characters = [c for c in map(chr, numbers) if unicodedata.category(c) not in ("Cn", "Cs", "Co")]
  for first in range(0, len(characters), 5000):
    text = "".join(f"a{c}1{c}!{c} " for c in characters[first:first + 5000])
    assert fast.knows(text)
    assert fast.encode(text).tolist() == library.encode(text, add_special_tokens=False).ids


def test_a_character_of_a_later_unicode_is_left_to_the_library(pair):
  later = next(c for c in map(chr, range(0x378, 0x10000)) if unicodedata.category(c) == "Cn")
  assert not pair[1].knows(f"a{later}") and pair[1].knows("aé数")


def test_long_white_space_takes_no_backtracking(pair):
  library, fast = pair
  for text in (" " * 10**5, "a" + "\n " * 10**4 + "b"):
    assert fast.encode(text).tolist() == library.encode(text, add_special_tokens=False).ids


def changed(change):
  spec = json.loads(learn_bpe(DOCUMENTS, 330))
  change(spec)
  return both(json.dumps(spec))[1]


def with_merges(*merges):
  """Adds merges, and the tokens that they make."""
  def change(spec):
    vocabulary = spec["model"]["vocab"]
    for left, right in merges:
      vocabulary.setdefault(left + right, len(vocabulary))
      spec["model"]["merges"].append([left, right])
  return change


def test_tokenizers_that_might_differ_are_left_to_the_library():
  cases = {
      "a normalizer": lambda spec: spec.update(normalizer={"type": "NFC"}),
      "a space in front": lambda spec: spec["pre_tokenizer"].update(add_prefix_space=True),
      "no pieces": lambda spec: spec["pre_tokenizer"].update(use_regex=False),
      "dropout": lambda spec: spec["model"].update(dropout=0.1),
      "words taken whole": lambda spec: spec["model"].update(ignore_merges=True),
      "a token that is found in texts": lambda spec: spec["added_tokens"][0].update(special=False),
      "later merges first": lambda spec: spec["model"]["merges"].reverse(),
      "two merges of one token": with_merges(("P", "Q"), ("Q", "R"), ("PQ", "R"), ("P", "QR")),
      "a token that its symbols are never merged to": with_merges(("P", "Q"), ("Q", "R"), ("P", "QR"))}
  assert {name: changed(case) for name, case in cases.items()} == dict.fromkeys(cases)
  assert changed(lambda spec: None) is not None and changed(with_merges(("P", "Q"), ("PQ", "R"))) is not None
