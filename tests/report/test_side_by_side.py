"""The report entry point, and the page that compares experiments."""

import dataclasses
import re
import shutil

import numpy as np
import pytest

from jaxsplit.errors import InputError
from jaxsplit.report.__main__ import main
from jaxsplit.report.evidence import read_evidence
from jaxsplit.report.side_by_side import split_curves
from tests.report.conftest import rewrite
from tests.report.test_page import check


@pytest.fixture
def other(finished, tmp_path):
  path = shutil.copytree(finished, tmp_path / "other")
  rewrite(path / "config.json", lambda config: config["Probe"].update(rates=[0.01]))
  return path


def test_one_work_directory_is_drawn_anew(workdir, capsys):
  (workdir / "report.html").unlink(missing_ok=True)
  assert main([f"--workdir={workdir}"]) == 0
  check((workdir / "report.html").read_text())
  assert capsys.readouterr().out.endswith(f"report: {workdir / 'report.html'}\n")


def test_two_are_compared_on_one_page(finished, other, tmp_path):
  page = tmp_path / "pages" / "both.html"
  assert main([f"--workdir={finished}", f"--workdir={other}", f"--out={page}"]) == 0
  text = page.read_text()
  check(text)
  results = text[text.index('<section id="results">'):].split("</section>")[0]
  assert results.count("<li>") == 2 and "Spend" in results
  differ = text[text.index('<section id="settings">'):].split("</section>")[0]
  assert re.findall(r"<tr><td>([^<]*)</td>", differ) == ["Probe.rates"]


def test_a_curve_is_dotted_where_nothing_was_measured(finished):
  evidence = read_evidence(finished)
  measured = tuple(0.2 < share < 0.9 for share in evidence.plan.curve.fraction)
  curve = dataclasses.replace(evidence.plan.curve, measured=measured)
  evidence = dataclasses.replace(evidence, plan=dataclasses.replace(evidence.plan, curve=curve))
  axes, = split_curves({"one": evidence}).axes
  solid, dotted = axes.lines[:2]
  np.testing.assert_array_equal(np.isfinite(solid.get_ydata()), measured)
  assert solid.get_linestyle() == "-" and dotted.get_linestyle() == "--" and np.isfinite(dotted.get_ydata()).all()
  assert solid.get_color() == dotted.get_color() and dotted.get_label() == "_one"


def test_one_that_has_only_begun_is_compared_too(finished, other, tmp_path):
  for name in ("cells.csv", "law.json", "plan.json", "ledger.json", "metrics.jsonl", "telemetry.jsonl", "probe.csv"):
    (other / name).unlink()
  assert main([f"--workdir={finished}", f"--workdir={other}", f"--out={tmp_path / 'both.html'}"]) == 0
  assert "No answer yet" in (tmp_path / "both.html").read_text()


def test_what_cannot_be_compared_is_told_in_a_line(finished, tmp_path):
  for argv, message in (([], "--workdir is missing"), ([f"--workdir={tmp_path}"], "holds no experiment"),
                        ([f"--workdir={finished}", f"--workdir={tmp_path}"], "holds no experiment"),
                        ([f"--workdir={finished}", f"--workdir={finished}/."], "is given twice"),
                        ([f"--workdir={finished}", "--out=x.html"], "--out names the page of a comparison")):
    with pytest.raises(InputError, match=message) as caught:
      main(argv)
    assert "\n" not in str(caught.value)
