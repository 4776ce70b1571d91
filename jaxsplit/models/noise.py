"""Standard normal numbers, each a function of a seed and its position alone: the same on any mesh.

The generator is Threefry-2x32 with 20 rounds (Salmon et al., 2011), as `jax.random` has it, written out elementwise.
XLA fuses those with what the numbers are for: every device draws its own part, and no memory is taken but the result's. On a CPU
`jax.random` computes its rounds in a loop instead, over whole arrays that nothing is fused with.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_STREAM_BITS = 8  # Of the first counter; the rest of it counts rows.


def normal(seed: jax.Array, stream: int, shape: tuple[int, ...]) -> jax.Array:
  """Independent standard normal numbers, float32.

  Args:
    seed: uint32, a scalar.
    stream: below 256; streams of one seed are independent.
    shape: up to 2**24 rows of up to 2**32 numbers.
  """
  return _normal(seed, np.uint32(stream << 32 - _STREAM_BITS), shape)


@functools.partial(jax.jit, static_argnames="shape")  # So that each shape is traced once in a process.
def _normal(seed: jax.Array, stream: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  place = lambda axes: _place(shape, axes)
  rows = place(range(1)) | stream
  high, low = threefry((jnp.zeros_like(seed), seed), (rows, place(range(1, len(shape)))))
  # The upper 23 bits as a float from 1 to 2, stretched to between -1 and 1, neither included.
  fraction = jax.lax.bitcast_convert_type((high ^ low) >> np.uint32(9) | np.uint32(0x3F800000), jnp.float32) - np.float32(1)
  lowest = np.nextafter(np.float32(-1), np.float32(0))
  return np.float32(2**0.5) * jax.lax.erf_inv(jnp.maximum(lowest, fraction * (np.float32(1) - lowest) + lowest))


def threefry(key: tuple[jax.Array, jax.Array], counter: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
  """Two words of random bits for each pair of counters: Threefry-2x32 with 20 rounds. All are uint32."""
  keys = (*key, key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
  x, y = counter[0] + keys[0], counter[1] + keys[1]
  for group in range(1, 6):
    for rotation in _ROTATIONS[(group - 1) % 2]:
      x, y = _mixed(x, y, np.uint32(rotation))
    x, y = x + keys[group % 3], y + (keys[(group + 1) % 3] + np.uint32(group))
  return x, y


@jax.jit  # Traced once for all rounds of a shape; XLA sees through it.
def _mixed(x: jax.Array, y: jax.Array, rotation: jax.Array) -> tuple[jax.Array, jax.Array]:
  """One round of Threefry."""
  x = x + y
  return x, x ^ (y << rotation | y >> (np.uint32(32) - rotation))


def _place(shape: tuple[int, ...], axes: range) -> jax.Array:
  """Every entry's place along these axes, in row-major order."""
  place = jnp.zeros(shape, jnp.uint32)
  for axis in axes:
    place = place * np.uint32(shape[axis]) + jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
  return place
