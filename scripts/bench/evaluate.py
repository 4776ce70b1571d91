"""Zero-shot tasks against lm-evaluation-harness with transformers: the same log-likelihoods and accuracies, and how fast.

    python scripts/bench/evaluate.py --lm_eval_python=PATH --model=DIR --data=DIR [--tasks=arc_easy,piqa] [--limit=100] [--adapter]

PATH is the interpreter of an environment with torch, transformers and lm-eval (measured with 2.13, 5.24 and 0.4.13), which works in a
process of its own (lm_eval_worker.py). DIR is a model's Hugging Face folder, and the folder of the tasks' rows (docs/evaluation.md).
Both sides compute in float32 on a CPU with as many threads. First all rows are scored by both and compared, and with --adapter, for
which PATH needs jaxsplit too, also by the harness with our adapter. Log-likelihoods that differ by more than 1e-3 are computed by
transformers in float64 as well, to see whose rounding that is: where a text has other tokens, one of ours is further than 1e-3 from
theirs and from that, or an accuracy differs at all, the script says so and exits with 1. Then, with --rounds, both score them again
in turns, the harness at each of the batch sizes, and rows a second are printed: ours, the harness's at its best batch size, and the
median over rounds of their ratio, with its quartiles; at the end the same of all tasks together. Programs are compiled, and the harness
has run once, before anything is timed; how long our first call took with compiling is printed too. With --cpu_seconds processor time is
counted, for machines that others use too.
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
from jaxsplit.evaluation.choices import encode_pairs, score_answers
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
  parser.add_argument("--adapter", action="store_true")
  parser.add_argument("--cpu_seconds", action="store_true")
  flags = parser.parse_args()
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:flags.threads])  # XLA takes a thread a core; the harness inherits it.
  present_devices(Layout(devices=flags.threads))
  keep_programs()
  experts = Experts(side_by_side({"model": huggingface.load(flags.model, flags.context)}))
  harness, adapter = Harness(flags), Harness(flags, adapter=True) if flags.adapter else None
  bad, rounds = False, []
  for task in flags.tasks.split(","):
    questions = read_questions(task, flags.data, flags.limit)
    bad |= compare(task, questions, experts, harness, adapter, flags.batches[0])
    if flags.rounds:
      rounds.append((len(questions), *in_turns(task, questions, experts, harness, flags)))
  if len(rounds) > 1:
    counts, ours, theirs = (np.sum(one, axis=0) for one in zip(*rounds))
    told("all tasks", counts, ours, theirs)
  return int(bad)


class Harness:
  """lm-evaluation-harness in a process of its own, with transformers' model or with our adapter."""

  def __init__(self, flags: argparse.Namespace, adapter: bool = False):
    self._flags = flags
    self._process = subprocess.Popen(
        [flags.lm_eval_python, pathlib.Path(__file__).parent / "lm_eval_worker.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env=os.environ | {"OMP_NUM_THREADS": str(flags.threads)})
    self._ask({"model": os.path.abspath(flags.model), "threads": flags.threads, "context": flags.context, "adapter": adapter})

  def score(self, task: str, batch: int) -> dict:
    """`rows`, each row's log-likelihoods and metrics, and the `seconds` that scoring them took, and of `processor` time."""
    file = next(path for suffix in SUFFIXES if (path := self._flags.data / f"{task}{suffix}").exists())
    return self._ask({"task": task, "file": str(file), "limit": self._flags.limit, "batch": batch})

  def exact(self, pairs: list) -> np.ndarray:
    """Log-likelihoods of pairs of a context's tokens and a continuation's, which transformers computes in float64."""
    return np.array(self._ask({"exact": pairs})["sums"])

  def _ask(self, what: dict) -> dict:
    self._process.stdin.write(f"{json.dumps(what)}\n")
    self._process.stdin.flush()
    line = self._process.stdout.readline()
    if not line:
      sys.exit("lm_eval_worker.py ended; run it by itself to see why")
    return json.loads(line)


def compare(task: str, questions: list[Question], experts: Experts, harness: Harness, adapter: Harness | None, batch: int) -> bool:
  """Whether anything differs, which is printed."""
  there = harness.score(task, batch)
  theirs = there["rows"]
  began = time.process_time()
  ours = score_answers(experts, questions).answers
  seconds = time.process_time() - began
  found = ours.results(np.zeros(len(questions), int))
  mine = np.split(ours.log_likelihoods[0], np.cumsum([len(question.continuations) for question in questions])[:-1])
  sizes = [np.array(question.sizes) for question in questions]
  norm = None if theirs[0]["acc_norm"] is None else found["acc_norm"]
  bad, text = differences(theirs, mine, sizes, found["acc"], norm, harness)
  pairs = [pair for question in questions for pair in zip(question.contexts, question.continuations)]
  spans = encode_pairs(experts.models.tokenizer, pairs)
  tokens = [(span.tokens[:span.first].tolist(), span.tokens[span.first:].tolist()) for span in spans]
  other = sum(ours != tuple(there) for ours, there in zip(tokens, (pair for row in theirs for pair in row["tokens"]), strict=True))
  print(f"{task}: {len(questions)} rows, {len(spans)} answers, of which {other} have other tokens; acc {found['acc']:.4f} ± "
        f"{found['acc_stderr'] or 0:.4f}, acc_norm {'-' if norm is None else format(norm, '.4f')}; {text}; "
        f"{seconds:.1f} s of processor time, with compiling, theirs {there['processor']:.1f} s in batches of {batch}", flush=True)
  if adapter:
    rows = adapter.score(task, batch)["rows"]
    norm = None if norm is None else np.mean([row["acc_norm"] for row in rows])
    also, text = differences(theirs, [np.array(row["log_likelihoods"]) for row in rows], sizes, np.mean([row["acc"] for row in rows]), norm,
                             harness)
    other += sum(row["tokens"] != there["tokens"] for row, there in zip(rows, theirs, strict=True))
    print(f"{task}, by the adapter: {text}", flush=True)
    bad |= also
  return bad or other > 0


def differences(theirs: list[dict], mine: list[np.ndarray], sizes: list[np.ndarray], acc: float, norm: float | None,
                harness: Harness) -> tuple[bool, str]:
  """Whether two sides differ, and how far, in words."""
  sums = [np.array(row["log_likelihoods"]) for row in theirs]
  ours, there = np.concatenate(mine), np.concatenate(sums)
  apart = np.abs(ours - there)
  choices = sum(np.argmax(a) != np.argmax(b) for a, b in zip(mine, sums, strict=True))
  normed = sum(np.argmax(a / n) != np.argmax(b / n) for a, b, n in zip(mine, sums, sizes, strict=True))
  text = f"log-likelihoods differ by {apart.max():.1e} at most, of {np.abs(there[apart.argmax()]):.0f}; "
  far, bad = np.flatnonzero(apart > 1e-3), False
  if len(far):
    pairs = [pair for row in theirs for pair in row["tokens"]]
    exact = harness.exact([pairs[i] for i in far])
    off, of_theirs = (np.abs(side[far] - exact).max() for side in (ours, there))
    bad = off > 1e-3
    text += f"of the {len(far)} more than 1e-3 apart, in float64, ours are off by {off:.1e} at most, theirs by {of_theirs:.1e}; "
  bad = bad or acc != np.mean([row["acc"] for row in theirs]) or norm is not None and norm != np.mean([row["acc_norm"] for row in theirs])
  text += f"{choices} choices and {normed} normalized ones differ"
  return bool(bad), f"{text}{': DIFFERENT' if bad else ', accuracies are equal'}"


def in_turns(task: str, questions: list[Question], experts: Experts, harness: Harness,
             flags: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
  """Seconds of both sides in turns, which are printed: ours, and theirs at their best batch size."""
  ours, theirs = [], {batch: [] for batch in flags.batches}
  clock, field = (time.process_time, "processor") if flags.cpu_seconds else (time.perf_counter, "seconds")
  for _ in range(flags.rounds):
    began = clock()
    _ = score_answers(experts, questions).answers
    ours.append(clock() - began)
    for batch, seconds in theirs.items():
      seconds.append(harness.score(task, batch)[field])
  best = min(theirs, key=lambda batch: np.median(theirs[batch]))
  told(f"{task}, there in batches of {best}", len(questions), np.array(ours), np.array(theirs[best]))
  return np.array(ours), np.array(theirs[best])


def told(what: str, rows: int, ours: np.ndarray, theirs: np.ndarray) -> None:
  """Prints rows a second of both sides."""
  low, middle, high = np.percentile(theirs / ours, (25, 50, 75))
  print(f"{what}: {rows / np.median(ours):.1f} rows/s here, {rows / np.median(theirs):.1f} there: {middle:.2f} times as fast "
        f"({low:.2f} .. {high:.2f})", flush=True)


if __name__ == "__main__":
  sys.exit(main())
