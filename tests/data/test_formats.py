"""Formats of records: the same documents from each, what is bad skipped one by one, and real files with counts made by other means."""

import io
import itertools
import json
import pathlib
import struct

import pyarrow as pa
import pytest
import zstandard
from array_record.python.array_record_data_source import ArrayRecordDataSource
from hypothesis import given, settings, strategies
from pyarrow import parquet
from tensorflow_datasets.proto.tf_example_generated_pb2 import Example
from writing import example, tfrecord, write_records

from jaxsplit.data.documents import Fields, read_documents, read_records
from jaxsplit.data.formats import format_of, without_shard
from jaxsplit.data.token_files import Ids
from jaxsplit.errors import InputError

C4 = pathlib.Path(__file__).parents[3] / "shared" / "data" / "formats_c4"
CORPORA = C4.parent / "corpora"
TEXTS = ["First, with ünïcödé.\n\nTwo paragraphs.", "second\u2028with a line separator", "\U0001f600 third"]


@pytest.mark.parametrize("name", ["a.array_record", "a.arrayrecord-00000-of-00002", "a.tfrecord", "a.TFRECORD.GZ", "a.tfrecord-00001-of-00002", "a.parquet",
                                  "a.arrow", "file.arrow", "a.json"])
def test_records_give_the_same_documents_by_their_key(tmp_path, name):
  rows = [{"id": str(i), "content": text} for i, text in enumerate([TEXTS[0], " \n", *TEXTS[1:]])]
  name = name.replace("GZ", "gz")
  write_records(tmp_path / name, rows)
  records = list(read_records(tmp_path / name, fields=Fields("content")))
  assert [record.text for record in records] == [row["content"] for row in rows]
  assert [record.position for record in records] == [0, 1, 2, 3]
  assert list(read_documents(tmp_path / name, fields=Fields("content"))) == TEXTS
  with pytest.raises(InputError, match="(no field|no column) `text` .*(content|id).*Corpus.text_key"):
    list(read_documents(tmp_path / name))


def test_shards_have_the_names_that_tensorflow_datasets_gives_them():
  assert format_of("c4-train.array_record-00003-of-00008")[:2] == ("c4-train-00003-of-00008", "array_record")
  assert without_shard(format_of("c4-train-00003-of-00008.JSONL.GZ").stem) == "c4-train"
  assert [format_of(name) for name in ("a.parquet.gz", "a.arrow.zst", "a.bin.gz", "a.csv", "x-00000-of-00001")] == [None] * 5


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.arrow", "a.json"])
def test_a_text_and_a_label_may_lie_in_fields_of_fields(tmp_path, name):
  rows = [{"meta": {"pile_set_name": "law", "n": 1, "body": {"text": "a"}}}, {"meta": {"pile_set_name": "med", "n": 2, "body": {"text": "b"}}}]
  write_records(tmp_path / name, rows)
  read = lambda fields: [(record.text, record.label) for record in read_records(tmp_path / name, fields=fields)]
  assert read(Fields("meta.body.text", "meta.pile_set_name")) == [("a", "law"), ("b", "med")]
  assert read(Fields("meta.body.text", "meta.n")) == [("a", "1"), ("b", "2")]
  (tmp_path / "b.jsonl").write_text('{"meta.text": "by its own name", "meta": {"text": "not this"}}\n')
  assert list(read_documents(tmp_path / "b.jsonl", fields=Fields("meta.text"))) == ["by its own name"]


def test_a_text_file_may_have_separators(tmp_path):
  (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + "one\n<|end|>\ntwo ünï\n<|end|>\n \n<|end|>\nlast".encode())
  fields = Fields(separator="\n<|end|>\n")
  assert [record.text for record in read_records(tmp_path / "a.txt", fields=fields)] == ["one", "two ünï", " ", "last"]
  (tmp_path / "b.txt").write_bytes(b"one|tw\xc3|three")
  one, broken = read_records(tmp_path / "b.txt", fields=Fields(separator="|"))
  assert one.text == "one" and broken.bad == f"{tmp_path / 'b.txt'}: byte 6 is not UTF-8; convert the file to UTF-8"


@settings(deadline=None, max_examples=50)
@given(strategies.lists(strategies.text(max_size=40), max_size=8), strategies.integers(1, 50))
def test_an_array_of_json_is_read_whatever_the_pieces_that_it_comes_in(texts, size):
  from jaxsplit.data.parsing import objects
  data = json.dumps([{"text": text, "n": [1, {"a": None}]} for text in texts], ensure_ascii=False, indent=1).encode()
  pieces = (data[i:i + size] for i in range(0, len(data), size))
  assert [located.row["text"] for located in objects(pathlib.Path("x.json"), pieces)] == texts


@pytest.mark.parametrize("content, read, bad", [
    (b'[{"text": "a"}, {"text": "b"', 1, "element 2: not JSON"), (b'[{"text": "a"}, {"text" "b"}, {"text": "c"}' + b" " * 99 + b"]", 1, "element 2: not JSON"),
    (b'[{"text": "a"}] [{"text": "b"}]', 1, "more behind its array"), (b'[{"text": "a"}, 7]', 1, "element 2: a int where a JSON object is needed")])
