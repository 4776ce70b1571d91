"""Event files for TensorBoard: what they say is what the work directory says."""

import struct
import sys

import numpy as np
import pytest

from jaxsplit.errors import InputError
from jaxsplit.report.__main__ import main
from jaxsplit.report.tensorboard import write_tensorboard
from jaxsplit.results.cells import read_cells
from jaxsplit.results.stages import read_stages
from jaxsplit.training.metrics import Metrics, read_metrics
from tests.conftest import finished as trained  # noqa: F401


@pytest.fixture
def tensorboardX():
  return pytest.importorskip("tensorboardX", reason="tensorboardX is not installed (pip install '.[tensorboard]')")


def scalars(folder):
  """tag -> [(tokens, value)] of the one event file in a folder, read by its format: length, check, message, check."""
  from tensorboardX.proto.event_pb2 import Event
  (path,) = folder.glob("events.out.tfevents.*")
  content, at, found = path.read_bytes(), 0, {}
  while at < len(content):
    (length,) = struct.unpack_from("<Q", content, at)
    event = Event.FromString(content[at + 12:at + 12 + length])
    for value in event.summary.value:
      found.setdefault(value.tag, []).append((event.step, value.simple_value))
    at += length + 16
  return found


def folders(folder):
  return {str(path.parent.relative_to(folder)) for path in folder.rglob("events.out.tfevents.*")}


def test_every_run_has_its_curves_over_the_tokens_of_its_life(trained, tensorboardX, tmp_path, capsys):  # noqa: F811
  assert main([f"--workdir={trained}", f"--tensorboard={tmp_path}"]) == 0
  stages = read_stages(trained / "ledger.json")
  assert len(folders(tmp_path)) == sum(len(stage.runs) for stage in stages)
  assert f"tensorboard --logdir={tmp_path}" in capsys.readouterr().out
  metrics, cells = list(read_metrics(trained / "metrics.jsonl")), read_cells(trained / "cells.csv")
  stage = next(stage for stage in stages if stage.phase == "cooldown" and stage.purpose == "proof")
  row = next(row for row, run in enumerate(stage.runs) if run.domain == "latin")
  run, batch_tokens = stage.runs[row], 16 * 2
  found = scalars(tmp_path / stage.name / "latin")
  lines = sorted((line for line in metrics if line["stage"] == stage.name), key=lambda line: line["first_step"])
  assert [tokens for tokens, _ in found["train/loss"]] == [(run.born + step + 1) * batch_tokens for step in range(stage.steps)]
  for name in ("loss", "gradient_norm", "learning_rate"):
    expected = np.concatenate([np.array(line[name], float)[:, row] for line in lines])
    np.testing.assert_allclose([value for _, value in found[f"train/{name}"]], expected, rtol=1e-6)
  (cell,) = [cell for cell in cells if cell.role == "split" and cell.domain == "latin" and cell.expert_tokens == run.point.expert_steps * batch_tokens]
  assert [name for name in found if name.startswith("held_out/")] == ["held_out/loss/latin"]
  assert found["held_out/loss/latin"] == [((run.born + stage.steps) * batch_tokens, pytest.approx(cell.loss, rel=1e-6))]
  assert found["train/tokens_per_second"][0][1] > 0


def test_runs_of_one_domain_are_told_apart_and_long_curves_are_means(workdir, tensorboardX, tmp_path):
  metrics = Metrics(workdir / "metrics.jsonl")  # A stage of the ledger has as many steps as it says; its record may be longer.
  metrics.rewind("d16-l2/trunk/250", 0)
  metrics.append("d16-l2/trunk/250", 0, {"loss": np.arange(4000.0)[:, None]})
  metrics.close()
  assert write_tensorboard(workdir, tmp_path / "events") == len(folders(tmp_path / "events"))
  assert {f"d16-l2/experts-250-500/branch-72/mixture-after-{tokens}-{row}" for row, tokens in enumerate([250_000] * 3 + [500_000] * 3)} <= folders(tmp_path / "events")
  curve = scalars(tmp_path / "events/d16-l2/trunk/250/mixture")["train/loss"]
  assert len(curve) == 1000 and curve[0] == (4000, 1.5) and curve[-1] == (4_000_000, 3997.5)


def test_again_they_are_written_anew_and_what_is_not_ours_stays(workdir, tensorboardX, tmp_path):
  write_tensorboard(workdir, tmp_path / "events")
  other = tmp_path / "events" / "other" / "events.out.tfevents.1.machine"
  other.parent.mkdir()
  other.write_bytes(b"")
  before = folders(tmp_path / "events")
  write_tensorboard(workdir, tmp_path / "events")
  assert folders(tmp_path / "events") == before and other.exists()
  assert len(list(tmp_path.rglob("events.out.tfevents.*"))) == len(before)


def test_what_cannot_be_written_is_told_in_a_line(workdir, tmp_path, monkeypatch):
  for argv, message in (([f"--workdir={workdir}", f"--workdir={tmp_path}", "--tensorboard=x"], "takes one --workdir"),
                        ([f"--workdir={workdir}", "--out=x.html", "--tensorboard=x"], "and no --out")):
    with pytest.raises(InputError, match=message):
      main(argv)
  with monkeypatch.context() as without:
    without.setitem(sys.modules, "tensorboardX", None)  # As where it is not installed.
    with pytest.raises(InputError, match="needs tensorboardX, which is not installed: pip install 'jaxsplit.tensorboard.'"):
      main([f"--workdir={workdir}", f"--tensorboard={tmp_path / 'events'}"])
  pytest.importorskip("tensorboardX", reason="tensorboardX is not installed (pip install '.[tensorboard]')")
  (tmp_path / "file").write_text("")
  for where, folder, message in ((tmp_path, "x", "no experiment that has trained anything"), (workdir, tmp_path / "file", "cannot be written")):
    with pytest.raises(InputError, match=message):
      write_tensorboard(where, folder)
