"""An experiment's experts behind routers: what each way to choose them is worth on documents and tasks, and what it costs."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxsplit.columns import aligned
from jaxsplit.data.joined import ADDED, join_all
from jaxsplit.data.parts import CLUSTERS, MANIFEST
from jaxsplit.data.store import Store, open_store
from jaxsplit.data.stream import validation
from jaxsplit.errors import InputError
from jaxsplit.evaluation.choices import ScoredAnswers, in_words
from jaxsplit.evaluation.costs import of_experts, of_run
from jaxsplit.evaluation.documents import Document
from jaxsplit.evaluation.experts import Experts, Scores, Span
from jaxsplit.evaluation.matrix import MatrixRow, matrix, rounded
from jaxsplit.evaluation.routed import AVERAGE, Cost, RoutedExperts, behind, part_of
from jaxsplit.evaluation.routers import Mixture, Router, Routing, make_router
from jaxsplit.evaluation.tasks import complete
from jaxsplit.results.config import read_config
from jaxsplit.results.stages import read_stages
from jaxsplit.training.loading import load_small_models, store_of
from jaxsplit.training.trained import TrainedModels

_PASSAGES, _PASSAGE_TOKENS = 512, 512  # Of each domain's training text, for its centroid.
_ALONE = ("seed", "dense", "base")  # Models that are measured beside the routed experts.


def with_average(models: TrainedModels) -> TrainedModels:
  """The models and one more, whose parameters are the mean of the experts'."""
  rows = [row for row, kind in enumerate(models.kinds) if kind == "expert"]
  mean = lambda x_Rx: np.concatenate([x_Rx, np.mean(x_Rx[rows], axis=0, keepdims=True, dtype=np.float64).astype(x_Rx.dtype)])
  return dataclasses.replace(models, names=(*models.names, AVERAGE), kinds=(*models.kinds, AVERAGE),
                             params=jax.tree.map(mean, models.params), steps=(*models.steps, models.steps[rows[0]]))


def routed_evaluation(workdir: str | os.PathLike, routing: Routing, experts: Experts, replica: int,
                      store: str | os.PathLike | None = None) -> RoutedEvaluation:
  """What --router measures of an experiment's models, which are on the devices.

  Args:
    workdir: the experiment's.
    routing: how texts are routed, and by which routers.
    experts: its models, with their average.
    replica: which repetition they are.
    store: where its tokens lie, if they are no longer where they were.

  Raises:
    InputError: a router that there is not, or cannot be here.
  """
  path, models = pathlib.Path(workdir), experts.models
  small = load_small_models(path, models.domains, replica, store)
  if small is None and any(name.partition("@")[0] == "prefix" for name in routing.names):
    raise InputError(f"--router=prefix: {path} has no small model of every domain to route by; train them with python -m jaxsplit.train "
                     f"--workdir={path} --add_small_models")
  config, stages = read_config(path)["Experiment"], read_stages(path / "ledger.json")
  own = [stage for stage in stages if stage.purpose in ("proof", "added") and stage.shape == tuple(config["target"])]
  steps = dict(zip(models.names, models.steps))
  flops: dict[str, float | None] = {"experts": of_experts(own, {name: steps[name] for name in models.domains}, config["trunk"] == "shared")}
  for kind in _ALONE:
    found = of_run(own, None, steps[kind]) if kind in models.kinds else None
    flops[kind] = found and sum(found)
  if small:
    flops["small models"] = of_experts([stage for stage in stages if stage.purpose == "router"], dict(zip(small.names, small.steps)), True)
  lies = store_of(path)
  tokens = join_all(open_store(lies if (lies / MANIFEST).is_file() else store_of(path, store)), path / ADDED)
  return RoutedEvaluation(routing, experts, tokens, Experts(small) if small else None, flops)


@dataclasses.dataclass
class _Found:
  """What is known of one way to choose."""

  kind: str
  row: MatrixRow | None = None
  chosen: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
  cost: Cost = Cost(0.0, 0.0)
  tasks: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
  reads_small_models: bool = False


