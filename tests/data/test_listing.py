"""The file table: every file of a folder is in it, with its domain and split or the reason why it is not read."""

import json
import os
import pathlib
import re
import shutil
import tempfile

import pytest

from jaxsplit.data.corpus import Corpus
from jaxsplit.data.file_table import CorpusFile, FileTable, load_file_table
from jaxsplit.data.listing import check_apart, list_files
from jaxsplit.errors import InputError


def make(root, *names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps({"text": name}) + "\n")


def read(table):
  return {domain: {split: [f.path for f in files] for split, files in splits.items()} for domain, splits in table.domains.items()}


def ignored(table):
  return {file.path: file.ignored.split(" (")[0] for file in table.files if file.ignored}


@pytest.fixture
def root(tmp_path):
  (tmp_path / "c").mkdir()
  return tmp_path / "c"


def test_folders_and_files_are_domains_and_names_say_the_split(root):
  make(root, *(f"law/{name}" for name in (
      "train-0.jsonl", "other.jsonl", "train/nested/c.txt", "valid.jsonl", "dev.txt", "Validation/a.jsonl", "test_b.jsonl",
      "SOURCE.txt", "LICENSE.mit.txt", "README.txt", ".hidden.txt", ".git/x.txt", "picture.png")), "books.txt", "SOURCE.txt")
  table = list_files(Corpus(str(root)))
  assert read(table) == {
      "books": {"train": ["books.txt"]},
      "law": {
          "train": ["law/other.jsonl", "law/train/nested/c.txt", "law/train-0.jsonl"],
          "valid": ["law/Validation/a.jsonl", "law/dev.txt", "law/valid.jsonl"],
          "test": ["law/test_b.jsonl"],
      },
  }
  assert ignored(table) == {
      "SOURCE.txt": "about the data", "law/.git": "hidden", "law/.hidden.txt": "hidden", "law/LICENSE.mit.txt": "about the data",
      "law/README.txt": "about the data", "law/SOURCE.txt": "about the data", "law/picture.png": "of no format that is read"}
  only = list_files(Corpus(str(root), domains=("books",)))
  assert list(only.domains) == ["books"] and ignored(only)["law/valid.jsonl"] == "not in Corpus.domains"


def test_every_format_counts_whatever_its_case_and_the_rest_is_listed(root):
  make(root, "law/a.jsonl", "law/b.json.gz", "law/c.parquet", "law/d.ndjson.xz", "law/E.JSONL.BZ2", "law/f.jsonl.br", "law/g.csv", "law/notes.txt",
       "law/valid.txt", "wiki.json.gz", "MED.JSONL", "metadata/filenames.txt", "Readme.txt", "notes/only.TXT")
  os.mkfifo(root / "law" / "pipe.jsonl")
  table = list_files(Corpus(str(root)))
  assert read(table) == {
      "MED": {"train": ["MED.JSONL"]}, "notes": {"train": ["notes/only.TXT"]}, "wiki": {"train": ["wiki.json.gz"]},
      "law": {"train": ["law/E.JSONL.BZ2", "law/a.jsonl", "law/b.json.gz", "law/c.parquet", "law/d.ndjson.xz"], "valid": ["law/valid.txt"]}}
  assert ignored(table) == {
      "Readme.txt": "about the data", "metadata": "about the data", "law/f.jsonl.br": "of no format that is read",
      "law/g.csv": "of no format that is read", "law/notes.txt": "text beside files of lines or parquet, named for no split",
      "law/pipe.jsonl": "neither a file nor a folder"}


def test_links_are_followed_and_a_circle_ends(root, tmp_path):
  make(root, "law/a.jsonl")
  make(tmp_path, "elsewhere/med/b.jsonl", "elsewhere/one.jsonl")
  (root / "med").symlink_to(tmp_path / "elsewhere" / "med")
  (root / "law" / "more.jsonl").symlink_to("../../elsewhere/one.jsonl")
  (root / "law" / "up").symlink_to("..")
  (tmp_path / "elsewhere" / "med" / "again").symlink_to(root)
  table = list_files(Corpus(str(root)))
  assert read(table) == {"law": {"train": ["law/a.jsonl", "law/more.jsonl"]}, "med": {"train": ["med/b.jsonl"]}}
  assert ignored(table) == {"law/up/": "a link to a folder that it lies in", "med/again/": "a link to a folder that it lies in"}


