"""For every test: two CPU devices, whatever the machine, and programs compiled in a hurry, since tests run each but briefly, unless
XLA_FLAGS has a level.

Nothing is kept in the user's cache of programs, nor read from there.
"""

import os

if "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip()
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

# ruff: noqa: E402  (JAX reads the flags when it is imported)
import jax
import pytest
from small import arguments, write_corpus

from jaxsplit import train

jax.config.update("jax_num_cpu_devices", 2)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
  """The folder of the small corpus."""
  folder = tmp_path_factory.mktemp("corpus")
  write_corpus(folder)
  return folder


@pytest.fixture(scope="session")
def finished(corpus, tmp_path_factory):
  """The work directory of a finished small experiment. Not to be changed."""
  workdir = tmp_path_factory.mktemp("finished") / "run"
  assert train.main(arguments(corpus, workdir)) == 0
  return workdir
