"""What trained models are worth: tables, and the record of results.json. What the evaluate entry point runs, and Python may."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from jaxsplit.columns import aligned
from jaxsplit.data.joined import ADDED, join_all
from jaxsplit.data.store import Store, open_store
from jaxsplit.evaluation import benchmarks  # noqa: F401 (They add themselves to TASKS.)
from jaxsplit.evaluation.asked import check_asked
from jaxsplit.evaluation.choices import in_words, score_answers
from jaxsplit.evaluation.countdown import countdown
from jaxsplit.evaluation.documents import Document, held_out_split, read_documents, score_documents
from jaxsplit.evaluation.experts import Experts, Scores
from jaxsplit.evaluation.matrix import Matrix, matrix, table
from jaxsplit.evaluation.results import of_task, results_of
from jaxsplit.evaluation.routers import Routing
from jaxsplit.evaluation.routing import RoutedEvaluation, routed_evaluation, with_average
from jaxsplit.evaluation.settings import Evaluation
from jaxsplit.evaluation.tasks import Question, read_questions
from jaxsplit.experiment.contenders import contender_rows
from jaxsplit.files import from_home
from jaxsplit.interop import huggingface
from jaxsplit.parallel.sharding import Layout, present_devices
from jaxsplit.report.ways import contenders_of
from jaxsplit.training.loading import load_models, store_of
from jaxsplit.training.program_cache import keep_programs
from jaxsplit.training.trained import TrainedModels, side_by_side


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
  check_asked(settings, routing, flags)
  return evaluate_asked(settings, routing, flags, log)


def evaluate_asked(settings: Evaluation, routing: Routing, flags: Mapping[str, str | None], log: Callable[[str], None],
                   keep: Callable[[dict[str, Any]], None] = lambda record: None) -> dict[str, Any]:
  """As `evaluate_models`, of flags that were checked; tables are logged, and `keep` gets the record whenever it has grown."""
  questions = {task: read_questions(task, flags["data"], settings.limit) for task in settings.task_names}
  present_devices(Layout())
  keep_programs()
  models = _models(settings, flags, log)
  store = _store(flags)
  if routing.names:
    models = with_average(models)
  experts = Experts(models, settings.batch_tokens, settings.context or None)
  routed = routed_evaluation(flags["workdir"], routing, experts, settings.replica, flags["store"]) if routing.names else None
  found, tasks = None, {}
  record = lambda: results_of(models, found, tasks, routed.record() if routed else {})
  if store:
    documents, scores, found = _matrix(settings, store, experts, log)
    keep(record())
    if routed:
      log("\n".join(["", f"perplexity per token after the contexts of {found.split} documents; cost in forward passes of one model",
                     *routed.documents(documents, scores, found.split, found.stride)]))
  for task, rows in questions.items():
    tasks[task] = _task(settings, task, rows, experts, routed, log)
    keep(record())
  return record()


def _models(settings: Evaluation, flags: Mapping[str, str | None], log) -> TrainedModels:
  if flags["workdir"]:
    return load_models(flags["workdir"], settings.replica, flags["store"], log)
  folder = from_home(flags["model"].removeprefix("hf:"), "--model")
  log(f"reading {folder}")
  return side_by_side({pathlib.Path(folder).resolve().name: huggingface.load(folder)})


def _store(flags: Mapping[str, str | None]) -> Store | None:
  if flags["workdir"]:
    return join_all(open_store(store_of(flags["workdir"], flags["store"])), pathlib.Path(flags["workdir"]) / ADDED)
  return open_store(flags["store"]) if flags["store"] else None


def compare_ways(workdir: str, log: Callable[[str], None]) -> dict[str, Any]:
  """Compares the split with the usual ways. Returns the record of results.json."""
  found = contenders_of(workdir)
  for line in aligned(contender_rows(found), left=(0, -1)):
    log(line)
  return {"compare": [dataclasses.asdict(one) for one in found]}


def _matrix(settings: Evaluation, store: Store, experts: Experts, log) -> tuple[list[Document], Scores, Matrix]:
  """Every model on every domain's documents: these, the models' scores of them, and what they come to."""
  split = held_out_split(store) if settings.split == "auto" else settings.split
  documents = read_documents(store, split, settings.tokens, experts.models.tokenizer)
  stride = settings.stride or experts.context // 2
  scores = score_documents(experts, documents, stride, countdown(f"{split} documents", log))
  found = matrix(documents, scores.sums, experts.models.names, experts.models.kinds, split=split, context=experts.context, stride=stride)
  for name, measure in (("perplexity per token", "perplexity"), ("bits per byte", "bits_per_byte")):
    lines = table(found, measure)
    errors = ", ± standard error" * any("±" in line for line in lines)  # A single document has none.
    log("\n".join(["", f"{name}, {split} documents{errors}", *lines]))
  log("documents: " + ", ".join(f"{domain} {count:,}" for domain, count in zip(found.domains, found.documents)))
  if added := ", ".join(getattr(store, "added", ())):
    log(f"added later: {added}; the seed, the dense model and the other experts have not been trained on it; means over domains include it")
  return documents, scores, found


def _task(settings: Evaluation, task: str, questions: list[Question], experts: Experts, routed: RoutedEvaluation | None,
          log) -> dict[str, Any]:
  """Every model's accuracy on a task."""
  scored = score_answers(experts, questions, settings.unconditional, countdown(task, log))
  answers = scored.answers
  found = of_task(experts.models, answers)
  pairs = len(answers.greedy[0])
  if answers.truncated:
    log(f"\n{task}: {answers.truncated} of {pairs} answers with their contexts are longer than the models' {experts.context} tokens, "
        "and were cut from the left")
  if answers.headless:
    log(f"{task}: {answers.headless} of {pairs} answers alone are longer than that: only their ends are scored, so the accuracies say "
        "little of the models")
  log(f"\n{task}, {len(questions)} questions")
  for name, of in found["models"].items():
    log(f"  {name}: {in_words(of)}")
  for line in routed.answers(task, scored) if routed else ():
    log(line)
  return found
