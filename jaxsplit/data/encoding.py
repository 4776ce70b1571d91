"""The interface of a tokenizer, and a text as its tokens.

Every tokenizer has one id, `end_of_document`, that follows each document in the token store and that no text produces.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np


class Encoding(NamedTuple):
  """A text as tokens.

  Attributes:
    ids: its ids without separators [n], as uint16, or uint32 for more than 65,536 ids.
    unknown: how many pieces of the text the tokenizer does not know: unknown tokens, and pieces that no id stands for.
    dropped: how many of these no id stands for, or only that of the separator; they are left out of `ids`.
  """

  ids: np.ndarray
  unknown: int = 0
  dropped: int = 0


class Tokenizer(Protocol):
  """What the token store asks of a tokenizer.

  Attributes:
    kind: "bytes", "bpe", "alphabet" or "tokens".
    vocab_size: ids are 0 ... vocab_size - 1.
    end_of_document: the id that separates documents.
    separator: its name, where that was given by the user; what `load_tokenizer` needs to find it again.
    fingerprint: a hash; equal fingerprints give equal ids.
  """

  kind: str
  vocab_size: int
  end_of_document: int
  separator: str | None
  fingerprint: str

  def encode(self, text: str) -> np.ndarray:
    """The ids of a text, [n]."""

  def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
    """Each text as tokens, on all cores where the tokenizer can. InputError where it cannot."""

  def decode(self, ids: Iterable[int]) -> str:
    """The text of some ids; bytes that are no UTF-8 become U+FFFD."""

  def save(self, path: str | os.PathLike) -> None:
    """Writes a file that `load_tokenizer` reads."""
