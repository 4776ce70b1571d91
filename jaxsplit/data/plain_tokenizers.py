"""Tokenizers with nothing to learn: bytes, the characters of an alphabet, and ids that came without their tokenizer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence

import numpy as np

from jaxsplit.data.encoding import Encoding
from jaxsplit.errors import InputError
from jaxsplit.files import content_hash, write_atomic


class ByteTokenizer:
  """One id a byte of UTF-8. Id 0 separates documents, so NUL characters in a text are dropped, and counted as unknown."""

  kind = "bytes"
  vocab_size = 256
  end_of_document = 0
  separator = None
  fingerprint = content_hash("bytes")

  def encode(self, text: str) -> np.ndarray:
    return self.encode_batch([text])[0].ids

  def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
    encodings = []
    for text in texts:
      data = np.frombuffer(text.encode(), np.uint8)
      ids = data[data != 0].astype(np.uint16)
      encodings.append(Encoding(ids, len(data) - len(ids), len(data) - len(ids)))
    return encodings

  def decode(self, ids: Iterable[int]) -> str:
    return bytes(int(i) for i in ids if i != 0).decode(errors="replace")

  def save(self, path: str | os.PathLike) -> None:
    write_atomic(path, json.dumps({"kind": self.kind}) + "\n")


class AlphabetTokenizer:
  """One id a character of a fixed alphabet, from 1 on; id 0 separates documents."""

  kind = "alphabet"
  end_of_document = 0
  separator = None

  def __init__(self, symbols: str):
    self.symbols = symbols
    self.vocab_size = 1 + len(symbols)
    self.fingerprint = content_hash("alphabet", symbols)
    self._ids = {symbol: i for i, symbol in enumerate(symbols, start=1)}

  def encode(self, text: str) -> np.ndarray:
    try:
      return np.array([self._ids[symbol] for symbol in text], np.uint16)
    except KeyError as error:
      raise InputError(f"character {error} is not in the alphabet {self.symbols!r}") from None

  def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
    return [Encoding(self.encode(text)) for text in texts]

  def decode(self, ids: Iterable[int]) -> str:
    return "".join(self.symbols[int(i) - 1] for i in ids if i != 0)

  def save(self, path: str | os.PathLike) -> None:
    write_atomic(path, json.dumps({"kind": self.kind, "symbols": self.symbols}) + "\n")


class IdTokenizer:
  """Ids of a tokenizer that is not there: neither text to ids, nor back."""

  kind = "tokens"
  separator = None

  def __init__(self, vocab_size: int, end_of_document: int):
    self.vocab_size, self.end_of_document = vocab_size, end_of_document
    self.fingerprint = content_hash("tokens", str(vocab_size), str(end_of_document))

  def encode(self, text: str) -> np.ndarray:
    raise InputError("a store of tokens without a tokenizer has no ids for text; prepare it with Tokenization.path")

  def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
    return [Encoding(self.encode(text)) for text in texts]

  def decode(self, ids: Iterable[int]) -> str:
    return " ".join(str(int(i)) for i in ids)

  def save(self, path: str | os.PathLike) -> None:
    own = {"kind": self.kind, "vocab_size": self.vocab_size, "end_of_document": self.end_of_document}
    write_atomic(path, json.dumps(own) + "\n")
