"""A signal ends an entry point with one exit code and no traceback, whenever it comes."""

import gc
import os
import signal
import subprocess
import sys
import time
import weakref

import pytest

from jaxsplit import cli, signals
from jaxsplit.errors import RETRY_EXIT_CODE, Interrupted
from jaxsplit.training.interruption import Interruption


@pytest.mark.parametrize("entry_point, number", [
    ("train", signal.SIGINT), ("prepare", signal.SIGTERM), ("fit", signal.SIGTERM), ("plan", signal.SIGINT),
    ("predict", signal.SIGTERM)])
def test_while_modules_are_imported(entry_point, number):
  command = [sys.executable, "-X", "importtime", "-m", f"jaxsplit.{entry_point}"]
  with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
    for line in process.stderr:  # One for each module, when it has been imported.
      if line.endswith(" gin.config\n"):
        process.send_signal(number)
        break
    rest = process.stderr.read()
  assert process.returncode == RETRY_EXIT_CODE
  assert "jaxsplit: stopped; nothing was written (exit code 75)" in rest and "Traceback" not in rest and "ignored" not in rest


@pytest.mark.parametrize("kept", ["nothing was written", "the same command goes on from here"])
def test_the_line_says_what_is_kept(kept, capsys, monkeypatch):
  codes = []
  monkeypatch.setattr(cli.os, "_exit", codes.append)
  monkeypatch.setattr(cli, "_PATIENCE", 1e6)  # Or this process would end.
  given = {} if kept.startswith("nothing") else {"kept": kept}
  with pytest.raises(SystemExit):
    cli.run(lambda argv: os.kill(os.getpid(), signal.SIGINT) or time.sleep(20), **given)
  assert codes == [RETRY_EXIT_CODE] and capsys.readouterr().err == f"jaxsplit: stopped; {kept} (exit code 75)\n"


def test_importing_an_entry_point_leaves_signals_alone():
  before = signal.getsignal(signal.SIGINT)
  signals.end_at_once("jaxsplit.train")
  assert signal.getsignal(signal.SIGINT) is before


class _Dies:
  def __del__(self):
    os.kill(os.getpid(), signal.SIGINT)


def _collected(phase, info):
  gc.callbacks.remove(_collected)
  os.kill(os.getpid(), signal.SIGINT)


def in_a_destructor():
  _Dies()


def in_a_weak_references_callback():
  one = set()
  kept = weakref.ref(one, lambda _: os.kill(os.getpid(), signal.SIGTERM))
  del one
  return kept


def in_a_callback_of_garbage_collection():
  gc.callbacks.append(_collected)
  gc.collect()


@pytest.mark.parametrize("somewhere", [in_a_destructor, in_a_weak_references_callback, in_a_callback_of_garbage_collection])
@pytest.mark.parametrize("handled", ["signals", "Interruption"])
def test_where_python_swallows_what_is_raised_it_is_raised_again(handled, somewhere, capsys):
  def interrupt():
    raise Interrupted

  hook, handler = sys.unraisablehook, signal.getsignal(signal.SIGTERM)
  with pytest.raises(Interrupted), signals.handled(interrupt) if handled == "signals" else Interruption():
    somewhere()
    time.sleep(20)
  assert sys.unraisablehook is hook and signal.getsignal(signal.SIGTERM) is handler
  assert capsys.readouterr().err == ""