def test_include_and_exclude_are_patterns_of_paths(root):
  make(root, "law/a.jsonl", "law/old/b.jsonl", "law/old/c.txt", "med/a.jsonl", "x.csv")
  listed = lambda **patterns: list_files(Corpus(str(root), **patterns))
  assert read(listed(include=("law",))) == {"law": {"train": ["law/a.jsonl", "law/old/b.jsonl"]}}
  assert read(listed(include=("*/a.jsonl",))) == {"law": {"train": ["law/a.jsonl"]}, "med": {"train": ["med/a.jsonl"]}}
  table = listed(exclude=("law/old/", "me?"))
  assert read(table) == {"law": {"train": ["law/a.jsonl"]}}
  assert ignored(table)["law/old"] == ignored(table)["med"] == "matching Corpus.exclude"
  make(root, "metadata/names.txt", "__MACOSX/law/._a.jsonl")
  assert ignored(listed(exclude=("metadata/*",))) | {"metadata": "about the data", "__MACOSX": "hidden"} == ignored(listed(exclude=("metadata/*",)))
  for name in ("include", "exclude"):
    with pytest.raises(InputError, match=rf"Corpus.{name}: no file in .* matches 'lwa/\*'"):
      listed(**{name: ("lwa/*",)})


@pytest.mark.parametrize("prepare, settings, message", [
    (lambda root: shutil.rmtree(root), {}, "Corpus.path: no such folder: "),
    (lambda root: os.mkfifo(root / "x.txt"), {"path": "x.txt"}, "neither a file nor a folder"),
    (lambda root: make(root, "picture.png"), {}, "no texts here that are read"),
    (lambda root: make(root, "speeches.txt"), {"domains": ("speches",)}, "no domain 'speches'; did you mean speeches?"),
    (lambda root: make(root, "speeches.txt"), {"domains": ("../x",)}, "no domain '../x'"),
    (lambda root: make(root, "law/picture.png"), {}, "law: no text in it; put .txt"),
    (lambda root: (make(root, "law.txt"), (root / "med").mkdir()), {}, "med: no text in it"),
    (lambda root: make(root, "law.txt", "law/a.txt"), {}, "domain law is given twice, by law and law.txt"),
    (lambda root: make(root, "law.txt", "law.jsonl"), {}, "domain law is given twice, by law.jsonl and law.txt"),
    (lambda root: make(root, "train/law.txt", "law/a.txt"), {}, "train is a split's name and law a domain's, beside each other"),
    (lambda root: make(root, "law/a.txt", "news.txt", "training/1.txt"), {}, "its path names a split and no domain"),
    (lambda root: make(root, "law/a.txt", "news.txt", "training/doc_1.txt"), {}, "training is a split's name and law a domain's"),
    (lambda root: make(root, "LAW.txt", "law/a.txt"), {}, "domains LAW and law differ in upper and lower case only"),
    (lambda root: make(root, "train.jsonl", "valid.jsonl"), {}, "names a split and no domain"),
    (lambda root: make(root, "a\nb.txt"), {}, "cannot name a domain"),
    (lambda root: (make(root, "law/a.txt"), (root / "law" / "b.txt").symlink_to("gone")), {}, "law/b.txt: is a link to nothing (gone); mend that, or leave it out with Corpus.exclude=('law/b.txt',)"),
    (lambda root: (make(root, "law/a.txt"), (root / "med").symlink_to("/gone/too")), {}, "med: is a link to nothing (/gone/too)"),
    (lambda root: (make(root, "law/a.txt"), (root / "me").symlink_to("me")), {}, "me: is a link to nothing (me)"),
])
def test_a_bad_corpus_is_one_line(root, prepare, settings, message):
  prepare(root)
  settings = {**settings, "path": str(root / settings.get("path", ""))}
  with pytest.raises(InputError) as error:
    list_files(Corpus(**settings))
  assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name, mode", [("secret", 0o000), ("secret/a.txt", 0o000), ("secret", 0o444)])
def test_what_may_not_be_read_is_an_error_unless_it_is_left_out(name, mode):
  root = pathlib.Path(tempfile.mkdtemp())  # Not below pytest's own folder, which other users may not enter.
  try:
    make(root, "law/a.txt", "secret/a.txt")
    root.chmod(0o755)
    (root / name).chmod(mode)
    user = os.geteuid()
    if user == 0:
      os.seteuid(65534)  # Root may read everything.
    try:
      with pytest.raises(InputError, match=r"secret.*: cannot be read \(Permission denied\); mend that, or leave it out with Corpus.exclude="):
        list_files(Corpus(str(root)))
      assert list(list_files(Corpus(str(root), exclude=("secret",))).domains) == ["law"]
    finally:
      os.seteuid(user)
  finally:
    (root / name).chmod(0o755)
    shutil.rmtree(root)


