"""Orbax snapshots of run stacks, one folder per leg of an experiment."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import orbax.checkpoint as ocp

from jaxsplit.errors import InputError
from jaxsplit.training.stack import State


class Checkpoints:
  """The snapshots under one directory: `<leg>/<step>/{state, about}`.

  Saving is asynchronous: it returns when the state may be overwritten. A snapshot exists once it is whole (Orbax commits it by
  renaming), and each leg keeps its newest one.
  """

  def __init__(self, directory: pathlib.Path):
    self._directory = directory.absolute()
    self._managers: dict[str, ocp.CheckpointManager] = {}

  def newest(self, leg: str) -> int | None:
    """The step of the leg's newest whole snapshot, or None."""
    return self._manager(leg).latest_step() if (self._directory / leg).is_dir() else None

  def save(self, leg: str, step: int, state: State, about: Mapping[str, Any]) -> None:
    """Starts saving `state` as the leg's snapshot at `step`, with JSON facts beside it."""
    self._manager(leg).save(step, args=ocp.args.Composite(
        state=ocp.args.StandardSave(state), about=ocp.args.JsonSave(dict(about))))

  def restore(self, leg: str, step: int, abstract: State) -> State:
    """The leg's snapshot at `step`, laid out as `abstract` says.

    Raises:
      InputError: the snapshot cannot be read, or holds other shapes.
    """
    self.wait()
    try:
      return self._manager(leg).restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))["state"]
    except Exception as error:  # Orbax, TensorStore and zarr raise many types for a broken snapshot.
      reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
      raise InputError(f"{self._directory / leg / str(step)}: snapshot cannot be restored ({reason[0][:160]}); "
                       "delete that folder to train the leg again") from error

  def about(self, leg: str, step: int) -> dict[str, Any]:
    """The facts saved beside a snapshot."""
    self.wait()
    return self._manager(leg).restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"]

  def wait(self) -> None:
    """Returns when everything saved is durable."""
    for manager in self._managers.values():
      manager.wait_until_finished()

  def close(self) -> None:
    self.wait()
    for manager in self._managers.values():
      manager.close()
    self._managers.clear()

  def _manager(self, leg: str) -> ocp.CheckpointManager:
    if leg not in self._managers:
      self._managers[leg] = ocp.CheckpointManager(
          self._directory / leg, options=ocp.CheckpointManagerOptions(max_to_keep=1, create=True, enable_async_checkpointing=True))
    return self._managers[leg]
