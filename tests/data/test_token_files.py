"""Tokens that exist already: every format gives its ids, and a store of them reads as one of their formats again."""

import json
import struct

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from writing import example, tfrecord

from jaxsplit.data.corpus import Corpus
from jaxsplit.data.plain_tokenizers import ByteTokenizer
from jaxsplit.data.preparation import prepare_store
from jaxsplit.data.store import open_store
from jaxsplit.data.stream import bytes_per_token
from jaxsplit.data.tokenizer import Tokenization
from jaxsplit.errors import InputError
from jaxsplit.prepare import main

END = 299
RNG = np.random.default_rng(0)
DOCUMENTS = [RNG.integers(0, END, RNG.integers(1, 40)) for _ in range(200)]
HELD = [RNG.integers(0, END, 30) for _ in range(10)]
SETTINGS = Tokenization("tokens", vocab_size=300, end_of_document=END)


def stream(documents):
  """Each document followed by the separator."""
  return np.concatenate([np.append(document, END) for document in documents])


def nanogpt(path, documents):
  stream(documents).astype(np.uint16).tofile(path.with_suffix(".bin"))


def wide(path, documents):
  stream(documents).astype("<u4").tofile(path.with_suffix(".bin"))


def llm_c(path, documents, magic=20240520, dtype="<u2"):
  ids = np.roll(stream(documents), 1)  # The separator precedes each document.
  header = np.zeros(256, np.int32)
  header[:3] = magic, 1, len(ids)
  path.with_suffix(".bin").write_bytes(header.tobytes() + ids.astype(dtype).tobytes())


def llama3_c(path, documents):
  llm_c(path, documents, 20240801, "<u4")


