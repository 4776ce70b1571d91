"""Reading documents: the same text from every format, and one line that says what is wrong with a file."""

import bz2
import gzip
import hashlib
import json
import lzma

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings, strategies
from pyarrow import parquet

from jaxsplit.data.documents import read_documents
from jaxsplit.data.unpacking import BrokenFile, unpacked
from jaxsplit.errors import InputError
from jaxsplit.passages import PASSAGE_CHARACTERS, passages

TEXTS = ["First, with ünïcödé.\n\nTwo paragraphs.", "second\u2028with a line separator", "\U0001f600 third"]


def jsonl(texts):
  return "".join(json.dumps({"id": i, "text": text}, ensure_ascii=i % 2 == 0) + "\n" for i, text in enumerate(texts)).encode()


@pytest.mark.parametrize("suffix, pack", [
    (".jsonl", bytes), (".ndjson", bytes), (".JSON", bytes), (".jsonl.gz", gzip.compress), (".json.gz", gzip.compress), (".JSONL.GZ", gzip.compress),
    (".jsonl.zst", zstandard.compress), (".jsonl.bz2", bz2.compress), (".jsonl.xz", lzma.compress)])
def test_every_format_gives_the_same_documents(tmp_path, suffix, pack):
  path = tmp_path / f"a{suffix}"
  path.write_bytes(pack(jsonl([TEXTS[0], " \n", *TEXTS[1:]]) + b"\n"))
  assert list(read_documents(path)) == TEXTS


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_parquet_gives_the_same_documents(tmp_path, kind):
  texts = [TEXTS[0], " \n", *TEXTS[1:]] * 700
  table = pa.table({"id": range(len(texts)), "text": pa.array(texts, kind)})
  parquet.write_table(table, tmp_path / "a.parquet", row_group_size=300)
  assert list(read_documents(tmp_path / "a.parquet")) == TEXTS * 700


@pytest.mark.parametrize("columns, message", [
    ({"body": ["x"]}, "no column `text` (columns: body)"), ({"text": [1]}, "column `text` is of type int64, not of strings"),
    ({"text": ["x", None]}, "row 2: field `text` is null, not a string"), (None, "cannot be read as parquet")])
def test_a_bad_parquet_file_is_one_line(tmp_path, columns, message):
  path = tmp_path / "a.parquet"
  path.write_bytes(b"PAR1 no more") if columns is None else parquet.write_table(pa.table(columns), path)
  with pytest.raises(InputError) as error:
    list(read_documents(path))
  assert message in str(error.value) and str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.jsonl.gz", "a.parquet", "a.jsonl.zst"])
