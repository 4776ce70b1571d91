import dataclasses
import html
import html.parser
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree

import pytest

from jaxsplit.experiment.cell_table import CellTable
from jaxsplit.report.evidence import read_evidence
from jaxsplit.report.page import answer as answer_of
from jaxsplit.report.page import write_report
from jaxsplit.results.cells import read_cells, write_cells
from tests.report.conftest import DOMAINS, TARGET, cell, rewrite, save_planned, record

_VOID = {"meta", "br", "wbr", "hr", "img", "link"}


class _Checker(html.parser.HTMLParser):
  """Collects tags and sees to it that they close."""

  def __init__(self):
    super().__init__()
    self.open, self.tags, self.attributes, self.ids = [], [], [], []

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    self.attributes += attributes
    if tag not in _VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attributes):
    self.attributes += attributes

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def check(page):
  checker = _Checker()
  checker.feed(page)
  assert checker.open == []
  assert not {"script", "link", "img", "iframe"} & set(checker.tags)
  for name, value in checker.attributes:
    assert not (name in ("src", "href", "xlink:href") and not value.startswith("#")), (name, value)
  assert not re.search(r"url\((?!#)|@import", page)
  return checker


@pytest.fixture(scope="module")
def report(finished, tmp_path_factory):
  path = tmp_path_factory.mktemp("page") / "experiment"
  shutil.copytree(finished, path)
  return write_report(path)


def test_a_law_s_warnings_stand_beside_the_split_curve_too(workdir):
  rewrite(workdir / "plan.json", lambda plan: plan.update(warnings=["E[law] reached 0: the cells show no floor"]))
  rewrite(workdir / "law.json", lambda law: law["diagnostics"].update(warnings=["E[law] reached 0: the cells show no floor"]))
  chapter = write_report(workdir).read_text().partition('<section id="split">')[2].partition("</section>")[0]
  assert "<li>E[law] reached 0: the cells show no floor</li>" in chapter


def test_the_page_is_whole_and_self_contained(report):
  page = report.read_text()
  assert "95\u00a0% interval" in page and "95 % band" in page and not re.search(r"(95|80|100)% (interval|band|on the|is)", page)
  check(page)
  for name in ("closing", "split", "cells", "agreement", "law", "candidates", "curves", "probe", "ledger", "speed", "settings"):
    assert f'<section id="{name}">' in page and f'href="#{name}"' in page
  assert page.count("<svg") == 7 and "not finished" not in page


def test_the_page_says_what_was_found(report):
  page, evidence = report.read_text(), read_evidence(report.parent)
  mean = evidence.closing()[-1]
  assert f"<td>{mean.measured:.4f}</td>" in page and f"<td>{mean.perplexity_change:+.2%}</td>" in page
  answer = re.search(r'class="answer">([^<]*)', page).group(1)
  assert f"{evidence.plan.fraction:.0%}" in answer and f"{mean.dense:.3f}" in answer
  assert ("lower" in answer) == (mean.perplexity_change < 0)


def test_the_answer_says_what_speaks_against_it(report):
  evidence = read_evidence(report.parent)
  told = lambda low, high, loss: answer_of(dataclasses.replace(
      evidence, plan=dataclasses.replace(evidence.plan, fraction_interval=(low, high)),
      proof=[dataclasses.replace(cell, loss=cell.loss * loss) if cell.role == "dense" else cell for cell in evidence.proof]))
  assert "leaves the split open" in told(0.02, 0.96, 1.2) and "leaves the split open" not in told(0.4, 0.6, 1.2)
  assert "Another split was measured to be better: 100%, by" in told(0.4, 0.6, 0.5) and "Another split" not in told(0.4, 0.6, 2)


def test_cells_of_averaged_weights_are_told(workdir, report):
  cells = [dataclasses.replace(cell, weights="mean") if cell.role == "grid" else cell for cell in read_cells(workdir / "cells.csv")]
  write_cells(workdir / "cells.csv", cells)
  assert "mean of their last weights" in write_report(workdir).read_text() and "mean of their last weights" not in report.read_text()


def test_names_are_written_as_they_are(report):
  page = report.read_text()
  assert "<b>" not in page and "&lt;b&gt;&amp;prose" in page and "$code$" in page


def test_figures_lie_beside_the_page(report):
  files = sorted((report.parent / "figures").iterdir())
  assert [f.stem for f in files] == ["agreement", "cells", "gains", "ledger", "loss_curves", "probe", "split_curve"] and all(
      ElementTree.parse(f).getroot().tag.endswith("svg") for f in files)


def test_writing_again_changes_nothing(phonebook):
  first = write_report(phonebook).read_bytes()
  assert write_report(phonebook).read_bytes() == first


@pytest.mark.parametrize("lost, sections, sentence", [
    (["plan.json"], {"closing", "split"}, "no plan yet"),
    (["plan.json", "law.json"], {"closing", "split", "agreement", "law", "candidates"}, "no law yet"),
    (["plan.json", "law.json", "ledger.json"],
     {"closing", "split", "agreement", "law", "candidates", "curves", "ledger"}, "nor a ledger"),
    (["plan.json", "law.json", "ledger.json", "metrics.jsonl", "telemetry.jsonl", "cells.csv", "probe.csv"],
     {"closing", "split", "cells", "agreement", "law", "candidates", "curves", "probe", "ledger", "speed"}, "No experts"),
])
def test_an_interrupted_experiment_has_a_page_too(workdir, lost, sections, sentence):
  for name in lost:
    (workdir / name).unlink()
  page = write_report(workdir).read_text()
  check(page)
  everything = {"closing", "split", "cells", "agreement", "law", "candidates", "curves", "probe", "ledger", "speed", "settings", "terms"}
  assert set(re.findall(r'<section id="(\w+)">', page)) == everything - sections
  assert "This experiment is not finished" in page and sentence in page


