"""Makes tokenizers from settings, and loads them from files."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import tokenizers

from jaxsplit.data.bpe import END_OF_TEXT, learn_bpe, read_merges
from jaxsplit.data.byte_pairs import BytePairs
from jaxsplit.data.encoding import Encoding, Tokenizer
from jaxsplit.data.plain_tokenizers import AlphabetTokenizer, ByteTokenizer, IdTokenizer
from jaxsplit.data.unpacking import check_no_pointer
from jaxsplit.errors import InputError, nearest
from jaxsplit.files import content_hash, from_home, read_json, write_atomic

# What published tokenizer.json files call the token between documents.
_SEPARATORS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "[SEP]")


@dataclasses.dataclass(frozen=True)
class Tokenization:
  """How text becomes tokens.

  Attributes:
    kind: "bytes" (256 ids), "bpe" (byte-level byte-pair encoding), or "tokens" for a corpus that consists of ids already.
    vocab_size: number of ids of a BPE that is trained on the corpus, or of a corpus of tokens; ignored for bytes and loaded
      tokenizers.
    path: a tokenizer.json or GPT-2 merges (vocab.bpe) to load instead of training one; for a corpus of tokens, the tokenizer that
      made them.
    end_of_document: the token of a loaded tokenizer.json that separates documents, if it has none of the usual names; for a corpus
      of tokens without a tokenizer, the id that separates documents (if there is none, an id that no document has).
    dtype: element type of raw token files (.bin), "uint16" or "uint32".
    unknown_max: maximum fraction of a split's tokens that may be unknown to the tokenizer.
  """

  kind: Literal["bytes", "bpe", "tokens"] = "bytes"
  vocab_size: int = 4096
  path: str | None = None
  end_of_document: str | int | None = None
  dtype: Literal["uint16", "uint32"] = "uint16"
  unknown_max: float = 0.01

  def __post_init__(self):
    if self.kind not in ("bytes", "bpe", "tokens"):
      raise InputError(f"Tokenization.kind = {self.kind!r}: must be bytes, bpe or tokens")
    if self.dtype not in ("uint16", "uint32"):
      raise InputError(f"Tokenization.dtype = {self.dtype!r}: must be uint16 or uint32")
    if self.path is not None and self.kind == "bytes":
      raise InputError(f"Tokenization.path = {self.path!r} needs Tokenization.kind = 'bpe' or 'tokens'")
    if self.path is not None and not self.path.strip():
      raise InputError("Tokenization.path is empty; name a tokenizer.json or GPT-2 merges, or leave it out to train a BPE")
    if self.path is None and self.kind == "tokens":
      if not (isinstance(self.end_of_document, int) and 0 <= self.end_of_document < self.vocab_size):
        raise InputError(f"Tokenization.end_of_document = {self.end_of_document!r}: tokens without Tokenization.path need the "
                         "id that "
                         f"separates documents here, below Tokenization.vocab_size = {self.vocab_size}, as in 50256 of 50257")
    elif isinstance(self.end_of_document, int):
      raise InputError(f"Tokenization.end_of_document = {self.end_of_document}: a tokenizer needs the name of its token, not "
                       "an id")
    elif self.end_of_document is not None and self.path is None:
      raise InputError(f"Tokenization.end_of_document = {self.end_of_document!r} needs Tokenization.path; other tokenizers have "
                       "a separator of their own")
    if not 0 <= self.unknown_max <= 1:
      raise InputError(f"Tokenization.unknown_max = {self.unknown_max}: must be a fraction between 0 and 1")
    if not (2 if self.kind == "tokens" else 257) <= self.vocab_size <= 1 << 20:
      raise InputError(f"Tokenization.vocab_size = {self.vocab_size}: must be from 257 (256 bytes and the separator) to 2^20")


def make_tokenizer(settings: Tokenization, train_documents: Iterable[str]) -> Tokenizer:
  """The tokenizer that the settings ask for; a BPE without a path is trained on `train_documents`."""
  if settings.kind == "bytes":
    return ByteTokenizer()
  if settings.path is None and settings.kind == "tokens":
    return IdTokenizer(settings.vocab_size, settings.end_of_document)
  if settings.path is None:
    return train_bpe(train_documents, settings.vocab_size)
  return load_tokenizer(from_home(settings.path, "Tokenization.path"), settings.end_of_document)


def load_tokenizer(path: str | os.PathLike, separator: str | None = None) -> Tokenizer:
  """Reads a saved tokenizer, a Hugging Face tokenizer.json, or GPT-2 merges (any name that does not end in .json).

  Args:
    path: the file.
    separator: the token of a tokenizer.json that separates documents; None for the first of those with a usual name.

  Raises:
    InputError: no such file, or a file that is none of these, or one that has no such separator.
  """
  path = pathlib.Path(path)
  check_no_pointer(path)
  spec = read_json(path) if path.suffix == ".json" else None
  own = None
  if spec is None:
    own = BPETokenizer(read_merges(path))
  elif isinstance(spec, dict) and spec.get("kind") == "bytes":
    own = ByteTokenizer()
  elif isinstance(spec, dict) and spec.get("kind") == "alphabet" and isinstance(spec.get("symbols"), str):
    own = AlphabetTokenizer(spec["symbols"])
  elif isinstance(spec, dict) and spec.get("kind") == "tokens" and {"vocab_size", "end_of_document"} <= spec.keys():
    own = IdTokenizer(spec["vocab_size"], spec["end_of_document"])
  if own and separator is not None:
    raise InputError(f"{path}: has a separator of its own, and cannot have {separator!r}; leave out Tokenization.end_of_document")
  if own:
    return own
  try:
    return BPETokenizer(path.read_text(encoding="utf-8"), separator)
  except InputError as error:
    raise InputError(f"{path}: {error}") from None
  except Exception as error:  # The library raises plain Exception for whatever its parser dislikes.
    # It quotes the file, however long a token is.
    raise InputError(f"{path}: not a tokenizer.json ({' '.join(str(error)[:160].split())})") from None


class BPETokenizer:
  """A tokenizer of the `tokenizers` library, from the text of its tokenizer.json; byte_pairs.py encodes what it can in its place.

  The name of a special token, met in a document, is encoded as any other text.
  """

  kind = "bpe"

  def __init__(self, text: str, separator: str | None = None):
    # The text is kept as it is: another version of the library may write the same tokenizer in other words.
    self._text = text
    self._tokenizer = tokenizers.Tokenizer.from_str(text)
    self._tokenizer.encode_special_tokens = True
    self._tokenizer.no_truncation()
    self._tokenizer.no_padding()
    vocabulary = self._tokenizer.get_vocab()
    found = next((s for s in ((separator,) if separator is not None else _SEPARATORS) if s in vocabulary), None)
    if found is None and separator is not None:
      raise InputError(f"no token {separator!r} in the tokenizer{nearest(separator, vocabulary)}; give one that it has as "
                       "Tokenization.end_of_document")
    if found is None:
      special = [str(token) for _, token in sorted(self._tokenizer.get_added_tokens_decoder().items())]
      has = f"; it has {', '.join(special[:8])}" if special else ""
      raise InputError(f"the tokenizer has no token that can separate documents (looked for {', '.join(_SEPARATORS)}){has}; name "
                       "one of its tokens that no text has as Tokenization.end_of_document")
    self.separator = separator
    self.end_of_document = vocabulary[found]
    # Published files leave ids unused; the highest one counts.
    self.vocab_size = 1 + max(vocabulary.values())
    self.fingerprint = content_hash("bpe", text, *(() if separator is None else (separator,)))
    self._dtype = np.uint16 if self.vocab_size <= 1 << 16 else np.uint32
    model = self._tokenizer.model
    if isinstance(model, tokenizers.models.BPE) and model.unk_token is None:
      # It would drop what it does not know in silence. So it says where, by an id that is dropped here, and counted.
      model.unk_token = found
    unknown = getattr(model, "unk_token", None)
    self._unknown = vocabulary.get(unknown) if unknown else json.loads(text)["model"].get("unk_id")

  def encode(self, text: str) -> np.ndarray:
    return self.encode_batch([text])[0].ids

  def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
    fast = self._byte_pairs
    known = [fast is not None and fast.knows(text) for text in texts]
    try:
      others = iter(self._tokenizer.encode_batch_fast(
          [text for text, is_known in zip(texts, known) if not is_known], add_special_tokens=False))
    except Exception as error:  # The library raises plain Exception where it finds a text that it has no token for.
      raise InputError(f"the tokenizer cannot encode a text ({' '.join(str(error)[:160].split())}); give one that has a token "
                       "for what it does not know") from None
    return [self._encoding((fast.encode(text) if is_known else np.array(next(others).ids)).astype(self._dtype))
            for text, is_known in zip(texts, known)]

  @functools.cached_property
  def _byte_pairs(self) -> BytePairs | None:
    return BytePairs.of(json.loads(self._text), self._tokenizer)

  def _encoding(self, ids: np.ndarray) -> Encoding:
    separators = ids == self.end_of_document
    dropped = int(np.count_nonzero(separators))
    kept = ids[~separators] if dropped else ids
    unknown = 0 if self._unknown in (None, self.end_of_document) else int(np.count_nonzero(kept == self._unknown))
    return Encoding(kept, unknown + dropped, dropped)

  def decode(self, ids: Iterable[int]) -> str:
    return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

  def name_of(self, token: int) -> str:
    """The name of a token, as its tokenizer.json has it."""
    return self._tokenizer.id_to_token(token)

  def save(self, path: str | os.PathLike) -> None:
    write_atomic(path, self._text)


def train_bpe(documents: Iterable[str], vocab_size: int) -> BPETokenizer:
  """A byte-level BPE learned from documents; the same documents in any order give the same one. See `bpe.learn_bpe`."""
  return BPETokenizer(learn_bpe(documents, vocab_size))
