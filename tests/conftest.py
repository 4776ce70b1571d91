"""For every test: two CPU devices, whatever the machine, and programs compiled in a hurry, since tests run each but briefly."""

import os

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip()

import jax  # noqa: E402  (reads the flags)

jax.config.update("jax_num_cpu_devices", 2)
