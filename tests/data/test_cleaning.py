"""What is left out of a corpus and why: bad documents, short ones, repeated ones, and those that any domain holds out."""

import collections
import hashlib
import json
import os
import re

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from jaxsplit.data import keys
from jaxsplit.data.corpus import Corpus
from jaxsplit.data.parts import DOCUMENT_TABLE
from jaxsplit.data.domains import document_hash
from jaxsplit.data.preparation import prepare_store
from jaxsplit.data.store import open_store
from jaxsplit.data.tokenizer import Tokenization
from jaxsplit.errors import InputError
from jaxsplit.passages import passages
from jaxsplit.prepare import main


def write(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps(row if isinstance(row, dict) else {"text": row}) + "\n" for row in rows))


def numbered(count, what="document", size=100):
  return [f"{what} {i} ".ljust(size, "abcdefgh"[i % 8]) for i in range(count)]


def table(store):
  return parquet.read_table(store.directory / DOCUMENT_TABLE).to_pylist()


def texts(store, domain, split):
  ids = bytes(np.asarray(store.tokens(domain, split)).astype(np.uint8))
  return ids.decode().split("\0")[:-1]


def prepared(tmp_path, path="c", **settings):
  settings.setdefault("valid_tokens_min", 5)
  return prepare_store(Corpus(str(tmp_path / path), **settings), Tokenization(), tmp_path / "store")


def test_every_document_has_a_row(tmp_path):
  write(tmp_path / "c" / "law" / "train.jsonl", ["one", "  ", "two", "held"])
  write(tmp_path / "c" / "law" / "valid.jsonl", ["held"])
  write(tmp_path / "c" / "med.jsonl", numbered(30))
  store = prepared(tmp_path)
  rows = table(store)
  assert list(rows[0]) == ["source", "position", "label", "domain", "split", "pieces", "bytes", "tokens", "sha256", "reason"]
  law = {(row["source"], row["position"]): row for row in rows if row["domain"] == "law"}
  assert law["law/train.jsonl", 0] == {
      "source": "law/train.jsonl", "position": 0, "label": "law", "domain": "law", "split": "train", "pieces": 1, "bytes": 3, "tokens": 4,
      "sha256": hashlib.sha256(b"one").hexdigest(), "reason": None}
  assert [(law["law/train.jsonl", i]["split"], law["law/train.jsonl", i]["reason"]) for i in range(4)] == [
      ("train", None), (None, "empty"), ("train", None), (None, "held out of training")]
  assert law["law/valid.jsonl", 0]["split"] == "valid" and law["law/train.jsonl", 3]["tokens"] is None
  for domain in store.domains:
    for split in store.splits(domain):
      kept, counts = [row for row in rows if (row["domain"], row["split"]) == (domain, split)], store.counts(domain, split)
      assert [sum(row[name] for row in kept) for name in ("pieces", "bytes", "tokens")] == [counts.documents, counts.bytes, counts.tokens]
  assert store.left_out == {"empty": 1, "held out of training": 1}


def test_a_book_whose_passages_are_divided_has_a_row_for_each_split(tmp_path):
  book = "\n\n".join(f"Paragraph {i}. " + "It was a dark night. " * 30 for i in range(300))
  write(tmp_path / "c" / "books.jsonl", [book, "short"])
  rows = table(prepared(tmp_path))
  assert sorted((row["position"], row["split"]) for row in rows) == [(0, "train"), (0, "valid"), (1, "train")]
  long = [row for row in rows if row["position"] == 0]
  assert sum(row["bytes"] for row in long) == len(book) and sum(row["pieces"] for row in long) == len(list(passages(book)))
  assert {row["sha256"] for row in long} == {hashlib.sha256(book.encode()).hexdigest()}


BAD = [b'{"text": "fine 1 xxxxxxxxxxxxxx"}', b'{"text": "\xff"}', b'{"text": "further on \xff"}', b'{"text": "cut', b'{"body": "x"}', b'{"text": null}', b"",
       b'{"text": "fine 2 yyyyyyyyyyyyyy"}']


