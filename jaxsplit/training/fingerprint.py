"""Fingerprints of runs: 32 bits that any changed bit of a run's state changes, the same on any mesh.

They are sums of integers, so they do not depend on the order of additions or the sharding. Computed on the devices, they
verify that a snapshot was read back unchanged, and that each expert of a fork got its parent.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplit.parallel import placement
from jaxsplit.training.stack import State, StackSpec

PARTS = "params", "moments", "mean"


def copy_with_fingerprint(state: State) -> tuple[State, dict[str, jax.Array]]:
  """A copy of a stack's state, which may then be donated, and its runs' fingerprints: uint32 [R] of params, moments and mean."""
  return _copy_with_fingerprint(state)


def fingerprints(state: State) -> dict[str, jax.Array]:
  """The runs' fingerprints, which are not waited for: uint32 [R] of params, moments and mean."""
  return _fingerprint(state)


def fingerprint(state: State) -> dict[str, list[str]]:
  """The runs' fingerprints as text, [R] each. A run whose moments are all zero has moments 00000000."""
  return as_text(_fingerprint(state))


def as_text(prints: dict[str, jax.Array]) -> dict[str, list[str]]:
  return {name: [f"{value:08x}" for value in np.asarray(prints_R)] for name, prints_R in placement.fetch(prints).items()}


def compile_fingerprint(spec: StackSpec) -> None:
  """Compiles `fingerprint` for such a stack, so that its first call need not."""
  _fingerprint.lower(spec.abstract).compile()


def _sums(state: State) -> dict[str, jax.Array]:
  return {part: _sum([leaf for leaf in jax.tree.leaves(state[part])]) for part in PARTS if part in state}


@jax.jit
def _fingerprint(state: State):
  return _sums(state)


@jax.jit
def _copy_with_fingerprint(state: State):
  return jax.tree.map(jnp.copy, state), _sums(state)


def _sum(leaves: list[jax.Array]) -> jax.Array:
  return functools.reduce(lambda total, part: total * np.uint32(31) + part, [_leaf_sum(leaf) for leaf in leaves])


def _leaf_sum(x_Rx: jax.Array) -> jax.Array:
  """Each run's sum of its words times odd numbers that differ from place to place: a changed bit always changes it."""
  width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x_Rx.dtype.itemsize]
  words_Rx = jax.lax.bitcast_convert_type(x_Rx, width).astype(jnp.uint32)
  place = jnp.zeros(x_Rx.shape[1:], jnp.uint32)
  for axis, size in enumerate(x_Rx.shape[1:]):
    place = place * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x_Rx.shape[1:], axis)
  place = (place ^ (place >> 15)) * np.uint32(0x9E3779B1)
  factor = (place ^ (place >> 13)) * np.uint32(0x85EBCA6B) | np.uint32(1)
  return jnp.sum(words_Rx * factor[None], axis=tuple(range(1, x_Rx.ndim)), dtype=jnp.uint32)
