"""Models of an experiment, loaded from its work directory."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxsplit import devices
from jaxsplit.checkpoint.checkpoints import newest_snapshot, read_arrays
from jaxsplit.data.encoding import Tokenizer
from jaxsplit.data.store import read_tokenizer
from jaxsplit.errors import InputError, nearest
from jaxsplit.files import from_home
from jaxsplit.models.config import model_of
from jaxsplit.models.family import ModelConfig, Params
from jaxsplit.results.config import read_config
from jaxsplit.results.plan import load_plan
from jaxsplit.results.stages import Point, StageRecord, StageRun, read_stages
from jaxsplit.training.trained import TrainedModel, TrainedModels

SEED = "seed"
DENSE = "dense"
BASE = "base"


def load_model(workdir: str | os.PathLike, domain: str | None = None, replica: int = 0,
               store: str | os.PathLike | None = None) -> TrainedModel:
  """A model that was trained for an experiment's plan, at its target size.

      model = jaxsplit.load_model("runs/mine", "law")
      logits_1xTxV = model(model.tokenizer.encode("Whereas")[None])

  Only reads, also while the experiment is still training. All parameters of the model's stack pass through the host's memory.

  Args:
    workdir: the experiment's.
    domain: the expert of that domain; None or "seed": the seed that the experts were forked from, before any cooldown, which of a plan
      with D = 0 is the base model; "dense": the model of full pretraining at the same compute; "base": what an experiment with
      `Experiment.init_from` began with. Where the plan is not to split, the expert of every domain is the dense model.
    replica: which replica.
    store: where its token store is, if it was trained with --store=DIR and that was moved.

  Raises:
    InputError: there is no such model (yet); the line says what to do.
  """
  path = pathlib.Path(from_home(os.fspath(workdir), "load_model"))
  config = _experiment(path)
  folder, about, row = _snapshot(path, config["Experiment"], domain, replica)
  model, tokenizer, params = _read(path, config, folder, about, store)
  return TrainedModel(model, jax.device_put(jax.tree.map(lambda x_Rx: x_Rx[row], params)), tokenizer, _steps(folder, about, row))


def load_models(workdir: str | os.PathLike, replica: int = 0, store: str | os.PathLike | None = None,
                log: Callable[[str], None] = print) -> TrainedModels:
  """All models that were trained for an experiment's plan: the expert of every domain, their seed and the model of full pretraining;
  and the base model that all began with, where there is one and it is not the seed (D = 0).

  Of the last three those that do not exist are left out and logged. Other arguments and errors are those of `load_model`.
  """
  path = pathlib.Path(from_home(os.fspath(workdir), "load_models"))
  config = _experiment(path)
  wanted: list[tuple[str, str, Any]] = [(domain, "expert", domain) for domain in _domains(_proof(path, config["Experiment"]))]
  others: list[tuple[str, Any]] = [*([(SEED, None)] if wanted else []), (DENSE, DENSE)]  # Without experts there is no seed.
  if config["Experiment"].get("init_from") and not _seed_is_base(path):
    others.append((BASE, BASE))
  wanted += [(kind, kind, which) for kind, which in others if kind not in (name for name, _, _ in wanted)]
  found, names, kinds = [], [], []
  for name, kind, which in wanted:
    try:
      found.append(_snapshot(path, config["Experiment"], which, replica))
    except InputError as error:
      if kind == "expert" or not found and which == DENSE:
        raise
      log(f"without the {kind} model: {error}")
      continue
    names.append(name)
    kinds.append(kind)
  return _side_by_side(path, config, found, tuple(names), tuple(kinds), store)


def load_small_models(workdir: str | os.PathLike, domains: Sequence[str], replica: int = 0,
                      store: str | os.PathLike | None = None) -> TrainedModels | None:
  """The small models of these domains, in their order, that were trained for routing; None if one does not exist.

  Arguments and errors are those of `load_model`.
  """
  path = pathlib.Path(from_home(os.fspath(workdir), "load_small_models"))
  config, found = _experiment(path), {}
  for stage in read_stages(path / "ledger.json"):
    ended = [(row, run.domain) for row, run in enumerate(stage.runs) if run.point and run.replica == replica]
    if stage.purpose == "router" and ended and (snapshot := newest_snapshot(path / "checkpoints" / stage.name)):
      found |= {domain: (*snapshot, row) for row, domain in ended}
  if not domains or any(domain not in found for domain in domains):
    return None
  return _side_by_side(path, config, [found[domain] for domain in domains], tuple(domains), ("expert",) * len(domains), store)


def _side_by_side(path: pathlib.Path, config: dict[str, Any], found: Sequence[tuple[pathlib.Path, dict[str, Any], int]],
                  names: tuple[str, ...], kinds: tuple[str, ...], store: str | os.PathLike | None) -> TrainedModels:
  """The models in rows of snapshots, each of which is read once."""
  read: dict[pathlib.Path, tuple[ModelConfig, Tokenizer, Params]] = {}
  for folder, about, _ in found:
    if folder not in read:
      read[folder] = _read(path, config, folder, about, store)
  model, tokenizer, _ = next(iter(read.values()))
  params = jax.tree.map(lambda *each: np.stack(each), *(
      jax.tree.map(lambda x_Rx: x_Rx[row], read[folder][2]) for folder, _, row in found))
  return TrainedModels(names, kinds, model, params, tokenizer, tuple(_steps(*one) for one in found))


def _experiment(path: pathlib.Path) -> dict[str, Any]:
  """The settings of the experiment in a work directory."""
  missing = [name for name in ("config.json", "ledger.json") if not (path / name).is_file()]
  if missing:
    raise InputError(f"{path}: no experiment that has trained anything ({missing[0]} is missing); name the work directory of one")
  return read_config(path)


def store_of(workdir: str | os.PathLike, store: str | os.PathLike | None = None) -> pathlib.Path:
  """The folder of an experiment's token store, or `store`, where it is now. InputError if there is no experiment."""
  path = pathlib.Path(from_home(os.fspath(workdir), "--workdir"))
  return pathlib.Path(store or _experiment(path).get("Store", {}).get("path", path / "store"))


