"""The cache of programs: a second process compiles nothing, and computes the same."""

import json
import os
import stat
import subprocess
import sys

import pytest

_PROCESS = """
import hashlib, json, jax, numpy as np
from jaxsplit.parallel.sharding import Layout, present_devices
from jaxsplit.training.program_cache import keep_programs
present_devices(Layout(devices=2))
keep_programs()
from jaxsplit.models.config import Architecture
from jaxsplit.parallel import sharding
from jaxsplit.training import stack
from jaxsplit.training.compiler import BackgroundCompiler
from jaxsplit.training.optimizer import Optimizer, Schedule
from jaxsplit.training.telemetry import compilations
compilations()
spec = stack.StackSpec(Architecture(head_dim=8).at(8, 1, 20, 8), Optimizer(), Layout(devices=2), 2, 1, 2, 0)
ahead = BackgroundCompiler()
ahead.ask("initialize", lambda: stack.compile_initialization(spec))
ahead.ask("train", lambda: stack.compile_training(spec, 4))
ahead.close()
zeros = np.zeros(2, np.int32)
put = lambda value, how: jax.device_put(value, how(spec.mesh))
tokens = np.random.default_rng(0).integers(1, 20, (4, 2, 2, 9)).astype(np.int32)
schedule = Schedule(np.full(2, 1e-2, np.float32), zeros, zeros + 2, zeros + 3, zeros + 4, zeros)
state, metrics = stack.train_block(spec)(stack.initialize(spec, [1, 2]), put(tokens, sharding.batch_sharding),
                                         put(np.int32(4), sharding.replicated), put(schedule, sharding.run_sharding))
digest = hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(jax.device_get((state, metrics)))))
print(json.dumps({**vars(compilations()), "digest": digest.hexdigest(), "loss": float(np.asarray(metrics["loss"])[0, 0]),
                  "folder": jax.config.jax_compilation_cache_dir}))
"""


def process(cache, **environment):
  done = subprocess.run([sys.executable, "-c", _PROCESS], capture_output=True, text=True, check=True, timeout=300, env={
      **os.environ, "JAX_ENABLE_COMPILATION_CACHE": "true", "XDG_CACHE_HOME": str(cache), **environment})
  if "+prefer-no-" in done.stderr:
    pytest.skip("on this CPU, XLA does not take what it compiled itself: jax-ml/jax#38445")
  assert "Error" not in done.stderr and "cpu_aot_loader" not in done.stderr, done.stderr
  return json.loads(done.stdout)


def test_a_second_process_compiles_nothing_and_computes_the_same(tmp_path):
  first, second = process(tmp_path), process(tmp_path)
  assert first["compiled"] >= 2 and first["loaded"] == 0
  assert second["compiled"] == 0 and second["loaded"] == first["compiled"]
  assert second["seconds"] < 0.2 * first["seconds"]
  assert second["digest"] == first["digest"] and 2 < first["loss"] < 5
  assert os.path.dirname(first["folder"]) == str(tmp_path / "jaxsplit" / "xla") and os.listdir(first["folder"])
  assert stat.S_IMODE(os.stat(first["folder"]).st_mode) == 0o700


_WHERE = """
import jax
from jaxsplit.training.program_cache import keep_programs
keep_programs()
print(jax.config.jax_compilation_cache_dir)
"""


@pytest.mark.parametrize("environment, folder", [
    ({"JAX_ENABLE_COMPILATION_CACHE": "false"}, "None"), ({"JAX_COMPILATION_CACHE_DIR": "/elsewhere"}, "/elsewhere"),
    ({"XDG_CACHE_HOME": "/proc/none"}, "None")])
def test_the_user_decides_where(tmp_path, environment, folder):
  environment = {"JAX_ENABLE_COMPILATION_CACHE": "true", "XDG_CACHE_HOME": str(tmp_path), **environment}
  done = subprocess.run(
      [sys.executable, "-c", _WHERE], capture_output=True, text=True, check=True, env={**os.environ, **environment})
  assert done.stdout.strip() == folder and not list(tmp_path.iterdir())