def test_a_broken_array_keeps_what_lies_before(tmp_path, content, read, bad):
  (tmp_path / "a.json").write_bytes(content)
  records = list(read_records(tmp_path / "a.json"))
  assert len(records) == read + 1 and bad in records[-1].bad and records[-1].position == read


@pytest.mark.parametrize("name", ["a.array_record", "a.tfrecord", "a.parquet", "a.arrow", "file.arrow"])
def test_a_truncated_file_is_bad_where_it_stops(tmp_path, name):
  path = tmp_path / name
  write_records(path, [{"text": f"document {i} {'x' * 300}"} for i in range(6)])
  whole = path.read_bytes()
  for size in (len(whole) - 1, len(whole) // 2 - 1, 1):
    path.write_bytes(whole[:size])
    records = list(read_records(path))
    assert records[-1].bad.startswith(f"{path}: ") and "\n" not in records[-1].bad and len(records) <= 7
    assert [record.text for record in records[:-1]] == [f"document {i} {'x' * 300}" for i in range(len(records) - 1)]
  if name == "a.tfrecord":
    path.write_bytes(b"no records at all, but text")
    assert "no TFRecord at row 1" in list(read_records(path))[-1].bad


def test_a_record_that_is_bad_is_no_end(tmp_path):
  (tmp_path / "a.tfrecord").write_bytes(tfrecord([example(text="a"), b"\xff\xff", example(body="b"), example(text=[1, 2]), example(text="c")]))
  table = pa.table({"text": pa.array([b"a", b"\xff", b"c"]).cast(pa.binary())})
  parquet.write_table(table, tmp_path / "a.parquet")
  lines = [b'{"text": "a"}', b'{"text": "\xff"}', b'{"text": nul', b'{"text": null}', b'{"body": "x"}', b"[]", b"", b'{"text": "c"}']
  (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
  for name, positions, last in (("a.tfrecord", [1, 2, 3], 4), ("a.parquet", [1], 2), ("a.jsonl", [1, 2, 3, 4, 5], 7)):
    records = list(read_records(tmp_path / name))
    assert [record.position for record in records if record.bad] == positions
    assert [(record.text, record.position) for record in records if not record.bad] == [("a", 0), ("c", last)]


def test_strings_of_parquet_that_are_not_utf8_are_bad_one_by_one(tmp_path):
  broken = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"\xff", b"c"]).buffers())
  parquet.write_table(pa.table({"text": broken}), tmp_path / "a.parquet")
  assert [record.bad.removeprefix(str(tmp_path)) for record in read_records(tmp_path / "a.parquet")] == [
      "", "/a.parquet: row 2 is not UTF-8; convert it to UTF-8", ""]


needs_c4 = pytest.mark.skipif(not C4.is_dir(), reason=f"the real files are not at {C4}")


@needs_c4
def test_real_shards_of_c4_read_with_counts_made_by_other_means():
  expected = {}
  for path in sorted(C4.rglob("*.array_record-*")):
    source = ArrayRecordDataSource([str(path)])
    expected[path] = [bytes(Example.FromString(source[i]).features.feature["text"].bytes_list.value[0]).decode() for i in range(len(source))]
  for path in sorted(C4.glob("c4/en/3.0.1/*.tfrecord-*")):
    expected[path] = [bytes(example.features.feature["text"].bytes_list.value[0]).decode() for example in examples_of(path)]
  for path in C4.rglob("*.parquet"):
    expected[path] = parquet.read_table(path)["text"].to_pylist()
  assert sorted(map(len, expected.values())) == [40, 100, 100, 100, 100, 125]
  for path, texts in expected.items():
    assert list(read_documents(path)) == texts


@needs_c4
def test_real_sequences_of_ids_read_with_counts_made_by_other_means():
  path, = C4.glob("c4/en/3.0.5/*.tfrecord-*")
  expected = [list(example.features.feature["ids"].int64_list.value) for example in examples_of(path)]
  read = list(read_records(path, fields=Fields("ids", ids=Ids(31, 0, "uint16"))))
  assert [record.text.tolist() for record in read] == expected and len(expected) == 1024 and set(map(len, expected)) == {64}


def examples_of(path):
  """The tf.Examples of an uncompressed TFRecord file, by its framing alone."""
  data, at = path.read_bytes(), 0
  while at < len(data):
    size, = struct.unpack_from("<Q", data, at)
    yield Example.FromString(data[at + 12:at + 12 + size])
    at += size + 16


@pytest.mark.skipif(not CORPORA.is_dir(), reason=f"the real corpora are not at {CORPORA}")
@pytest.mark.parametrize("names", [("*/valid*", "*/test*", "speeches_us/*.zst"), pytest.param(("*/train*",), marks=pytest.mark.long)])
def test_real_corpora_read_with_counts_made_by_other_means(names):
  paths = list(itertools.chain.from_iterable(map(CORPORA.glob, names)))
  assert len(paths) == {3: 21, 1: 11}[len(names)]
  for path in paths:
    with path.open("rb") as file:
      stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
      texts = [json.loads(line)["text"] for line in io.TextIOWrapper(stream, encoding="utf-8", newline="\n")]
    read = list(read_documents(path))
    assert read == texts and len(read) > 0
