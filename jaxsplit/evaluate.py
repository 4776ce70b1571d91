"""Evaluates models: python -m jaxsplit.evaluate --workdir=DIR [--tasks=arc_easy,piqa --data=DIR] [--out=results.json]

What the experts, their seed and the dense model of an experiment are worth: perplexity and bits per byte of each on whole
held-out documents of every domain, and zero-shot accuracy. With --router, also what the experts are worth as one, where a
router chooses by the beginning of a text or by the question (docs/routing.md). With --compare, only the split beside the
usual ways to spend its compute. With --model=hf:DIR, a Hugging Face model instead; with --store, on its documents.
"""

from __future__ import annotations

from jaxsplit import signals

signals.end_at_once(__name__)

# ruff: noqa: E402
from collections.abc import Sequence

from jaxsplit import cli
from jaxsplit.evaluation import benchmarks  # noqa: F401 (They add themselves to TASKS, before an extension's.)
from jaxsplit.evaluation.asked import check_asked
from jaxsplit.evaluation.routers import Routing
from jaxsplit.evaluation.settings import Evaluation
from jaxsplit.files import write_json

FLAGS = {
    "workdir": cli.Path("the work directory of the experiment whose models are evaluated"),
    "model": "hf:DIR, the folder of a Hugging Face model to evaluate, in place of an experiment's",
    "store": cli.Path("the token store with the documents; by default the experiment's"),
    "data": cli.Path("the folder of the tasks' rows: <task>.jsonl or <task>.jsonl.gz, in the schema of the Hugging Face hub; or tfds: "
                     "(TensorFlow Datasets) or datasets: (Hugging Face's library), each with the folder of its data behind the colon "
                     "or none"),
    "out": cli.Path("write the results to this .json file"),
}
SWITCHES = {"compare": "only compare the recommended split with 80/20, 50/50, no seed, full pretraining and other dense models, from the "
                       "measured cells, and list what is not measured"}


def main(argv: Sequence[str] | None = None) -> int:
  """Evaluates, prints tables, and writes results.json."""
  given = cli.parse("evaluate", __doc__, [Evaluation, Routing], argv, flags=FLAGS, switches=SWITCHES, fields_as_flags=True)
  settings, routing, flags = given[Evaluation], given[Routing], given.flags
  log = lambda line: print(line, flush=True)
  check_asked(settings, routing, flags)
  from jaxsplit.evaluating import compare_ways, evaluate_asked  # These imports take seconds, which what is refused need not wait for.

  keep = (lambda record: write_json(flags["out"], record)) if flags["out"] else lambda record: None
  keep(compare_ways(flags["workdir"], log) if flags["compare"] else evaluate_asked(settings, routing, flags, log, keep))
  if flags["out"]:
    log(f"written to {flags['out']}")
  return 0


if __name__ == "__main__":
  cli.run(main)