def _read(path: pathlib.Path, config: dict[str, Any], folder: pathlib.Path, about: dict[str, Any],
          store: str | os.PathLike | None) -> tuple[ModelConfig, Tokenizer, Params]:
  """The models of a snapshot: their shape, their tokenizer, and the parameters of all, [R, ...]."""
  devices.present()
  model = model_of(about["model"])
  tokens = store or config.get("Store", {}).get("path", path / "store")
  try:
    tokenizer = read_tokenizer(tokens)
    if tokenizer.fingerprint != about["tokenizer"]:
      raise InputError(f"{tokens}: not the tokenizer that {path} was trained with")
  except InputError as error:
    raise InputError(f"{error}; if the store was moved, say where: --store=DIR, or store=DIR in Python") from None
  stack = jax.tree.map(lambda x: jax.ShapeDtypeStruct((about["rows"], *x.shape), x.dtype), model.abstract_params)
  return model, tokenizer, read_arrays(folder, {"params": stack})["params"]


def _steps(folder: pathlib.Path, about: dict[str, Any], row: int) -> int:
  """The steps of the model at an index of a snapshot. InputError for one that diverged."""
  if about["runs"][row]["diverged"]:
    raise InputError(f"{folder}: this model diverged and cannot be used; see divergence.json")
  return about["runs"][row]["steps"]


def _proof(path: pathlib.Path, experiment: dict[str, Any]) -> list[StageRecord]:
  """The stages that trained what an experiment has planned."""
  return [stage for stage in read_stages(path / "ledger.json")
          if stage.purpose in ("proof", "added") and stage.shape == tuple(experiment["target"])]


def _domains(proof: list[StageRecord]) -> list[str]:
  return sorted({run.domain for stage in proof for run in stage.runs if run.domain})


