"""docs/python.md: every public name is on it, and its code runs."""

import pathlib
import re

import numpy as np
import pytest
from small import bindings

import jaxsplit

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text()


def test_the_page_has_every_public_name_and_no_other():
  named = set(re.findall(r"jaxsplit\.([A-Za-z_]\w*)\(", PAGE))
  assert named <= set(jaxsplit.__all__), named - set(jaxsplit.__all__)
  assert [name for name in jaxsplit.__all__ if not re.search(rf"\b{name}\b", PAGE)] == []


def test_the_page_has_every_entry_point():
  entry_points = [path.stem for path in (ROOT / "jaxsplit").glob("*.py") if "cli.run(main" in path.read_text()] + ["report"]
  assert len(entry_points) > 8 and [name for name in entry_points if f"| `python -m jaxsplit.{name}" not in PAGE] == []


def test_a_sweep_is_what_the_entry_point_prints(capsys):
  import json

  from jaxsplit import design
  assert design.main(["--gin_file=scales/125m.gin", "--num_domains=10", "--budget_tokens=1e10", "--json"]) == 0
  settings = jaxsplit.read_settings("scales/125m.gin", bindings={"Experiment.budget_tokens": 10**10})
  assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(jaxsplit.design_sweep(settings, 10)))


@pytest.mark.long
def test_the_code_of_the_page_runs(corpus, finished, tmp_path, monkeypatch):
  pytest.importorskip("tensorboardX", reason="tensorboardX is not installed (pip install '.[tensorboard]')")
  monkeypatch.chdir(tmp_path)
  (tmp_path / "runs").mkdir()
  (tmp_path / "runs" / "mine").symlink_to(finished)
  rows = [f"{n},{d},{1.5 + 20 * (n * 1e6) ** -0.3 + 150 * d**-0.3}" for n in (1, 3, 10, 30) for d in (1e8, 3e8, 1e9, 3e9)]
  (tmp_path / "table.csv").write_text("\n".join(["N,D,L", *rows]))
  small = repr(bindings(corpus, ["quickstart.gin"]))
  code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)).replace('{"Corpus.path": "corpus"}', small).replace('"law")', '"latin")')
  before, names = (finished / "cells.csv").read_bytes(), {}
  exec(compile(code.replace("bootstrap=200", "bootstrap=20, starts=8"), "docs/python.md", "exec"), names)
  assert (finished / "cells.csv").read_bytes() == before and (tmp_path / "split.pdf").exists()
  assert sorted(path.name for path in (tmp_path / "exported").iterdir()) == ["dense", "latin", "numbers", "seed"]
  assert sum(names["weights"].values()) == pytest.approx(1) and names["logits"].shape[-1] == names["model"].config.vocab_size
  assert np.isfinite(names["law"].predict(1e9, 2e10, 0)) and len(names["optima"]) == 2
  assert list((tmp_path / "events").rglob("events.out.tfevents.*"))