@pytest.mark.parametrize("settings", [{"valid_fraction": 0.0}, {"valid_fraction": 1.0}, {"valid_tokens_min": 0}, {"path": ""}, {"path": " "}])
def test_bad_settings_are_refused(settings):
  with pytest.raises(InputError, match=f"Corpus.{next(iter(settings))}"):
    Corpus(**settings)


@pytest.mark.parametrize("directory", ["c", "c/", "c/runs/x", "link/runs", "c/../c/law", "med/runs", "c/med", "runs/../link"])
def test_a_folder_to_write_to_within_the_corpus_is_refused(root, tmp_path, monkeypatch, directory):
  make(root, "law/a.jsonl")
  make(tmp_path, "med/b.jsonl")
  (root / "med").symlink_to("../med")
  (tmp_path / "link").symlink_to("c")
  monkeypatch.chdir(tmp_path)
  with pytest.raises(InputError, match=f"--workdir={directory}: lies in the corpus .*; name a folder outside"):
    check_apart(Corpus("link/../c"), "--workdir", directory, f"{directory}/store")
  for fine in ("runs", "c2", ".", "medical/c"):
    check_apart(Corpus("c"), "--workdir", fine, f"{fine}/store")
  with pytest.raises(InputError, match="the corpus, .*, lies where the token store is to be, and would be deleted with it"):
    check_apart(Corpus("c"), "--store", ".", ".")


@pytest.mark.parametrize("pattern, directory, inside", [
    ("c/*/*.jsonl", "c/runs", True), ("c/*/*.jsonl", "c/runs/x", False), ("c/**/*.jsonl", "c/runs/deep/x", True), ("c/{law,med}/*", "c/med", True),
    ("c/{law,med}/*", "c/other", False), ("c/*.jsonl", "c/runs", False), ("c/l*", "c/law2/x", True), ("c/l*", "runs", False),
    ("c/law-{0..3}.jsonl", "c/law-2", False)])
def test_a_folder_whose_files_a_pattern_would_match_is_refused_before_it_is_there(tmp_path, monkeypatch, pattern, directory, inside):
  make(tmp_path, "c/law/a.jsonl", "c/a.jsonl", "c/med/b.jsonl", *(f"c/law-{i}.jsonl" for i in range(4)))
  monkeypatch.chdir(tmp_path)
  if inside:
    with pytest.raises(InputError, match=re.escape(f"--workdir={directory}: lies in the corpus (")):
      check_apart(Corpus(pattern), "--workdir", directory, f"{directory}/store")
  else:
    check_apart(Corpus(pattern), "--workdir", directory, f"{directory}/store")


def test_the_table_is_kept_and_told_in_short(tmp_path):
  files = [CorpusFile(f"law/{i}.jsonl", 1000, "law", "train", documents=2) for i in range(5)]
  files += [CorpusFile("law/val, \"x\".jsonl", 10, "law", "valid", doubt="valid, by a word in the name"), CorpusFile("od\nd\udcff.png", 1, ignored="hidden")]
  table = FileTable(tmp_path, tuple(files))
  table.save(tmp_path / "files.csv")
  assert load_file_table(tmp_path / "files.csv", tmp_path) == table
  assert table.lines() == [
      "domain  split  files  documents  bytes on disk",
      "law     train      5         10          5,000",
      "law     valid      1          ?             10",
      "taken as valid, by a word in the name: law/val, \"x\".jsonl",
      "not read, hidden: od\\nd\\udcff.png"]
  assert table.each()[5:] == [
      "law/4.jsonl         law     train          2",
      "law/val, \"x\".jsonl  law     valid          ?  taken as valid, by a word in the name",
      "od\\nd\\udcff.png  ignored: hidden"]
  many = FileTable(tmp_path, (*files[:5], *(CorpusFile(f"law/x/{i:03}.md", 1, ignored="hidden") for i in range(400)), CorpusFile("top.png", 1, ignored="hidden")))
  assert many.each() == [
      "folder  domain  split  files  documents",
      "law/    law     train      5         10",
      "law/x/                   400  ignored: hidden",
      "./                         1  ignored: hidden"]
  (tmp_path / "files.csv").write_text("path,bytes\na,b\n")
  with pytest.raises(InputError, match="files.csv: cannot be read as a file table"):
    load_file_table(tmp_path / "files.csv", tmp_path)


