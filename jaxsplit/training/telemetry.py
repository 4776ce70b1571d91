"""telemetry.jsonl: training speed, time by activity, compilations and memory of each stage.

It differs between executions: no result depends on it, and only the report reads it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import resource
import sys
import threading
import time

import jax
import jax.numpy as jnp

from jaxsplit.results.record import parsed
from jaxsplit.training.chips import peak_bf16_flops
from jaxsplit.training.stack import StackSpec


@dataclasses.dataclass(frozen=True)
class StageTelemetry:
  """A stage's training, or the part of it that one process did.

  Attributes:
    stage, first_step, steps: which steps of which stage.
    size, runs, params: of its stack: the name of the model's shape, R without idle runs, and N.
    tokens: of all its runs.
    tokens_per_second, flops_per_second: tokens and model FLOPs (`ModelConfig.flops_per_token`) over the next four times together.
    mfu: model FLOPs utilization: flops_per_second as a fraction of the devices' peak; None if that is not known.
    device, devices: their kind, and how many the stack takes.
    data_seconds: spent waiting for the next block of batches.
    dispatch_seconds: spent in handing batches and the program to the devices; on a CPU, some of the computation falls in here.
    device_seconds: spent waiting for the devices to be done.
    other_seconds: spent on metrics, snapshots and the display.
    compiler_wait_seconds: spent waiting for the program to be compiled, before all these.
    compiled, loaded, compile_seconds: programs that were compiled, and that were read from the cache of programs, in any thread,
      since the record before; how long both took together, tracing and lowering not counted.
    device_peak_bytes: peak memory so far of the stack's devices, of the one with most; None if devices do not report it.
    host_peak_bytes: peak memory of this process so far.
  """

  stage: str
  size: str
  first_step: int
  steps: int
  runs: int
  params: int
  tokens: int
  tokens_per_second: float
  flops_per_second: float
  mfu: float | None
  device: str
  devices: int
  data_seconds: float
  dispatch_seconds: float
  device_seconds: float
  other_seconds: float
  compiler_wait_seconds: float
  compiled: int
  loaded: int
  compile_seconds: float
  device_peak_bytes: int | None
  host_peak_bytes: int

  @property
  def seconds(self) -> float:
    """The time that training took."""
    return self.data_seconds + self.dispatch_seconds + self.device_seconds + self.other_seconds


class Clock:
  """The time of a loop by activity: a lap names the activity since the lap before."""

  def __init__(self):
    self.seconds: dict[str, float] = {}
    self._last = time.perf_counter()

  def lap(self, name: str) -> None:
    now = time.perf_counter()
    self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
    self._last = now


class Telemetry:
  """Appends a line for each stage that this process trains. A process that resumes a stage appends another.

  Args:
    path: the file.
  """

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._seen = compilations()

  def record(self, stage: str, size: str, spec: StackSpec, *, runs: int, first_step: int, steps: int, clock: Clock) -> None:
    """Records that `steps` steps of a stage of that size were trained from `first_step` on.

    `clock` has the laps of `loop.train`, and `compiler`.
    """
    now, seen = compilations(), self._seen
    self._seen = now
    spent = {name: clock.seconds.get(name, 0.0) for name in ("data", "dispatch", "device", "other")}
    seconds = max(sum(spent.values()), 1e-9)
    tokens = runs * steps * spec.batch * spec.model.sequence_length
    flops, peak = tokens * spec.model.flops_per_token / seconds, peak_flops(spec)
    devices = list(spec.mesh.local_devices)
    self._append(StageTelemetry(
        stage, size, first_step, steps, runs, spec.model.params, tokens, tokens / seconds, flops, peak and flops / peak,
        devices[0].device_kind, spec.mesh.size, *spent.values(), clock.seconds.get("compiler", 0.0),
        now.compiled - seen.compiled, now.loaded - seen.loaded, now.seconds - seen.seconds, _device_peak_bytes(devices),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)))

  def _append(self, record: StageTelemetry) -> None:
    values = {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in vars(record).items()}
    line = json.dumps(values, separators=(",", ":")) + "\n"
    try:
      with self._path.open("ab+") as f:
        if f.tell() and f.seek(-1, os.SEEK_END) and f.read(1) != b"\n":  # A process was killed while it wrote.
          line = "\n" + line
        f.write(line.encode())
    except OSError as error:
      raise OSError(error.errno, error.strerror, str(self._path)) from None


def read_telemetry(path: pathlib.Path) -> list[StageTelemetry]:
  """The lines of a file; damaged ones are left out."""
  records = []
  for line in path.read_bytes().splitlines() if path.exists() else ():
    try:
      records.append(parsed(StageTelemetry, json.loads(line)))
    except (ValueError, RecursionError):
      pass
  return records


def peak_flops(spec: StackSpec) -> float | None:
  """Peak FLOP/s of the devices of a stack; None if that is not known, or if the stack does not compute in bfloat16."""
  peak = peak_bf16_flops(spec.mesh.devices.flat[0].device_kind)
  return None if peak is None or spec.model.dtype != jnp.bfloat16 else peak * spec.mesh.size


@dataclasses.dataclass(frozen=True)
class Compilations:
  """Programs compiled, and read from the cache of programs instead, in this process so far; and the time both took."""

  compiled: int
  loaded: int
  seconds: float


def compilations() -> Compilations:
  """What was compiled since this was first called, in whatever thread."""
  return _compiler().so_far()


class _Compiler:
  """Listens to JAX's compiler."""

  def __init__(self):
    self._lock, self._this = threading.Lock(), threading.local()
    self._compiled, self._loaded, self._seconds = 0, 0, 0.0
    jax.monitoring.register_event_duration_secs_listener(self._on_duration)
    jax.monitoring.register_event_listener(self._on_event)

  def so_far(self) -> Compilations:
    with self._lock:
      return Compilations(self._compiled, self._loaded, self._seconds)

  def _on_duration(self, event: str, seconds: float, **_) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
      loaded, self._this.loaded = getattr(self._this, "loaded", False), False
      with self._lock:
        self._compiled += not loaded
        self._loaded += loaded
        self._seconds += seconds

  def _on_event(self, event: str, **_) -> None:
    if event == "/jax/compilation_cache/cache_hits":  # The duration that follows in this thread is of reading.
      self._this.loaded = True


@functools.cache
def _compiler() -> _Compiler:
  return _Compiler()


def _device_peak_bytes(devices: list[jax.Device]) -> int | None:
  peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in devices]
  return max((peak for peak in peaks if peak is not None), default=None)
