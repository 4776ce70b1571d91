"""Signals: at once where nothing is lost, after saving where something would be, and a second one at once anywhere."""

import os
import signal

import pytest

from jaxsplit.errors import RETRY_EXIT_CODE
from jaxsplit.training.interruption import Interrupted, Interruption


def send(number=signal.SIGTERM):
  os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_what_need_not_be_saved(number):
  before = signal.getsignal(number)
  with pytest.raises(Interrupted), Interruption():
    send(number)
  assert signal.getsignal(number) is before


def test_a_signal_waits_for_what_must_be_saved():
  saved = []
  with Interruption() as one:
    with pytest.raises(Interrupted), one.deferred():
      send()
      assert one.requested
      saved.append(True)
    assert saved
    with pytest.raises(Interrupted):
      one.check()


def test_no_handler_of_errors_swallows_it():
  with pytest.raises(Interrupted), Interruption():
    try:
      send()
    except Exception:
      pytest.fail("swallowed")


def test_a_second_signal_exits_at_once(monkeypatch):
  codes = []
  monkeypatch.setattr(os, "_exit", codes.append)
  with pytest.raises(Interrupted), Interruption() as one, one.deferred():
    send()
    send()
  assert codes == [RETRY_EXIT_CODE]