def test_folders_of_hugging_face_and_tensorflow_datasets_read_as_they_are(root):
  make(root, "law/train/data-00000-of-00002.arrow", "law/train/data-00001-of-00002.arrow", "law/test/data-00000-of-00001.arrow", "law/dataset_dict.json",
       "law/train/state.json", "law/train/dataset_info.json", "law/train/cache-1a2b3c.arrow", "med/README.md", "med/data/train-00000-of-00001.parquet",
       "med/data/validation-00000-of-00001.parquet", "c4/en/1.0.0/c4-train.tfrecord-00000-of-00001", "c4/en/1.0.0/c4-validation.tfrecord-00000-of-00001",
       "c4/en/1.0.0/features.json", "owt/train.bin", "owt/train.idx", "med/pytorch_model.bin")
  table = list_files(Corpus(str(root)))
  assert read(table) == {
      "c4": {"train": ["c4/en/1.0.0/c4-train.tfrecord-00000-of-00001"], "valid": ["c4/en/1.0.0/c4-validation.tfrecord-00000-of-00001"]},
      "law": {"test": ["law/test/data-00000-of-00001.arrow"], "train": [f"law/train/data-0000{i}-of-00002.arrow" for i in range(2)]},
      "med": {"train": ["med/data/train-00000-of-00001.parquet"], "valid": ["med/data/validation-00000-of-00001.parquet"]},
      "owt": {"train": ["owt/train.bin"]}}
  assert set(ignored(table).values()) == {"about the data", "the index of a .bin, read with it", "tokens beside text"}


def test_shards_of_one_name_are_one_domain(root):
  make(root, *(f"{name}-0000{i}-of-00002.jsonl.gz" for name in ("law", "c4-train", "c4-validation") for i in range(2)), "med.jsonl")
  assert read(list_files(Corpus(str(root)))) == {
      "c4": {split: [f"c4-{name}-0000{i}-of-00002.jsonl.gz" for i in range(2)] for split, name in (("train", "train"), ("valid", "validation"))},
      "law": {"train": [f"law-0000{i}-of-00002.jsonl.gz" for i in range(2)]}, "med": {"train": ["med.jsonl"]}}
  make(root, "law.jsonl")
  with pytest.raises(InputError, match="domain law is given twice"):
    list_files(Corpus(str(root)))


def test_documents_that_say_their_domain_leave_paths_the_split(root):
  make(root, "train-00000-of-00002.jsonl", "a/valid.jsonl", "x_test.parquet", "notes.txt")
  table = list_files(Corpus(str(root), domains_from="column:source"))
  assert read(table) == {"": {"train": ["train-00000-of-00002.jsonl"], "valid": ["a/valid.jsonl"], "test": ["x_test.parquet"]}}
  assert ignored(table) == {"notes.txt": "text without a field for its domain"}
  for path in ("train-00000-of-00002.jsonl", "a/valid.jsonl", "x_test.parquet"):
    (root / path).unlink()
  with pytest.raises(InputError, match="no text here that has a field for its domain"):
    list_files(Corpus(str(root), domains_from="column:source"))


def test_all_of_a_folder_may_be_one_domain_whatever_its_files_are_called(root):
  make(root, "train-00000-of-00002.jsonl", "a/valid.jsonl", "b.parquet", "notes.txt")
  table = list_files(Corpus(str(root), domains_from="one:law"))
  assert read(table) == {"law": {"train": ["b.parquet", "train-00000-of-00002.jsonl"], "valid": ["a/valid.jsonl"]}}
  with pytest.raises(InputError, match="train.*names more than one split|no domain"):
    list_files(Corpus(str(root)))
  with pytest.raises(InputError, match="'/law' cannot name a domain"):
    list_files(Corpus(str(root), domains_from="one:/law"))


def test_a_list_of_files_beside_the_domains_folders_is_told(tmp_path):
  for name in ("law/a.txt", "fr/a.txt", "paths.txt"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("some text\n")
  doubts = {file.path: file.doubt for file in list_files(Corpus(path=str(tmp_path))).files}
  assert doubts["paths.txt"].startswith("domain paths, though the other domains are folders; if it is notes or a list of files")
  assert not doubts["law/a.txt"] and not doubts["fr/a.txt"]
