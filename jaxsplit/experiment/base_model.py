"""The split from a base model: an experiment whose runs begin with the weights of a model that exists."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from jaxsplit.data.store import open_store
from jaxsplit.data.tokenizer import Tokenization
from jaxsplit.errors import InputError
from jaxsplit.experiment.settings import Experiment, Settings
from jaxsplit.interop import huggingface
from jaxsplit.interop.huggingface import Folder
from jaxsplit.law import Plan
from jaxsplit.models.config import Architecture
from jaxsplit.models.family import ModelConfig
from jaxsplit.results.cells import Cell

_FREE = ("document_masking", "attention", "remat", "compute_dtype")  # Settings of an architecture that are no part of a model.


@dataclasses.dataclass(frozen=True)
class _BaseArchitecture(Architecture):
  """The base model's architecture. It has one size, whatever is asked for."""

  base: Folder | None = None

  def at(self, width: int, depth: int, vocab_size: int, sequence_length: int) -> ModelConfig:
    return dataclasses.replace(self.base.config, **{name: getattr(self, name) for name in _FREE})


def from_base(settings: Settings) -> Settings:
  """The settings with the base model's size, architecture and tokenizer, where they name one; otherwise as they are.

  Raises:
    InputError: there is no such model, or what it decides is given too.
  """
  experiment = settings.experiment
  if not experiment.init_from:
    return settings
  folder = huggingface.open_folder(experiment.init_from.removeprefix("hf:"), settings.training.sequence_length)
  size, plain = (folder.config.width, folder.config.depth), Experiment()
  if experiment.sizes not in ((), (size,), None):
    raise InputError(f"Experiment.sizes = {experiment.sizes}: the base model's size is {size}; leave it out")
  if experiment.target not in (size, plain.target):
    raise InputError(f"Experiment.target = {experiment.target}: the base model's size is {size}; leave it out")
  if experiment.data != "text":
    raise InputError(f"Experiment.data = {experiment.data!r}: a base model reads text; leave out Experiment.init_from")
  for name, value in vars(settings.architecture).items():
    if name not in _FREE and value != getattr(Architecture(), name):
      raise InputError(f"Architecture.{name} = {value!r}: {experiment.init_from} has an architecture of its own; leave it out")
  return dataclasses.replace(
      settings, tokenization=_tokenization(settings, folder),
      fit=settings.fit if settings.fit.form != "auto" else dataclasses.replace(settings.fit, form="continued"),
      experiment=dataclasses.replace(experiment, sizes=() if experiment.sizes == () else (size,), target=size),
      architecture=_BaseArchitecture(
          family=folder.config.family, base=folder, **{name: getattr(settings.architecture, name) for name in _FREE}))


def base_of(settings: Settings) -> Folder | None:
  """The model that runs begin with, of settings that `from_base` has made; None: fresh weights."""
  return settings.architecture.base if isinstance(settings.architecture, _BaseArchitecture) else None


def base_text(settings: Settings, cells: Iterable[Cell], plan: Plan) -> str:
  """The plan in words, for who has a base model; empty for others."""
  if not settings.experiment.init_from:
    return ""
  losses = [cell.loss for cell in cells if cell.role == "base"]
  point = plan.point
  shared = (f"go on with the base model on the mixture for {point.seed_tokens:,} tokens ({plan.fraction:.0%} of the budget)"
            if point.seed_tokens else "fork the experts from the base model as it is, without shared pretraining")
  then = f", then train each expert for {point.expert_tokens:,} tokens" if point.expert_tokens else ", and no experts: all of the budget"
  mean = sum(losses) / len(losses)
  return (f"from {settings.experiment.init_from}: {shared}{then}. The base model's own loss is {mean:.4f}, mean over domains. "
          "The law is of this one size: it has no N term, and says nothing of other sizes")


def _tokenization(settings: Settings, folder: Folder) -> Tokenization:
  own = Tokenization(kind="bpe", path=str(folder.directory / "tokenizer.json"), end_of_document=folder.tokenizer.separator,
                     unknown_max=settings.tokenization.unknown_max)
  if settings.store:
    if open_store(settings.store).tokenizer.fingerprint != folder.tokenizer.fingerprint:
      named = f" --gin.Tokenization.end_of_document={own.end_of_document!r}" if own.end_of_document else ""
      raise InputError(f"--store={settings.store}: was made with another tokenizer than the base model's; prepare it with "
                       f"--gin.Tokenization.kind=bpe --gin.Tokenization.path={own.path}{named}")
    return settings.tokenization
  if settings.tokenization not in (Tokenization(unknown_max=settings.tokenization.unknown_max), own):
    raise InputError(f"Tokenization: {settings.experiment.init_from} comes with its tokenizer; leave all but unknown_max out")
  return own
