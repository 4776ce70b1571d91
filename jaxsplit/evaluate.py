"""Evaluates models: python -m jaxsplit.evaluate --workdir=DIR [--tasks=arc_easy,piqa --data=DIR] [--out=results.json]

What the experts, their seed and the dense model of an experiment are worth: perplexity and bits per byte of each on whole
held-out documents of every domain, and zero-shot accuracy. With --router, also what the experts are worth as one, where a
router chooses by the beginning of a text or by the question (docs/routing.md). With --compare, only the split beside the
usual ways to spend its compute. With --model=hf:DIR, a Hugging Face model instead; with --store, on its documents.
"""

from __future__ import annotations

from jaxsplit import signals

signals.end_at_once(__name__)  # The imports below take seconds.

# ruff: noqa: E402
import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxsplit import cli
from jaxsplit.data.joined import ADDED, join_all
from jaxsplit.data.store import Store, open_store
from jaxsplit.errors import InputError
from jaxsplit.evaluation import benchmarks  # noqa: F401 (They add themselves to TASKS.)
from jaxsplit.evaluation.choices import score_answers
from jaxsplit.evaluation.countdown import countdown
from jaxsplit.evaluation.documents import held_out_split, read_documents, score_documents
from jaxsplit.evaluation.experts import Experts
from jaxsplit.evaluation.matrix import Matrix, matrix, table
from jaxsplit.evaluation.results import of_task, results_of
from jaxsplit.evaluation.routers import Routing
from jaxsplit.evaluation.routing import RoutedEvaluation, routed_evaluation, with_average
from jaxsplit.evaluation.settings import Evaluation
from jaxsplit.evaluation.tasks import Question, read_questions
from jaxsplit.experiment.contenders import contender_rows
from jaxsplit.files import check_replaceable, from_home, write_json
from jaxsplit.interop import huggingface
from jaxsplit.parallel.sharding import Layout, present_devices
from jaxsplit.report.ways import contenders_of
from jaxsplit.training.program_cache import keep_programs
from jaxsplit.training.loading import load_models, store_of
from jaxsplit.training.trained import TrainedModels, side_by_side

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
  _check(settings, routing, flags)
  found = _compare(flags["workdir"], log) if flags["compare"] else _evaluate(settings, routing, flags, log)
  if flags["out"]:
    write_json(flags["out"], found)
    log(f"written to {flags['out']}")
  return 0


def evaluate_models(workdir: str | os.PathLike | None = None, settings: Evaluation = Evaluation(), routing: Routing = Routing(), *,
                    model: str | None = None, store: str | os.PathLike | None = None, data: str | os.PathLike | None = None,
                    log: Callable[[str], None] = print) -> dict[str, Any]:
  """What models are worth, for Python: the matrix of models by domains, zero-shot tasks, and routers.

      found = jaxsplit.evaluate_models("runs/mine", jaxsplit.Evaluation(tokens=20_000), jaxsplit.Routing("bayes@1"))
      found["matrix"]["rows"][0]["perplexity"], found["routers"]["bayes@1"]["mean_perplexity"]

  Args:
    workdir: the experiment whose models are evaluated.
    settings: what is measured, and how.
    routing: names the routers that are measured too; none by default.
    model: in place of `workdir`, "hf:DIR", the folder of a Hugging Face model.
    store: the token store with the documents; by default the experiment's.
    data: the folder of the tasks' rows.
    log: gets the tables, and how far it is.

  Returns:
    The record of results.json (docs/evaluation.md).

  Raises:
    InputError: models, documents or rows that cannot be read; one line.
  """
  text = lambda value: None if value is None else os.fspath(value)
  flags = {"workdir": text(workdir), "model": model, "store": text(store), "data": text(data), "compare": None, "out": None}
  _check(settings, routing, flags)
  return _evaluate(settings, routing, flags, log)


def _evaluate(settings: Evaluation, routing: Routing, flags: Mapping[str, str | None], log) -> dict[str, Any]:
  """The record of results.json; tables are logged."""
  questions = {task: read_questions(task, flags["data"], settings.limit) for task in settings.task_names}
  present_devices(Layout())
  keep_programs()
  models = _models(settings, flags, log)
  store = _store(flags)
  if routing.names:
    models = with_average(models)
  experts = Experts(models, settings.batch_tokens, settings.context or None)
  routed = routed_evaluation(flags["workdir"], routing, experts, settings.replica, flags["store"]) if routing.names else None
  found = _matrix(settings, store, experts, routed, log) if store else None
  tasks = {task: _task(settings, task, rows, experts, routed, log) for task, rows in questions.items()}
  return results_of(models, found, tasks, routed.record() if routed else {})


