"""Two CPU devices for every test, whatever the machine: sharded and single-device programs side by side."""

import jax

jax.config.update("jax_num_cpu_devices", 2)