def _snapshot(path: pathlib.Path, experiment: dict[str, Any], domain: str | None,
              replica: int) -> tuple[pathlib.Path, dict[str, Any], int]:
  """The snapshot that holds a model: its folder, its facts, and the model's row in its stack."""
  proof = _proof(path, experiment)
  domains = _domains(proof)
  domain = None if domain == SEED else domain
  others = {DENSE: "the model of full pretraining", **({BASE: "the base model"} if experiment.get("init_from") else {})}
  named = {SEED: "what they were forked from", **others}
  there = f"{', '.join(domains) or 'none yet'}; besides, {', '.join(f'{name!r} is {what}' for name, what in named.items())}"
  if domain not in (None, *others, *domains) or domain in others and domain in domains:
    what = f"{domain!r} may be a domain or {others.get(domain)}" if domain in domains else f"no domain {domain!r}"
    like = "" if domain in domains else nearest(str(domain), domains)
    raise InputError(f"{path}: {what}; its experts' domains: {there}{like}")
  if replica not in range(experiment["replicas"]):
    raise InputError(f"{path}: no replica {replica!r}; it has {experiment['replicas']}, the first of which is 0")
  matches = _matching(path, experiment, proof, domain)
  found = [(path / "checkpoints" / stage.name, row) for stage in proof for row, run in enumerate(stage.runs)
           if run.replica == replica and matches(stage, run)]
  for folder, row in found:
    if snapshot := newest_snapshot(folder):
      return (*snapshot, row)
  if not found:
    raise InputError(f"{path}: no such model is trained there: either the experiment is not finished, and python -m "
                     "jaxsplit.train, given as before, goes on with it, or its Experiment.compare has no 1 for a dense model")
  remedy = ("python -m jaxsplit.train, given as before, trains it again" if domain is not None else
            "snapshots of seeds stay with Training.retention = 'trunks' (the default) or 'all': train with that in another --workdir")
  raise InputError(f"{found[0][0]}: the model was trained, but its snapshot does not exist; {remedy}")


def _seed_is_base(path: pathlib.Path) -> bool:
  """Whether the planned experts of an experiment that begins with a base model are forked from that model itself."""
  return (path / "plan.json").exists() and (point := load_plan(path / "plan.json").point) is not None and not point.seed_steps


def _split(path: pathlib.Path, proof: list[StageRecord]) -> Point:
  """The planned split; without a plan, the one split that was measured. InputError where there is none, or several."""
  if (path / "plan.json").exists() and (point := load_plan(path / "plan.json").point):
    return Point(point.seed_steps, point.expert_steps, "split")
  measured = {run.point for stage in proof for run in stage.runs if run.point and run.point.role == "split"}
  if len(measured) != 1:
    raise InputError(f"{path}: no plan of an experiment there, and {len(measured) or 'no'} splits measured, so which experts is not "
                     f"known: it is not planned yet, or Experiment.sizes is empty; {DENSE!r} needs none")
  return measured.pop()


def _matching(path: pathlib.Path, experiment: dict[str, Any], proof: list[StageRecord],
              domain: str | None) -> Callable[[StageRecord, StageRun], bool]:
  """Whether a run of a stage ends as the requested model."""
  dense = lambda stage, run: run.point is not None and run.point.role == "dense"
  base = lambda stage, run: run.point is not None and run.point.role == "base"
  if domain in (DENSE, BASE) and domain not in _domains(proof):
    return dense if domain == DENSE else base
  point = _split(path, proof)
  if not point.expert_steps:
    return dense
  if domain is not None:
    planned = [Point(point.seed_steps, point.expert_steps, role) for role in ("split", "added")]
    return lambda stage, run: run.domain == domain and run.point in planned
  if not point.seed_steps and experiment.get("init_from"):  # They are forked from the base model itself.
    return base
  if not point.seed_steps or experiment["trunk"] == "per_domain":
    raise InputError(f"{path}: {'each domain has its own seed' if point.seed_steps else 'the planned experts have no seed'}; "
                     "name a domain to load its expert")
  return lambda stage, run: stage.phase == "trunk" and run.born + stage.steps == point.seed_steps
