"""Corpus.path: folders, files, patterns, URLs and data sets of TensorFlow Datasets."""

import json
import pathlib

import fsspec
import pytest
from writing import write_records

from jaxsplit.data.corpus import Corpus
from jaxsplit.data.listing import check_apart, list_files
from jaxsplit.data.location import expanded
from jaxsplit.data.preparation import check_store, prepare_store
from jaxsplit.data.tokenizer import Tokenization
from jaxsplit.errors import InputError

C4 = pathlib.Path(__file__).parents[3] / "shared" / "data" / "formats_c4"


def make(root, *names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("".join(json.dumps({"text": f"{name} {i} {'x' * 50}"}) + "\n" for i in range(99)))


def read(table):
  return {domain: {split: [f.path for f in files] for split, files in splits.items()} for domain, splits in table.domains.items()}


@pytest.fixture
def root(tmp_path):
  make(tmp_path, "c/law/a.jsonl", "c/law/b.jsonl", "c/law/val.jsonl", "c/med/a.jsonl", "c/web/00.jsonl", "c/web/01.jsonl", "c4-train.00000.jsonl",
       "c4-train.00001.jsonl", "c4-train.00002.jsonl", "d_00000-of-00002.jsonl", "d_00001-of-00002.jsonl", "odd[1]/law.jsonl", "x{1,2}.jsonl")
  return tmp_path


@pytest.mark.parametrize("path, found", [
    ("c", {"law": {"train": ["law/a.jsonl", "law/b.jsonl"], "valid": ["law/val.jsonl"]}, "med": {"train": ["med/a.jsonl"]},
           "web": {"train": ["web/00.jsonl", "web/01.jsonl"]}}),
    ("c/law/a.jsonl", {"a": {"train": ["a.jsonl"]}}),
    ("c/{law,med}/a.jsonl", {"law": {"train": ["law/a.jsonl"]}, "med": {"train": ["med/a.jsonl"]}}),
    ("c/{law,med}", {"law": {"train": ["law/a.jsonl", "law/b.jsonl"], "valid": ["law/val.jsonl"]}, "med": {"train": ["med/a.jsonl"]}}),
    ("c/*/a.jsonl", {"law": {"train": ["law/a.jsonl"]}, "med": {"train": ["med/a.jsonl"]}}),
    ("c/**/[b]*.jsonl", {"law": {"train": ["law/b.jsonl"]}}),
    ("c/web/{00..01}.jsonl", {"00": {"train": ["00.jsonl"]}, "01": {"train": ["01.jsonl"]}}),
    ("c4-train.{00000..00001}.jsonl", {"c4-train": {"train": ["c4-train.00000.jsonl", "c4-train.00001.jsonl"]}}),
    ("d_*.jsonl", {"d": {"train": ["d_00000-of-00002.jsonl", "d_00001-of-00002.jsonl"]}}),
    ("odd[1]", {"law": {"train": ["law.jsonl"]}}),
    ("x{1,2}.jsonl", {"x{1,2}": None})])
def test_a_path_is_a_folder_a_file_or_a_pattern(root, monkeypatch, path, found):
  monkeypatch.chdir(root)
  for given in (path, str(root / path)):
    if found and None not in found.values():
      assert read(list_files(Corpus(given))) == found
    else:
      with pytest.raises(InputError, match="cannot name a domain"):
        list_files(Corpus(given))


def test_braces_stand_for_paths_in_order():
  assert list(expanded("a{b,c}{8..11}")) == [(f"a{x}{n}", f"a{x}") for x in "bc" for n in (8, 9, 10, 11)]
  assert [path for path, _ in expanded("s-{00098..00101}-of-00128")] == [f"s-{n:05}-of-00128" for n in range(98, 102)]
  for bad in ("a{3..1}", "a{0..999999}"):
    with pytest.raises(InputError, match="give a range upwards"):
      list(expanded(bad))


@pytest.mark.parametrize("path, message", [
    ("gone", "no such folder: gone"), ("c/{law,gone}/a.jsonl", "no file or folder matches c/gone/a.jsonl"), ("c/*.csv", r"matches c/\*.csv"),
    ("c4-train.{00000..00003}.jsonl", "matches c4-train.00003.jsonl"), ("nothing://x/y", "nothing://x/y: cannot be reached"),
    ("tfds:c4", "no data set c4 in"), ("memory://gone", "no such folder: memory://gone")])
def test_a_path_without_files_is_one_line(root, monkeypatch, path, message):
  monkeypatch.chdir(root)
  with pytest.raises(InputError, match=message) as error:
    list_files(Corpus(path, data_dir=str(root)))
  assert "\n" not in str(error.value)


def test_a_file_does_not_make_its_whole_folder_the_corpus(root, monkeypatch):
  monkeypatch.chdir(root)
  for path in ("c/law/a.jsonl", "c4-*.jsonl", "c/{law,med}"):
    check_apart(Corpus(path), "--workdir", "runs/x", "runs/x/store")
  with pytest.raises(InputError, match="lies in the corpus"):
    check_apart(Corpus("c/{law,med}"), "--workdir", "c/med/x", "c/med/x/store")


@pytest.fixture
def remote(root):
  """The corpus c as a folder of fsspec's file system in memory."""
  system = fsspec.filesystem("memory")
  for path in (root / "c").rglob("*.jsonl"):
    system.pipe(f"/bucket/{path.relative_to(root)}", path.read_bytes())
  system.pipe("/bucket/c/law/.hidden", b"x")
  system.pipe("/bucket/c/SOURCE.txt", b"x")
  for kind in ("parquet", "array_record", "arrow"):
    write_records(root / f"new.{kind}", [{"text": f"{kind} {i} {'y' * 60}"} for i in range(99)])
    system.pipe(f"/bucket/c/{kind}/new.{kind}", (root / f"new.{kind}").read_bytes())
  yield system
  system.rm("/bucket", recursive=True)


def test_a_url_is_read_as_a_folder_is(root, remote):
  corpus = Corpus("memory://bucket/c", valid_tokens_min=5)
  table = list_files(corpus)
  assert read(table)["law"] == {"train": ["law/a.jsonl", "law/b.jsonl"], "valid": ["law/val.jsonl"]}
  assert {file.path for file in table.files if file.ignored} == {"law/.hidden", "SOURCE.txt"}
  for kind in ("parquet", "array_record", "arrow"):
    (root / "c" / kind).mkdir()
    (root / f"new.{kind}").rename(root / "c" / kind / f"new.{kind}")
  here = prepare_store(Corpus(str(root / "c"), valid_tokens_min=5), Tokenization(), root / "here")
  store = prepare_store(corpus, Tokenization(), root / "there")
  assert store.manifest_hash == here.manifest_hash and store.domains == ("array_record", "arrow", "law", "med", "parquet", "web")
  before = (root / "there" / "manifest.json").stat().st_mtime_ns
  prepare_store(corpus, Tokenization(), root / "there", lambda line: pytest.fail(line))
  check_store(root / "there", corpus, Tokenization())
  assert (root / "there" / "manifest.json").stat().st_mtime_ns == before
  remote.pipe("/bucket/c/law/a.jsonl", remote.cat("/bucket/c/law/a.jsonl").replace(b"xxx", b"zzz"))
  assert prepare_store(corpus, Tokenization(), root / "there").manifest_hash != store.manifest_hash
  check_apart(corpus, "--workdir", "runs", "runs/store")


@pytest.mark.parametrize("path, domains", [
    ("memory://bucket/c/law/a.jsonl", {"a": 1}), ("memory://bucket/c/{law,med}", {"law": 2, "med": 1}), ("memory://bucket/c/*/a.jsonl", {"law": 1, "med": 1})])
def test_a_url_may_be_a_file_or_a_pattern(remote, path, domains):
  assert {domain: len(splits["train"]) for domain, splits in list_files(Corpus(path)).domains.items()} == domains


def test_a_data_set_of_tensorflow_datasets_is_found_by_name_and_version(tmp_path, monkeypatch):
  import tensorflow_datasets as tfds

  class News(tfds.core.GeneratorBasedBuilder):
    """Two splits of rows with text."""
    name, VERSION, code_path = "news", tfds.core.Version("1.0.0"), None

    def _info(self):
      return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"text": tfds.features.Text()}))

    def _split_generators(self, dl_manager):
      return {"train": self._generate_examples("train", 60), "validation": self._generate_examples("validation", 20)}

    def _generate_examples(self, split, count):
      for i in range(count):
        yield i, {"text": f"{split} {i} {'x' * 40}"}

  monkeypatch.setattr("builtins.print", lambda *_, **__: None)
  News(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
  monkeypatch.undo()
  corpus = Corpus("tfds:news:1.0.0", data_dir=str(tmp_path), valid_tokens_min=5)
  store = prepare_store(corpus, Tokenization(), tmp_path / "store")
  assert store.domains == ("news",) and [store.counts("news", split).documents for split in ("train", "valid")] == [60, 20]
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
  assert read(list_files(Corpus("tfds:news"))) == read(list_files(corpus))
  for path, message in (("tfds:news:2.0.0", "no version 2.0.0 in .*; did you mean 1.0.0"), ("tfds:gnus", "no data set gnus in")):
    with pytest.raises(InputError, match=message):
      list_files(Corpus(path))
  next((tmp_path / "news" / "1.0.0").glob("*train*")).unlink()
  with pytest.raises(InputError, match="0 of the 1 files of split train are there; copy the others, or name those to read as Corpus.include"):
    list_files(corpus)


@pytest.mark.skipif(not C4.is_dir(), reason=f"the real files are not at {C4}")
def test_real_files_of_a_data_set_are_its_own_format_where_that_is_there():
  with pytest.raises(InputError, match="1 of the 8 files of split train are there"):
    list_files(Corpus("tfds:c4/en:3.0.1", data_dir=str(C4)))
  table = list_files(Corpus("tfds:c4/en:3.0.1", data_dir=str(C4), include=("*c4*",)))
  names = {split: [file.path.rpartition("/")[2] for file in files] for split, files in table.domains["c4"].items()}
  assert names == {"train": ["c4-train.array_record-00000-of-00008"],
                   "valid": [f"__local_c4_builder-validation.tfrecord-0000{i}-of-00002" for i in range(2)]}
  folder = list_files(Corpus(str(C4)))
  assert {domain: {split: len(files) for split, files in splits.items()} for domain, splits in folder.domains.items()} == {
      "c4": {"train": 1, "valid": 5}, "hf": {"valid": 1}}
