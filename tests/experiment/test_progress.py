"""What the progress line says of speed."""

import re
import types

import pytest

from jaxsplit.experiment import progress
from jaxsplit.experiment.progress import Progress


class Timer:
  """Stands in for the time module: a clock that the test turns."""

  def __init__(self):
    self.now = 100.0

  def monotonic(self) -> float:
    return self.now


@pytest.fixture
def timer(monkeypatch):
  timer = Timer()
  monkeypatch.setattr(progress, "time", timer)
  return timer


def speeds(printed: str) -> list[tuple[float, float]]:
  """Tokens a second and MFU (in percent) of each line."""
  return [(float(rate.replace(",", "")), float(mfu)) for rate, mfu in re.findall(r"tokens/s ([\d,]+)  MFU ([\d.]+)%", printed)]


def train(timer, elapsed, peak):
  """Trains a block of 10 steps of 2 runs, 1,000 tokens each, after each of the times."""
  stage = types.SimpleNamespace(name="d8-l1/trunk/99", runs=[0, 1], steps=10 * len(elapsed),
                                model=types.SimpleNamespace(flops_per_token=5.0))
  shown = Progress(batch_tokens=1_000)
  shown.plan([stage], [], 1, 0)
  shown.start(stage, 0, peak)
  for seconds in elapsed:
    timer.now += seconds
    shown.advance(stage, 10, 1.0)


def test_blocks_that_end_late_and_then_together_do_not_count_as_fast(timer, capsys):
  train(timer, [7.999, 0.001] * 20, peak=100_000.0)  # 20,000 tokens in 4 seconds, on average.
  seen = speeds(capsys.readouterr().out)
  assert len(seen) >= 10
  for rate, mfu in seen[2:]:
    assert 5_000 / 2 < rate < 5_000 * 2  # That of the last ten seconds, of which the line may see one late block more.
    assert mfu == pytest.approx(100 * rate * 5 / 100_000, abs=0.1)


def test_a_speed_that_changes_is_seen(timer, capsys):
  train(timer, [1.0] * 40 + [4.0] * 20, peak=100_000.0)
  rates = [rate for rate, _ in speeds(capsys.readouterr().out)]
  assert rates[3] == pytest.approx(20_000, rel=0.01)
  assert rates[-1] == pytest.approx(5_000, rel=0.01)


def test_what_is_left_counts_steps_where_steps_are_all_overhead(timer, capsys):
  small, wide, large = (types.SimpleNamespace(name=name, runs=[0], steps=steps, model=types.SimpleNamespace(flops_per_token=flops))
                        for name, steps, flops in (("a", 100, 1.0), ("b", 100, 10.0), ("c", 1000, 5000.0)))
  shown = Progress(batch_tokens=1_000)
  shown.plan([small, wide, large], [], 3, 0)
  for stage in (small, wide):
    shown.start(stage, 0, None)
    for _ in range(10):
      timer.now += 2.0
      shown.advance(stage, 10, 1.0)
    shown.finish(1)
  assert re.search("left 3:(19|20)$", capsys.readouterr().out.splitlines()[-1])  # 1,000 steps of .2 seconds.
