"""GPT-2's byte-level BPE, encoded by `tiktoken`: the same ids as from the `tokenizers` library, several times as fast.

The two libraries merge by different rules. `tokenizers` merges the pair of the earliest merge; `tiktoken` merges the pair whose joined
bytes are the earliest token. The ids are the same for every text if each token is made by one merge alone, tokens have their
merges' order, parts come before what they make, and each token's own symbols are merged to just this token. Proof, by induction over
merges: up to the first one that differs, the part of the text that `tiktoken` would join to a token was merged as the token's
symbols alone would be, as no pair across its ends was chosen; so the pair is that of the token's one merge.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np
import tiktoken
import tokenizers

# GPT-2's pieces of a text (Radford et al. 2019), with possessive quantifiers, so that long runs of white space cost no backtracking.
_PIECES = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"


class BytePairs:
  """Encodes what `of` was given, where `knows` says so."""

  def __init__(self, ids: dict[bytes, int]):
    self._encoding = tiktoken.Encoding("", pat_str=_PIECES, mergeable_ranks=ids, special_tokens={})
    self._known = set(map(chr, range(128)))

  @classmethod
  def of(cls, spec: Any, tokenizer: tokenizers.Tokenizer) -> BytePairs | None:
    """The same tokenizer.

    Args:
      spec: a tokenizer.json, parsed.
      tokenizer: made of it, as the library reads it.

    Returns:
      None if it is not such a BPE, or if the libraries might disagree.
    """
    model, split = spec["model"], spec.get("pre_tokenizer") or {}
    plain = (model.get("type") == "BPE" and not any(model.get(name) for name in (
        "dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")))
    pieces = split.get("type") == "ByteLevel" and not split.get("add_prefix_space", True) and split.get("use_regex", True)
    added = spec.get("added_tokens") or []
    if not plain or not pieces or spec.get("normalizer") or not all(token["special"] for token in added):
      return None
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    made, bytes_of = ["".join(merge) for merge in merges], dict(zip(byte_symbols(), _BYTES))
    vocabulary = {token: i for token, i in model["vocab"].items() if token not in {token["content"] for token in added}}
    ranks = {token: rank for rank, token in enumerate(made)}
    ordered = sorted(made, key=lambda token: vocabulary.get(token, -1)) == made
    later = any(ranks.get(part, -1) >= ranks[left + right] for left, right in merges for part in (left, right))
    if set(vocabulary) != {*bytes_of, *made} or len(ranks) != len(made) or not ordered or later:
      return None
    for token, i in vocabulary.items():
      if [part.id for part in tokenizer.model.tokenize(token)] != [i]:
        return None
    return cls({bytes(bytes_of[symbol] for symbol in token): i for token, i in vocabulary.items()})

  def knows(self, text: str) -> bool:
    """Whether all characters are in Python's version of Unicode. Of later ones, the libraries may differ in what is a letter."""
    new = set() if text.isascii() else set(text) - self._known
    if any(unicodedata.category(character) == "Cn" for character in new):
      return False
    self._known |= new
    return True

  def encode(self, text: str) -> np.ndarray:
    """The ids of a text, uint32 [n]."""
    return self._encoding.encode_to_numpy(text, disallowed_special=())


def byte_symbols() -> list[str]:
  """GPT-2's printable symbols of the 256 bytes, in the order of their ids: the printable bytes first, then the others."""
  return [chr(b) for b in _PRINTABLE] + [chr(256 + i) for i in range(256 - len(_PRINTABLE))]


def _ranges(*ends: tuple[str, str]) -> Iterable[int]:
  return (b for first, last in ends for b in range(ord(first), ord(last) + 1))


_PRINTABLE = list(_ranges(("!", "~"), ("¡", "¬"), ("®", "ÿ")))
_BYTES = [*_PRINTABLE, *(b for b in range(256) if b not in _PRINTABLE)]
