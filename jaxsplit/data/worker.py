"""A process that runs steps for drivers.Local: python -m jaxsplit.data.worker, which reads jobs and writes results, pickled."""

from __future__ import annotations

import os
import pickle
import signal
import sys

from jaxsplit.errors import ending
from jaxsplit.registry import run_extension


def main() -> None:
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Whoever started it ends it.
  jobs, results = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
  os.dup2(2, 1)  # What a reader or a feature map of the user's prints must not lie between results.
  for extension in pickle.load(jobs):
    run_extension(extension)
  while True:
    try:
      step, job = pickle.load(jobs)
    except EOFError:
      return
    try:
      answer = step(job), None
    except Exception as error:
      answer = None, error if ending(error) else RuntimeError(f"{type(error).__name__}: {error}")
    try:
      pickle.dump(answer, results)
      results.flush()
    except BrokenPipeError:  # Whoever started it was killed.
      os._exit(0)


if __name__ == "__main__":
  main()