def test_the_phonebook_shows_accuracy(phonebook):
  page = write_report(phonebook).read_text()
  check(page)
  assert "60% of 1,000,000 tokens on the shared seed did best: 71% of the entries recalled exactly, against 11% by" in page
  assert (phonebook / "figures" / "accuracy.svg").exists() and "no law" not in page


def test_the_speed_is_told_by_size(workdir):
  page = write_report(workdir).read_text()
  row = "<tr><td>d16-l2</td><td>10,000</td><td>1,690,000</td><td>1,690.0</td><td>1,000</td>"
  assert row in page and "<td>10%</td><td>25%</td><td>50%</td><td>15%</td>" in page
  assert "Training on 2 x cpu" in page and "12 programs were compiled and 6 loaded from the cache, in 24 s" in page
  assert '<th scope="col">MFU</th>' not in page
  with (workdir / "telemetry.jsonl").open("a") as f:
    f.write(json.dumps(vars(record("d64-l4/trunk/9", 9, 1, params=200_000, mfu=0.425, device="NVIDIA H200"))) + "\n{torn")
  page = write_report(workdir).read_text()
  check(page)
  assert '<th scope="col">MFU</th>' in page and "<td>42.5%</td>" in page and "2 x NVIDIA H200 and 2 x cpu" in page


def answer(page):
  return html.unescape(re.search(r'class="answer">([^<]*)', page).group(1))


@pytest.mark.parametrize("settings, advice, rival, curve", [
    ({}, "of the 1,000,000 tokens on a shared seed and the rest on 3 experts", "one dense model of the same compute",
     "for every split of 1,000,000 tokens between the seed and 3 experts."),
    ({"trunk": "per_domain"}, "of the 1,000,000 tokens on 3 seeds, one for each domain, and the rest on their experts",
     "one dense model of the same compute", "between 3 seeds and their experts; at 100\u00a0% it is one dense model"),
    ({"accounting": "per_model"}, "of each model's 1,000,000 tokens on a shared seed and the rest on one of 3 experts",
     "one dense model of as many tokens as each of them has seen", "split of each model's 1,000,000 tokens between the seed and its expert."),
    ({"accounting": "per_model", "trunk": "per_domain"},
     "of each model's 1,000,000 tokens on a seed of its own and the rest on one of 3 experts",
     "one dense model of as many tokens as each of them has seen", "between its seed and its expert."),
])
def test_the_words_say_what_the_budget_counts(workdir, settings, advice, rival, curve):
  rewrite(workdir / "config.json", lambda value: value["Experiment"].update(settings))
  evidence = read_evidence(workdir)
  point = save_planned(workdir, evidence.plan, evidence.budget.accounting)
  dense = [c for c in read_cells(workdir / "cells.csv") if c.role != "split"]
  (workdir / "cells.csv").unlink()
  CellTable(workdir / "cells.csv").add([*dense, *(cell(TARGET, point.seed_tokens, point.expert_tokens, domain, "split") for domain in DOMAINS)])
  page = write_report(workdir).read_text()
  check(page)
  assert advice in answer(page) and rival in answer(page) and curve in html.unescape(page)
  assert ("the same compute" in html.unescape(page)) == ("accounting" not in settings)


def test_without_a_dense_model_the_experiment_is_as_finished(workdir):
  rewrite(workdir / "config.json", lambda value: value["Experiment"].update(compare=[]))
  rest = [c for c in read_cells(workdir / "cells.csv") if c.role != "dense"]
  (workdir / "cells.csv").unlink()
  CellTable(workdir / "cells.csv").add(rest)
  page = write_report(workdir).read_text()
  check(page)
  closing = page[page.index('<section id="closing">'):].split("</section>")[0]
  assert "not finished" not in page and "nan" not in closing and '<th scope="col">dense</th>' not in closing and "<svg" not in closing
  assert "the measured mean loss is" in answer(page) and "dense" not in answer(page)


def test_a_domain_whose_experts_all_diverged(workdir):
  lost = [dataclasses.replace(c, loss=float("nan"), status="diverged") if c.domain == "law" and c.expert_tokens else c
          for c in read_cells(workdir / "cells.csv")]
  (workdir / "cells.csv").unlink()
  CellTable(workdir / "cells.csv").add(lost)
  page = write_report(workdir).read_text()
  check(page)
  assert "no means over domains to draw" in page and "not finished" not in page
  assert '<section id="cells">' not in page and "runs of some domains diverged" in answer(page)
  closing = page[page.index('<section id="closing">'):].split("</section>")[0]
  assert "<td>-</td>" in closing and "nan" not in closing and "<svg" in closing


def test_splits_of_which_each_lost_a_domain_have_no_curve(phonebook):
  lost = [dataclasses.replace(c, loss=float("nan"), status="diverged") if c.domain == "law" else c
          for c in read_cells(phonebook / "cells.csv")]
  (phonebook / "cells.csv").unlink()
  CellTable(phonebook / "cells.csv").add(lost)
  page = write_report(phonebook).read_text()
  check(page)
  assert '<section id="fractions">' not in page
