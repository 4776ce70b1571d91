"""What a terminal cannot show is escaped; a standard output that is gone ends nothing."""

import os
import subprocess
import sys

import pytest
from small import write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
  folder = tmp_path_factory.mktemp("corpus")
  write_corpus(folder)
  (folder / "latin").rename(folder / "français")
  (folder / "numbers.jsonl").rename(folder / "数字.jsonl")
  return folder


@pytest.fixture
def prepare(corpus, tmp_path):
  """Runs the entry point in a shell, with a redirection, as one line of settings says."""
  def prepare(redirection, **settings):
    command = (f"{sys.executable} -m jaxsplit.prepare --gin.Corpus.path={corpus} --store={tmp_path / 'store'} {redirection}; "
               "echo ${PIPESTATUS[0]} >&2")
    done = subprocess.run(["bash", "-c", command], env=os.environ | settings, capture_output=True, timeout=120)
    assert done.stderr.splitlines()[-1] == b"0" and (tmp_path / "store" / "manifest.json").exists(), done.stderr.decode()
    assert b"Traceback" not in done.stderr and b"ignored" not in done.stderr
    return done

  return prepare


@pytest.mark.parametrize("encoding, french, chinese", [
    ("ascii:strict", rb"fran\xe7ais ", rb"\u6570\u5b57 "), ("cp1252", "français ".encode("cp1252"), rb"\u6570\u5b57 "),
    ("utf-8", "français ".encode(), "数字 ".encode())])
def test_names_that_a_terminal_cannot_show(prepare, encoding, french, chinese):
  out = prepare("", PYTHONIOENCODING=encoding).stdout
  assert french in out and chinese in out


@pytest.mark.parametrize("redirection, reason", [(">&-", b""), (">/dev/full", b"No space left on device"), ("| head -c 0", b"")])
def test_an_output_that_nobody_can_read(prepare, redirection, reason):
  said = prepare(redirection, PYTHONUNBUFFERED="1").stderr
  assert (b"jaxsplit: standard output is lost (" + reason + b"); going on without it" in said) == bool(reason)
  assert (b"lost" in said) == bool(reason)


def test_the_progress_of_a_training():
  code = ("from jaxsplit import streams; streams.never_fail()\n"
          "from jaxsplit.experiment.progress import Progress\n"
          "with Progress(1) as progress: progress.log('数字'); progress.begin('français')")
  done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONIOENCODING": "ascii:strict"}, capture_output=True)
  assert done.returncode == 0 and rb"\u6570\u5b57" in done.stdout and rb"fran\xe7ais" in done.stdout
