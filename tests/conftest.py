"""For every test: two CPU devices, whatever the machine, and programs compiled in a hurry, since tests run each but briefly, unless
XLA_FLAGS has a level.

Nothing is kept in the user's cache of programs, nor read from there: tests share one that lasts as long as they do.
"""

import contextlib
import fcntl
import os
import shutil
import sys

if "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip()
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # Of processes that tests start.

# ruff: noqa: E402  (JAX reads the flags when it is imported)
import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from small import arguments, write_corpus

from jaxsplit import train
from jaxsplit.clustering.features import FEATURES
from jaxsplit.data.formats import READERS
from jaxsplit.evaluation.routers import ROUTERS
from jaxsplit.evaluation.tasks import TASKS
from jaxsplit.law.forms import FORMS
from jaxsplit.models.family import FAMILIES
from jaxsplit.training.optimizer import OPTIMIZERS

jax.config.update("jax_num_cpu_devices", 2)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
  """A folder that all processes of one run of the tests have."""
  base = tmp_path_factory.getbasetemp()
  return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def programs(shared_folder):
  """What one test has compiled, others load: those of a whole experiment train models of the same few sizes."""
  jax.config.update("jax_compilation_cache_dir", str(shared_folder / "programs"))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  jax.config.update("jax_enable_compilation_cache", True)
  compilation_cache.reset_cache()  # What modules compile when they are imported has it looked for already, and not found.


@pytest.fixture
def extensions():
  """Forgets what extensions have added, as a new process would. What they add in a test goes with it."""

  def forget() -> None:
    for registry in (FAMILIES, OPTIMIZERS, FORMS, READERS, FEATURES, ROUTERS, TASKS):
      for name in registry.origins:
        registry.pop(name, None)
      registry.origins.clear()
    for name in [name for name in sys.modules if name.startswith("jaxsplit_extension_")]:
      del sys.modules[name]

  yield forget
  forget()


@contextlib.contextmanager
def once(folder, name):
  """The path `name` in a folder, and whether it is to be made here: other processes wait until it is."""
  with open(folder / f"{name}.lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    made = folder / f"{name}.made"
    yield folder / name, not made.exists()
    made.touch()


@pytest.fixture(scope="session")
def corpus(shared_folder):
  """The folder of the small corpus. Not to be changed."""
  with once(shared_folder, "corpus") as (folder, first):
    if first:
      folder.mkdir()
      write_corpus(folder)
  return folder


@pytest.fixture(scope="session")
def finished(corpus, shared_folder, tmp_path_factory):
  """The work directory of a finished small experiment. Not to be changed; each process has a copy, as it may lock it."""
  with once(shared_folder, "finished") as (workdir, first):
    if first:
      assert train.main(arguments(corpus, workdir)) == 0
  return shutil.copytree(workdir, tmp_path_factory.mktemp("finished") / "run")
