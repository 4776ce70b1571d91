"""Memory is estimated as XLA counts it, and what cannot fit is refused with settings that can."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxsplit.models.config import Architecture
from jaxsplit.parallel.sharding import Layout, Machine
from jaxsplit.training import memory, stack
from jaxsplit.training.optimizer import Optimizer, Schedule
from jaxsplit.training.stack import StackSpec


def spec(runs=1, batch=8, length=128, **architecture):
  model = Architecture(head_dim=32, **architecture).at(128, 3, 1024, length)
  return StackSpec(model, Optimizer(), Layout(devices=1), runs, 1, batch, end_of_document=0)


@pytest.mark.parametrize("change", [
    {}, {"accumulation": 4}, {"runs": 2, "runs_per_map": 0},
    {"model": spec(remat="full").model}, {"model": spec(remat="dots").model},
    {"model": spec(family="gpt2").model}, {"model": spec(family="gpt2", remat="dots").model}, {"model": spec(family="gpt2", remat="full").model},
    {"optimizer": Optimizer(name="muon")}, {"averages": True},
], ids=["plain", "in parts", "vmapped", "full", "dots", "gpt2", "gpt2 dots", "gpt2 full", "muon", "averaging"])
def test_the_estimate_is_what_xla_counts(change):
  s = dataclasses.replace(spec(), **change)
  shape = jax.ShapeDtypeStruct
  schedule = Schedule(shape((s.runs,), np.float32), *[shape((s.runs,), np.int32)] * 5)
  tokens = shape((1, s.runs, s.batch, s.model.sequence_length + 1), np.int32)
  counted = stack.train_block(s).lower(s.abstract, tokens, np.int32(0), schedule).compile().memory_analysis()
  assert 0.75 < memory.estimate(s).total / (counted.temp_size_in_bytes + counted.argument_size_in_bytes) < 1.25


def test_sharded_state_counts_what_one_device_holds():
  whole = memory.estimate(spec(runs=2))
  halves = memory.estimate(dataclasses.replace(spec(runs=2), layout=Layout(expert=2, devices=2)))
  assert halves.params * 2 == whole.params and halves.moments * 2 == pytest.approx(whole.moments, abs=16)
  shared = memory.estimate(dataclasses.replace(spec(), layout=Layout(data=2, devices=2, fsdp=True)))
  assert shared.params < 0.6 * memory.estimate(spec()).params


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_moments_in_bfloat16_take_half(name):
  full, half = (memory.estimate(dataclasses.replace(spec(), optimizer=Optimizer(name, moments=m))) for m in ("float32", "bfloat16"))
  assert half.moments == pytest.approx(full.moments / 2, abs=16)


def test_muon_keeps_one_moment_of_a_layers_matrix():
  adam, muon = (memory.estimate(dataclasses.replace(spec(), optimizer=Optimizer(name))) for name in ("adamw", "muon"))
  model = spec().model
  vectors = model.depth * (2 * model.width + 2 * model.head_dim) + model.width
  assert adam.moments - muon.moments == pytest.approx(4 * (model.params - vectors), abs=16)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_programs_are_lowered_for_machines_that_are_not_here(platform):
  there = dataclasses.replace(
      spec(runs=8, compute_dtype="bfloat16"), layout=Layout(fsdp=True), elsewhere=Machine(platform, 16, 1 << 34))
  assert dict(there.mesh.shape) == {"expert": 8, "data": 2, "tensor": 1}
  text = stack.lower_training(there, 1)
  assert "num_partitions = 16" in text and "bf16" in text