def test_bad_documents_stop_it_or_are_skipped_and_counted(tmp_path, capsys):
  (tmp_path / "c" / "law").mkdir(parents=True)
  (tmp_path / "c" / "law" / "a.jsonl").write_bytes(b"\n".join(BAD))
  write(tmp_path / "c" / "law" / "b.jsonl", numbered(50))
  parquet.write_table(pa.table({"text": ["p", None]}), tmp_path / "c" / "law" / "c.parquet")
  (tmp_path / "c" / "law" / "d.parquet").write_bytes((tmp_path / "c" / "law" / "c.parquet").read_bytes()[:-30])
  given = [f"--store={tmp_path / 's'}", f"--gin.Corpus.path={tmp_path / 'c'}", "--gin.Corpus.valid_tokens_min=5"]
  with pytest.raises(InputError, match=r"law/a.jsonl:2: byte 10 is not UTF-8"):
    main(given)
  assert not (tmp_path / "s").exists()
  main([*given, "--gin.Corpus.on_bad_document=skip"])
  out = capsys.readouterr().out
  store = open_store(tmp_path / "s")
  assert sum(store.left_out.values()) == 7
  for reason in ("a byte is not UTF-8: 2 documents, the first in law/a.jsonl\n", "not a JSON line (Unterminated string starting at)", "no field `text` (fields: body)",
                 "field `text` is null", "cannot be read as parquet"):
    assert f"left out, {reason}" in out
  assert "1 documents, the first in law/d.parquet\n" in out
  rows = table(store)
  assert [(row["source"], row["position"]) for row in rows if row["reason"]] == [
      *(("law/a.jsonl", i) for i in range(1, 6)), ("law/c.parquet", 1), ("law/d.parquet", 0)]
  assert all(row["split"] is None and row["tokens"] is None and row["sha256"] is None for row in rows if row["reason"])
  with pytest.raises(InputError, match=r"Corpus.on_bad_document = 'skip' there, None given"):
    main(given)
  main(["--list", given[1], "--gin.Corpus.on_bad_document=skip"])
  listed = capsys.readouterr().out
  assert "law/a.jsonl    law     train          2" in listed
  assert f"law/a.jsonl: 5 documents are bad and left out, the first: {tmp_path}/c/law/a.jsonl:2: byte 10 is not UTF-8" in listed


def test_no_domain_trains_on_what_another_holds_out(tmp_path):
  shared = numbered(40, "shared")
  write(tmp_path / "c" / "given" / "train.jsonl", numbered(50, "own"))
  write(tmp_path / "c" / "given" / "valid.jsonl", shared[:10])
  write(tmp_path / "c" / "drawn.jsonl", [*shared, *numbered(60, "more")])
  write(tmp_path / "c" / "small.jsonl", [*shared, *numbered(2, "few")])
  store = prepared(tmp_path)
  held = {text for domain in store.domains for text in texts(store, domain, "valid")}
  trained = {text for domain in store.domains for text in texts(store, domain, "train")}
  assert not held & trained and set(shared[:10]) <= held
  assert len(texts(store, "drawn", "valid")) == 10


def test_repeated_documents_are_kept_or_dropped(tmp_path):
  write(tmp_path / "c" / "a.jsonl", [*numbered(50), *numbered(50), *numbered(5, "both")])
  write(tmp_path / "c" / "b.jsonl", [*numbered(50, "other"), *numbered(5, "both")])
  kept, dropped = prepared(tmp_path), None
  everything = collections.Counter(text for domain in "ab" for split in ("train", "valid") for text in texts(kept, domain, split))
  assert max(everything.values()) == 2 and kept.counts("a", "train").unique_tokens < kept.counts("a", "train").tokens
  dropped = prepared(tmp_path, duplicates="drop")
  once = collections.Counter(text for domain in "ab" for split in ("train", "valid") for text in texts(dropped, domain, split))
  assert set(once.values()) == {1} and set(once) == set(everything)
  assert dropped.overlaps == () and dropped.left_out["a repeated document"] >= 50


@pytest.mark.parametrize("others, among, domains", [
    (("a",), "domain a", "b and a"), (("a", "a2"), "domains a, a2", "b and a, a2")])
