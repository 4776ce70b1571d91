"""What is asked of an evaluation, checked before anything that takes long is imported."""

from __future__ import annotations

from collections.abc import Mapping

from jaxsplit.errors import InputError
from jaxsplit.evaluation.routers import Routing
from jaxsplit.evaluation.settings import Evaluation
from jaxsplit.files import check_replaceable

_OF_TASKS = "limit", "unconditional"  # Settings that say nothing without tasks.


def check_asked(settings: Evaluation, routing: Routing, flags: Mapping[str, str | None]) -> None:
  """Refuses what settings and flags alone show to be too little or too much.

  Args:
    settings, routing: what is measured.
    flags: workdir, model, store, data, compare and out, by their names.

  Raises:
    InputError: it names the flag.
  """
  if bool(flags["workdir"]) == bool(flags["model"]):
    raise InputError("give the models to evaluate: either --workdir of an experiment, or --model=hf:DIR, a Hugging Face model")
  if flags["model"] and not flags["model"].startswith("hf:"):
    raise InputError(f"--model={flags['model']}: must be hf:DIR, where DIR is the folder of a Hugging Face model")
  if flags["model"] and not settings.task_names and not flags["store"]:
    raise InputError("--model: nothing to evaluate it on; give --tasks and --data, or a token store as --store")
  if flags["model"] and (routing.names or flags["compare"]):
    raise InputError(f"--{'router' if routing.names else 'compare'} needs the experts of an experiment; give --workdir in place of --model")
  changed = [*_changed(settings), *_changed(routing)]
  beside = [*changed, "data"] if flags["data"] else changed
  if flags["compare"] and beside:
    raise InputError(f"--compare is of measured cells alone; leave --{beside[0]} out, or run evaluate once for each")
  for name in changed:
    if name in _OF_TASKS and not settings.task_names:
      raise InputError(f"--{name} is of tasks, and there are none; give --tasks, or leave it out")
    if hasattr(routing, name) and not routing.names:
      raise InputError(f"--{name} is of routers, and there are none; give --router, or leave it out")
  if flags["data"] and not settings.task_names:
    raise InputError("--data needs --tasks: the names of the tasks whose rows it has, as in --tasks=arc_easy,piqa")
  if settings.task_names and not flags["data"]:
    raise InputError("--tasks needs --data: the folder with the tasks' rows, <task>.jsonl or <task>.jsonl.gz")
  if flags["out"]:
    check_replaceable(flags["out"], "--out", "compare" if flags["compare"] else "routers")


def _changed(settings: Evaluation | Routing) -> list[str]:
  """The settings that are not as by default, by name."""
  return [name for name, value in vars(settings).items() if value != vars(type(settings)())[name]]
