"""Zero-shot tasks against lm-evaluation-harness with transformers: the same log-likelihoods and accuracies, and how fast.

    python scripts/bench/evaluate.py --lm_eval_python=PATH --model=DIR --data=DIR [--tasks=arc_easy,piqa] [--limit=100]

PATH is the interpreter of an environment with torch, transformers and lm-eval (measured with 2.13, 5.24 and 0.4.13), which works in a
process of its own (lm_eval_worker.py). DIR is a model's Hugging Face folder, and the folder of the tasks' rows (docs/evaluation.md).
Both sides compute in float32 on a CPU with as many threads. First all rows are scored by both and compared: where a log-likelihood
differs by more than 1e-3 and more than 1e-5 of itself, or an accuracy at all, the script says so and exits with 1. Then, with --rounds,
both score them again in turns, the harness at each of the batch sizes, and rows a second are printed: ours, the harness's at its best
batch size, and the median over rounds of their ratio, with its quartiles. Programs are compiled, and the harness has run once, before
anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

from jaxsplit.evaluation import benchmarks  # noqa: F401 (They add themselves to TASKS.)
from jaxsplit.evaluation.choices import score_answers
from jaxsplit.evaluation.experts import Experts
from jaxsplit.evaluation.tasks import SUFFIXES, Question, read_questions
from jaxsplit.interop import huggingface
from jaxsplit.parallel.sharding import Layout, present_devices
from jaxsplit.training.program_cache import keep_programs
from jaxsplit.training.trained import side_by_side


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--lm_eval_python", required=True)
  parser.add_argument("--model", required=True)
  parser.add_argument("--data", required=True, type=pathlib.Path)
  parser.add_argument("--tasks", default="arc_easy,piqa,winogrande,boolq,lambada_openai")
  parser.add_argument("--limit", type=int, default=500)
  parser.add_argument("--rounds", type=int, default=0)
  parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], help="of the harness; the first is that of the comparison")
  parser.add_argument("--threads", type=int, default=2)
  parser.add_argument("--context", type=int, default=2048)
  flags = parser.parse_args()
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:flags.threads])  # XLA takes a thread a core; the harness inherits it.
  present_devices(Layout(devices=flags.threads))
  keep_programs()
  experts = Experts(side_by_side({"model": huggingface.load(flags.model, flags.context)}))
  harness = Harness(flags)
  bad = False
  for task in flags.tasks.split(","):
    questions = read_questions(task, flags.data, flags.limit)
    bad |= compare(task, questions, experts, harness, flags.batches[0])
    if flags.rounds:
      in_turns(task, questions, experts, harness, flags)
  return int(bad)


class Harness:
  """lm-evaluation-harness in a process of its own."""

  def __init__(self, flags: argparse.Namespace):
    self._flags = flags
    self._process = subprocess.Popen(
        [flags.lm_eval_python, pathlib.Path(__file__).parent / "lm_eval_worker.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env=os.environ | {"OMP_NUM_THREADS": str(flags.threads)})
    self._ask({"model": os.path.abspath(flags.model), "threads": flags.threads, "context": flags.context})

  def score(self, task: str, batch: int) -> dict:
    """`rows`, each row's log-likelihoods and metrics, and the `seconds` that scoring them took."""
    file = next(path for suffix in SUFFIXES if (path := self._flags.data / f"{task}{suffix}").exists())
    return self._ask({"task": task, "file": str(file), "limit": self._flags.limit, "batch": batch})

  def _ask(self, what: dict) -> dict:
    self._process.stdin.write(f"{json.dumps(what)}\n")
    self._process.stdin.flush()
    line = self._process.stdout.readline()
    if not line:
      sys.exit("lm_eval_worker.py ended; run it by itself to see why")
    return json.loads(line)


def compare(task: str, questions: list[Question], experts: Experts, harness: Harness, batch: int) -> bool:
  """Whether anything differs, which is printed."""
  theirs = harness.score(task, batch)["rows"]
  ours = score_answers(experts, questions).answers
  found = ours.results(np.zeros(len(questions), int))
  sums = np.concatenate([row["log_likelihoods"] for row in theirs])
  if len(sums) != ours.log_likelihoods.shape[1]:
    print(f"{task}: {len(sums)} answers there, {ours.log_likelihoods.shape[1]} here")
    return True
  apart = np.abs(ours.log_likelihoods[0] - sums)
  acc = np.mean([row["acc"] for row in theirs])
  norms = [row["acc_norm"] for row in theirs]
  norm = None if None in norms else np.mean(norms)
  bad = np.any(apart > np.maximum(1e-3, 1e-5 * np.abs(sums))) or found["acc"] != acc or norm is not None and found["acc_norm"] != norm
  print(f"{task}: {len(questions)} rows, {len(sums)} answers; acc {found['acc']:.4f} ± {found['acc_stderr'] or 0:.4f}, there {acc:.4f}; "
        f"acc_norm {'-' if norm is None else format(found['acc_norm'], '.4f')}, there {'-' if norm is None else format(norm, '.4f')}; "
        f"log-likelihoods differ by {apart.max():.1e} at most, of {np.abs(sums).max():.0f}{': DIFFERENT' if bad else ''}", flush=True)
  return bad


def in_turns(task: str, questions: list[Question], experts: Experts, harness: Harness, flags: argparse.Namespace) -> None:
  """Prints rows a second of both sides, in turns."""
  ours, theirs = [], {batch: [] for batch in flags.batches}
  for _ in range(flags.rounds):
    began = time.perf_counter()
    _ = score_answers(experts, questions).answers
    ours.append(time.perf_counter() - began)
    for batch, seconds in theirs.items():
      seconds.append(harness.score(task, batch)["seconds"])
  best = min(theirs, key=lambda batch: np.median(theirs[batch]))
  low, middle, high = np.percentile(np.array(theirs[best]) / ours, (25, 50, 75))
  print(f"{task}: {len(questions) / np.median(ours):.1f} rows/s here, {len(questions) / np.median(theirs[best]):.1f} there "
        f"(batches of {best}): {middle:.2f} times as fast ({low:.2f} .. {high:.2f})", flush=True)


if __name__ == "__main__":
  sys.exit(main())
