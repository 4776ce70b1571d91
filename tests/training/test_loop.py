"""The loop: what crosses between host and devices does so because somebody said so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplit.data.stream import Batches, Stream
from jaxsplit.models.config import Architecture
from jaxsplit.parallel.sharding import Layout
from jaxsplit.training import fingerprint, stack
from jaxsplit.training.interruption import Interruption
from jaxsplit.training.loop import Training, train
from jaxsplit.training.optimizer import Optimizer, Schedule
from jaxsplit.training.stack import StackSpec
from jaxsplit.training.telemetry import Clock, compilations


class Numbers(Stream):
  """Windows of counted tokens."""

  window_length = 9

  def rows(self, indices):
    return ((indices[:, None] + np.arange(9)) % 20).astype(np.int32)

  def origins(self, indices):
    return [("numbers", int(index)) for index in indices]


SPEC = StackSpec(Architecture(head_dim=8).at(8, 1, 20, 8), Optimizer(), Layout(devices=2), 2, 1, 2, 0)


def run(observe=lambda *_: None, save=lambda *_: None, saved=lambda: None, copies=True):
  """Ten steps in blocks of four, saved after the first eight."""
  zeros = np.zeros(2, np.int32)
  clock = Clock()
  state = train(
      SPEC, stack.initialize(SPEC, [1, 2]), Batches([Numbers(), Numbers()], 2),
      Schedule(np.full(2, 1e-2, np.float32), zeros, zeros + 2, zeros + 5, zeros + 10, zeros), first_batch=[0, 7], done=0, steps=10,
      training=Training(sequence_length=8, batch_sequences=2, steps_per_dispatch=4, save_every_steps=8),
      observe=observe, save=save, saved=saved, copies=copies, interruption=Interruption(), clock=clock)
  return state, clock


def test_explicit_transfers_are_all_that_the_loop_needs():
  seen, saved = [], []
  state, clock = run(lambda first, values: seen.append((first, values["loss"].shape)), lambda step, *_: saved.append(step))
  assert seen == [(0, (4, 2)), (4, (4, 2)), (8, (2, 2))] and saved == [8]
  assert np.all(jax.device_get(state["step"]) == 10)
  assert clock.seconds.keys() == {"data", "dispatch", "device", "other"}


@pytest.mark.parametrize("copies", [True, False])
def test_a_snapshot_is_of_its_step_with_and_without_room_for_a_copy(copies):
  told, states = [], {}

  def save(step, state, prints):
    told.append("save")
    states[step] = jax.device_get(state)
    assert fingerprint.as_text(prints) == fingerprint.fingerprint(state)

  end, _ = run(lambda first, _: told.append(first), save, lambda: told.append("saved"), copies)
  assert told == ([0, "saved", 4, "save", 8] if copies else [0, "saved", 4, "save", "saved", 8])
  assert np.all(states[8]["step"] == 8) and np.all(jax.device_get(end["step"]) == 10)
  assert jax.tree.all(jax.tree.map(np.array_equal, run(copies=True)[0], end))


@pytest.mark.parametrize("transfer", [
    lambda: jnp.zeros(3), lambda: jax.jit(lambda x: x + 1)(np.ones(3)), lambda: jax.device_put(np.ones(3)) + 1])
def test_an_implicit_transfer_in_the_loop_is_an_error(transfer):
  transfer()  # Elsewhere it is allowed.
  with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
    run(observe=lambda *_: transfer())
  transfer()


def test_blocks_of_other_lengths_compile_nothing():
  stack.compile_training(SPEC, 4)
  run(save=lambda *_: None)
  before = compilations().compiled
  run(save=lambda *_: None)
  assert compilations().compiled == before
