"""Records are a leaf: anybody may import them, so they import nobody."""

import ast
import pathlib
import subprocess
import sys

import jaxsplit
from jaxsplit.law.cells import OPTIONAL, REQUIRED
from jaxsplit.results.cells import LAW_DATA, Cell

RESULTS = pathlib.Path(jaxsplit.__file__).parent / "results"


def test_records_import_nothing_of_ours_but_errors_files_and_each_other():
  for path in RESULTS.glob("*.py"):
    for node in ast.walk(ast.parse(path.read_text())):
      module = node.module if isinstance(node, ast.ImportFrom) else ""
      assert not module.startswith("jaxsplit") or module in ("jaxsplit.errors", "jaxsplit.files") or module.startswith("jaxsplit.results")


def test_the_law_names_columns_as_they_are_in_cells():
  fields = set(Cell.__dataclass_fields__)
  assert {*REQUIRED, *OPTIONAL} - {"weight"} <= fields and LAW_DATA.keys() <= fields  # Nothing that is measured has a weight.


def test_the_package_imports_nothing_heavy_until_it_is_asked():
  code = ("import sys, jaxsplit; from jaxsplit import signals; assert not {'jax', 'numpy', 'gin'} & sys.modules.keys();"
          "assert not hasattr(jaxsplit, 'rum'); jaxsplit.Corpus; assert 'jax' not in sys.modules; jaxsplit.run; assert 'gin' not in sys.modules")
  subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
