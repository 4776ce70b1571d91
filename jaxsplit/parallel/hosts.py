"""Processes that run one experiment together, one on every host: who they are, what they agree on, and how they end.

All of them run the same program in the same order. What may differ between them (what lies in the work directory, signals,
processors that round differently) is asked of process 0 alone, the lead: it decides and writes, and `broadcast` tells the others.
That goes through the key-value store of JAX's coordination service, never through the devices, so that it waits for no
computation and no computation for it. Where there is one process, everything here does nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import jax
from jax._src import distributed  # Its client is how Orbax and JAX itself reach the key-value store; there is no public way.

from jaxsplit.errors import InputError, Interrupted, ending
from jaxsplit.parallel import messages
from jaxsplit.parallel.cluster import Address

T = TypeVar("T")

_SILENCE = 5.0  # Seconds in which processes may come before the others are told to be waited for.
_GRACE = 3.0  # Seconds in which a process may end by itself, for a reason that another has given too.
LONG = 24 * 3600  # Seconds: a barrier waits as long as it takes; processes that are gone are noticed elsewhere.
_BATCH = 64  # Broadcast values that are forgotten together, so that they do not pile up.


@dataclasses.dataclass
class _Group:
  """This process among the others.

  Attributes:
    index, count: who it is, of how many.
    client: of the coordination service.
    broadcasts, forgotten: how many values were broadcast so far, and how many batches of them are dropped.
    deciding: it is the lead, and calls what the others will be told of.
    stop: a signal has reached some process.
    leaving: it is about to end.
  """

  index: int
  count: int
  client: Any
  broadcasts: int = 0
  forgotten: int = 0
  deciding: bool = False
  stop: bool = False
  leaving: bool = False


_group: _Group | None = None


def count() -> int:
  """How many processes there are."""
  return _group.count if _group else 1


def is_lead() -> bool:
  """Whether this is the process that decides and writes."""
  return _group is None or _group.index == 0


def acts_alone() -> bool:
  """Whether nothing that this process does now is waited for by devices of others: it may stop at any moment."""
  return _group is None or _group.deciding


def broadcast(make: Callable[[], T]) -> T:
  """The lead's `make()`, in every process, which all call it at the same point of the program, on their main threads.

  What it returns must be JSON. What it raises as InputError, OSError or Interrupted is raised everywhere. Inside the lead's
  `make`, `broadcast` is a plain call.
  """
  group = _group
  if group is None or group.deciding:
    return make()
  group.broadcasts += 1
  batch, last = divmod(group.broadcasts, _BATCH)
  key = messages.key("broadcast", batch, last)
  if group.index:
    text = messages.read(group.client, key)
    if last == 0:
      group.client.key_value_set(messages.key("read", group.index), str(batch), allow_overwrite=True)
    return messages.unpacked(text)
  error = None
  try:
    group.deciding = True
    message = {"value": make()}
  except (InputError, OSError, Interrupted) as raised:
    error, message = raised, messages.packed(raised)
  finally:
    group.deciding = False
  group.client.key_value_set(key, json.dumps(message))
  if last == 0:
    _forget(group)
  if error is not None:
    error.broadcast = True
    raise error
  return message["value"]


def barrier(name: str) -> None:
  """Returns when all processes have come here. For any thread; a name is used once."""
  if _group:
    _group.client.wait_at_barrier(messages.key("met", name), 1000 * LONG)


def ask_to_stop() -> None:
  """Lets every process know that a signal has come. Returns at once; may be called by a signal's handler."""
  if _group:
    _group.stop = True


def asked_to_stop() -> bool:
  """Whether a signal has come to any process, as far as this one knows."""
  return _group is not None and _group.stop


@contextlib.contextmanager
def joined(address: Address | None) -> Iterator[None]:
  """Joins the other processes, before JAX touches a backend. Ends with them: an error in one ends all, saying which and why.

  Args:
    address: where they meet; None where this process is alone.

  Raises:
    InputError: they cannot be reached.
  """
  if address is None:
    yield
    return
  _join(address)
  try:
    yield
    _part()
  except BaseException as error:  # Whatever it is, the others must not wait for ever.
    _leave(error)


