"""docs/reference.md has every flag and every binding, and docs/map.md every file, as the code has them."""

import importlib.util
import pathlib

import pytest

import jaxsplit
from jaxsplit import prepare, train
from jaxsplit.__main__ import COMMANDS, main
from jaxsplit.cli.help import meanings

ROOT = pathlib.Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
reference = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(reference)


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_page_is_what_the_code_says(name):
  assert (ROOT / "docs" / name).read_text() == reference.PAGES[name](), "run python scripts/reference.py"


def test_no_entry_point_is_forgotten():
  assert set(COMMANDS) == set(reference.entry_points())
  assert reference.asked("train")["settings"] == train.SETTINGS and "replace" in reference.asked("prepare")["switches"]
  assert prepare.main.__module__ == "jaxsplit.prepare"  # Looking leaves the entry points as they were.


def test_every_binding_says_what_it_means():
  unsaid = [f"{cls.__name__}.{name}" for entry_point in reference.entry_points() for cls in reference.asked(entry_point)["settings"]
            for name, meaning in meanings(cls).items() if not meaning]
  assert unsaid == []


def test_the_commands_are_listed(capsys, monkeypatch):
  monkeypatch.setattr("sys.argv", ["jaxsplit", "--help"])
  assert main() == 0 and "  train  " in capsys.readouterr().out
  monkeypatch.setattr("sys.argv", ["jaxsplit", "--version"])
  assert main() == 0 and capsys.readouterr().out == f"jaxsplit {jaxsplit.__version__}\n"
  monkeypatch.setattr("sys.argv", ["jaxsplit", "evaluate"])
  assert main() == 2 and "python -m jaxsplit.evaluate" in capsys.readouterr().err