class RoutedEvaluation:
  """Everything that is measured with routers.

  Args:
    routing: how texts are routed, and by which routers.
    experts: the models on the devices.
    store: the experiment's tokens, for centroids and the best single expert.
    small: the domains' small models, where there are any.
    training_flops: of the experts and their seed together, of the seed and of the dense model, where known.
  """

  def __init__(self, routing: Routing, experts: Experts, store: Store, small: Experts | None,
               training_flops: Mapping[str, float | None]):
    self._routing, self._experts, self._store, self._flops = routing, experts, store, training_flops
    self._routed = RoutedExperts(experts, small)
    self._domains = tuple(experts.models.names[row] for row in self._routed.rows)
    if len(self._domains) < 2:
      raise InputError("--router: there are no experts to choose among; their split is not trained, or is one dense model")
    self._mixture = Mixture(self._domains, routing, functools.cache(self._calibration), self._distances,
                            functools.cache(self._passages))
    self._routers: dict[str, Router] = {name: make_router(name, self._mixture) for name in routing.names}
    kinds = {kind: _Found(kind) for kind in experts.models.kinds if kind in _ALONE}
    self._found = {**kinds, **{name: _Found("router") for name in routing.names}}

  def documents(self, documents: Sequence[Document], scores: Scores, split: str, stride: int) -> list[str]:
    """Measures all on documents, those of a domain side by side, that the models have scored. Returns a table, as lines."""
    models, tokens = self._experts.models, self._routing.context_tokens
    log_likelihoods = {name: [] for name in self._found}
    of = [document.domain for document in documents]
    for domain in dict.fromkeys(of):
      part = slice(of.index(domain), of.index(domain) + of.count(domain))
      own, own_scores = documents[part], part_of(scores, part)
      for name, found in self._found.items():
        contexts = self._routed.document_contexts(own, own_scores, tokens)
        if found.kind == "router":
          values, weights, cost = self._routed.read_documents(self._routers[name], contexts, own, own_scores)
          found.cost += cost
          found.reads_small_models |= "small models" in contexts.read_by
          found.chosen[domain] = dict(zip(self._domains, map(float, weights.mean(0))))
        else:
          values = self._routed.read_row(models.kinds.index(found.kind), contexts, own_scores)
        log_likelihoods[name].append(values)
    told = matrix(
        behind(documents, tokens, self._routed.tokenizer), np.stack([np.concatenate(one) for one in log_likelihoods.values()]),
        list(self._found), [found.kind for found in self._found.values()], split=split, context=self._experts.context, stride=stride)
    for row in told.rows:
      self._found[row.name].row = row
    return self._table()

  def weights(self, prompt: str) -> dict[str, float]:
    """What each expert counts for, behind a prompt, by the first router; experts by their domains, those that count most in front.

    Raises:
      InputError: the router prefers none of them.
    """
    name, router = next(iter(self._routers.items()))
    if not prompt:
      raise InputError("the prompt is empty, so there is nothing to choose an expert by; name a domain as --domain, whose expert begins")
    weights_K = router.weights(self._routed.question_contexts([complete(prompt, "")]))[0]
    order = np.argsort(-weights_K, kind="stable")
    if np.isclose(*weights_K[order[:2]]):
      raise InputError(f"--router={name} prefers no expert for this prompt; name a domain as --domain, whose expert goes on with it "
                       "(where the plan is not to split, the dense model is that of every domain)")
    return {self._domains[row]: float(weights_K[row]) for row in order}

  def answers(self, task: str, scored: ScoredAnswers) -> list[str]:
    """Measures all routers on a task's questions, which the models have scored. Returns lines that say it."""
    lines = []
    for name, router in self._routers.items():
      if router.needs_label:
        continue
      contexts = self._routed.question_contexts(scored.questions)
      answers, weights, cost = self._routed.answer(router, contexts, scored)
      self._found[name].reads_small_models |= "small models" in contexts.read_by
      numbers = answers.results(np.zeros(len(scored.questions), np.int64))
      chosen = dict(zip(self._domains, map(float, weights.mean(0))))
      self._found[name].tasks[task] = {**numbers, "chosen": chosen, "inference_flops_per_question": cost.flops / len(scored.questions),
                                       "inference_cost": cost.flops / cost.of_one}
      most = max(chosen, key=chosen.get)
      prefers = "" if np.allclose(weights, weights[0, 0]) else f"; most often {most} ({chosen[most]:.0%})"
      lines.append(f"  {name}: {in_words(numbers)}; {cost.flops / cost.of_one:.2f} x the cost of one model{prefers}")
    return lines

  def record(self) -> dict[str, Any]:
    """What was found, by name, as JSON: of routers, and of the seed, the dense and the base model on the same targets.

    Losses are nats per token of what follows the contexts; `chosen` is the mean weight of each expert on each domain's documents;
    `inference_cost` is in costs of one model that reads the same text.
    """
    out = {}
    for name, found in self._found.items():
      parts = [self._flops.get("experts" if found.kind == "router" else found.kind)]
      parts += [self._flops.get("small models")] if found.reads_small_models else []
      flops = None if None in parts else sum(parts)
      cost = found.cost.flops / found.cost.of_one if found.cost.of_one else 1.0 if found.kind != "router" else None
      per_token = None if cost is None else cost * self._experts.models.config.flops_per_token / 3
      out[name] = {"kind": found.kind, "context_tokens": self._routing.context_tokens, "training_flops": flops, "inference_cost": cost,
                   "inference_flops_per_token": per_token, "chosen": found.chosen, "tasks": found.tasks,
                   **({} if found.row is None else self._numbers(found.row))}
    return out

  def _numbers(self, row: MatrixRow) -> dict[str, Any]:
    """A row's measures, by domain, with the mean loss over domains and its exp."""
    names = ("loss", "loss_stderr", "perplexity", "perplexity_stderr", "bits_per_byte", "bits_per_byte_stderr")
    mean, by_domain = float(np.mean(row.loss)), {name: dict(zip(self._measured, getattr(row, name))) for name in names}
    return {**by_domain, "mean_loss": mean, "mean_perplexity": float(np.exp(mean))}

  @property
  def _measured(self) -> list[str]:
    return next(list(found.chosen) for found in self._found.values() if found.kind == "router")

  def _table(self) -> list[str]:
    rows = [("", *self._measured, "mean", "cost", "training FLOPs")]
    for name, entry in self.record().items():
      row = self._found[name].row
      flops = "-" if entry["training_flops"] is None else f"{entry['training_flops']:.3g}"
      rows.append((name, *(rounded(value, 4) for value in (*row.perplexity, entry["mean_perplexity"])), f"{entry['inference_cost']:.2f}",
                   flops))
    return aligned(rows)

  def _calibration(self) -> np.ndarray:
    """The loss of every expert on each domain's training text, [K, D]."""
    columns = []
    for domain in self._domains:
      windows = validation(self._store, domain, self._experts.context, self._routing.calibration_tokens, "train").tokens
      scores = self._experts.score([Span(window) for window in windows])
      columns.append(-scores.log_probs[self._routed.rows].mean(1, dtype=np.float64))
    return np.stack(columns, axis=1)

  def _distances(self, texts: Sequence[str]) -> np.ndarray:
    return self._centroids(texts)

  @functools.cached_property
  def _centroids(self) -> Callable[[Sequence[str]], np.ndarray]:
    from jaxsplit.clustering.centroids import fit_centroids  # Imports scikit-learn, which takes a second.
    from jaxsplit.clustering.clusters import load_clusters

    if self._store.tokenizer.kind == "tokens":
      raise InputError("--router=centroid: the store has ids without a tokenizer, so no text to find centroids in; take another router")
    features = None
    if (self._store.directory / CLUSTERS).is_dir():
      clusters = load_clusters(self._store.directory / CLUSTERS)
      if len(self._domains) == clusters.settings.k:
        return lambda texts: clusters.assign(texts).distance
      features = clusters.features  # There are domains that came later.
    return fit_centroids({domain: self._mixture.passages(domain) for domain in self._domains}, features).distances

  def _passages(self, domain: str) -> list[str]:
    """Passages from all over a domain's training text."""
    tokens = self._store.tokens(domain, "train")
    count = min(_PASSAGES, max(1, len(tokens) // _PASSAGE_TOKENS))
    starts = np.arange(count) * max(len(tokens) - _PASSAGE_TOKENS, 0) // max(count - 1, 1)
    return [self._store.tokenizer.decode(tokens[start:start + _PASSAGE_TOKENS]) for start in starts]