def _join(address: Address) -> None:
  global _group
  # A handler of its own for SIGTERM, which Interruption would replace anyway.
  jax.config.update("jax_enable_preemption_service", False)
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  where = address.coordinator or f"the coordinator that JAX finds for {address.method}"
  alone = InputError(f"the processes did not all meet at {where} within {address.timeout} s; start as many as there are said to be, "
                     "all with one coordinator that they can reach")
  began, failed = time.time(), []
  # In a thread, so that signals are handled meanwhile.
  meeting = threading.Thread(target=_initialize, args=(address, failed), name="meeting", daemon=True)
  meeting.start()
  meeting.join(_SILENCE)
  if meeting.is_alive():
    until = time.strftime("%H:%M:%S", time.localtime(began + address.timeout))
    print(f"jaxsplit: waiting until {until} for {address.everyone} to meet at {where}", file=sys.stderr, flush=True)
  while meeting.is_alive():
    meeting.join(messages.POLL)
    if time.time() > began + address.timeout:
      _give_up(alone)  # JAX's own ends in an abort, without a word on what to do.
  if failed:
    raise InputError(f"{alone} ({messages.first_line(failed[0])})")
  state = distributed.global_state
  _group = _Group(state.process_id, state.num_processes, state.client)
  threading.Thread(target=_watch, args=(_group,), name="hosts", daemon=True).start()


def _initialize(address: Address, failed: list[Exception]) -> None:
  try:
    jax.distributed.initialize(address.coordinator, address.processes, address.process, cluster_detection_method=address.method,
                               initialization_timeout=address.timeout + 60)
  except Exception as error:
    failed.append(error)


def _give_up(error: InputError) -> NoReturn:
  code, line = ending(error)
  print(f"jaxsplit: {line}", file=sys.stderr, flush=True)
  os._exit(code)


def _part() -> None:
  """Ends well: returns when all processes are here."""
  global _group
  barrier("end")
  _group.leaving, _group = True, None
  jax.distributed.shutdown()


def _watch(group: _Group) -> None:
  """Passes signals on to the others, and theirs to this process; ends it where another has failed, whatever it waits for."""
  told = False
  while not group.leaving:
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      if group.stop and not told:
        group.client.key_value_set(messages.key("notes", f"stop{group.index}"), "")
        told = True
      notes = dict(group.client.key_value_dir_get(messages.key("notes")))
      group.stop = group.stop or any("/stop" in key for key in notes)
      fault = _fault(notes)
      if fault and fault["index"] != group.index:
        time.sleep(_GRACE)
        if not group.leaving:
          group.leaving = True
          _log(fault)
          _go(group, fault["code"])
    time.sleep(messages.POLL)


def _leave(error: BaseException) -> NoReturn:
  """Ends this process because of an error, and lets the others know."""
  group = _group
  group.leaving = True
  known = ending(error)
  if known is None:  # A peer that is gone shows as an odd error of a collective: that peer knows better.
    time.sleep(_GRACE)
  code, line = known or (1, f"{type(error).__name__}: {messages.first_line(error)}")
  fault = {"index": group.index, "host": socket.gethostname(), "code": code, "line": line}
  with contextlib.suppress(jax.errors.JaxRuntimeError):
    there = _fault(dict(group.client.key_value_dir_get(messages.key("notes"))))
    if there is None:
      group.client.key_value_set(messages.key("notes", "fault"), json.dumps(fault))
    elif known is None:
      fault, error = there, None
  if fault["index"] != group.index:
    _log(fault)
  elif known is None:
    traceback.print_exception(error)
  elif is_lead() or not getattr(error, "broadcast", False):  # What all raise, one says.
    print(f"jaxsplit: {line}", file=sys.stderr)
  _go(group, fault["code"])


def _go(group: _Group, code: int) -> NoReturn:
  """Ends this process at once: JAX would wait at its end for processes that will not come. The lead goes last, as it serves
  what the others read."""
  with contextlib.suppress(jax.errors.JaxRuntimeError):
    group.client.key_value_set(messages.key("gone", group.index), "")
    late = time.monotonic() + 2 * _GRACE
    while group.index == 0 and time.monotonic() < late and len(group.client.key_value_dir_get(messages.key("gone"))) < group.count:
      time.sleep(messages.POLL / 5)
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


def _log(fault: dict[str, Any]) -> None:
  print(f"jaxsplit: process {fault['index']} on {fault['host']} stopped ({fault['line']}), and so does this one",
        file=sys.stderr)


def _fault(notes: dict[str, str]) -> dict[str, Any] | None:
  return next((json.loads(text) for key, text in notes.items() if key.endswith("/fault")), None)


def _forget(group: _Group) -> None:
  """Drops the batches that all processes say they have read."""
  read = [int(text) for _, text in group.client.key_value_dir_get(messages.key("read"))]
  if len(read) == group.count - 1:
    for batch in range(group.forgotten, min(read)):
      group.client.key_value_delete(messages.key("broadcast", batch))
    group.forgotten = min(read)