def megatron(path, documents, code=4, dtype="<i4", separator=True):
  """Every second document is two sequences."""
  sequences, bounds = [], [0]
  for i, document in enumerate(documents):
    document = np.append(document, END) if separator else document
    sequences += [document[:len(document) // 2], document[len(document) // 2:]] if i % 2 else [document]
    bounds.append(len(sequences))
  sizes = [len(sequence) for sequence in sequences]
  starts = np.cumsum([0, *sizes[:-1]]) * np.dtype(dtype).itemsize
  path.with_suffix(".bin").write_bytes(np.concatenate(sequences).astype(dtype).tobytes())
  path.with_suffix(".idx").write_bytes(b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(sizes), len(bounds)) + np.array(sizes, "<i4").tobytes()
                                       + starts.astype("<i8").tobytes() + np.array(bounds, "<i8").tobytes())


def megatron_short(path, documents):
  megatron(path, documents, 8, "<u2", separator=False)


def npy(path, documents):
  np.save(path.with_suffix(".npy"), stream(documents).astype(np.int64))


def raw_npy(path, documents):
  stream(documents).astype(np.uint16).tofile(path.with_suffix(".npy"))


def table(path, documents):
  parquet.write_table(pa.table({"text": [document.tolist() for document in documents]}), path.with_suffix(".parquet"))


def arrow(path, documents):
  rows = pa.table({"text": pa.array([document.tolist() for document in documents], pa.large_list(pa.int32()))})
  with pa.ipc.new_stream(str(path.with_suffix(".arrow")), rows.schema) as writer:
    writer.write_table(rows)


def examples(path, documents):
  path.with_suffix(".tfrecord").write_bytes(tfrecord([example(text=document.tolist()) for document in documents]))


def lines(path, documents):
  path.with_suffix(".jsonl").write_text("".join(json.dumps({"text": document.tolist()}) + "\n" for document in documents))


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
  """The store of the documents, made from plain lines."""
  folder = tmp_path_factory.mktemp("expected")
  return prepare_store(corpus(folder, lines), SETTINGS, folder / "store")


def corpus(folder, write):
  (folder / "c" / "law").mkdir(parents=True)
  write(folder / "c" / "law" / "train", DOCUMENTS)
  write(folder / "c" / "law" / "val", HELD)
  return Corpus(str(folder / "c"), valid_tokens_min=5)


@pytest.mark.parametrize("write", [nanogpt, wide, llm_c, llama3_c, megatron, megatron_short, npy, raw_npy, table, arrow, examples])
def test_every_format_gives_its_ids_and_reads_back(tmp_path, expected, write):
  settings = Tokenization("tokens", vocab_size=300, end_of_document=END, dtype="uint32" if write is wide else "uint16")
  store = prepare_store(corpus(tmp_path, write), settings, tmp_path / "store")
  assert store.tokens("law", "train").tolist() == stream(DOCUMENTS).tolist() and store.tokens("law", "valid").tolist() == stream(HELD).tolist()
  assert store.manifest_hash == expected.manifest_hash and store.counts("law", "train").documents == len(DOCUMENTS)
  (tmp_path / "again" / "law").mkdir(parents=True)
  for split in ("train", "valid"):  # The file of a store is one of raw ids.
    (tmp_path / "again" / "law" / f"{split}.bin").write_bytes((store.directory / f"law.{split}.bin").read_bytes())
  again = prepare_store(Corpus(str(tmp_path / "again"), valid_tokens_min=5), SETTINGS, tmp_path / "store2")
  assert again.manifest_hash == store.manifest_hash


def test_a_store_without_a_tokenizer_says_so(expected, capsys):
  store = open_store(expected.directory)
  assert (store.tokenizer.kind, store.vocab_size, store.end_of_document) == ("tokens", 300, END)
  assert store.tokenizer.decode([1, 2, 3]) == "1 2 3"
  assert np.isnan(bytes_per_token(store, "law")) and store.windows("law", "train", 16).shape[1] == 17
  with pytest.raises(InputError, match="has no ids for text; prepare it with Tokenization.path"):
    store.tokenizer.encode("text")


def test_a_stream_without_validation_is_divided(tmp_path):
  (tmp_path / "c").mkdir()
  nanogpt(tmp_path / "c" / "law", [*DOCUMENTS, RNG.integers(0, END, 9000)])
  main([f"--store={tmp_path / 's'}", f"--gin.Corpus.path={tmp_path / 'c'}", "--gin.Tokenization.kind=tokens", "--gin.Tokenization.vocab_size=300",
        f"--gin.Tokenization.end_of_document={END}", "--gin.Corpus.valid_tokens_min=5"])
  store = open_store(tmp_path / "s")
  assert store.counts("law", "train").documents + store.counts("law", "valid").documents == len(DOCUMENTS) + 5


def test_a_tokenizer_gives_the_bytes_of_the_text(tmp_path):
  (tmp_path / "c" / "law").mkdir(parents=True)
  ByteTokenizer().save(tmp_path / "bytes.json")
  for split, texts in (("train", ["héllo", "you"]), ("val", ["abc"])):
    np.frombuffer(b"".join(text.encode() + b"\0" for text in texts), np.uint8).astype(np.uint16).tofile(tmp_path / "c" / "law" / f"{split}.bin")
  store = prepare_store(Corpus(str(tmp_path / "c"), valid_tokens_min=1), Tokenization("tokens", path=str(tmp_path / "bytes.json")), tmp_path / "store")
  assert (store.tokenizer.kind, store.bytes("law", "train"), store.bytes("law", "valid")) == ("bytes", 9, 3)


@pytest.mark.parametrize("change, message", [
    (lambda f: (f / "train.bin").write_bytes((f / "train.bin").read_bytes()[:-1]), "no whole number of ids of 2 bytes; give the Tokenization.dtype"),
    (lambda f: np.array([1, 2, 300, 3], np.uint16).tofile(f / "train.bin"), "document 1: id 300 at its place 2 is not below Tokenization.vocab_size = 300"),
    (lambda f: llm_c(f / "train", DOCUMENTS) or (f / "train.bin").write_bytes((f / "train.bin").read_bytes()[:-2]), "where its header says"),
    (lambda f: megatron(f / "train", DOCUMENTS) or (f / "train.bin").write_bytes(b"\0" * 8), "train.bin: shorter than its index says"),
    (lambda f: (f / "train.idx").write_bytes(b"MMIDIDX\0\0" + b"\1" * 9), "train.idx: no index of Megatron's version 1"),
    (lambda f: np.save(f / "other.npy", np.zeros(4)), "other.npy: holds float64, no ids"),
    (lambda f: (f / "other.npy").write_bytes(b"\x93NUMPY\1\0v\0{'descr'"), "other.npy: cannot be read as .npy"),
    (lambda f: (f / "train.bin").rename(f / "train.txt") and (f / "val.bin").rename(f / "valid.txt"), "holds text, where Tokenization.kind='tokens' needs ids")])
def test_bad_files_of_tokens_are_one_line(tmp_path, change, message):
  given = corpus(tmp_path, nanogpt)
  change(tmp_path / "c" / "law")
  with pytest.raises(InputError, match=message) as error:
    prepare_store(given, SETTINGS, tmp_path / "store")
  assert "\n" not in str(error.value) and str(tmp_path / "c" / "law") in str(error.value)


def test_tokens_are_not_taken_for_text(tmp_path):
  given = corpus(tmp_path, nanogpt)
  with pytest.raises(InputError, match="val.bin: holds tokens, not text; give Tokenization.kind='tokens', its vocab_size and its end_of_document"):
    prepare_store(given, Tokenization(), tmp_path / "store")
  (tmp_path / "c" / "law" / "a.jsonl").write_text('{"text": "x"}\n')
  main(["--list", f"--gin.Corpus.path={tmp_path / 'c'}"])


@pytest.mark.parametrize("settings, message", [
    ({"end_of_document": None}, "need the id that separates documents"), ({"end_of_document": 300}, "below Tokenization.vocab_size = 300"),
    ({"end_of_document": "<eos>"}, "need the id"), ({"kind": "bytes"}, "a tokenizer needs the name of its token, not an id"),
    ({"dtype": "uint8"}, "must be uint16 or uint32"), ({"vocab_size": 1}, "Tokenization.vocab_size = 1")])
def test_bad_settings_are_refused(settings, message):
  with pytest.raises(InputError, match=message):
    Tokenization(**{"kind": "tokens", "vocab_size": 300, "end_of_document": 1 if "vocab_size" not in settings else 0, **settings})
