"""Byte-level BPE, trained on documents or converted from GPT-2's merges; either gives the text of a tokenizer.json."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable

import tokenizers

from jaxsplit.data.byte_pairs import byte_symbols
from jaxsplit.errors import InputError

END_OF_TEXT = "<|endoftext|>"  # Separates documents.


def learn_bpe(documents: Iterable[str], vocab_size: int) -> str:
  """Learns a byte-level BPE; the same documents in any order give the same one.

  Source: Sennrich et al., arXiv 1508.07909; over bytes, as in GPT-2 (Radford et al., 2019). A corpus with fewer pairs to merge
  than asked for gives a smaller vocabulary.
  """
  tokenizer = _byte_level(tokenizers.models.BPE())
  trainer = tokenizers.trainers.BpeTrainer(
      vocab_size=vocab_size, special_tokens=[END_OF_TEXT], show_progress=False, min_frequency=2,
      initial_alphabet=byte_symbols())
  tokenizer.train_from_iterator(documents, trainer)
  return tokenizer.to_str()


def read_merges(path: pathlib.Path) -> str:
  """A GPT-2 tokenizer from its merges alone: ids are the 256 byte symbols, then one a merge, then END_OF_TEXT.

  Raises:
    InputError: a file that cannot be read, or holds no such merges.
  """
  try:
    lines = path.read_text(encoding="utf-8").split("\n")
  except FileNotFoundError:
    raise InputError(f"Tokenization.path: no such file: {path}") from None
  except (OSError, UnicodeDecodeError) as error:
    raise InputError(f"{path}: cannot be read as UTF-8 text ({type(error).__name__})") from None
  symbols = byte_symbols()
  vocabulary = {symbol: i for i, symbol in enumerate(symbols)}
  merges = []
  for number, line in enumerate(lines, start=1):
    if not line.strip() or line.startswith("#version"):
      continue
    pair = tuple(line.split(" "))
    if len(pair) != 2 or any(part not in vocabulary for part in pair):
      raise InputError(f"{path}:{number}: not a merge of two known tokens; a file that is no .json must hold GPT-2 merges")
    merges.append(pair)
    vocabulary.setdefault("".join(pair), len(vocabulary))
  if len(vocabulary) != len(symbols) + len(merges):
    raise InputError(f"{path}: {len(merges)} merges make {len(vocabulary) - len(symbols)} tokens; the file repeats a merge")
  if not merges:
    raise InputError(f"{path}: no merges in it")
  tokenizer = _byte_level(tokenizers.models.BPE(vocab=vocabulary, merges=merges))
  tokenizer.add_special_tokens([END_OF_TEXT])
  return tokenizer.to_str()


def _byte_level(model: tokenizers.models.BPE) -> tokenizers.Tokenizer:
  tokenizer = tokenizers.Tokenizer(model)
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = tokenizers.decoders.ByteLevel()
  return tokenizer
