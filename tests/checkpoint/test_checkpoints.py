"""Snapshots: whole, checked to the last byte, and replaced by the one before where they are not."""

import errno
import json
import os
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplit.checkpoint import checkpoints
from jaxsplit.checkpoint.checkpoints import Checkpoints
from jaxsplit.checkpoint.manifest import MANIFEST
from jaxsplit.errors import InputError
from jaxsplit.files import read_json, write_json
from jaxsplit.training.fingerprint import fingerprint
from jaxsplit.training.interruption import Interrupted, Interruption


def state(value):
  return {"params": {"w": jnp.arange(2 * 300, dtype=jnp.float32).reshape(2, 300) + value}, "moments": {"m": jnp.full((2, 3), value)}}


def abstract():
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(0.0))


@pytest.fixture
def two(tmp_path):
  """A stage with snapshots at steps 10 and 20."""
  snapshots = Checkpoints(tmp_path)
  for step in (10, 20):
    snapshots.save("stage", step, state(float(step)), {"step": step})
  snapshots.close()
  return tmp_path


def opened(path):
  said = []
  return Checkpoints(path, said.append), said


def value(snapshots, step):
  return float(snapshots.restore("stage", step, abstract())["params"]["w"][0, 0])


def test_the_newest_whole_snapshot_is_restored(two):
  snapshots, said = opened(two)
  assert snapshots.newest("stage") == 20 and value(snapshots, 20) == 20 and snapshots.about("stage", 20) == {"step": 20}
  assert snapshots.newest("other") is None and not said


