import numpy as np
import pytest

from jaxsplit.experiment.cell_table import CellTable
from jaxsplit.files import write_json
from jaxsplit.law import load_plan
from jaxsplit.report.evidence import read_evidence
from jaxsplit.results.cells import read_cells
from tests.report.conftest import DOMAINS, TARGET, cell, config


@pytest.mark.parametrize("settings, share", [
    ({}, 0.4), ({"accounting": "per_model"}, 2 / 3), ({"trunk": "per_domain"}, 2 / 3),
    ({"trunk": "per_domain", "accounting": "per_model"}, 2 / 3)])
def test_the_seed_share_follows_the_accounting(tmp_path, settings, share):
  write_json(tmp_path / "config.json", config(**settings))
  CellTable(tmp_path / "cells.csv").add(cell(TARGET, 400_000, 200_000, domain, "split") for domain in DOMAINS)
  evidence = read_evidence(tmp_path)
  assert list(evidence.by_fraction("loss")) == [pytest.approx(share)]


def test_the_closing_table_is_that_of_the_cells(finished):
  evidence = read_evidence(finished)
  cells = read_cells(finished / "cells.csv")
  *lines, mean = evidence.closing()
  assert [line.domain for line in lines] == sorted(DOMAINS)
  for line in lines:
    of = lambda role: np.mean([c.loss for c in cells if (c.role, c.domain) == (role, line.domain)])
    assert line.measured == pytest.approx(of("split")) and line.dense == pytest.approx(of("dense"))
  assert mean.perplexity_change == pytest.approx(np.mean([np.exp(l.measured - l.dense) - 1 for l in lines]))


def test_another_split_is_not_taken_for_the_plan(workdir):
  table = CellTable(workdir / "cells.csv")
  others = [c for c in table if c.role != "split"]
  (workdir / "cells.csv").unlink()
  CellTable(workdir / "cells.csv").add([*others, *(cell(TARGET, 100_000, 300_000, domain, "split") for domain in DOMAINS)])
  fraction = load_plan(workdir / "plan.json").fraction
  assert 0.15 < fraction < 0.95
  evidence = read_evidence(workdir)
  assert evidence.recommended is None and evidence.closing() is None


def test_diverged_cells_are_counted_and_left_out(workdir):
  CellTable(workdir / "cells.csv").add([cell(TARGET, 7000, 1000, "law", "split", loss=float("nan"), status="diverged")])
  evidence = read_evidence(workdir)
  assert evidence.diverged == 1
  assert all(np.isfinite(c.loss) for c in evidence.proof)


def test_points_hold_every_replica(finished):
  points = read_evidence(finished).by_fraction("loss")
  assert list(points) == sorted(points) and points[1.0] and all(len(values) == 2 for values in points.values())