def test_a_domain_whose_documents_are_all_those_of_others_is_told_whose(tmp_path, others, among, domains):
  write(tmp_path / "c" / "b.jsonl", numbered(60))
  for i, other in enumerate(others):
    write(tmp_path / "c" / f"{other}.jsonl", [*numbered(60)[i::len(others)], *numbered(9, f"more of {other}")])
  with pytest.raises(InputError) as error:
    prepared(tmp_path, duplicates="drop")
  assert re.fullmatch(rf"domain b: nothing is left of its train split: its \d+ documents and passages are all in {among} too( or are held out \(\d+\))?"
                      r", and of equal documents Corpus.duplicates = 'drop' keeps the first; add documents to b, or name only one of "
                      rf"{domains} in Corpus.domains, or give Corpus.duplicates='keep'", str(error.value))
  assert prepared(tmp_path).domains == ("a", "a2", "b")[::3 - len(others)]
  assert prepared(tmp_path, duplicates="drop", domains=("b",)).domains == ("b",)


def test_a_domain_whose_documents_are_all_held_out_is_told_by_whom(tmp_path):
  write(tmp_path / "c" / "b.jsonl", numbered(60))
  write(tmp_path / "c" / "a" / "valid.jsonl", numbered(60))
  write(tmp_path / "c" / "a" / "train.jsonl", numbered(60, "own"))
  with pytest.raises(InputError, match="domain b: nothing is left of its train split: its 54 documents and passages are all held out too, by domain a; "
                     "add documents to b, or name only one of b and a in Corpus.domains$"):
    prepared(tmp_path)


def test_short_documents_are_left_out(tmp_path):
  write(tmp_path / "c" / "law.jsonl", [*numbered(50), "ünü", "four", "five5"])
  store = prepared(tmp_path, min_characters=5)
  assert store.left_out == {"shorter than Corpus.min_characters": 2}
  assert "five5" in texts(store, "law", "train") + texts(store, "law", "valid")


def test_test_documents_are_drawn_behind_those_of_validation(tmp_path):
  write(tmp_path / "c" / "law.jsonl", numbered(400))
  write(tmp_path / "c" / "med" / "train.jsonl", numbered(100, "med"))
  write(tmp_path / "c" / "med" / "valid.jsonl", numbered(5, "held"))
  plain = prepared(tmp_path)
  valid = texts(plain, "law", "valid")
  store = prepared(tmp_path, test_fraction=0.2)
  assert texts(store, "law", "valid") == valid and len(valid) == 40
  assert len(texts(store, "law", "test")) == 80 and len(texts(store, "law", "train")) == 280
  assert len(texts(store, "med", "test")) == 20 and store.splits("med") == ("train", "valid", "test")
  order = sorted(numbered(400), key=document_hash)
  assert sorted(texts(store, "law", "test"), key=document_hash) == order[40:120]


def test_a_division_is_the_same_however_few_rows_are_held(tmp_path, monkeypatch):
  write(tmp_path / "c" / "a.jsonl", [*numbered(300), *numbered(20)])
  write(tmp_path / "c" / "b.jsonl", [*numbered(40), *numbered(90, "b")])
  whole = prepared(tmp_path, test_fraction=0.1)
  monkeypatch.setattr(keys.by_key, "__defaults__", (7,))
  again = prepare_store(Corpus(str(tmp_path / "c"), valid_tokens_min=5, test_fraction=0.1), Tokenization(), tmp_path / "again")
  assert again.manifest_hash == whole.manifest_hash and again.overlaps == whole.overlaps and table(again) == table(whole)
  assert [again.counts(d, "train") for d in "ab"] == [whole.counts(d, "train") for d in "ab"]


LABELLED = [{"text": text, "meta": {"set": label}} for i, text in enumerate(numbered(200)) for label in (("Law (US)", "math/qa")[i % 2],)]


