"""Runs the notebooks in colab/ top to bottom and stores their outputs in them.

    python scripts/notebooks.py                    all of them
    python scripts/notebooks.py colab/law.ipynb    some
"""

from __future__ import annotations

import pathlib
import sys
import tempfile
import time

import nbclient
import nbformat

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "colab"


def execute(path: pathlib.Path, folder: str, more: str = "") -> nbformat.NotebookNode:
  """The notebook, executed in a folder; `more` is run after its cell of parameters, to change them."""
  notebook = nbformat.read(path, as_version=4)
  (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
  whole = parameters.source
  parameters.source += more
  nbclient.NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": folder}}).execute()
  parameters.source = whole
  return notebook


def tidy(notebook: nbformat.NotebookNode) -> None:
  """Leaves what a reader sees, and nothing that differs from one time to the next without need."""
  for cell in notebook.cells:
    cell.metadata.pop("execution", None)
    if cell.cell_type == "code":
      # What progress has taken away again is no output; lines that followed each other are one.
      kept: list[nbformat.NotebookNode] = []
      for out in cell.outputs:
        if out.output_type == "display_data" and out.data.get("text/html") == "":
          continue
        if kept and out.output_type == kept[-1].output_type == "stream" and out.name == kept[-1].name:
          kept[-1].text += out.text
        else:
          kept.append(out)
      cell.outputs = kept
  notebook.metadata.language_info = {"name": "python"}


def main(paths: list[str]) -> None:
  for path in map(pathlib.Path, paths or sorted(map(str, FOLDER.glob("*.ipynb")))):
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
      notebook = execute(path, folder)
    tidy(notebook)
    nbformat.write(notebook, path)
    print(f"{path}: {time.monotonic() - began:,.0f} s, {path.stat().st_size / 1000:,.0f} kB", flush=True)


if __name__ == "__main__":
  main(sys.argv[1:])