def largest(folder):
  return max((f for f in (folder / "state").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


DAMAGE = {
    "a flipped bit in the arrays": (lambda folder: flip(largest(folder)), "has other bytes than were written"),
    "a flipped bit in the metadata": (lambda folder: flip(folder / "state" / "_METADATA"), "has other bytes than were written"),
    "a flipped bit in the manifest": (lambda folder: flip(folder / MANIFEST), MANIFEST),
    "a changed fact": (lambda folder: write_json(folder / MANIFEST, read_json(folder / MANIFEST) | {"about": {"step": 30}}), "its own hash"),
    "a truncated file": (lambda folder: largest(folder).write_bytes(largest(folder).read_bytes()[:-9]), "bytes instead of"),
    "a file that is missing": (lambda folder: largest(folder).unlink(), "is missing"),
    "a file of another snapshot": (lambda folder: (folder / "state" / "d" / "more").write_bytes(b"x"), "is not of it"),
    "an empty manifest": (lambda folder: (folder / MANIFEST).write_text(""), "not JSON"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_snapshot_is_named_and_the_one_before_is_used(two, damage):
  spoil, reason = DAMAGE[damage]
  spoil(two / "stage" / "20")
  snapshots, said = opened(two)
  assert snapshots.newest("stage") == 10 and value(snapshots, 10) == 10
  assert len(said) == 1 and str(two / "stage" / "20") in said[0] and reason in said[0]
  snapshots.save("stage", 20, state(20.0), {})  # Trained again.
  assert snapshots.newest("stage") == 20


def test_what_was_not_sealed_does_not_exist(two):
  (two / "stage" / "20" / MANIFEST).unlink()
  snapshots, said = opened(two)
  assert snapshots.newest("stage") == 10 and not (two / "stage" / "20").exists() and not said


def test_a_stage_keeps_its_last_two_and_at_its_end_one(two):
  snapshots, _ = opened(two)
  steps = lambda: sorted(int(p.name) for p in (two / "stage").iterdir())
  snapshots.save("stage", 30, state(30.0), {})
  snapshots.wait()
  assert steps() == [20, 30]
  snapshots.save("stage", 40, state(40.0), {}, last=True)
  snapshots.wait()
  assert steps() == [40]
  snapshots.discard("stage")
  snapshots.close()
  assert not (two / "stage").exists()


def test_snapshots_that_metrics_do_not_lead_up_to_are_left(two):
  snapshots, _ = opened(two)
  assert snapshots.newest("stage", at_most=15) == 10 and not (two / "stage" / "20").exists()


def test_metrics_are_durable_before_the_snapshot_is(two):
  snapshots, _ = opened(two)
  committed = []
  snapshots.save("stage", 30, state(1.0), {}, first=lambda: committed.append((two / "stage" / "30" / MANIFEST).exists()))
  snapshots.close()
  assert committed == [False]


def test_a_full_disk_is_an_os_error_that_names_the_snapshot(two, monkeypatch):
  def full(*_, **__):
    raise ValueError("RESOURCE_EXHAUSTED: write failed: No space left on device [source locations]")

  monkeypatch.setattr(checkpoints.ocp.AsyncCheckpointer, "save", full)
  snapshots, _ = opened(two)
  snapshots.save("stage", 30, state(1.0), {})
  with pytest.raises(OSError, match="No space left on device") as caught:
    snapshots.wait()
  assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(two / "stage" / "30")
  assert not (two / "stage" / "30").exists() and snapshots.newest("stage") == 20
  snapshots.close()


@pytest.mark.parametrize("shortage", [RuntimeError("can't start new thread"), MemoryError()])
def test_a_machine_without_room_is_no_fault_of_the_disk_nor_of_a_snapshot(two, monkeypatch, shortage):
  def fail(*_, **__):
    raise shortage

  snapshots, _ = opened(two)
  monkeypatch.setattr(checkpoints.ocp.AsyncCheckpointer, "restore", fail)
  monkeypatch.setattr(checkpoints.ocp.AsyncCheckpointer, "save", fail)
  with pytest.raises(type(shortage)):
    snapshots.restore("stage", 20, abstract())
  snapshots.save("stage", 30, state(0.0), {"step": 30})
  with pytest.raises(type(shortage)):
    snapshots.wait()


def test_arrays_are_written_as_they_are(tmp_path):
  """Compressing them would take copies, of which a fork into many experts has no room."""
  zeros = {"params": {"w": jnp.zeros((1 << 20,))}}
  snapshots, _ = opened(tmp_path)
  snapshots.save("stage", 1, zeros, {})
  snapshots.close()
  assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) >= zeros["params"]["w"].nbytes


def test_another_shape_is_refused_in_one_line(two):
  snapshots, _ = opened(two)
  wrong = jax.tree.map(lambda x: jax.ShapeDtypeStruct((3, *x.shape[1:]), x.dtype, sharding=x.sharding), abstract())
  with pytest.raises(InputError, match="cannot be restored") as caught:
    snapshots.restore("stage", 20, wrong)
  assert "\n" not in str(caught.value)


def test_no_pickle_and_no_code_in_a_snapshot(two):
  for file in (two / "stage" / "20").rglob("*"):
    if file.is_file():
      assert not file.read_bytes().startswith((b"\x80\x04", b"\x80\x05", b"PK")), file
  json.loads((two / "stage" / "20" / MANIFEST).read_text())


def test_a_fingerprint_sees_every_bit_and_no_idle_row():
  one = state(1.0)
  before = fingerprint(one)
  assert before == fingerprint(state(1.0))
  w = np.array(one["params"]["w"])
  for place, bit in ((0, 0), (17, 31), (299, 12)):
    changed = w.copy()
    changed.view(np.uint32)[1, place] ^= np.uint32(1 << bit)
    after = fingerprint({**one, "params": {"w": jnp.asarray(changed)}})
    assert after["params"][1] != before["params"][1] and after["params"][0] == before["params"][0]
    assert after["moments"] == before["moments"]
  swapped = w.copy()
  swapped[0, [3, 4]] = swapped[0, [4, 3]]
  assert fingerprint({**one, "params": {"w": jnp.asarray(swapped)}})["params"][0] != before["params"][0]
  assert fingerprint(jax.tree.map(jnp.zeros_like, one))["moments"] == ["00000000"] * 2


def test_a_signal_while_a_snapshot_is_read_is_no_damage_of_its(two, monkeypatch):
  """Orbax makes an error of its own of whatever is raised while it reads, so nothing may be raised there."""
  plain = checkpoints.ocp.AsyncCheckpointer.restore

  def restore(self, *arguments, **options):
    try:
      os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(0.1)
    except BaseException as error:
      raise RuntimeError("cannot be read") from error
    return plain(self, *arguments, **options)

  monkeypatch.setattr(checkpoints.ocp.AsyncCheckpointer, "restore", restore)
  snapshots, said = opened(two)
  with pytest.raises(Interrupted), Interruption():
    snapshots.restore("stage", 20, abstract())
  snapshots.close()
  monkeypatch.undo()
  snapshots, said = opened(two)
  assert snapshots.newest("stage") == 20 and not said
  jax.tree.map(np.testing.assert_array_equal, snapshots.restore("stage", 20, abstract()), state(20.0))
