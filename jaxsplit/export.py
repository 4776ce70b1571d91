"""Exports models: python -m jaxsplit.export --workdir=DIR --out=DIR

Writes the experts of an experiment as Hugging Face folders, OUT/<domain>, their seed to OUT/seed and, if it was trained, the model of
full pretraining to OUT/dense. transformers, vLLM and mergekit read them.
"""

from __future__ import annotations

from jaxsplit import signals

signals.end_at_once(__name__)  # The imports below take seconds.

# ruff: noqa: E402
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Literal

from jaxsplit import cli
from jaxsplit.data.corpus import real
from jaxsplit.data.parts import MANIFEST
from jaxsplit.errors import InputError
from jaxsplit.files import TEMPORARY, write_atomic
from jaxsplit.interop import huggingface
from jaxsplit.interop.card import model_card
from jaxsplit.interop.tensors import SHARD_BYTES
from jaxsplit.results.cells import Cell, read_cells
from jaxsplit.results.config import read_config
from jaxsplit.results.plan import Plan, load_plan
from jaxsplit.training.loading import load_models, store_of
from jaxsplit.training.trained import TrainedModel


@dataclasses.dataclass(frozen=True)
class Export:
  """How models are written.

  Attributes:
    dtype: element type of the weights.
    replica: which replica of the experiment to export.
    shard_bytes: maximum bytes of a weights file; larger models are split into several.
  """

  dtype: Literal["float32", "bfloat16"] = "float32"
  replica: int = 0
  shard_bytes: int = SHARD_BYTES

  def __post_init__(self):
    if self.shard_bytes < 1:
      raise InputError(f"Export.shard_bytes = {self.shard_bytes}: must be 1 or more")


FLAGS = {
    "workdir": cli.Path("the work directory of the experiment whose models are exported; required"),
    "out": cli.Path("the folder in which a folder for each model is made; required"),
    "store": cli.Path("where the experiment's token store is, if it was moved"),
}


def main(argv: Sequence[str] | None = None) -> int:
  """Writes a folder for each model."""
  given = cli.parse("export", __doc__, [Export], argv, flags=FLAGS, fields_as_flags=True)
  settings, flags = given[Export], given.flags
  for name in ("workdir", "out"):
    if not flags[name]:
      raise InputError(f"--{name} is missing; name a folder, as in --{name}={'runs/mine' if name == 'workdir' else 'exported'}")
  export_models(flags["workdir"], flags["out"], settings, store=flags["store"], log=lambda line: print(line, flush=True))
  return 0


def export_models(workdir: str | os.PathLike, out: str | os.PathLike, settings: Export = Export(), *,
                  store: str | os.PathLike | None = None, log: Callable[[str], None] = print) -> list[pathlib.Path]:
  """Writes every model of an experiment as a Hugging Face folder, for Python.

      jaxsplit.export_models("runs/mine", "exported", jaxsplit.Export(dtype="bfloat16"))

  Args:
    workdir: the experiment's.
    out: the folder in which a folder for each model is made.
    settings: how they are written.
    store: where the experiment's token store is, if it was moved.
    log: gets a line a model.

  Returns:
    The folders: `out`/<domain> of the experts, then `out`/seed and `out`/dense as far as they are there.

  Raises:
    InputError: no such models; an `out` within the experiment or its token store, or that is another one's, or a model's; a folder
      that exists already or cannot be made; or a family or tokenizer that has no such format.
  """
  out, workdir = pathlib.Path(out), pathlib.Path(workdir)
  _check_apart(out, workdir, store_of(workdir, store))
  models = load_models(workdir, settings.replica, store, log)
  written = [(name, kind) for name, kind in zip(models.names, models.kinds) if kind != "base"]  # That is such a folder already.
  taken = next((out / name for name, _ in written if (out / name).exists()), None)
  if taken:
    raise InputError(f"--out={out}: {taken} exists already; name another folder, or move that one away")
  try:
    out.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise InputError(f"--out={out}: cannot be made ({error.strerror}); name a folder that can be written") from None
  plan = load_plan(workdir / "plan.json") if (workdir / "plan.json").exists() else None
  cells = [cell for cell in read_cells(workdir / "cells.csv")
           if cell.params_total == models.config.params_total and cell.replica == settings.replica and cell.status == "ok"]
  base = pathlib.PurePath((read_config(workdir)["Experiment"].get("init_from") or "").removeprefix("hf:")).name or None
  mixture = sorted({cell.domain for cell in cells if cell.role in ("split", "dense")}) or models.domains
  for name, kind in written:
    model, measured = models[name], _cells_of(kind, name, cells, plan)
    card = model_card(name, kind, model.config, model.steps, measured, mixture, base=base,
                      step_tokens=cells[0].batch_tokens if cells else None)
    _write(out / name, model, card, settings)
    log(f"{out / name}: {kind}, {models.config.params_total:,} parameters, {settings.dtype}")
  return [out / name for name, _ in written]


def _check_apart(out: pathlib.Path, workdir: pathlib.Path, store: pathlib.Path) -> None:
  """Refuses folders that an experiment reads or writes, and those of a model: a domain's name may be that of any file there."""
  if out.is_file():
    raise InputError(f"--out={out}: is a file; name a folder")
  within = (real(out), *real(out).parents)
  for kind, folder in (("the experiment's work directory", workdir), ("its token store", store)):
    if real(folder) in within:
      raise InputError(f"--out={out}: lies in {kind}, {folder}, whose files are its own; name a folder outside, as in --out=exported")
  for name, kind in (("config.json", "an experiment or a model"), (MANIFEST, "a token store")):
    if (out / name).exists():
      raise InputError(f"--out={out}: holds {kind} ({name}); name a folder of its own for the models, as in --out=exported")
  there = sorted(out.iterdir()) if out.is_dir() else []
  other = next((one.name for one in there if not (one.name.startswith(".") or (one / "config.json").exists())), None)
  if other:
    raise InputError(f"--out={out}: holds what is no exported model ({other}); name a folder that is new or empty, as in --out=exported")


def _write(folder: pathlib.Path, model: TrainedModel, card: str, settings: Export) -> None:
  """Writes one model's folder, atomically."""
  temporary = folder.with_name(f".{folder.name}{TEMPORARY}")
  shutil.rmtree(temporary, ignore_errors=True)  # Of a process that was killed.
  temporary.mkdir()
  huggingface.save(model, temporary, settings.dtype, settings.shard_bytes)
  write_atomic(temporary / "README.md", card)
  temporary.rename(folder)


def _cells_of(kind: str, name: str, cells: Sequence[Cell], plan: Plan | None) -> list[Cell]:
  """The measured cells of one of the models: of an expert on its domain, of the model of full pretraining on all."""
  dense = [cell for cell in cells if cell.role == "dense"]
  if kind != "expert":
    return dense if kind == "dense" else []
  if not plan.point.expert_steps:  # The plan is not to split: the dense model is the expert of every domain.
    return [cell for cell in dense if cell.domain == name]
  at = plan.point.seed_tokens, plan.point.expert_tokens
  own = [cell for cell in cells if cell.role in ("split", "added") and cell.domain == name]
  return [cell for cell in own if (cell.seed_tokens, cell.expert_tokens) == at]


if __name__ == "__main__":
  cli.run(main, kept="files that were finished stay")
