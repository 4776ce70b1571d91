import json

import numpy as np
import pytest

from jaxsplit.report import training_figures
from jaxsplit.report.evidence import read_evidence
from jaxsplit.results.stages import read_stages, totals, write_stages
from jaxsplit.training.metrics import read_metrics
from tests.report.conftest import BATCH, rewrite


def _curves(path):
  return training_figures.read_curves(read_metrics(path / "metrics.jsonl"), read_stages(path / "ledger.json"), BATCH)


def test_curves_stand_where_their_runs_were(finished):
  curves = {}
  for curve in _curves(finished):
    curves.setdefault(curve.phase, []).append((curve.tokens[0] / BATCH, curve.tokens[-1] / BATCH, len(curve.tokens)))
  spans = {phase: [(round(a), round(b)) for a, b, _ in of] for phase, of in curves.items()}
  # Smoothed over about 6 steps: ends lie within 3 steps of the stage's.
  expected = {"trunk": [(1, 500)], "full": [(201, 250)], "branch": [(251, 322), (501, 572)],
              "cooldown": [(323, 340), (573, 590)]}
  assert spans.keys() == expected.keys()
  for phase in expected:
    np.testing.assert_allclose(spans[phase], expected[phase], atol=3.5)


def test_a_curve_is_the_mean_of_its_own_fork(finished):
  first, second = (curve for curve in _curves(finished) if curve.phase == "branch")
  # Runs 0, 1, 2 descend from the first fork and 3, 4, 5 from the second; run r lies 0.1 r higher.
  np.testing.assert_allclose(second.loss - first.loss, 0.3, atol=1e-6)
  assert first.loss.mean() == pytest.approx(2.5 + 0.1, abs=1e-3)


def test_the_waves_of_a_stage_are_one_curve(finished, workdir):
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  cut = lambda line, name, runs: {**line, "stage": f"{line['stage']}{name}", "loss": [row[runs] for row in line["loss"]]}
  halves = (".wave-1-of-2", slice(0, 4)), (".wave-2-of-2", slice(4, 6))  # Of both forks' runs, and of the second's alone.
  wide = lambda stage: "experts" in stage
  lines = [part for line in lines for part in ([cut(line, *half) for half in halves] if wide(line["stage"]) else [line])]
  for line in lines:
    line.pop("check")
  (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

  def split(ledger):
    ledger["stages"] = [part for stage in ledger["stages"] for part in ([
        {**stage, "name": stage["name"] + name, "runs": stage["runs"][runs]} for name, runs in halves]
        if wide(stage["name"]) and stage["purpose"] != "retry" else [stage])]

  rewrite(workdir / "ledger.json", split)
  assert len(_curves(workdir)) == len(_curves(finished))
  for one, other in zip(_curves(workdir), _curves(finished)):
    assert (one.size, one.phase) == (other.size, other.phase)
    np.testing.assert_array_equal(one.tokens, other.tokens)
    np.testing.assert_allclose(one.loss, other.loss, rtol=1e-12)


def test_a_stage_that_is_not_finished_has_no_curve(workdir):
  write_stages(workdir / "ledger.json", [s for s in read_stages(workdir / "ledger.json") if s.phase != "cooldown"])
  assert {curve.phase for curve in _curves(workdir)} == {"trunk", "full", "branch"}


def test_steps_that_are_not_finite_are_left_out(workdir):
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  lines[1]["loss"][:100] = [[None]] * 100
  (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  trunk = next(curve for curve in _curves(workdir) if curve.phase == "trunk")
  assert np.isfinite(trunk.loss).all() and trunk.tokens[0] > 99 * BATCH


def test_the_probe_marks_the_rate_of_every_size(finished):
  figure = training_figures.probe(read_evidence(finished))
  triangles = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "^" and len(line.get_xdata())]
  assert triangles == [0.004] * 4


def test_spending_is_in_proportion(finished):
  left, right = training_figures.spending(totals(read_evidence(finished).stages)).axes
  assert [text.get_text() for text in right.texts] == ["10%", "40%", "4%", "4%", "2%", "20%", "20%"]
  assert [text.get_text() for text in left.get_yticklabels()] == [
      "retry, branch", "proof, cooldown", "grid, cooldown", "grid, branch", "grid, full", "grid, trunk", "probe"]
