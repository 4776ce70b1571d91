"""Where a number comes from: the code, libraries and devices that made it."""

from __future__ import annotations

import functools
import pathlib
import platform

import jax
import jaxlib

import jaxsplit
from jaxsplit.files import content_hash


def environment() -> dict[str, str]:
  """What may change a result besides settings and data: code, versions and the kind (not the number) of devices."""
  device = jax.devices()[0]
  return {"version": jaxsplit.__version__, "code": code_hash(), "jax": jax.__version__, "jaxlib": jaxlib.__version__,
          "python": platform.python_version(), "platform": device.platform, "device": device.device_kind}


@functools.cache
def code_hash() -> str:
  """The hash of the package's sources, as they are: also right for a checkout with changes, and without git."""
  root = pathlib.Path(jaxsplit.__file__).parent
  sources = sorted(root.rglob("*.py"))
  return content_hash(*(part for path in sources for part in (path.relative_to(root).as_posix(), path.read_bytes())))
