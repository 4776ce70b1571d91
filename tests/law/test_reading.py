"""Other people's tables are read as they are: each way of writing the same twelve runs gives the same cells."""

from __future__ import annotations

import itertools
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxsplit import fit
from jaxsplit.errors import InputError
from jaxsplit.law import read_cells
from jaxsplit.law.mapping import number, parse_columns
from jaxsplit.law.rows import parse_where

N, D = (v.ravel() for v in np.meshgrid([7e7, 1.6e8, 4.1e8, 1.4e9], [1e9, 1e10, 1.5e11], indexing="ij"))
LOSS = (1.8 + 480 * N**-0.35 + 2100 * D**-0.37).round(4)
RUNS = list(zip(N.tolist(), D.tolist(), LOSS.tolist()))


def text(header, rows, separator=",", end="\n"):
  return end.join([header, *(separator.join(map(str, row)) for row in rows)]) + end


def written(header, n=str, d=str, loss=str, separator=",", end="\n"):
  """The runs as text, each number by its own function."""
  return text(header, [(n(x), d(y), loss(z)) for x, y, z in RUNS], separator, end)


def per(unit, suffix=""):
  return lambda value: f"{value / unit:.12g}{suffix}"


def grouped(separator, quote=""):
  return lambda value: f"{quote}{value:,.0f}{quote}".replace(",", separator)


def spent(factor, unit=1.0, more=()):
  """Rows of N, FLOPs and loss."""
  return [(n, factor * n * d / unit, *more, loss) for n, d, loss in RUNS]


def records():
  return [{"N": n, "D": d, "loss": loss} for n, d, loss in RUNS]


def nested():
  return [{"config": {"model": {"n": n}}, "D": d, "eval": {"val/loss": loss}} for n, d, loss in RUNS]


def tracked(n, d, loss, state="finished"):
  """A run as experiment trackers export it with their Python client: dictionaries as text."""
  summary, config = {"_step": 9, "eval": {"loss": loss}}, {"model": {"n": n}, "tokens": {"desc": None, "value": d}}
  return f'"{summary}","{config}",{state}'


def cells_of_a_tracker():
  quoted = lambda *values: tuple(f'"{value}"' for value in values)
  runs = [quoted(f"run-{i}", "finished", f"{n:.0f}", f"{d:.0f}", loss) for i, (n, d, loss) in enumerate(RUNS)]
  return text('"Name","State","n_params","tokens","eval/loss"', [*runs, quoted("run-x", "crashed", 70000000, 1000000, "")])


