"""Tokenizer files of a Hugging Face model, from and to ours."""

from __future__ import annotations

import json
import pathlib

from jaxsplit.data.tokenizer import AlphabetTokenizer, BPETokenizer, ByteTokenizer, Tokenizer, load_tokenizer
from jaxsplit.errors import InputError
from jaxsplit.files import read_json, write_atomic, write_json

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
_END = "<|endoftext|>"


def read_tokenizer(directory: pathlib.Path) -> Tokenizer:
  """The tokenizer of a folder. Its separator is the first of the usual names that it has, or the end of a sequence.

  Raises:
    InputError: there is no tokenizer.json, or it has neither.
  """
  if not (directory / FILE).is_file():
    old = next((name for name in ("tokenizer.model", "vocab.json") if (directory / name).is_file()), None)
    raise InputError(f"{directory}: has no {FILE}" + (
        f"; it has {old}: load it with transformers' AutoTokenizer and save it, which writes one" if old else
        "; put the model's tokenizer beside it"))
  try:
    return load_tokenizer(directory / FILE)
  except InputError:
    end = _end_of_sequence(directory)
    if end is None:
      raise
    return load_tokenizer(directory / FILE, end)


def _end_of_sequence(directory: pathlib.Path) -> str | None:
  """The token that the folder's files say ends a sequence."""
  for name in (CONFIG, "special_tokens_map.json"):
    said = read_json(directory / name) if (directory / name).is_file() else {}
    end = said.get("eos_token") if isinstance(said, dict) else None
    end = end.get("content") if isinstance(end, dict) else end
    if isinstance(end, str):
      return end
  return None


def write_tokenizer(directory: pathlib.Path, tokenizer: Tokenizer, context: int) -> None:
  """Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json. Their ids are those of the tokenizer.

  Args:
    directory: the folder, which is there.
    tokenizer: ours.
    context: the tokens that the model reads.

  Raises:
    InputError: a corpus of tokens has no tokenizer.
  """
  if isinstance(tokenizer, BPETokenizer):
    tokenizer.save(directory / FILE)
    end = tokenizer.name_of(tokenizer.end_of_document)
  else:
    end = _END
    write_atomic(directory / FILE, json.dumps(_published(tokenizer), ensure_ascii=False) + "\n")
  special = {"bos_token": end, "eos_token": end}
  write_json(directory / "special_tokens_map.json", special)
  write_json(directory / CONFIG, {"tokenizer_class": "PreTrainedTokenizerFast", **special, "model_max_length": context,
                                  "clean_up_tokenization_spaces": False, "add_bos_token": False, "add_eos_token": False})


def _published(tokenizer: Tokenizer) -> dict:
  """tokenizer.json of bytes or of an alphabet: a BPE without merges, in which what has no id is left out, as here."""
  if isinstance(tokenizer, ByteTokenizer):
    vocab = {_END: 0} | {symbol: i for i, symbol in enumerate(_byte_symbols()) if i}
    pieces = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    decoder = pieces
  elif isinstance(tokenizer, AlphabetTokenizer):
    vocab, pieces, decoder = {_END: 0} | {symbol: i for i, symbol in enumerate(tokenizer.symbols, start=1)}, None, {"type": "Fuse"}
  else:
    raise InputError("the corpus was tokens without a tokenizer, so there is none to write; prepare it with Tokenization.path")
  end = {"id": 0, "content": _END, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
  return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [end], "normalizer": None, "pre_tokenizer": pieces,
          "post_processor": None, "decoder": decoder, "model": {
              "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
              "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": []}}


def _byte_symbols() -> list[str]:
  """The character that stands for each byte in byte-level BPE (GPT-2's table): itself where it can be printed, else one from 256 on."""
  printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
  others = iter(range(256, 512))
  return [chr(byte if byte in printable else next(others)) for byte in range(256)]
