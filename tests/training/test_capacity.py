"""What does not fit as its settings have it is trained in the layout, parts and waves that cost the least time, or refused."""

import dataclasses
import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import pytest

from jaxsplit.errors import InputError
from jaxsplit.models.config import Architecture
from jaxsplit.parallel.sharding import Layout, Machine
from jaxsplit.training import capacity, memory
from jaxsplit.training.optimizer import Optimizer
from jaxsplit.training.stack import StackSpec

ROOT = pathlib.Path(__file__).resolve().parents[2]
GiB = 1 << 30
V5E, V6E, H100 = Machine("tpu", 8, 16 * GiB), Machine("tpu", 8, 32 * GiB), Machine("cuda", 8, 80 * 10**9)
SIZES = {"760m": (1536, 24, 256), "1.3b": (2048, 24, 512), "2.7b": (2560, 32, 512), "6.7b": (4096, 32, 1024)}


def there(size, machine, runs=8, layout=Layout(fsdp=True), **change):
  """The stack of configs/scales on a machine that is not here."""
  width, depth, batch = SIZES[size]
  model = Architecture(head_dim=128, remat="dots", compute_dtype="bfloat16").at(width, depth, 32_768, 2048)
  model = dataclasses.replace(model, attention={"tpu": "splash", "cuda": "cudnn"}[machine.platform])
  return dataclasses.replace(StackSpec(model, Optimizer(b2=0.95), layout, runs, 1, batch, 0, elsewhere=machine), **change)


def small(runs=1, batch=8, length=128, **architecture):
  model = Architecture(head_dim=32, **architecture).at(128, 3, 1024, length)
  return StackSpec(model, Optimizer(), Layout(devices=1), runs, 1, batch, end_of_document=0)


def bounded(spec, size, devices=1, platform="tpu"):
  return dataclasses.replace(spec, layout=dataclasses.replace(spec.layout, devices=devices),
                             elsewhere=Machine(platform, devices, int(size / memory.FILLED)))


# --- layouts ---


def test_eight_experts_of_760m_fit_a_v5e_8_in_another_layout():
  """They take 17.8 of 13.6 GiB where each has a device of its own."""
  wanted = there("760m", V5E)
  alone = dataclasses.replace(wanted, layout=Layout(expert=8, data=1, fsdp=True), accumulation=256)
  assert memory.estimate(alone).total > memory.limit(alone)[0]
  found = capacity.fitted(wanted, any_parts=True)
  assert memory.fits(found) and found.runs == 8 and found.layout.fsdp and found.layout.expert < 8
  assert found.layout.expert * found.layout.data * found.layout.tensor == 8
  together = dataclasses.replace(wanted, layout=Layout(expert=1, fsdp=True))
  assert memory.fits(capacity.fitted(together, any_parts=True))  # As the user may want it.


@pytest.mark.parametrize("size, runs, layout, mesh, fsdp", [
    ("1.3b", 1, Layout(), (1, 8, 1), True),  # Whole on each device, weights and moments alone are 20 GiB.
    ("760m", 5, Layout(expert=1), (1, 4, 2), True),
    ("1.3b", 2, Layout(expert=2), (2, 2, 2), True),
    ("1.3b", 1, Layout(data=1), (1, 1, 8), False),  # What the layout sets stays.
    ("1.3b", 1, Layout(expert=1, data=2), (1, 2, 4), True)])