@pytest.mark.parametrize("pointer, remedy", [
    ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`"),
    ("/annex/objects/SHA256E-s12345--4d7a.jsonl\n", "a pointer of git-annex, not the file itself; fetch it with `git annex get`")])
def test_a_pointer_is_no_text_and_no_broken_archive(tmp_path, name, pointer, remedy):
  (tmp_path / name).write_text(pointer)
  with pytest.raises(InputError) as error:
    list(read_documents(tmp_path / name))
  assert str(error.value) == f"{tmp_path / name}: {remedy}"


def test_a_hash_gets_all_bytes_of_a_file_as_they_lie_on_disk(tmp_path):
  contents = {"a.jsonl": jsonl(TEXTS), "a.txt": b"text", "a.jsonl.gz": gzip.compress(jsonl(TEXTS)) * 2, "a.jsonl.xz": lzma.compress(jsonl(TEXTS)),
              "a.jsonl.bz2": bz2.compress(jsonl(TEXTS)) * 2, "a.jsonl.zst": zstandard.compress(jsonl(TEXTS)) * 2}
  parquet.write_table(pa.table({"text": TEXTS}), tmp_path / "a.parquet")
  contents["a.parquet"] = (tmp_path / "a.parquet").read_bytes()
  for name, content in contents.items():
    (tmp_path / name).write_bytes(content)
    digest = hashlib.sha256()
    assert len(list(read_documents(tmp_path / name, digest))) >= 1
    assert digest.hexdigest() == hashlib.sha256(content).hexdigest(), name


def test_a_text_file_is_one_document_and_a_byte_order_mark_is_no_text(tmp_path):
  path = tmp_path / "a.txt"
  path.write_bytes(b"\xef\xbb\xbf" + TEXTS[0].encode())
  assert list(read_documents(path)) == [TEXTS[0]]
  path.write_text(" \n\t")
  assert list(read_documents(path)) == []


def test_a_file_without_a_last_line_feed_and_a_line_longer_than_a_chunk(tmp_path):
  path = tmp_path / "a.jsonl"
  long = "x y\n" * 700_000
  path.write_bytes(jsonl(["short", long, "last"]).rstrip(b"\n"))
  assert list(read_documents(path)) == ["short", long, "last"]


def test_archives_in_several_frames_are_read_to_the_end(tmp_path):
  zst, gz = tmp_path / "a.jsonl.zst", tmp_path / "a.jsonl.gz"
  zst.write_bytes(b"".join(zstandard.compress(jsonl([text])) for text in TEXTS))
  gz.write_bytes(b"".join(gzip.compress(jsonl([text])) for text in TEXTS))
  assert list(read_documents(zst)) == list(read_documents(gz)) == TEXTS


GOOD = jsonl(["fine"])


@pytest.mark.parametrize("name, content, place, reason", [
    ("a.jsonl", GOOD + b'{"text": "cut of', ":2:", "not a JSON line"),
    ("a.jsonl", GOOD + GOOD + b'{"body": "x"}\n', ":3:", "no field `text` (fields: body)"),
    ("a.jsonl", b'{"text": 7}\n', ":1:", "is a int, not a string"),
    ("a.jsonl", b'{"text": null}\n', ":1:", "is null, not a string"),
    ("a.jsonl", b'["text"]\n', ":1:", "a list where a JSON object"),
    ("a.jsonl", b"[" * 100_000, ":1:", "not a JSON line"),
    ("a.jsonl", b'{"text": "\\ud800"}\n', ":1:", "half a surrogate pair"),
    ("a.jsonl", GOOD + b'{"text": "\xff"}\n', ":2:", "not UTF-8"),
    ("a.txt", b"caf\xe9", ":", "byte 3 is not UTF-8"),
    ("a.jsonl.gz", gzip.compress(GOOD * 1000)[:-20], ":", "broken or truncated"),
    ("a.jsonl.gz", GOOD, ":", "broken or truncated"),
    ("a.jsonl.zst", zstandard.compress(GOOD * 1000)[:-5], ":", "broken or truncated"),
    ("a.jsonl.zst", zstandard.compress(GOOD) + zstandard.compress(GOOD)[:-5], ":", "broken or truncated"),
    ("a.jsonl.zst", GOOD, ":", "broken or truncated"),
    ("a.jsonl.bz2", bz2.compress(GOOD * 1000)[:-20], ":", "broken or truncated"),
    ("a.jsonl.bz2", GOOD, ":", "broken or truncated"),
    ("a.jsonl.xz", lzma.compress(GOOD * 1000)[:-20], ":", "broken or truncated"),
    ("a.jsonl.xz", GOOD, ":", "broken or truncated"),
])
def test_a_bad_file_is_one_line_that_names_the_place(tmp_path, name, content, place, reason):
  path = tmp_path / name
  path.write_bytes(content)
  with pytest.raises(InputError) as error:
    list(read_documents(path))
  assert str(error.value).startswith(f"{path}{place}")
  assert reason in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("packing, pack", [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)])
def test_what_lies_before_a_break_is_read(tmp_path, packing, pack):
  path, data = tmp_path / f"a{packing}", np.random.default_rng(0).bytes(1_500_000).hex().encode()
  path.write_bytes(pack(data)[:-20])
  found = bytearray()
  with pytest.raises(BrokenFile, match="broken or truncated"):
    for chunk in unpacked(path, packing):
      found += chunk
  assert data.startswith(bytes(found)) and len(found) > len(data) - 1_000_000  # A block of bz2 is 900 kB.
  if packing == ".gz":
    assert len(found) > len(data) - 70_000


def test_a_long_document_is_cut_at_paragraphs():
  paragraph = "word " * 300
  document = "\n\n".join([paragraph] * 20)
  pieces = list(passages(document))
  assert "".join(pieces) == document
  assert all(piece.endswith("\n\n") for piece in pieces[:-1])
  assert all(PASSAGE_CHARACTERS // 2 < len(piece) <= PASSAGE_CHARACTERS for piece in pieces[:-1])


@settings(deadline=None, max_examples=30)
@given(strategies.text(alphabet="ab \n", min_size=1, max_size=50), strategies.integers(1, 2000))
def test_passages_lose_nothing_and_are_never_too_long(unit, repeats):
  document = unit * repeats
  pieces = list(passages(document))
  assert "".join(pieces) == document
  assert max(map(len, pieces)) <= PASSAGE_CHARACTERS and min(map(len, pieces)) > 0
