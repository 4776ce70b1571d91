"""Telemetry: what a line of it adds up to, what is counted as compiled, and what is known of chips."""

import dataclasses
import threading
import time

import jax
import numpy as np
import pytest

from jaxsplit.models.config import Architecture
from jaxsplit.training import chips
from jaxsplit.training.chips import peak_bf16_flops
from jaxsplit.training.optimizer import Optimizer
from jaxsplit.parallel.sharding import Layout
from jaxsplit.training.stack import StackSpec
from jaxsplit.training.telemetry import Clock, Telemetry, compilations, peak_flops, read_telemetry


def spec(**architecture):
  model = Architecture(head_dim=8, **architecture).at(16, 2, 20, 8)
  return StackSpec(model, Optimizer(), Layout(devices=2), 4, 1, 3, 0)


def test_laps_are_all_the_time_there_is():
  began = time.perf_counter()
  clock = Clock()
  for name in ("data", "device", "data"):
    time.sleep(0.02)
    clock.lap(name)
  assert clock.seconds.keys() == {"data", "device"} and clock.seconds["data"] >= 0.04
  assert sum(clock.seconds.values()) <= time.perf_counter() - began


def test_a_line_adds_up(tmp_path):
  clock = Clock()
  clock.seconds = {"compiler": 9.0, "data": 0.5, "dispatch": 0.25, "device": 1.0, "other": 0.25}
  s = spec()
  Telemetry(tmp_path / "t.jsonl").record("stage", "d8-l1", s, runs=3, first_step=4, steps=10, clock=clock)
  (line,) = read_telemetry(tmp_path / "t.jsonl")
  assert (line.stage, line.first_step, line.steps, line.runs, line.params) == ("stage", 4, 10, 3, s.model.params)
  assert line.tokens == 10 * 3 * 3 * 8 and line.seconds == 2 and line.compiler_wait_seconds == 9
  assert line.tokens_per_second == 360
  assert line.flops_per_second == pytest.approx(360 * s.model.flops_per_token, rel=1e-5)
  assert (line.device, line.devices) == ("cpu", 2)
  assert line.mfu is None and line.device_peak_bytes is None  # A CPU.
  assert 10**7 < line.host_peak_bytes < 10**12


def test_mfu_is_of_all_devices_and_of_bfloat16_alone(tmp_path, monkeypatch):
  monkeypatch.setitem(chips._TERAFLOPS, "cpu", 1e-3)
  assert peak_flops(spec()) is None  # A CPU computes in float32.
  s = spec(compute_dtype="bfloat16")
  assert peak_flops(s) == 2e9
  clock = Clock()
  clock.seconds = {"device": 1.0}
  Telemetry(tmp_path / "t.jsonl").record("stage", "d8-l1", s, runs=4, first_step=0, steps=10, clock=clock)
  assert read_telemetry(tmp_path / "t.jsonl")[0].mfu == pytest.approx(960 * s.model.flops_per_token / 2e9, rel=1e-5)


def test_a_torn_line_costs_itself_alone(tmp_path):
  record = lambda stage: Telemetry(tmp_path / "t.jsonl").record(stage, "d8-l1", spec(), runs=1, first_step=0, steps=1, clock=Clock())
  record("a")
  with (tmp_path / "t.jsonl").open("ab") as f:
    f.write(b'{"stage":"torn')
  record("b")
  lines = (tmp_path / "t.jsonl").read_text().splitlines()
  (tmp_path / "t.jsonl").write_text("\n".join([*lines, lines[-1].replace('"steps":1', '"steps":"1"'), ""]))
  record("c")
  assert [line.stage for line in read_telemetry(tmp_path / "t.jsonl")] == ["a", "b", "c"]
  assert read_telemetry(tmp_path / "none.jsonl") == []


def test_what_any_thread_compiles_is_counted_once():
  before = compilations()
  program = jax.jit(lambda x: x * 3 + before.compiled)
  x = jax.device_put(np.ones(7, np.float32))
  here = compilations()
  thread = threading.Thread(target=lambda: program.lower(x).compile())
  thread.start()
  thread.join()
  program(x)
  now = compilations()
  assert (now.compiled - here.compiled, now.loaded - here.loaded) == (1, 0)
  assert now.seconds > here.seconds


def test_chips():
  assert peak_bf16_flops("cpu") is None and peak_bf16_flops("NVIDIA H300") is None
  for slow, fast in (("TPU v5 lite", "TPU v4"), ("TPU v4", "TPU v5"), ("TPU v5", "TPU v6 lite"), ("TPU v6 lite", "TPU7x"),
                     ("NVIDIA L4", "NVIDIA A100-SXM4-80GB"), ("NVIDIA A100 80GB PCIe", "NVIDIA H100 PCIe"),
                     ("NVIDIA H100 PCIe", "NVIDIA H100 80GB HBM3"), ("NVIDIA H200", "NVIDIA B200")):
    assert 1e14 < peak_bf16_flops(slow) < peak_bf16_flops(fast) < 1e16
  assert peak_bf16_flops("NVIDIA H200") == 989.5e12


def test_a_line_is_plain_json(tmp_path):
  Telemetry(tmp_path / "t.jsonl").record("stage", "d8-l1", spec(), runs=1, first_step=0, steps=1, clock=Clock())
  (line,) = read_telemetry(tmp_path / "t.jsonl")
  assert all(isinstance(value, (str, int, float, type(None))) for value in dataclasses.asdict(line).values())