def test_relatives_fit_in_another_layout(size, runs, layout, mesh, fsdp):
  wanted = there(size, V5E, runs, layout)
  given = dataclasses.replace(capacity.as_given(wanted), accumulation=wanted.batch // 8)
  assert not memory.fits(given)
  found = capacity.fitted(wanted, any_parts=True)
  assert memory.fits(found) and (tuple(found.mesh.shape.values()), found.layout.fsdp) == (mesh, fsdp)


def test_what_fits_is_let_be():
  wanted = there("760m", H100)
  assert capacity.fitted(wanted, any_parts=True).layout == wanted.layout and capacity.waves(wanted, any_parts=True) == 1
  assert capacity.fitted(small(), any_parts=False) == small()


def test_no_layout_that_fits_costs_less_time():
  wanted = there("760m", V5E)
  found = capacity.fitted(wanted, any_parts=True)
  for other in capacity._laid_out(wanted, any_parts=True):
    assert capacity.time(other) >= capacity.time(found) or not memory.fits(other), other.layout


def test_an_explicit_layout_stays_where_it_fits():
  explicit = Layout(expert=2, data=4, fsdp=True)
  assert capacity.fitted(there("760m", V5E, runs=2, layout=explicit), any_parts=True).layout == explicit
  assert capacity.waves(there("760m", V5E, runs=2, layout=explicit), any_parts=True) == 1
  # Waves are rather cut so that it stays, though another layout would be quicker.
  wanted = there("1.3b", V5E, layout=Layout(expert=2))
  wave = capacity.wave(wanted, 8 // capacity.waves(wanted, any_parts=True))
  assert wave.runs < 8 and capacity.fitted(wave, any_parts=True).layout.expert == 2
  # Where it fits in no wave, it is given up.
  wanted = there("1.3b", V5E, layout=Layout(expert=8))
  wave = capacity.wave(wanted, 8 // capacity.waves(wanted, any_parts=True))
  assert wave.runs < 8 and memory.fits(capacity.fitted(wave, any_parts=True))


@pytest.mark.parametrize("expert", [3, 16])
def test_a_layout_that_divides_nothing_is_refused(expert):
  with pytest.raises(InputError, match=f"Layout.expert = {expert}"):
    capacity.waves(there("760m", V5E, layout=Layout(expert=expert)), any_parts=True)


def test_a_wave_that_the_layout_is_none_for_takes_another():
  alone = there("760m", V5E, runs=1, layout=Layout(expert=2))  # As single runs are that are trained again.
  assert memory.fits(capacity.fitted(alone, any_parts=True))
  with pytest.raises(InputError, match="a stack of 1 runs cannot be shared by Layout.expert = 2"):
    capacity.waves(alone, any_parts=True)


def test_a_batch_is_taken_in_as_few_parts_as_fit():
  needs = lambda parts: memory.estimate(dataclasses.replace(small(), accumulation=parts)).total
  parts = lambda size: capacity.fitted(bounded(small(), size), any_parts=True)
  assert [parts(needs(count) + 1000).accumulation for count in (1, 2, 4)] == [1, 2, 4]
  assert parts(1) is None and capacity.fitted(bounded(small(), needs(2) + 1000), any_parts=False) is None


# --- waves ---


@pytest.mark.parametrize("size, machine, runs", [
    ("1.3b", V5E, 8), ("2.7b", V5E, 8), ("2.7b", V6E, 8), ("6.7b", V6E, 8), ("6.7b", H100, 8), ("2.7b", V5E, 5),
    ("1.3b", V5E, 11)])
def test_what_does_not_fit_at_once_trains_in_waves(size, machine, runs):
  wanted = there(size, machine, runs)
  count = capacity.waves(wanted, any_parts=True)
  wave = capacity.fitted(capacity.wave(wanted, -(-runs // count)), any_parts=True)
  assert 1 < count <= runs and memory.fits(wave)
  assert wave.mesh.size == 8  # No device is idle.
  for other in range(1, runs + 1):
    found = capacity.fitted(capacity.wave(wanted, -(-runs // other)), any_parts=True)
    assert found is None or other * capacity.time(found) >= count * capacity.time(wave)


def test_a_stack_that_one_device_has_no_room_for_trains_in_waves():
  needs = lambda runs: memory.estimate(small(runs)).total
  assert [capacity.waves(bounded(small(6), needs(runs) + 1000), any_parts=False) for runs in (6, 5, 3, 2, 1)] == [1, 2, 2, 3, 6]


def test_a_single_run_that_fits_nowhere_is_refused_with_what_would_fit():
  with pytest.raises(InputError, match="device's memory there at least .* of which 0.0 MiB are available; use a smaller model"):
    capacity.waves(bounded(small(4), 1), any_parts=True)
  huge = dataclasses.replace(small(), model=Architecture(head_dim=128).at(1 << 16, 96, 1024, 128))
  with pytest.raises(InputError, match="use a smaller model"):
    capacity.waves(huge, any_parts=True)


@pytest.mark.parametrize("settings", [
    {"accumulation": 2}, {"model": small(remat="dots").model}, {"accumulation": 8, "model": small(remat="full").model},
    {"accumulation": 8, "model": small(remat="full").model, "optimizer": Optimizer(b2=0.95, moments="bfloat16")}])
def test_a_refusal_names_the_settings_that_fit_and_cost_the_least_time(settings):
  one = dataclasses.replace(small(4), optimizer=Optimizer(b2=0.95))
  tight = bounded(one, memory.estimate(dataclasses.replace(one, **settings)).total + 1000)
  line = "a single run of 865,344 parameters .* are available; use [^ ]+ = [^;]+, which needs [0-9.]+ MiB$"
  with pytest.raises(InputError, match=line) as refusal:
    capacity.waves(tight, any_parts=False)
  advised = dict(re.findall(r"(\w+) = '?(\w+)'?[,;]", str(refusal.value)))
  follow = lambda spec, remat="none", accumulation=1, moments="float32": dataclasses.replace(
      spec, runs=1, model=small(remat=remat).model, accumulation=int(accumulation), optimizer=Optimizer(b2=0.95, moments=moments))
  assert memory.fits(follow(tight, **advised)) and advised
  quicker = [(remat, parts) for remat in ("none", "dots", "full") for parts in (1, 2, 4, 8)
             if capacity.time(follow(tight, remat, parts)) < capacity.time(follow(tight, **advised))]
  assert not any(memory.fits(follow(tight, remat, parts)) for remat, parts in quicker)


def test_parts_are_not_advised_where_there_are_as_many_as_can_be():
  least = memory.estimate(dataclasses.replace(small(), accumulation=8, model=small(remat="full").model)).total
  with pytest.raises(InputError, match="; use Architecture.remat = 'full', which needs"):
    capacity.waves(bounded(small(4), least + 1000), any_parts=True)
  with pytest.raises(InputError, match="; use a smaller model"):  # Moments in bfloat16 need a smaller b2.
    capacity.waves(bounded(dataclasses.replace(small(4), optimizer=Optimizer(b2=0.999)), least - 1000), any_parts=True)


# --- processes ---


def test_processes_with_other_memory_do_what_the_lead_does(tmp_path):
  """Two processes, of which the second has a hundredth of the first one's memory."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
  pair = [subprocess.Popen([sys.executable, __file__, str(port), str(index), str(tmp_path)], env=environment, cwd=ROOT,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for index in range(2)]
  try:
    said = [one.communicate(timeout=200) for one in pair]
  finally:
    for one in pair:
      if one.poll() is None:
        one.kill()
  assert [one.returncode for one in pair] == [0, 0], said
  lead, other = (json.loads((tmp_path / f"{index}.json").read_text()) for index in range(2))
  assert lead["settled"] == other["settled"] and lead["refused"] == other["refused"] and lead["waves"] == other["waves"]
  assert lead["alone"] != other["alone"]  # Each for itself would have compiled another program.


def decide(port, index, folder):
  """One of two processes: what is settled with the other, and what this one would have decided by itself."""
  import jax
  jax.config.update("jax_num_cpu_devices", 2)

  from jaxsplit.data.plain_tokenizers import ByteTokenizer
  from jaxsplit.data.store_writer import Document, write_store
  from jaxsplit.experiment import waves
  from jaxsplit.experiment.recipe import Recipe, StageSetup
  from jaxsplit.experiment.tree import Shape, build
  from jaxsplit.parallel import hosts
  from jaxsplit.parallel.cluster import Address
  from jaxsplit.results.stages import Point
  from jaxsplit.training.loop import Training

  texts = [Document(ByteTokenizer().encode(text), len(text), text.encode()) for text in ("some words", "and more")]
  splits = [(d, split, texts) for d in "abcd" for split in ("train", "valid")]
  store = write_store(folder / f"store{index}", ByteTokenizer(), splits, {})
  model = Architecture(head_dim=32).at(128, 3, 256, 128)
  training = Training(sequence_length=128, batch_sequences=16, accumulation=0)
  setup = StageSetup(store, Recipe(training, Optimizer(), Layout(devices=4), dict.fromkeys("abcd", 1.0), 0, True, 64, False))
  stages = build(Shape("s", model, tuple("abcd"), 1, 1e-3, 1, lambda seed, expert: 1, True, False), [Point(4, 4, "grid")])
  one = StackSpec(model, Optimizer(), Layout(expert=1, data=4, devices=4), 1, 1, 16, 0, elsewhere=Machine("cpu", 4, 0))
  with hosts.joined(Address(f"127.0.0.1:{port}", 2, index, "deactivate", timeout=100)):
    jax.devices()
    # Room on each of the lead's two devices for a run of each, in two parts; on the other's for a little less.
    room = memory.estimate(dataclasses.replace(one, layout=Layout(expert=4, data=1, devices=4), accumulation=4, runs=4)).total
    memory._machine_bytes = lambda: int(2 * (room + 1000) * (1, 0.7)[index] / memory.FILLED)
    planned = lambda: waves.choose(stages, {}, lambda cut: {stage.name for stage in cut}, setup.fits, setup.waves)
    counts = hosts.broadcast(planned)
    cut = waves.in_waves(stages, counts)
    setup.settle(cut)
    settled = [repr(setup.spec(stage)) for stage in cut]
    alone = [repr((planned(), capacity.fitted(setup._wanted(stage), True))) for stage in cut]
    memory._machine_bytes = lambda: (1 << 10, 1 << 40)[index]  # The lead's refusal is everybody's.
    fresh, refused = StageSetup(store, setup.recipe), ""
    try:
      hosts.broadcast(lambda: waves.choose(stages, {}, lambda cut: {stage.name for stage in cut}, fresh.fits, fresh.waves))
    except InputError as error:
      refused = str(error)
    assert "are available; use" in refused
    (folder / f"{index}.json").write_text(json.dumps({"settled": settled, "alone": alone, "waves": counts, "refused": refused}))


if __name__ == "__main__":
  decide(sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3]))
