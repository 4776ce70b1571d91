"""metrics.jsonl: every step once, whatever happened to the file."""

import numpy as np
import pytest

from jaxsplit.training.metrics import Metrics, read_metrics


def block(first, steps, runs=2):
  return {"loss": np.arange(first, first + steps, dtype=np.float32)[:, None] + np.zeros(runs, np.float32), "skipped": np.zeros((steps, runs))}


@pytest.fixture
def path(tmp_path):
  metrics = Metrics(tmp_path / "metrics.jsonl")
  for stage, first in (("a", 0), ("a", 4), ("b", 0), ("a", 8)):
    metrics.append(stage, first, block(first, 4))
  metrics.close()
  return tmp_path / "metrics.jsonl"


def lines(path):
  return sorted((line["stage"], line["first_step"]) for line in read_metrics(path))


def test_rewinding_drops_what_will_be_trained_again(path):
  metrics = Metrics(path)
  assert metrics.recorded("a") == 12 and metrics.recorded("b") == 4 and metrics.recorded("c") == 0
  metrics.rewind("a", 4)
  assert lines(path) == [("a", 0), ("b", 0)]
  metrics.append("a", 4, block(4, 4))
  np.testing.assert_array_equal(metrics.losses("a", 8)[:, 1], np.arange(8))
  metrics.close()


def test_a_line_cut_short_is_dropped_without_a_word(path):
  said = []
  with path.open("ab") as f:
    f.write(b'{"stage":"b","first_step":4,"st')
  metrics = Metrics(path, said.append)
  assert metrics.recorded("b") == 4 and not said
  metrics.append("b", 4, block(4, 4))
  metrics.close()
  assert lines(path) == [("a", 0), ("a", 4), ("a", 8), ("b", 0), ("b", 4)]


@pytest.mark.parametrize("spoil", [lambda line: line.replace(b"4.0", b"4.1"), lambda line: b"\xff" + line[1:], lambda line: b"[]\n"])
def test_a_damaged_line_is_dropped_said_and_leaves_a_gap_to_train_again(path, spoil):
  whole = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(whole[0] + spoil(whole[1]) + b"".join(whole[2:]))
  said = []
  metrics = Metrics(path, said.append)
  assert metrics.recorded("a") == 4 and len(said) == 1 and "1 damaged" in said[0]
  assert lines(path) == [("a", 0), ("a", 8), ("b", 0)]
  metrics.rewind("a", 4)
  assert lines(path) == [("a", 0), ("b", 0)]


def test_a_block_twice_is_read_once(path):
  path.write_bytes(path.read_bytes() * 2)
  assert lines(path) == [("a", 0), ("a", 4), ("a", 8), ("b", 0)]
  said = []
  assert Metrics(path, said.append).recorded("a") == 12 and said
  assert len(path.read_bytes().splitlines()) == 4


def test_losses_that_are_not_finite_are_nan(path):
  metrics = Metrics(path)
  metrics.append("c", 0, {"loss": np.array([[1.0, np.nan], [np.inf, 2.0]])})
  np.testing.assert_array_equal(metrics.losses("c", 2), [[1.0, np.nan], [np.nan, 2.0]])
  metrics.close()
  np.testing.assert_array_equal(Metrics(path).losses("c", 2), [[1.0, np.nan], [np.nan, 2.0]])
