import pytest

from jaxsplit.data.plain_tokenizers import ByteTokenizer
from jaxsplit.data.store_writer import Document, write_store
from jaxsplit.data.tokenizer import train_bpe
from jaxsplit.experiment.cell_table import CellTable
from jaxsplit.results.cells import Cell


@pytest.fixture(scope="module")
def good(tmp_path_factory):
  """A folder with one right file of each kind."""
  folder = tmp_path_factory.mktemp("good")
  table = CellTable(folder / "cells.csv")
  table.add(Cell(n, 2 * n, domain, d, e, 10**6, 0.1, 3.0 + 100 / n, 1.0, 1e9, 0, "grid", 1e-3, 32, None, "ok")
            for n in (100, 200, 400) for domain in ("a", "b") for d in (1000, 2000) for e in (0, 500))
  documents = [Document(ByteTokenizer().encode("some text"), 9, b"1")]
  write_store(folder / "store", ByteTokenizer(), [("a", "train", documents), ("a", "valid", documents)], {"corpus": 1})
  train_bpe(["some text to learn merges from, and some more text"] * 5, 300).save(folder / "tokenizer.json")
  return folder
