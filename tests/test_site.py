"""The documentation as a site."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.long
def test_it_builds_without_a_warning(tmp_path):
  pytest.importorskip("material", reason="mkdocs-material is not installed (pip install '.[docs]')")
  done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "-f", ROOT / "mkdocs.yml", "-d", tmp_path], capture_output=True,
                        text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, check=False)
  assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
  assert (tmp_path / "reference" / "index.html").exists()


def test_every_page_is_in_its_menu():
  menu = (ROOT / "mkdocs.yml").read_text()
  assert [page.name for page in (ROOT / "docs").glob("*.md") if f" {page.name}\n" not in menu] == [], "add it to mkdocs.yml"


def test_links_of_the_readme_lead_somewhere():
  import re
  for name in ("README.md", "CONTRIBUTING.md"):
    for link in re.findall(r"\]\(([^)#]+)", (ROOT / name).read_text()):
      assert link.startswith("https://") or (ROOT / link).exists(), link
