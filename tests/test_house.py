"""The house of docs/design.md: imports go down its list of rooms, and each file says its purpose and is short."""

import ast
import pathlib
import re
import subprocess
import sys

import jaxsplit

PACKAGE = pathlib.Path(jaxsplit.__file__).parent
PAGE = PACKAGE.parent / "docs" / "design.md"
FILES = sorted(path for path in PACKAGE.rglob("*.py"))


def rooms():
  """The rooms of docs/design.md's table, from the top down."""
  return re.findall(r"^\| `(\w+)/`", PAGE.read_text(), re.MULTILINE)


def room_of(module):
  """The room that a module is in; "" for the entry points and for the leaves beside the rooms."""
  name = module.split(".")[1] if "." in module else ""
  return name if (PACKAGE / name).is_dir() else ""


def imported(path):
  """The modules of ours that a file imports, wherever it does."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module == "jaxsplit":
      yield from (f"jaxsplit.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxsplit."):
      yield node.module
    elif isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names if alias.name.startswith("jaxsplit."))


def test_the_page_has_every_room():
  assert sorted(rooms()) == sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def test_imports_go_down_the_list_of_rooms():
  order, upwards = {name: i for i, name in enumerate(rooms())}, []
  for path in FILES:
    inside = path.relative_to(PACKAGE).parts
    for module in imported(path):
      here = inside[0] if len(inside) > 1 and path.name != "__main__.py" else ""  # An entry point may be a package's.
      there = room_of(module)
      if here and there and here != there and order[here] > order[there]:
        upwards.append(f"{path.relative_to(PACKAGE)} imports {module}")
      entry = len(module.split(".")) == 2 and (PACKAGE / f"{module.split('.')[1]}.py").exists() and "main(" in (
          PACKAGE / f"{module.split('.')[1]}.py").read_text()
      if here and entry:
        upwards.append(f"{path.relative_to(PACKAGE)} imports the entry point {module}")
  assert not upwards


def test_each_file_says_its_purpose_and_has_at_most_300_lines():
  long = {str(path.relative_to(PACKAGE)): length for path in FILES if (length := len(path.read_text().splitlines())) > 300}
  silent = [str(path.relative_to(PACKAGE)) for path in FILES if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))]
  assert not long and not silent


def test_training_imports_no_scikit_learn():
  """It takes a second, at every start, and only experiments that find domains need it."""
  code = "import sys, jaxsplit.train; sys.exit('sklearn' in sys.modules)"
  assert not subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent).returncode
