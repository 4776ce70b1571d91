"""Compiled programs, kept on disk for later processes."""

from __future__ import annotations

import os
import pathlib
import platform

import jax

from jaxsplit.files import content_hash
from jaxsplit.parallel.sharding import cores


def keep_programs() -> None:
  """Has JAX look on disk before it compiles, and keep there what it compiled. To be called before anything is compiled.

  The folder is `jaxsplit/xla` in the user's cache folder (XDG_CACHE_HOME, ~/.cache), for the user alone: whoever can write there
  can run code as this user. JAX's own variables win: JAX_COMPILATION_CACHE_DIR names another folder,
  JAX_ENABLE_COMPILATION_CACHE=false keeps nothing. Where the folder cannot be written, nothing is kept either.
  """
  if not jax.config.jax_enable_compilation_cache:
    return
  if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:  # By default, what compiles within a second is not kept.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  if jax.config.jax_compilation_cache_dir is not None:
    return
  try:
    folder = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jaxsplit" / "xla" / _machine()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
  except (OSError, RuntimeError):  # RuntimeError: there is no home.
    return
  if os.access(folder, os.W_OK):
    jax.config.update("jax_compilation_cache_dir", str(folder))


def _machine() -> str:
  """The kind of this machine's processor, and how many cores we have.

  For a CPU, XLA compiles for exactly these, and JAX's cache keys do not contain them: from a home directory on several machines, one
  could load a program for fewer cores, or with instructions that it does not have. (On some Intel CPUs XLA misses a
  "prefer-no-gather" that is not a CPU feature, warns and compiles again, as reported in jax-ml/jax#38445.)
  """
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    lines = []
  facts = [next((line for line in lines if line.startswith(name)), "") for name in ("model name", "flags", "Features")]
  return content_hash(platform.machine(), platform.processor(), *facts, str(cores()))