def _check(settings: Evaluation, routing: Routing, flags: Mapping[str, str | None]) -> None:
  if bool(flags["workdir"]) == bool(flags["model"]):
    raise InputError("give the models to evaluate: either --workdir of an experiment, or --model=hf:DIR, a Hugging Face model")
  if flags["model"] and not flags["model"].startswith("hf:"):
    raise InputError(f"--model={flags['model']}: must be hf:DIR, where DIR is the folder of a Hugging Face model")
  if flags["model"] and not settings.task_names and not flags["store"]:
    raise InputError("--model: nothing to evaluate it on; give --tasks and --data, or a token store as --store")
  if flags["model"] and (routing.names or flags["compare"]):
    raise InputError(f"--{'router' if routing.names else 'compare'} needs the experts of an experiment; give --workdir in place of --model")
  if settings.task_names and not flags["data"]:
    raise InputError("--tasks needs --data: the folder with the tasks' rows, <task>.jsonl or <task>.jsonl.gz")
  if flags["out"]:
    check_replaceable(flags["out"], "--out", "routers")


def _models(settings: Evaluation, flags: Mapping[str, str | None], log) -> TrainedModels:
  if flags["workdir"]:
    return load_models(flags["workdir"], settings.replica, flags["store"], log)
  folder = from_home(flags["model"].removeprefix("hf:"), "--model")
  return side_by_side({pathlib.Path(folder).resolve().name: huggingface.load(folder)})


def _store(flags: Mapping[str, str | None]) -> Store | None:
  if flags["workdir"]:
    return join_all(open_store(store_of(flags["workdir"], flags["store"])), pathlib.Path(flags["workdir"]) / ADDED)
  return open_store(flags["store"]) if flags["store"] else None


def _compare(workdir: str, log) -> dict[str, Any]:
  """Compares the split with the usual ways."""
  found = contenders_of(workdir)
  rows = contender_rows(found)
  widths = [max(map(len, column)) for column in zip(*rows)]
  for row in rows:
    log("  ".join(text.ljust(width) if i in (0, len(row) - 1) else text.rjust(width)
                  for i, (text, width) in enumerate(zip(row, widths))).rstrip())
  return {"compare": [dataclasses.asdict(one) for one in found]}


def _matrix(settings: Evaluation, store: Store, experts: Experts, routed: RoutedEvaluation | None, log) -> Matrix:
  """Every model on every domain's documents."""
  split = held_out_split(store) if settings.split == "auto" else settings.split
  documents = read_documents(store, split, settings.tokens, experts.models.tokenizer)
  stride = settings.stride or experts.context // 2
  scores = score_documents(experts, documents, stride, countdown(f"{split} documents", log))
  found = matrix(documents, scores.sums, experts.models.names, experts.models.kinds, split=split, context=experts.context, stride=stride)
  for name, measure in (("perplexity per token", "perplexity"), ("bits per byte", "bits_per_byte")):
    log("\n".join(["", f"{name}, {split} documents, ± standard error", *table(found, measure)]))
  if routed:
    log("\n".join(["", f"perplexity per token after the contexts of {split} documents; cost in forward passes of one model",
                   *routed.documents(documents, scores, split, stride)]))
  return found


def _task(settings: Evaluation, task: str, questions: list[Question], experts: Experts, routed: RoutedEvaluation | None,
          log) -> dict[str, Any]:
  """Every model's accuracy on a task."""
  scored = score_answers(experts, questions, settings.unconditional, countdown(task, log))
  answers = scored.answers
  found = of_task(experts.models, answers)
  if answers.truncated:
    log(f"\n{task}: {answers.truncated} of {len(answers.greedy[0])} contexts are longer than the models' {experts.context} tokens, "
        "and were cut from the left")
  log(f"\n{task}, {len(questions)} questions")
  for name, of in found["models"].items():
    numbers = "".join(f", {measure} {of[measure]:.4f}" for measure in ("acc_norm", "acc_uncond", "perplexity")
                      if of.get(measure) is not None)
    low, high = of["acc_interval"]
    log(f"  {name}: acc {of['acc']:.4f} (95 % {low:.4f} .. {high:.4f}){numbers}")
  for line in routed.answers(task, scored) if routed else ():
    log(line)
  return found


if __name__ == "__main__":
  cli.run(main)