ND = "params=N,seed_tokens=D"
# Of each: the file's name, its text, --columns, and further settings of `read_cells`.
TABLES = {
    "plain": ("t.csv", written("params,seed_tokens,loss"), "", {}),
    "flops": ("t.csv", text("Model Size,Training FLOP,L", spent(6)), "params=Model Size,flops=Training FLOP,loss=L", {}),
    "flops that nobody mapped": ("t.csv", text("params,flops,loss", spent(6)), "", {}),
    "a factor of the FLOPs": ("t.csv", text("N,C,L", spent(8)), "params=N,flops=C,loss=L", {"flop_factor": 8}),
    "FLOPs in a unit": ("t.csv", text("N,C,L", spent(6, 1e18)), "params=N,flops=C[1e18],loss=L", {}),
    "FLOPs of seed and expert": ("t.csv", text("N,C,D2,L", spent(6, more=(0,))), "params=N,flops=C,expert_tokens=D2,loss=L", {}),
    "units": ("t.csv", written("N,D,L", per(1e6), per(1e9)), "params=N[M],seed_tokens=D[B],loss=L", {}),
    "a unit in the name": ("t.csv", written("params (M),tokens [B],loss", per(1e6), per(1e9)),
                           "params=params (M)[M],seed_tokens=tokens [B][B]", {}),
    "a batch as unit": ("t.csv", written("N,steps,loss", d=per(5e5)), "params=N,seed_tokens=steps[500000]", {}),
    "suffixes": ("t.csv", written("N,D,loss", per(1e6, "M"), per(1e9, "B")), ND, {}),
    "suffixes, small and apart": ("t.csv", written("N,D,loss", per(1e6, "m"), per(1e9, " b")), ND, {}),
    "thousands": ("t.csv", written("N,D,loss", grouped(",", '"'), grouped(",", '"')), ND, {}),
    "thousands by spaces": ("t.csv", written("N,D,loss", grouped(" "), grouped("\u202f")), ND, {}),
    "thousands by other signs": ("t.csv", written("N,D,loss", grouped("_"), grouped("'")), ND, {}),
    "names with commas": ("t.csv", written('"N, non-embedding","tokens, seen",loss'),
                          "params=N, non-embedding,seed_tokens=tokens, seen", {}),
    "quoted names with units": ("t.csv", written('"N, in M",D=,loss', per(1e6)), 'params="N, in M"[M],seed_tokens="D="', {}),
    "semicolons": ("t.csv", written("N;D;loss", separator=";"), ND, {}),
    "semicolons and decimal commas": (
        "t.csv", written("N;D;loss", grouped("."), per(1), lambda v: f"{v:.4f}".replace(".", ","), ";"), ND, {}),
    "semicolons and thousands": ("t.csv", written("N;D;loss", grouped(","), grouped(","), separator=";"), ND, {}),
    "tabs": ("t.tsv", written("N\tD, all\tloss", separator="\t"), "params=N,seed_tokens=D, all", {}),
    "tabs in a csv": ("t.csv", text("N\tD\tnote, if any\tloss", [(n, d, "a, b", v) for n, d, v in RUNS], "\t"), ND, {}),
    "bars in a text file": ("t.txt", written("N|D|loss", separator="|", end="\r\n"), ND, {}),
    "JSON lines": ("t.jsonl", "\n".join(map(json.dumps, records())) + "\n\n", ND, {}),
    "nested JSON lines": ("t.ndjson", "\n".join(map(json.dumps, nested())),
                          "params=config.model.n,seed_tokens=D,loss=eval.val/loss", {}),
    "JSON records": ("t.json", json.dumps(records()), ND, {}),
    "JSON columns": ("t.json", json.dumps({"N": N.tolist(), "D": dict(enumerate(D.tolist())), "loss": LOSS.tolist()}), ND, {}),
    "a tracker's table": ("export.csv", cells_of_a_tracker(), "params=n_params,seed_tokens=tokens,loss=eval/loss",
                          {"where": "State=finished"}),
    "a tracker's dictionaries": (
        "project.csv", text(",summary,config,state", [*((i, tracked(*run)) for i, run in enumerate(RUNS)),
                                                      (12, tracked(1e9, 1e9, 9.0, "failed"))]),
        "params=config.model.n,seed_tokens=config.tokens,loss=summary.eval.loss", {"where": "state=finished"}),
    "rows of two roles": (
        "t.csv", text("N,D,loss,role,step", [(*run, *more) for run in RUNS for more in (("train", 10), ("valid", 10), ("train", 2))]),
        ND, {"where": "role=train,step>5"}),
    "settings, the best of each": (
        "t.csv", text("N,D,loss,lr", [(n, d, v + off, lr) for n, d, v in RUNS for lr, off in ((1, 0.3), (2, 0), (3, 0.1))]), ND,
        {"rows": "best"}),
    "seeds, the mean of each": (
        "t.csv", text("N,D,loss", [(n, d, v + off) for n, d, v in RUNS for off in (-0.01, 0, 0.01)]), ND, {"rows": "mean"}),
    "missing numbers": (
        "t.csv", text("N,D,loss", [*RUNS, ("", 1e9, 3.0), (1e9, "N/A", 3.0), (1e9, 1e9, "nan"), (1e9, 1e9, "inf")]), ND,
        {"drop_missing": True}),
    "perplexity": ("t.csv", written("N,D,val_ppl", loss=lambda v: repr(float(np.exp(v)))), f"{ND},loss=val_ppl[ppl]", {}),
    "bits": ("t.csv", written("N,D,bits", loss=lambda v: repr(float(v / np.log(2)))), f"{ND},loss=bits[bits]", {}),
    "columns of ours that are not": (
        "t.csv", text("params,seed_tokens,loss,weight,status,role,epochs", [(*run, 0, "done", "base", 3) for run in RUNS]), "", {}),
    "a domain with spaces around": (
        "t.csv", text("N,D,loss,set", [(*run, pad) for run, pad in zip(RUNS, itertools.cycle(('" web"', '"web "', "web")))]),
        f"{ND},domain=set", {}),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_same_runs_however_they_are_written(tmp_path, name):
  file, content, columns, settings = TABLES[name]
  (tmp_path / file).write_text(content, encoding="utf-8")
  cells = read_cells(tmp_path / file, parse_columns(columns), **settings)
  order = np.lexsort((cells.seed_tokens, cells.params))
  np.testing.assert_allclose(cells.params[order], N, rtol=1e-9)
  np.testing.assert_allclose(cells.seed_tokens[order], D, rtol=1e-9)
  np.testing.assert_allclose(cells.loss[order], LOSS, rtol=1e-9)
  assert len(cells.domains) == 1 and (cells.expert_tokens == 0).all() and (cells.weight == 1).all() and np.isnan(cells.epochs).all()
  left = len(cells.source["dropped"]) and sum(cells.source["dropped"].values())
  lines = cells.source["rows"] - left
  assert lines == (len(cells) if "merged" not in cells.source else cells.source["merged"]["rows"])
  assert bool(cells.source.get("remarks")) == (name == "columns of ours that are not")


def test_dictionaries_as_python_writes_them_with_numpys_numbers_and_nan(tmp_path):
  rows = [f'"{{\'n\': np.int64({int(n)}), \'lr\': nan, \'x\': [inf, -inf]}}","{{\'d\': {int(d)}, \'loss\': np.float64({v})}}"' for n, d, v in RUNS]
  (tmp_path / "t.csv").write_text("\n".join(["config,summary", *rows]))
  cells = read_cells(tmp_path / "t.csv", parse_columns("params=config.n,seed_tokens=summary.d,loss=summary.loss"))
  assert cells.params.tolist() == N.tolist() and cells.loss.tolist() == LOSS.tolist()


def test_roles_that_are_none_of_ours_are_told(tmp_path):
  (tmp_path / "t.csv").write_text(text("N,D,loss,kind", [(*run, kind) for run in RUNS for kind in ("gird", "grid")]))
  columns = parse_columns(f"{ND},role=kind")
  assert read_cells(tmp_path / "t.csv", columns).source["remarks"] == [
      "column kind has gird 12, no role of ours (probe, grid, split, dense, uneven, added, router, base): rows of role grid are fitted, so leave "
      "role unmapped, and choose rows with --where"]
  (tmp_path / "t.csv").write_text(text("N,D,loss,kind", [(*run, kind) for run in RUNS for kind in ("split", "grid")]))
  assert "remarks" not in read_cells(tmp_path / "t.csv", columns).source


def test_parquet_holds_what_text_does(tmp_path):
  table = {"n": pa.array(N.astype(int)), "stats": pa.array([{"loss": v, "d": d} for v, d in zip(LOSS, D)]), "state": pa.array(["ok"] * 12)}
  pq.write_table(pa.table(table), tmp_path / "t.parquet")
  cells = read_cells(tmp_path / "t.parquet", {"params": "n", "seed_tokens": "stats.d", "loss": "stats.loss"}, where="state=ok")
  assert cells.seed_tokens.tolist() == D.tolist() and cells.loss.tolist() == LOSS.tolist()


def test_the_fit_door_reads_them(tmp_path, capsys):
  file, content, columns, _ = TABLES["settings, the best of each"]
  (tmp_path / file).write_text(content)
  fit.main([f"--cells={tmp_path / file}", f"--columns={columns}", "--rows=best", "--where=lr!=3", "--drop_missing", "--form=chinchilla",
            "--bootstrap=0", "--starts=8", "--holdout=none", f"--out={tmp_path / 'law.json'}"])
  told = capsys.readouterr().out
  assert "12 cells, the best of 24 rows at each point (left out: 12 not lr!=3)" in told
  record = json.loads((tmp_path / "law.json").read_text())
  assert record["data"]["merged"] == {"rows": 24, "points": 12, "by": "best"} and record["parameters"]["alpha"] == pytest.approx(0.35, rel=0.05)


@pytest.mark.parametrize("content, columns, settings, message", [
    ("N,D,L\n1e6,1e9,3\n1e6,,3\n", "params=N,seed_tokens=D,loss=L", {}, r"t.csv:3: seed_tokens is missing \(column D\).*--drop_missing"),
    ("N,D,L\n1e6,1e9,3\n", "params=N[Q],seed_tokens=D,loss=L", {}, r"params in \[Q\]: give a unit of .*M, B"),
    ("N,D,L\n1e6,1e9,3\n", "params=N,seed_tokens=D,loss=L[B]", {}, r"loss in \[B\]: give a unit of nats, bits, ppl"),
    ("N,D,L\n1e6,1e9,3\n", "params=N,seed_tokens=D,loss=L", {"where": "state=x"}, "no column 'state'"),
    ("N,D,L\n1e6,1e9,3\n1e6\n", "params=N,seed_tokens=D,loss=L", {"where": "state=x"}, "t.csv:3: 1 values under 3 columns"),
    ("oops\nN,D,L\n1e6,1e9,3\n", "params=N,seed_tokens=D,loss=L", {"where": "state=x"}, "t.csv:2: 3 values under 1 columns"),
    ("params,seed_tokens\n1e6,1e9\n", "", {"where": "state=x"}, "t.csv: no column 'loss'"),
    ("N,D,L,state\n1e6,1e9,3,ok\n", "params=N,seed_tokens=D,loss=L", {"where": "state=done"},
     r"none of them is state=done \(column state has ok 1\)"),
    ("N,D,L\n1e6,1e9,3\n", "params=N,seed_tokens=D,loss=L", {"where": "state"}, "'state' is not COLUMN=VALUE"),
    ("N,D,L\n1e6,1e9,3\n", "params=N,seed_tokens=D,loss=L", {"rows": "worst"}, "must be all, best or mean"),
    ("N,D,L\n1e6,1e9,3\n", "params=N,seed_tokens=D,loss=L", {"flop_factor": 0.0}, "must be a positive number"),
    ("N,D,L\n1e6,1e9,3\n", "params=N,seed_tokens=D,loss=L", {"flop_factor": 8.0}, "says nothing where no column gives FLOPs"),
    ("N,C,L\n1e6,0,3\n", "params=N,flops=C,loss=L", {}, "t.csv:2: flops is 0"),
    ("N,C,E,L\n1e6,6e12,1e9,3\n", "params=N,flops=C,expert_tokens=E,loss=L", {}, "pay for 1e.06 tokens, fewer than expert_tokens"),
    ("params,seed_tokens,expert_tokens,C,loss\n1e6,1e9,1,1,3\n", "flops=C", {}, "are too many; map two of them"),
    ("N,D,L\n1e6,1e9,3\n1e6,-,3\n", "params=N,seed_tokens=D,loss=L", {}, r"t.csv:3: seed_tokens is missing, written as '-' \(column D\)"),
    ("N,D,L\n1e6,1e9,3\n1e6,1e9,\u2014\n", "params=N,seed_tokens=D,loss=L", {}, "t.csv:3: loss is missing, written as '\u2014'"),
    ("N,D,law,med,code\n1e6,1e9,3,2,1\n", "params=N,seed_tokens=D", {},
     "t.csv: no column 'loss'; name it with --columns=loss=YOUR_COLUMN, one of code, law, med; where several hold losses, one of each domain, make a row"),
    ("N,D,L\n1e6,1e9,3\n", "params=N,seed_tokens=D", {}, "t.csv: no column 'loss'; name it with --columns=loss=YOUR_COLUMN, one of L$"),
    ("N,D,L,role\n1e6,1e9,3,gird\n", "params=N,seed_tokens=D,loss=L,role=role", {},
     r"no rows to fit: column role has gird 1, no role of ours \(probe, grid, .*base\); rows of role grid are fitted, so leave role unmapped"),
    ("N,D,L,set\n1e6,1e9,3,\n", "params=N,seed_tokens=D,loss=L,domain=set", {}, "t.csv:2: domain is empty"),
    ("N;D;L\n1e6;x;3\n", "params=N,seed_tokens=D,loss=L", {}, "t.csv:2: seed_tokens is 'x', not a number"),
    ("N,D,L\n1e6,12,3,4\n", "params=N,seed_tokens=D,loss=L", {}, "t.csv:2: 4 values under 3 columns"),
    ("N,D,L\n1e6,1e9,\n", "params=N,seed_tokens=D,loss=L", {"drop_missing": True}, r"no rows to fit; left out: 1 \(loss is missing\)"),
])
def test_what_cannot_be_read_is_one_line(tmp_path, content, columns, settings, message):
  (tmp_path / "t.csv").write_text(content, encoding="utf-8")
  with pytest.raises(InputError, match=message) as error:
    read_cells(tmp_path / "t.csv", parse_columns(columns), **settings)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("columns, rows, message", [
    ("params=N,seed_tokens=D,loss=L", [(70, 1e9, 3.1)], r"params go down to 70 \(column N\).*--columns=params=N\[M\]"),
    ("params=N,seed_tokens=D,loss=L", [(1e8, 300, 3.1)], r"seed_tokens go down to 300 \(column D\).*--columns=seed_tokens=D\[B\]"),
    ("params=N,seed_tokens=D[B],loss=L", [(1e8, 1e9, 3.1)], r"seed_tokens go up to 1e\+18 \(column D\[B\]\)"),
    ("params=N,seed_tokens=D,loss=L", [(1e8, 1e9, 24.0)], r"looks like perplexity.*--columns=loss=L\[ppl\]"),
    ("params=N,seed_tokens=D,loss=val_ppl", [(1e8, 1e9, 9.0)], "looks like perplexity"),
    ("params=N,seed_tokens=D,loss=eval_bpb", [(1e8, 1e9, 0.9)], "looks like bits"),
    ("params=N,seed_tokens=D,loss=L", [(1e8, 1e9, 3.0)], None),
])
def test_what_looks_like_another_unit_is_remarked(tmp_path, columns, rows, message):
  loss = columns.rpartition("=")[2]
  (tmp_path / "t.csv").write_text(text(f"N,D,{loss}", rows))
  remarks = read_cells(tmp_path / "t.csv", parse_columns(columns)).source.get("remarks", [])
  assert len(remarks) == (message is not None)
  if message:
    assert re.search(message, remarks[0])


def test_columns_that_are_not_ours_are_told_and_can_be_mapped(tmp_path):
  (tmp_path / "t.csv").write_text(text("params,seed_tokens,loss,weight,status", [(*run, i % 2, "finished" if i else "failed") for i, run in enumerate(RUNS)]))
  weighed, marked = read_cells(tmp_path / "t.csv").source["remarks"][::-1]
  assert "column weight is not used (0 6, 1 6): map it" in weighed
  assert "column status is not used (finished 11, failed 1): where only some rows are measurements, keep those, as in --where=status=finished" in marked
  assert read_cells(tmp_path / "t.csv", {"weight": "weight"}).weight.tolist() == [0, 1] * 6
  assert len(read_cells(tmp_path / "t.csv", where="status=finished")) == 11
  with pytest.raises(InputError, match="left out: 12 .status is not ok."):
    read_cells(tmp_path / "t.csv", {"status": "status"})


def test_names_that_stand_twice_are_refused():
  with pytest.raises(InputError, match="--columns: params is given twice, params=D and params=N; keep one"):
    parse_columns("params=D,params=N")


def test_double_quotes_in_names_are_doubled(tmp_path):
  (tmp_path / "t.csv").write_text('"N ""real""",D,"L, ""held out""","the ""kind"""\n1,1e9,3,a\n2,1e9,3,b\n')
  cells = read_cells(tmp_path / "t.csv", parse_columns('params="N ""real"""[M],seed_tokens=D,loss="L, ""held out"""'),
                     where='"the ""kind"""=b')
  assert cells.params.tolist() == [2e6] and cells.loss.tolist() == [3.0]


def test_conditions():
  holds = lambda text, value: parse_where(text)[0].holds(value, False)
  assert holds("a=x|y", "y ") and not holds("a!=x|y", "y") and holds("a!=x|y", "z")
  assert holds("a=1e3", 1000) and holds("a>=2", "2.5") and not holds("a<2", "n/a") and holds("a=true", True)
  assert [str(c) for c in parse_where('a=x, y,"b,=">1')] == ["a=x, y", "b,=>1"]


def test_numbers():
  assert [number(text) for text in ("1,234,567", "1 234", "1_000.5", "-3e2", " 7 ", "1'000")] == [1234567, 1234, 1000.5, -300, 7, 1000]
  assert [number(text, decimal_comma=True) for text in ("3,25", "1.234.567,5", "1e3")] == [3.25, 1234567.5, 1000]
  assert [number(text, suffixes=True) for text in ("70M", "1.5 B", "2k", "1e2T")] == [7e7, 1.5e9, 2e3, 1e14]
  for text in ("", "x", "1,23", "12,3456", "1.2.3", "M"):
    with pytest.raises(ValueError):
      number(text, suffixes=True)


def test_a_column_whose_own_name_has_a_unit_is_in_it(tmp_path):
  (tmp_path / "t.csv").write_text("N[M];D [B];loss[val]\n" + "\n".join(f"{n};{d};{3 + 1 / n}" for n in (10, 30) for d in (1, 2)))
  cells = read_cells(tmp_path / "t.csv", parse_columns("params=N[M],seed_tokens=D [B],loss=loss[val]"))
  assert sorted(set(cells.params)) == [1e7, 3e7] and sorted(set(cells.seed_tokens)) == [1e9, 2e9] and cells.loss.min() > 3
