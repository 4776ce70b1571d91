"""The page of a store's domains: what it says is what the texts are made of."""

import json
import re
import shutil

import numpy as np
import pytest

from jaxsplit import prepare
from jaxsplit.clustering.ngrams import NGrams
from jaxsplit.clustering.portrait import portray
from jaxsplit.data.store import open_store
from jaxsplit.data.parts import PAGE
from jaxsplit.report.domains import write_domain_report
from jaxsplit.report.page import write_report

_WORDS = {"sea": "ship sail wave harbour captain anchor storm deck", "law": "court section statute appeal clause judge party contract"}


def texts(words, count, seed):
  random = np.random.default_rng(seed)
  return [" ".join(random.choice(words.split(), 40)) for _ in range(count)]


def test_domains_that_differ_and_the_control_that_does_not():
  portrait = portray({name: texts(words, 60, 0) for name, words in _WORDS.items()},
                     {name: texts(words, 20, 1) for name, words in _WORDS.items()})
  for name, terms in zip(_WORDS, portrait.terms):
    assert set(terms[:5]) <= set(_WORDS[name].split())
  assert portrait.distances.own == 1 and 0.2 < portrait.control.own < 0.8
  assert portrait.distances.gain > 1 and abs(portrait.control.gain) < 0.1
  points, label = portrait.picture
  centres = [points[label == k].mean(0) for k in (0, 1)]
  assert np.linalg.norm(centres[0] - centres[1]) > 2 * max(points[label == k].std() for k in (0, 1))
  assert [len(part) for part in (*portrait.typical, *portrait.untypical)] == [2, 2, 2, 2]


def test_an_n_gram_costs_what_its_chances_say():
  model = NGrams(b"aab")
  one = (1 + 2 / 256) / (3 + 2), (2 + 2 / 256) / (3 + 2)  # Of b and a behind nothing: 3 bytes, 2 different.
  start = (1 + 1 * one[1]) / (1 + 1)  # Behind the zero before the text, an a and nothing else; the same for longer contexts.
  for _ in range(3):
    start = (1 + start) / 2
  assert model.bits_per_byte(b"a") == pytest.approx(-np.log2(start))
  assert model.bits_per_byte(b"z") == pytest.approx(-np.log2(2 / 256 / 5 / 2**4))
  assert np.isnan(model.bits_per_byte(b""))


def test_the_page_of_found_domains_and_the_report_that_leads_to_it(tmp_path, capsys, finished):
  (tmp_path / "corpus").mkdir()
  for name, words in _WORDS.items():
    lines = [json.dumps({"text": text + (" <i>" if name == "sea" else "")}) for text in texts(words, 60, 2)]
    (tmp_path / "corpus" / f"{name}.jsonl").write_text("\n".join(lines))
  given = [f"--gin.Corpus.path={tmp_path / 'corpus'}", f"--store={tmp_path / 'store'}", "--gin.Corpus.valid_tokens_min=5", "--report"]
  prepare.main([*given, "--gin.Corpus.domains_from=cluster", "--gin.Clustering.k=2", "--gin.Clustering.dimensions=8"])
  page = (tmp_path / "store" / PAGE).read_text()
  assert f"domains: {tmp_path / 'store' / PAGE}" in capsys.readouterr().out
  assert "mutual information with the labels is 1.00" in page and re.search(r">(9\d|100)% of held-out passages are nearest", page)
  assert page.count("<svg") == 2 and "&lt;i&gt;" in page and "<i>" not in page
  assert "100% 0" in page and "100% 1" in page  # Each label is one cluster.
  write_domain_report(open_store(tmp_path / "store"))
  assert (tmp_path / "store" / PAGE).read_text() == page
  prepare.main([given[0], f"--store={tmp_path / 'plain'}", *given[2:]])
  assert "agree with the labels" not in (tmp_path / "plain" / PAGE).read_text()
  shutil.copytree(finished, tmp_path / "experiment")
  (tmp_path / "store").rename(tmp_path / "experiment" / "store")
  report = write_report(tmp_path / "experiment").read_text()
  chapter = report.partition('<section id="domains">')[2].partition("</section>")[0]
  assert 'href="#domains"' in report and f'<a href="store/{PAGE}">' in chapter and "100% 0" in chapter
  assert re.search(r"<td>cluster_<wbr>0</td>.*(captain|statute)", chapter)
