"""What processes of one experiment tell each other, as text in the key-value store of JAX's coordination service."""

from __future__ import annotations

import json
from typing import Any

import jax

from jaxsplit.errors import InputError, Interrupted

POLL = 0.5  # Seconds between looks at what other processes have to tell; signals are noticed as often.


def key(*parts: Any) -> str:
  """The name of an entry of ours."""
  return "/".join(("jaxsplit", *map(str, parts)))


def read(client: Any, key: str) -> str:
  """An entry, once it is there."""
  while True:
    try:
      return client.blocking_key_value_get(key, int(1000 * POLL))  # Not longer, since meanwhile no signal is handled.
    except jax.errors.JaxRuntimeError as error:
      if "DEADLINE_EXCEEDED" not in str(error):
        raise


def packed(error: BaseException) -> dict[str, Any]:
  """An expected error, as JSON, which `unpacked` raises again."""
  if isinstance(error, Interrupted):
    return {"interrupted": True}
  if isinstance(error, InputError):
    return {"input_error": str(error)}
  assert isinstance(error, OSError)
  return {"os_error": [error.errno, error.strerror or str(error), error.filename and str(error.filename)]}


def unpacked(text: str) -> Any:
  """The value of a message; an error that it holds is raised, marked as one that all processes raise."""
  message = json.loads(text)
  if "value" in message:
    return message["value"]
  error: Any
  if "interrupted" in message:
    error = Interrupted()
  elif "input_error" in message:
    error = InputError(message["input_error"])
  else:
    error = OSError(*message["os_error"])
  error.broadcast = True
  raise error


def first_line(error: BaseException) -> str:
  """The first line of an error's text."""
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
