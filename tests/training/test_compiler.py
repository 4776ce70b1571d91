"""Compiling ahead: each program once, in order, and nothing that fails goes unheard."""

import threading

import pytest

from jaxsplit.training.compiler import BackgroundCompiler


def test_each_is_compiled_once():
  ahead, calls, done = BackgroundCompiler(), [], threading.Event()
  for key in ("a", "b", "a"):
    ahead.ask(key, lambda key=key: calls.append(key))
  ahead.ask("last", done.set)
  assert done.wait(10)
  ahead.wait("a")
  ahead.wait("never asked for")
  ahead.close()
  assert calls == ["a", "b"]


def test_what_has_not_begun_is_left_to_the_caller():
  ahead, began, go, calls = BackgroundCompiler(), threading.Event(), threading.Event(), []
  ahead.ask("slow", lambda: (began.set(), go.wait(10)))
  ahead.ask("next", lambda: calls.append("next"))
  began.wait(10)
  ahead.wait("next")  # Does not wait for the slow one.
  go.set()
  ahead.wait("slow")
  ahead.close()
  assert calls == []


def test_a_failure_reaches_who_waits():
  ahead, began = BackgroundCompiler(), threading.Event()

  def fail():
    began.set()
    raise ValueError("no such program")

  ahead.ask("broken", fail)
  began.wait(10)
  with pytest.raises(ValueError, match="no such program"):
    ahead.wait("broken")
  ahead.close()
