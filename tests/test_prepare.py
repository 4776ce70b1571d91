"""The prepare entry_point: a table of what it made, and one line with exit code 2 for what it cannot do."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from jaxsplit.data.domains import document_hash
from jaxsplit.data.formats import FORMATS
from jaxsplit.data.store import open_store
from jaxsplit.errors import InputError
from jaxsplit.prepare import main


def test_it_prepares_a_store_and_tells_what_it_holds(tmp_path, capsys):
  main([f"--store={tmp_path / 'store'}", "--gin.Corpus.domains=('speeches', 'standards')"])
  files, _, tokens = capsys.readouterr().out.partition("\n\n")
  assert [line.split()[:4] for line in files.splitlines()[1:3]] == [["speeches", "train", "1", "25"], ["standards", "train", "1", "29"]]
  assert files.splitlines()[3:] == ["not read, about the data: SOURCE.txt",
                                    "not read, not in Corpus.domains: law_us.jsonl.gz, prose_en.jsonl.gz, prose_fr.jsonl.gz"]
  header, *rows, what, last = tokens.splitlines()
  assert header.split() == ["domain", "pieces", "tokens", "bytes", "unique", "tokens", "unknown", "valid", "tokens"]
  store = open_store(tmp_path / "store")
  train = store.counts("speeches", "train")
  assert rows[0].split() == ["speeches", *(f"{n:,}" for n in (
      train.documents, train.tokens, train.bytes, train.unique_tokens)), "0.00%", f"{store.count('speeches', 'valid'):,}"]
  assert what.startswith("pieces: documents to train on, without those left out; a long one counts as several")
  assert len(rows) == 2 and last == f"{tmp_path / 'store'}: bytes, 256 ids, store {store.manifest_hash}"


def test_tokenization_is_bound_by_gin(tmp_path, capsys):
  (tmp_path / "bpe.gin").write_text("Tokenization.kind = 'bpe'\nTokenization.vocab_size = 400\n")
  main([f"--store={tmp_path / 'store'}", f"--gin_file={tmp_path / 'bpe.gin'}", "--gin.Corpus.domains=('speeches',)"])
  assert "bpe, 400 ids" in capsys.readouterr().out
  assert open_store(tmp_path / "store").vocab_size == 400


def write(path, *texts):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def test_list_accounts_for_every_file_and_writes_nothing(tmp_path, capsys):
  for name in ("law/a.jsonl", "law/val.jsonl", "law/c4-test-0.jsonl", "law/list.txt", "law/x.png", "dev-blog/a.jsonl", ".git/config"):
    write(tmp_path / "c" / name, *(f"{name} {i}" for i in range(7)))
  before = sorted(tmp_path.rglob("*"))
  main(["--list", f"--gin.Corpus.path={tmp_path / 'c'}", "--gin.Corpus.exclude=('dev-*',)"])
  lines = capsys.readouterr().out.splitlines()
  assert [line.split()[:4] for line in lines[:4]] == [
      ["domain", "split", "files", "documents"], ["law", "train", "1", "7"], ["law", "valid", "1", "7"], ["law", "test", "1", "7"]]
  assert lines[4:9] == [
      "taken as test, by a word in the name: law/c4-test-0.jsonl", "not read, hidden: .git", "not read, matching Corpus.exclude: dev-blog",
      "not read, text beside files of lines or parquet, named for no split: law/list.txt",
      f"not read, of no format that is read ({FORMATS}): law/x.png"]
  assert [line.split() for line in lines[9:12]] == [[], ["file", "domain", "split", "documents"], [".git", "ignored:", "hidden"]]
  assert [line.split()[:4] for line in lines[13:15]] == [["law/a.jsonl", "law", "train", "7"], ["law/c4-test-0.jsonl", "law", "test", "7"]]
  assert lines[-1] == f"law/x.png  ignored: of no format that is read ({FORMATS})" and len(lines) == 18
  assert sorted(tmp_path.rglob("*")) == before


def test_text_that_its_separator_does_not_divide_is_told_by_file(tmp_path, capsys):
  (tmp_path / "c").mkdir()
  texts = [f"document {i} {'abcdefgh' * 20}" for i in range(60)]
  (tmp_path / "c" / "law.txt").write_text("\n###\n".join(texts))
  (tmp_path / "c" / "med.txt").write_text("\n***\n".join(reversed(texts)))
  given = [f"--gin.Corpus.path={tmp_path / 'c'}", "--gin.Corpus.text_separator=\n###\n", "--gin.Corpus.valid_tokens_min=5"]
  note = r"note: med.txt: one document, as Corpus.text_separator = '\n###\n' is not between any two in it"
  for argv in (["--list"], [f"--store={tmp_path / 's'}"], [f"--store={tmp_path / 's'}"]):  # The last one opens what is there.
    main([*argv, *given])
    assert [line for line in capsys.readouterr().out.splitlines() if "not between" in line] == [note]
  write(tmp_path / "d" / "law.jsonl", *texts)
  main(["--list", f"--gin.Corpus.path={tmp_path / 'd'}", given[1]])
  assert "note: Corpus.text_separator = '\\n###\\n' divides nothing: no file that is read is a .txt; leave it out" in capsys.readouterr().out


def test_what_makes_a_corpus_worth_less_is_said_with_the_numbers(tmp_path, capsys):
  passage = "All work and no play makes Jack a dull boy, and all play and no work makes Jack a poor one. " * 20
  other = next(text for text in map("something else, {}".format, range(99)) if document_hash(text) > document_hash(passage))
  write(tmp_path / "c" / "same_a.jsonl", *(f"document {i} of both {'abcdefgh' * 10}" for i in range(300)))
  write(tmp_path / "c" / "same_b.jsonl", *(f"document {i} of both {'abcdefgh' * 10}" for i in range(300)))
  write(tmp_path / "c" / "again.jsonl", *[passage] * 30, other)
  main([f"--store={tmp_path / 's'}", f"--gin.Corpus.path={tmp_path / 'c'}"])
  notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
  store = open_store(tmp_path / "s")
  train, valid = store.counts("again", "train"), store.counts("again", "valid")
  assert len(notes) == 4 and valid.tokens > train.tokens  # It is the passage that has been drawn, with all of its copies.
  assert f"note: domain again: {valid.tokens:,} validation tokens, more than the {train.tokens:,} that it is trained on" in notes
  assert (f"note: domain again: of its {valid.tokens:,} validation tokens only {valid.unique_tokens:,} ({valid.unique_tokens / valid.tokens:.1%}) "
          "are of different documents; the others repeat these") in notes
  assert any(f"domain again: its validation set has {valid.unique_tokens:,} different tokens" in note for note in notes)
  same = store.counts("same_a", "train").documents
  assert f"note: domains same_a and same_b share {same:,} training documents (100.0% of the {same:,} of same_a); their experts will be alike in them" in notes


def test_nothing_is_said_of_a_good_corpus(tmp_path, capsys):
  main([f"--store={tmp_path / 's'}"])
  assert "note" not in capsys.readouterr().out


def test_files_that_are_a_document_each_may_be_one_domains(tmp_path, capsys):
  for name in "abcd":
    (tmp_path / "law").mkdir(exist_ok=True)
    (tmp_path / "law" / f"{name}.txt").write_text(f"{name} and more of it")
  main(["--list", f"--gin.Corpus.path={tmp_path / 'law'}"])
  assert "note: 4 domains, each of one file with one document" in capsys.readouterr().out
  main(["--list", f"--gin.Corpus.path={tmp_path}"])
  assert "note" not in capsys.readouterr().out


@pytest.mark.parametrize("names, message", [
    (("law/valid.jsonl",), "domain law: valid files but nothing to train on"),
    (("law/a.jsonl", "law/valid/empty.jsonl"), "domain law: no text in its valid files (law/valid/empty.jsonl); add documents"),
    (("law/empty.jsonl",), "domain law: no text in its train files (law/empty.jsonl); add documents")])
def test_list_ends_with_what_training_would_refuse(tmp_path, capsys, names, message):
  for name in names:
    write(tmp_path / "c" / name, *(f"{name} {i}" for i in range(0 if "empty" in name else 7)))
  with pytest.raises(InputError) as listed:
    main(["--list", f"--gin.Corpus.path={tmp_path / 'c'}"])
  assert names[-1] in capsys.readouterr().out
  with pytest.raises(InputError) as prepared:
    main([f"--store={tmp_path / 's'}", f"--gin.Corpus.path={tmp_path / 'c'}"])
  assert message in str(listed.value) and str(listed.value) == str(prepared.value)


def contents(folder):
  return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_list_shows_the_table_and_all_files_that_are_refused(tmp_path, capsys):
  for name, line in (("law/a", '{"text": "one"}'), ("law/meta", '{"path": "a"}'), ("fr/a", '{"text": "un"}'), ("fr/stats", '{"text": null}')):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / f"{name}.jsonl").write_text(f"{line}\n")
  with pytest.raises(InputError, match=r"fr/stats.jsonl:1: field `text` is null, .*; leave such documents out with "
                     r"Corpus.on_bad_document='skip'; or leave the file out with Corpus.exclude=\('fr/stats.jsonl',\) \(1 more file is refused, as listed\)"):
    main(["--list", f"--gin.Corpus.path={tmp_path}"])
  listed = capsys.readouterr().out
  assert "law/a.jsonl     law     train          1" in listed and "law/meta.jsonl  law     train          ?" in listed
  assert f"refused: {tmp_path}/law/meta.jsonl:1: no field `text` (fields: path); name it as Corpus.text_key" in listed
  assert "or leave the file out with Corpus.exclude=('law/meta.jsonl',)\n" in listed
  main(["--list", f"--gin.Corpus.path={tmp_path}", "--gin.Corpus.exclude=('fr/stats.jsonl','law/meta.jsonl')"])
  (tmp_path / "law" / "index[1].json").write_text('["a.jsonl"]')
  with pytest.raises(InputError, match=r"mend that, or leave the file out with Corpus.exclude=\('law/index\[\[\]1\].json',\)$"):
    main([f"--store={tmp_path.parent / 's'}", f"--gin.Corpus.path={tmp_path}", "--gin.Corpus.domains=('law',)",
          "--gin.Corpus.exclude=('law/meta.jsonl',)"])


def test_a_store_of_another_corpus_or_other_settings_is_not_replaced_unasked(tmp_path, capsys):
  for name in "ab":
    write(tmp_path / name / "law.jsonl", *(f"document {i} of {name} {'abcdefgh' * 20}" for i in range(300)))
  store = f"--store={tmp_path / 's'}"
  main([store, f"--gin.Corpus.path={tmp_path / 'a'}"])
  before = contents(tmp_path / "s")
  for given, told in (
      (["--gin.Corpus.path={b}"], "law.jsonl has other content"),
      (["--gin.Corpus.path={a}", "--gin.Corpus.valid_fraction=0.2"], "Corpus.valid_fraction = 0.1 there, 0.2 given"),
      (["--gin.Corpus.path={a}", "--gin.Tokenization.kind=bpe"], "Tokenization.kind = 'bytes' there, 'bpe' given"),
      ([], "1 file only there (law.jsonl); 5 files only in the corpus given (law_us.jsonl.gz, ...)")):
    given = [one.format(a=tmp_path / "a", b=tmp_path / "b") for one in given]
    for more in ([], ["--replace=false"]):
      with pytest.raises(InputError) as error:
        main([store, *given, *more])
      assert str(error.value) == (f"{tmp_path / 's'}: the token store of the corpus {tmp_path / 'a'} lies there, and differs: {told}; "
                                  "name another --store, or give --replace")
    if given:
      with pytest.raises(InputError, match="but not what is given: "):
        main([store, *given, "--check"])
  write(tmp_path / "a" / "more.jsonl", *(f"document {i}" for i in range(900)))
  with pytest.raises(InputError, match="1 file only in the corpus given"):
    main([store, f"--gin.Corpus.path={tmp_path / 'a'}"])
  assert contents(tmp_path / "s") == before
  capsys.readouterr()
  main([store, f"--gin.Corpus.path={tmp_path / 'b'}", "--replace"])
  assert "the corpus is read again, as its token store is of another: " in capsys.readouterr().out and contents(tmp_path / "s") != before
  (tmp_path / "s" / "manifest.json").write_text("{")
  with pytest.raises(InputError, match="a token store lies there that cannot be opened .*; name another --store, or give --replace"):
    main([store, f"--gin.Corpus.path={tmp_path / 'b'}"])


def test_check_reads_everything_again(tmp_path, capsys):
  write(tmp_path / "c" / "law.jsonl", *(f"document {i} {'abcdefgh' * 20}" for i in range(300)))
  argv = [f"--store={tmp_path / 's'}", f"--gin.Corpus.path={tmp_path / 'c'}"]
  main(argv)
  file = tmp_path / "s" / "law.train.bin"
  times = file.stat()
  data = bytearray(file.read_bytes())
  data[0] ^= 1
  file.write_bytes(data)
  os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # A bit has fallen over by itself.
  capsys.readouterr()
  main(argv)
  assert "read again" not in capsys.readouterr().out
  before = contents(tmp_path / "s")
  for given in (argv, argv[:1]):
    with pytest.raises(InputError, match="law.train.bin: has other tokens than were written"):
      main([*given, "--check"])
  assert contents(tmp_path / "s") == before and file.read_bytes() == bytes(data)


def test_check_needs_no_corpus_and_writes_nothing(tmp_path, capsys):
  write(tmp_path / "c" / "law.jsonl", *(f"document {i} {'abcdefgh' * 20}" for i in range(300)))
  argv = [f"--store={tmp_path / 's'}", f"--gin.Corpus.path={tmp_path / 'c'}"]
  with pytest.raises(InputError, match="no token store here"):
    main([*argv, "--check"])
  assert not (tmp_path / "s").exists()
  main(argv)
  (tmp_path / "s" / "times.json").unlink()
  before = contents(tmp_path / "s")
  capsys.readouterr()
  main([*argv, "--check"])
  assert capsys.readouterr().out.startswith("all token files are unchanged, and so are all files of the corpus\n")
  (tmp_path / "c" / "law.jsonl").unlink()
  main([argv[0], "--check"])
  assert capsys.readouterr().out.startswith("all token files are unchanged\n") and contents(tmp_path / "s") == before


@pytest.mark.parametrize("argv, message", [
    ([], "--store is missing"),
    (["--check"], "--store is missing"),
    (["--check", "--replace", "--store=s"], "--check and --replace cannot be given together"),
    (["--store=s", "--gin.Tokenization.kind=bpe", "--gin.Tokenization.path='/'"], "Tokenization.path: / is a folder; name its tokenizer.json"),
    (["--list", "--gin.Corpus.path=''"], "Corpus.path is empty"),
    (["--list", "--gin.Corpus.exclude=('laws',)"], "Corpus.exclude: no file in bundled matches 'laws'"),
    (["--store=s", "--gin.Corpus.pth=x"], "Corpus has no setting pth; did you mean path?"),
    (["--store=s", "--gin.Corpus.path=no/such"], "Corpus.path: no such folder: no/such"),
    (["--store=s", "--gin.Corpus.domains=('prose',)"], "no domain 'prose'; did you mean prose_"),
    (["--store=s", "--gin.Corpus.valid_tokens_min=1000000"], "fewer than Corpus.valid_tokens_min = 1000000"),
])
def test_what_cannot_be_is_one_line(argv, message, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(InputError) as error:
    main(argv)
  assert message in str(error.value) and "\n" not in str(error.value)
  left = [".s.parts"] if "valid_tokens_min" in message else []  # It was read before it was refused.
  assert [path.name for path in tmp_path.iterdir()] == left


def test_the_command_exits_with_2_and_no_traceback():
  command = [sys.executable, "-m", "jaxsplit.prepare", "--stor=x"]
  done = subprocess.run(command, cwd=pathlib.Path(__file__).parents[1], capture_output=True, text=True, check=False)
  assert (done.returncode, done.stdout) == (2, "")
  assert done.stderr == "jaxsplit: unknown flag --stor; did you mean --store or --list or --report?\n"


def test_names_that_python_cannot_read_as_ascii_say_so(tmp_path):
  write(tmp_path / "c" / "\u00fc.jsonl", "text")
  command = [sys.executable, "-m", "jaxsplit.prepare", "--list", f"--gin.Corpus.path={tmp_path / 'c'}"]
  done = subprocess.run(command, cwd=pathlib.Path(__file__).parents[1], env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"},
                        capture_output=True, text=True, check=False)
  assert done.returncode == 2 and done.stderr.count("\n") == 1
  assert "Python's file-name encoding is ascii here; set PYTHONUTF8=1" in done.stderr


@pytest.mark.parametrize("store", ["c/law/s", "link", "x/../c/s", "."])
def test_a_store_within_the_corpus_or_around_it_is_refused(tmp_path, monkeypatch, store):
  write(tmp_path / "c" / "law" / "a.jsonl", "text")
  (tmp_path / "link").symlink_to("c")
  monkeypatch.chdir(tmp_path)
  before = sorted(tmp_path.rglob("*"))
  with pytest.raises(InputError, match=f"--store={store}: (lies in the corpus|the corpus, .*, lies where the token store is to be)"):
    main([f"--store={store}", "--gin.Corpus.path=c"])
  assert sorted(tmp_path.rglob("*")) == before
