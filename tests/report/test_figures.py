import dataclasses

import numpy as np
import pytest

from jaxsplit.experiment.closing import Line
from jaxsplit.report import figures
from jaxsplit.report.evidence import read_evidence
from tests.report.conftest import DOMAINS, loss


def _drawn(axes, marker):
  return np.concatenate([np.column_stack(line.get_data()) for line in axes.lines if line.get_marker() == marker])


def test_the_split_curve_holds_what_was_measured(finished):
  evidence = read_evidence(finished)
  axes = figures.split_curve(evidence, evidence.plan).axes[0]
  for name, role in (("D", "split"), ("D", "dense")):
    share = {evidence.budget.fraction(c.seed_tokens, c.expert_tokens) for c in evidence.proof if c.role == role}
    mean = np.mean([c.loss for c in evidence.proof if c.role == role])
    assert any(np.allclose(point, (*share, mean)) for point in _drawn(axes, name)), role
  low, high = axes.get_ylim()
  replicas = _drawn(axes, "o")
  assert len(replicas) == 4 and (low < replicas[:, 1]).all() and (replicas[:, 1] < high).all()


def test_a_band_that_is_wide_leaves_the_split_curve_to_be_seen(finished):
  evidence = read_evidence(finished)
  seen, wide = evidence.plan.curve, dataclasses.replace(
      evidence.plan.curve, low=tuple(0.3 * v for v in evidence.plan.curve.loss), high=tuple(3 * v for v in evidence.plan.curve.loss))
  axes = figures.split_curve(evidence, dataclasses.replace(evidence.plan, curve=wide)).axes[0]
  low, high = axes.get_ylim()
  shown = np.array(seen.loss)[10:-10]
  assert low < min(seen.loss) and high - low < 6 * max(np.ptp(shown), max(_drawn(axes, "o")[:, 1]) - min(seen.loss))
  assert "95 % band of new models, wider than shown" in axes.get_legend_handles_labels()[1]


def test_cells_lie_on_their_law(finished):
  evidence = read_evidence(finished)
  panels = figures.cells_with_law(evidence, evidence.law).axes
  assert [axes.get_title("left") for axes in panels] == ["N = 5k", "N = 10k", "N = 30k", "N = 90k"]
  points = np.concatenate([_drawn(panels[0], marker) for marker in "osD"])
  expected = [np.mean([loss(5_000, seed, expert, domain) for domain in DOMAINS])
              for seed in (250_000, 500_000, 900_000) for expert in (0, 30_000, 90_000, 240_000)]
  np.testing.assert_allclose(np.sort(points[:, 1]), np.sort(expected), rtol=1e-6)
  assert (points[:, 0] == 10_000).sum() == 3  # D' = 0 stands apart, at a third of the least D'.


def test_cells_are_drawn_without_a_law(finished):
  axes = figures.cells_with_law(read_evidence(finished), None).axes[0]
  assert all(line.get_marker() != "None" or len(line.get_xdata()) == 2 for line in axes.lines)


def test_gains_are_the_lines(tmp_path):
  lines = [Line("a", 2.0, 2.0, 2.05, 2.1, -0.05, -0.09), Line("b", 2.0, 2.0, 2.0, 1.9, 0.0, 0.05),
           Line("mean", 2.0, 2.0, 2.02, 2.0, -0.02, -0.02)]
  axes = figures.gains(lines).axes[0]
  bars = {label.get_text(): bar.get_width() for label, bar in zip(axes.get_yticklabels(), axes.patches)}
  assert bars == {"a": -0.09, "b": 0.05}
  assert {text.get_text() for text in axes.texts} == {"−9.0%", "+5.0%", "mean −2.0%"}


@pytest.mark.parametrize("value, expected", [("accuracy", [0.01, 0.71, 0.11]), ("loss", None)])
def test_the_thick_line_is_the_mean_of_replicas(phonebook, value, expected):
  axes = figures.measured_curve(read_evidence(phonebook), value, value).axes[0]
  *replicas, mean = [np.array(line.get_ydata()) for line in axes.lines]
  assert len(replicas) == 3
  np.testing.assert_allclose(mean, np.mean(replicas, 0))
  if expected:
    np.testing.assert_allclose(mean, expected)
