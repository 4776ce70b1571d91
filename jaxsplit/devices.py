"""The devices that JAX has here, or a line that says why it has none."""

from __future__ import annotations

import collections
import os

import jax

from jaxsplit.errors import InputError


def present() -> list[jax.Device]:
  """All devices of the platform that JAX was told to use, or chose.

  Raises:
    InputError: there is no such platform, or its devices cannot be used.
  """
  for way in ("", "_host_to_device", "_device_to_host", "_device_to_device"):
    if getattr(jax.config, f"jax_transfer_guard{way}") == "disallow_explicit":
      raise InputError(f"JAX_TRANSFER_GUARD{way.upper()}=disallow_explicit forbids the transfers without which nothing reaches a device; "
                       "give disallow, which finds those that nobody meant")
  try:
    return jax.devices()
  except (RuntimeError, AssertionError) as error:  # JAX asserts that a platform that it knows by name, such as cuda, is there.
    reason = str(error).partition("(set JAX_PLATFORMS")[0].strip(" .") or "JAX has no support for it here"
  asked = {"JAX_PLATFORMS": jax.config.jax_platforms, "JAX_PLATFORM_NAME": os.environ.get("JAX_PLATFORM_NAME")}
  for variable, name in asked.items():
    if name:
      raise InputError(f"{variable}={name}: {reason}; {_otherwise()}")
  raise InputError(f"no device to compute on: {reason}; end what uses the devices, or set JAX_PLATFORMS=cpu")


def described(devices: list[jax.Device]) -> str:
  """"8 x TPU v5 lite", say."""
  return ", ".join(f"{count} x {kind}" for kind, count in collections.Counter(device.device_kind for device in devices).items())


def _otherwise() -> str:
  """What JAX would use if it were not told."""
  jax.config.update("jax_platforms", None)
  jax.config.update("jax_platform_name", None)
  try:
    return f"what is there is {described(jax.devices())}: unset it, or install JAX for that platform"
  except (RuntimeError, AssertionError):
    return "nor is there any other device"