def test_one_file_with_a_field_of_domains_is_a_corpus(tmp_path, capsys):
  write(tmp_path / "c" / "pile.jsonl", [*LABELLED, {"text": "no label", "meta": {}}])
  given = [f"--store={tmp_path / 's'}", f"--gin.Corpus.path={tmp_path / 'c' / 'pile.jsonl'}", "--gin.Corpus.domains_from=column:meta.set",
           "--gin.Corpus.valid_tokens_min=5"]
  with pytest.raises(InputError, match=r"pile.jsonl:201: no field `meta.set` \(fields: text, meta\); name a field that every document has"):
    main(given)
  main([*given, "--gin.Corpus.on_bad_document=skip"])
  store = open_store(tmp_path / "s")
  assert store.domains == ("Law (US)", "math_qa")
  for domain, first in (("Law (US)", 0), ("math_qa", 1)):
    assert sorted(texts(store, domain, "train") + texts(store, domain, "valid")) == sorted(numbered(200)[first::2])
    assert len(texts(store, domain, "valid")) == 10
  rows = table(store)
  assert {(row["label"], row["domain"]) for row in rows} == {("Law (US)", "Law (US)"), ("math/qa", "math_qa"), (None, None)}
  main(["--list", *given[1:], "--gin.Corpus.on_bad_document=skip"])
  listed = capsys.readouterr().out
  assert "(of each document)  train      1        200" in listed and "column:meta.set 'Law (US)': 100 documents" in listed


def test_domains_of_a_field_take_splits_from_files_and_may_be_chosen(tmp_path):
  write(tmp_path / "c" / "train.jsonl", LABELLED[:150])
  write(tmp_path / "c" / "valid.jsonl", LABELLED[150:170:2])
  settings = dict(domains_from="column:meta.set")
  store = prepared(tmp_path, **settings)
  assert sorted(texts(store, "Law (US)", "valid")) == sorted(row["text"] for row in LABELLED[150:170:2])
  assert len(texts(store, "math_qa", "valid")) == 7, "drawn, as no file has any of it"
  only = prepared(tmp_path, domains=("math_qa",), **settings)
  assert only.domains == ("math_qa",) and only.left_out == {"not in Corpus.domains": 85}
  with pytest.raises(InputError, match="no document of .* has the domain 'math'; did you mean math_qa?"):
    prepared(tmp_path, domains=("math",), **settings)


@pytest.mark.parametrize("labels, message", [
    (["a/b", "a_b"], "'a_b' and 'a/b' of .* are both a_b as the name of a file"), (["Law", "law"], "domains Law and law differ in upper and lower case only"),
    (["-x"], "'-x' cannot name a domain"), ([["law"]], "field `meta.set` is a list, not a string")])
def test_labels_that_are_no_domains_are_one_line(tmp_path, labels, message):
  write(tmp_path / "c" / "pile.jsonl", [{"text": f"document {i} {label}", "meta": {"set": label}} for i in range(9) for label in labels])
  with pytest.raises(InputError, match=message):
    prepared(tmp_path, domains_from="column:meta.set")


@pytest.mark.parametrize("settings, message", [
    ({"domains_from": "column:"}, "must be folder, column:NAME, cluster, cluster:NAME or one:NAME"),
    ({"domains_from": "one:"}, "must be folder, column:NAME, cluster, cluster:NAME or one:NAME"),
    ({"domains_from": "label"}, "must be folder, column:NAME, cluster, cluster:NAME or one:NAME"),
    ({"on_bad_document": "ignore"}, "must be fail or skip"), ({"duplicates": "no"}, "must be keep or drop"), ({"text_key": " "}, "Corpus.text_key is empty"),
    ({"min_characters": -1}, "must be 0 or more"), ({"test_fraction": 0.9}, "leave something to train on")])
def test_bad_settings_are_refused(settings, message):
  with pytest.raises(InputError, match=message):
    Corpus(**settings)


def test_names_that_are_no_text_have_rows_too(tmp_path):
  write(tmp_path / "c" / "law" / "a.jsonl", numbered(40))
  write(tmp_path / "c" / "law" / os.fsdecode(b"od\xffd.jsonl"), ["x" * 30])
  (tmp_path / "c" / "law" / "b.jsonl").write_text('{"odd \\ud800": 1}\n')
  rows = table(prepared(tmp_path, on_bad_document="skip"))
  assert {row["source"] for row in rows} == {"law/a.jsonl", "law/od\\udcffd.jsonl", "law/b.jsonl"}
  assert [row["reason"] for row in rows if row["reason"]] == ["no field `text` (fields: odd \\ud800)"]
