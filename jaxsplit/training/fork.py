"""Forks: a new stack of runs is gathered from finished ones, and runs of a stack are replaced by others."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplit.parallel import placement, sharding
from jaxsplit.training.stack import StackSpec, State, jit


def gather(spec: StackSpec, parents: Sequence[State], rows: Sequence[int], keep_moments: bool = True) -> State:
  """A new stack whose runs continue runs of finished ones.

  Args:
    spec: of the new stack; the parents may be sharded otherwise.
    parents: stacks of the same model.
    rows: for each new run, its parent's index in the concatenation of `parents`.
    keep_moments: keep the moments, or start them from zero.
  """
  as_parents = parents_of(dataclasses.replace(spec, averages=True), [parent["step"].shape[0] for parent in parents])
  shardings = [{name: jax.tree.map(lambda x: x.sharding, of[name]) for name in parent} for of, parent in zip(as_parents, parents)]
  rows = placement.put(np.array(rows, np.int32), sharding.replicated(spec.mesh))
  return _compiled_gather(spec, keep_moments)(jax.device_put(list(parents), shardings), rows)


def replace(spec: StackSpec, state: State, others: State, rows: Sequence[int]) -> State:
  """The stack with some runs replaced by those of another stack: its run i at `rows[i]`. `state` is donated."""
  count = others["step"].shape[0]
  shardings = jax.tree.map(lambda x: x.sharding, parents_of(spec, [count])[0])
  taken = np.zeros(spec.runs, bool)
  source = np.zeros(spec.runs, np.int32)
  taken[list(rows)], source[list(rows)] = True, range(len(rows))
  which = placement.put((taken, source), sharding.replicated(spec.mesh))
  return _compiled_replace(spec, count)(state, jax.device_put(others, shardings), *which)


@functools.cache
def _compiled_replace(spec: StackSpec, count: int):
  def replaced(state, others, taken, source):
    of_run = lambda old: jnp.expand_dims(taken, tuple(range(1, old.ndim)))
    return jax.tree.map(lambda old, new: jnp.where(of_run(old), new[source], old), state, others)

  return jit(replaced, donate_argnums=0, out_shardings=spec.shardings)


def parents_of(spec: StackSpec, rows: Sequence[int]) -> list[State]:
  """Shapes, dtypes and shardings of stacks of so many runs, as `gather` needs them to gather `spec` from them.

  Their parameters are sharded like those of `spec`. Every device group has all their runs if those are no more than the runs it
  will have itself; otherwise each has a part of every run.
  """
  few = sum(rows) <= spec.runs // spec.mesh.shape["expert"]

  def parent(count):
    shape = lambda child: (count, *child.shape[1:])
    return jax.tree.map(lambda child: jax.ShapeDtypeStruct(
        shape(child), child.dtype, sharding=sharding.parent_sharding(child.sharding, shape(child), few)), spec.abstract)

  return [parent(count) for count in rows]


@functools.cache
def _compiled_gather(spec: StackSpec, keep_moments: bool):
  def gathered(parents, rows):
    # Of a parent without a mean, the parameters are its mean.
    taken = [{name: parent.get(name, parent["params"]) for name in spec.abstract} for parent in parents]
    state = jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[rows], *taken)
    if not keep_moments:
      state["moments"] = jax.vmap(spec.transformation.init)(state["params"])
    return state

  return jit(gathered, out_shardings=spec.shardings)
