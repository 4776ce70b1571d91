"""Whatever is in a file that a user hands in: it is read, or refused in one line, soon and in little memory.

Each test starts from files that are right and damages them as bytes (flips, cuts, repeats) or as a tree (other values, missing
and deep ones). The suite runs a few cases each; `JAXSPLIT_FUZZ_CASES=1500 python -m pytest tests/fuzz` runs that many.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import os

import pyarrow
import zstandard
from damage import damaged, damaged_bytes, fuzzed, survives
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from jaxsplit import cli, train
from jaxsplit.checkpoint.checkpoints import Checkpoints
from jaxsplit.checkpoint.manifest import MANIFEST
from jaxsplit.data.documents import read_documents
from jaxsplit.data.store import open_store
from jaxsplit.data.tokenizer import load_tokenizer
from jaxsplit.experiment import ledger
from jaxsplit.experiment.cell_table import CellTable
from jaxsplit.experiment.sizes import Sizes
from jaxsplit.experiment.workdir import Workdir
from jaxsplit.law import load_law, load_plan
from jaxsplit.law import read_cells as read_law_cells
from jaxsplit.law.mapping import parse_columns
from jaxsplit.report.evidence import read_evidence
from jaxsplit.results.cells import read_cells
from jaxsplit.results.stages import Point, totals
from jaxsplit.training.metrics import read_metrics

SIZES = json.dumps({"config": "x", "sizes": [{"size": [8, 1], "params": 1064, "params_total": 9000, "rate": 0.005, "requests": [
    {"seeds": 1, "points": [{"seed_steps": 94, "expert_steps": 37, "role": "grid"}]}]}]}).encode()
LEDGER = json.dumps({"version": 2, "totals": [{"purpose": "grid", "phase": "trunk", "tokens": 9, "flops": 1.0}], "stages": [
    {"purpose": "grid", "name": "d8-l1/trunk/9", "whole": "d8-l1/trunk/9", "size": "d8-l1", "shape": [8, 1], "phase": "trunk",
     "params": 1064, "steps": 9, "runs": [{"domain": None, "replica": 0, "born": 0, "point": None}], "tokens": 9, "flops": 1.0}]}).encode()


@fuzzed
@given(data=st.data())
def test_cells_of_a_law(good, data):
  path = good / "theirs.csv"
  path.write_bytes(data.draw(damaged_bytes((good / "cells.csv").read_bytes())))
  survives(lambda: read_law_cells(path))


@fuzzed
@given(rows=st.lists(st.lists(st.one_of(st.text(max_size=8), st.floats().map(str), st.integers().map(str)), max_size=5), max_size=6))
def test_any_table_as_cells_of_a_law(good, rows):
  out = io.StringIO()
  csv.writer(out).writerows([["params", "loss", "seed_tokens", "expert_tokens", "domain"], *rows])
  (good / "any.csv").write_bytes(out.getvalue().encode(errors="replace"))
  survives(lambda: read_law_cells(good / "any.csv"))


_RECORDS = [{"N": "70M", "D": 1e9 * i, "L": "3,1", "a": {"b": {"value": i}}, "s": "{'k': 1}"} for i in (1, 2, 3)]
_THEIRS = {
    "t.csv": b'N;D;L;s\n"1.000.000";2e9;3,25;"{\'k\': 1}"\n1e6;;nan;x\n', "t.tsv": b"N\tD, all\tL\ts\n1,000\t2B\t3\ta b\n",
    "t.jsonl": "\n".join(map(json.dumps, _RECORDS)).encode(), "t.json": json.dumps(_RECORDS).encode()}
_WORDS = st.one_of(st.sampled_from(["N", "D", "L", "a.b", "s.k", "D, all", "params", "N[M]", "D[B]", "L[ppl]", "s", "x"]),
                   st.text(max_size=8))


@fuzzed
@given(name=st.sampled_from(sorted(_THEIRS)), data=st.data(), words=st.tuples(_WORDS, _WORDS, _WORDS, _WORDS), drop=st.booleans(),
       sign=st.sampled_from(["=", "!=", "<", ">=", ""]), rows=st.sampled_from(["all", "best", "mean"]))
def test_tables_of_other_kinds(good, name, data, words, drop, sign, rows):
  (good / name).write_bytes(data.draw(st.one_of(st.just(_THEIRS[name]), damaged_bytes(_THEIRS[name]))))
  size, tokens, loss, tested = words
  columns = f"params={size},{data.draw(st.sampled_from(['seed_tokens', 'flops']))}={tokens},loss={loss}"
  survives(lambda: read_law_cells(good / name, parse_columns(columns), where=f"{tested}{sign}1", rows=rows, drop_missing=drop))


@fuzzed
@given(data=st.data())
def test_cells_of_an_experiment(good, data):
  path = good / "ours.csv"
  path.write_bytes(data.draw(damaged_bytes((good / "cells.csv").read_bytes())))
  survives(lambda: read_cells(path))
  survives(lambda: CellTable(path, lambda line: None))


def _law():
  layout = {"domains": ["a"], "index": [[0, 1, 2, 3, 4]], "unique_tokens": [None], "shares": [1.0], "rest_tokens": [None]}
  return {"version": 3, "form": "additive", "objective": {}, "parameters": {}, "members": [
      {"form": "additive", "log": True, "repeats": False, "offsets": [], "fix": {}, "tie": {}, "layout": layout, "theta": [1.0] * 5, "samples": [], "weight": 1.0}]}


@fuzzed
@given(data=st.data())
def test_a_law(good, data):
  source = os.environ.get("JAXSPLIT_FUZZ_LAW")  # A whole law.json reaches deeper than this small one.
  text = open(source, "rb").read() if source else json.dumps(_law()).encode()
  (good / "law.json").write_bytes(data.draw(damaged(text)))
  survives(lambda: load_law(good / "law.json"))


@fuzzed
@given(data=st.data())
def test_a_plan(good, data):
  source = os.environ.get("JAXSPLIT_FUZZ_PLAN")
  text = open(source, "rb").read() if source else b'{"version": 1, "fraction": 0.5, "domains": [], "warnings": []}'
  (good / "plan.json").write_bytes(data.draw(damaged(text)))
  survives(lambda: load_plan(good / "plan.json"))


@fuzzed
@given(data=st.data())
def test_a_manifest(good, data):
  manifest = good / "store" / "manifest.json"
  right = manifest.read_bytes()
  try:
    manifest.write_bytes(data.draw(damaged(right)))
    survives(lambda: open_store(good / "store"))
  finally:
    manifest.write_bytes(right)


@fuzzed
@given(data=st.data())
def test_a_tokenizer(good, data):
  text = (good / "tokenizer.json").read_bytes()
  (good / "other.json").write_bytes(data.draw(damaged(text)))
  survives(lambda: load_tokenizer(good / "other.json").encode("some text"))


@fuzzed
@given(data=st.data())
def test_merges(good, data):
  (good / "vocab.bpe").write_bytes(data.draw(damaged_bytes(b"#version: 0.2\ns o\nso m\nsom e\nt e\nte x\n")))
  survives(lambda: load_tokenizer(good / "vocab.bpe").encode("some text"))


CONFIG = b"""# A config.
import_free = 1
Experiment.budget_tokens = 2_000_000
Experiment.sizes = ((16, 2), (32, 2))
Probe.rates = (1e-3, 3e-3)
Architecture.qk_norm = True
Corpus.path = 'bundled'
Training.sequence_length = %LENGTH
LENGTH = 64
"""


@fuzzed
@given(data=st.data())
def test_a_config(good, data):
  extra = data.draw(st.sampled_from((b"", b"import os\n", b"from os import system\n", b"from __gin__ import dynamic_registration\n",
                                     b"include 'config.gin'\n", b"Corpus.path = @os.getcwd()\n", b"x = @gin.singleton()\n", b"include '/etc/passwd'\n")))
  (good / "config.gin").write_bytes(data.draw(damaged_bytes(CONFIG)) + extra)
  survives(lambda: cli.parse("train", "", train.SETTINGS, [f"--gin_file={good / 'config.gin'}"], flags={"workdir": ""}))


@fuzzed
@given(name=st.text(max_size=30), value=st.text(max_size=30))
def test_a_binding_on_the_command_line(name, value):
  survives(lambda: cli.parse("train", "", train.SETTINGS, [f"--gin.{name}={value}", f"--gin.Corpus.path={value}"], flags={"workdir": ""}))


@fuzzed
@given(data=st.data())
def test_documents(good, data):
  suffix = data.draw(st.sampled_from((".jsonl", ".txt", ".jsonl.gz", ".jsonl.zst", ".json.bz2", ".ndjson.xz")))
  path = good / f"documents{suffix}"
  lines = b'{"text": "one"}\n{"text": "two", "more": [1, 2]}\n'
  packed = {"gz": gzip.compress, "zst": zstandard.compress, "bz2": bz2.compress, "xz": lzma.compress}.get(suffix.rsplit(".", 1)[-1], bytes)
  path.write_bytes(data.draw(damaged_bytes(data.draw(st.sampled_from((lines, packed(lines)))))))
  survives(lambda: list(read_documents(path)))


@fuzzed
@given(data=st.data())
def test_parquet(good, data):
  if not (good / "good.parquet").exists():
    parquet.write_table(pyarrow.table({"text": ["one", "two"] * 20, "id": range(40)}), good / "good.parquet")
  (good / "documents.parquet").write_bytes(data.draw(damaged_bytes((good / "good.parquet").read_bytes())))
  survives(lambda: list(read_documents(good / "documents.parquet")))


@fuzzed
@given(data=st.data())
def test_a_work_directory(good, data):
  workdir = good / "workdir"
  config = {"Experiment": {"accounting": "total", "seed": 1, "target": [8, 1]}, "Training": {"sequence_length": 8, "batch_sequences": 2}}
  workdir.mkdir(exist_ok=True)
  (workdir / "config.json").write_bytes(data.draw(damaged(json.dumps(config).encode())))
  (workdir / "metrics.jsonl").write_bytes(data.draw(damaged_bytes(b'{"stage":"a","first_step":0,"steps":1,"loss":[[1.0]]}\n')))
  (workdir / "sizes.json").write_bytes(data.draw(damaged(SIZES)))
  (workdir / "ledger.json").write_bytes(data.draw(damaged(LEDGER)))
  (workdir / "provenance.json").write_bytes(data.draw(damaged(b'{"files": {"law.json": {"sha256": "x"}}, "made_with": {}}')))

  def claim():
    with Workdir(workdir, lambda line: None) as one:
      one.record_provenance({"jax": "x"})
      one.claim(config)

  def ask():
    sizes = Sizes(workdir / "sizes.json", "x", lambda line: None)
    sizes.ask((8, 1), 1, [Point(9, 9, "grid")] if sizes.rate((8, 1)) else [])
    assert all(isinstance(point, Point) for request in sizes.requests((8, 1)) for point in request.points)

  survives(lambda: read_evidence(workdir))
  survives(ask)
  survives(lambda: totals(ledger.recorded(workdir / "ledger.json", lambda line: None)))
  survives(claim)
  survives(lambda: list(read_metrics(workdir / "metrics.jsonl")))


@fuzzed
@given(data=st.data())
def test_a_snapshots_manifest(good, data):
  folder = good / "checkpoints" / "stage" / "10"
  (folder / "state").mkdir(parents=True, exist_ok=True)
  (folder / "state" / "x").write_bytes(b"x")
  manifest = {"version": 1, "about": {"step": 10}, "files": {"x": [1, "00"]}, "check": "00"}
  (folder / MANIFEST).write_bytes(data.draw(damaged(json.dumps(manifest).encode())))
  survives(lambda: Checkpoints(good / "checkpoints", lambda line: None).newest("stage"))
