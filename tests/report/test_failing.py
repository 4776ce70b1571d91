"""Whatever of a report fails says so, there and on the terminal, and the rest is written."""

import re

import pytest

from jaxsplit.errors import InputError
from jaxsplit.law import load_law, read_cells
from jaxsplit.report import chapters, figures, law_figures, resilient, training_figures
from jaxsplit.report.album import Album
from jaxsplit.report.evidence import read_evidence
from jaxsplit.report.law_page import write_law_page
from jaxsplit.report.page import try_report, write_report
from tests.report.test_page import check

CHAPTERS = ("closing", "split", "cells", "agreement", "law", "candidates", "curves", "probe", "ledger", "speed", "settings", "terms")
FIGURES = {(figures, "split_curve"): "split", (figures, "cells_with_law"): "cells", (figures, "gains"): "closing",
           (law_figures, "agreement"): "agreement", (training_figures, "loss_curves"): "curves",
           (training_figures, "probe"): "probe", (training_figures, "spending"): "ledger"}
PARTS = [*(((chapters, name), name) for name in CHAPTERS), *FIGURES.items()]


def fails(*_, **__):
  raise KeyError("retry")


@pytest.mark.parametrize("part, chapter", PARTS, ids=[f"{module.__name__.split('.')[-1]}.{name}" for (module, name), _ in PARTS])
def test_each_in_turn(finished, monkeypatch, part, chapter):
  monkeypatch.setattr(*part, fails)
  evidence, said = read_evidence(finished), []
  (title, write), = ((title, write) for name, title, write in chapters.chapters(evidence) if name == chapter)
  parts = resilient.chapter(title, lambda: write(evidence, Album()), said.append, passes=chapters.Missing)
  assert len(said) == 1 and re.search(rf"^report: the chapter '{title}' could not be written \(KeyError: 'retry'.*\); no measurement", said[0])
  assert len(parts) == 1 and parts[0].startswith("<p>This chapter could not be written (KeyError: &#x27;retry&#x27;")


def test_figures_of_an_experiment_without_a_law(phonebook, monkeypatch):
  monkeypatch.setattr(figures, "measured_curve", fails)
  said = []
  check(write_report(phonebook, said.append).read_text())
  assert [line.split(" could")[0] for line in said] == ["report: the chapter 'Measured against the split'"]


def test_all_at_once(workdir, monkeypatch):
  for name in CHAPTERS:
    monkeypatch.setattr(chapters, name, fails)
  monkeypatch.setattr("jaxsplit.report.page.answer", fails)
  said = []
  page = write_report(workdir, said.append).read_text()
  check(page)
  assert set(re.findall(r'<section id="(\w+)">', page)) == set(CHAPTERS)
  assert len(said) == page.count("no measurement is lost") + page.count("No measurement is lost") + 1 == 13


@pytest.mark.parametrize("part", ["read_evidence", "chapters"])
def test_what_is_no_chapter(finished, monkeypatch, part):
  monkeypatch.setattr(f"jaxsplit.report.page.{part}", fails)
  line = try_report(finished, print)
  assert line.startswith("report: not written (KeyError: 'retry'") and "no measurement is lost" in line


def test_evidence_that_is_damaged_by_somebody_else(workdir):
  (workdir / "plan.json").write_text("{")
  line = try_report(workdir, print)
  assert line.startswith(f"report: not written ({workdir / 'plan.json'}") and "no measurement is lost" in line
  with pytest.raises(InputError):
    write_report(workdir)


@pytest.mark.parametrize("name", ["figures", "report.html"])
def test_something_in_the_way_of_its_files(phonebook, name):
  said = []
  if name == "figures":
    (phonebook / name).write_text("the user's")
    assert try_report(phonebook, said.append) == f"report: {phonebook / 'report.html'}"
    assert len(said) == 1 and f"{phonebook / name} cannot be written" in said[0]
    assert "<svg" in (phonebook / "report.html").read_text()
  else:
    (phonebook / name).mkdir()
    assert f"report: not written ({phonebook / name}: Is a directory; move what is there elsewhere" in try_report(phonebook, said.append)


def test_a_disk_that_is_full_is_no_fault_of_the_report(phonebook, monkeypatch):
  def full(path, data):
    raise OSError(28, "No space left on device", str(path))

  monkeypatch.setattr("jaxsplit.report.page.write_atomic", full)
  with pytest.raises(OSError, match="No space left"):
    try_report(phonebook, print)


def test_a_laws_page_too(finished, tmp_path, monkeypatch):
  said = []
  monkeypatch.setattr(law_figures, "residuals", fails)
  write_law_page(tmp_path / "law.html", load_law(finished / "law.json"), read_cells(finished / "cells.csv"), said.append)
  text = (tmp_path / "law.html").read_text()
  check(text)
  assert len(said) == 1 and "'Predicted and measured'" in said[0] and '<section id="agreement">' in text
