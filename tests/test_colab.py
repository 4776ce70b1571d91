"""Every notebook runs top to bottom, shortened by what follows its cell of parameters: on an experiment that is finished already."""

import importlib.util
import pathlib

import nbformat
import pytest
from small import base_bindings, bindings, write_base

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))
SPEC = importlib.util.spec_from_file_location("notebooks", ROOT / "scripts" / "notebooks.py")
notebooks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(notebooks)


@pytest.fixture
def shorter(corpus, finished, tmp_path):
  """Of every notebook, what makes it short, and what it then shows."""
  mine = bindings(corpus, ["quickstart.gin"])
  mine.pop("Corpus.path")
  base, based = write_base(tmp_path / "base"), base_bindings(corpus)
  return {
      "quickstart": (f"\nCONFIG, BINDINGS, WORKDIR = [], {bindings(corpus, [])!r}, {str(finished)!r}", ["Spend ", "95 % interval", "report.html"]),
      "your_corpus": (f"\nCORPUS, BINDINGS, WORKDIR = {str(corpus)!r}, {mine!r}, {str(finished)!r}", ["Spend ", "bits per byte", "latin", "exported/latin: expert"]),
      "base_model": (f"\nBASE, CORPUS, BINDINGS, WORKDIR = {str(base)!r}, {str(corpus)!r}, {based!r}, 'runs/base'",
                     ["it has no N term", "bayes@1", "mean perplexity", "latin", "exported/numbers: expert"]),
      "law": ("\nBOOTSTRAP = 20", ["held out", "alpha"])}


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, finished, shorter, tmp_path):
  before = (finished / "cells.csv").read_bytes()
  more, shown = shorter[path.stem]
  notebook = notebooks.execute(path, tmp_path, more)
  assert (finished / "cells.csv").read_bytes() == before
  outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
  text = "".join(output.get("text", "") + str(output.get("data", "")) for output in outputs)
  assert all(words in text for words in shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_with_its_outputs_and_small(path):
  notebook = nbformat.read(path, as_version=4)
  nbformat.validate(notebook)
  cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
  assert all(cell.execution_count for cell in cells) and any(cell.outputs for cell in cells)
  assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
  assert path.stat().st_size < 1_000_000
