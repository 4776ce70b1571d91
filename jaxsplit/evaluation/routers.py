"""Routers: which experts read a text, and with what weights, by the beginning of it alone.

A router is made once for a set of K experts (`Mixture`), and then asked about the beginnings of N texts (`Contexts`): the first
tokens of documents, or questions without their answers. It gives weights [N, K]; what follows a beginning has the probability

    p(x_t | x_<t) = sum over k of weight_k p_k(x_t | x_<t),

token by token. `ROUTERS` has them by name and takes those of extensions; behind a name, @k keeps the k largest weights, as in
bayes@1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.registry import Registry


@dataclasses.dataclass(frozen=True)
class Routing:
  """How texts are routed to experts.

  Attributes:
    router: names of routers, separated by commas; NAME@k keeps the k largest weights.
    context_tokens: number of a document's first tokens that a router sees (half of a shorter document); the following ones are scored.
    temperature: T of softmax(-d2/T), with d2 a context's squared distances to the domains' centroids.
    prior_contexts: number of contexts of a set (a domain's documents, a task's questions) that a cached prior is estimated from.
    calibration_tokens: tokens of each domain's training text by which the best single expert is chosen.
  """

  router: str = ""
  context_tokens: int = 32
  temperature: float = 0.1
  prior_contexts: int = 100
  calibration_tokens: int = 4096

  def __post_init__(self):
    for name, fits in (("context_tokens", self.context_tokens >= 1), ("temperature", self.temperature > 0),
                       ("prior_contexts", self.prior_contexts >= 1), ("calibration_tokens", self.calibration_tokens >= 1)):
      if not fits:
        raise InputError(f"Routing.{name} = {getattr(self, name)}: must be {'positive' if name == 'temperature' else '1 or more'}")

  @property
  def names(self) -> list[str]:
    """The routers' names."""
    return list(dict.fromkeys(name.strip() for name in self.router.split(",") if name.strip()))


@dataclasses.dataclass
class Contexts:
  """The beginnings of N texts of one set.

  Attributes:
    texts: [N], as text.
    tokens: int [N], how many tokens each has.
    label: the domain that the set is of; None of questions. For the oracle alone.
    by_experts, by_small_models: callables that give the log-likelihood of each text's tokens, float64 [N, K] in nats, by the experts
      and by their small models; `read_by` says afterwards which were asked, as that has its price.
    read_by: "experts" and "small models".
  """

  texts: Sequence[str]
  tokens: np.ndarray
  label: str | None
  by_experts: Callable[[], np.ndarray]
  by_small_models: Callable[[], np.ndarray]
  read_by: set[str] = dataclasses.field(default_factory=set)

  def expert_log_likelihoods(self) -> np.ndarray:
    """Of each text by each expert, [N, K]."""
    self.read_by.add("experts")
    return self.by_experts()

  def small_log_likelihoods(self) -> np.ndarray:
    """Of each text by each expert's small model, [N, K]."""
    self.read_by.add("small models")
    return self.by_small_models()


@dataclasses.dataclass(frozen=True)
class Mixture:
  """What a router may know of the experts that it is made for.

  Attributes:
    domains: [K], what each is an expert on.
    routing: the settings.
    calibration: gives the loss of every expert on each domain's training text, float64 [K, D].
    distances: takes texts and gives their squared distances to the domains' centroids, float32 [N, K].
    passages: gives passages of a domain's training text.
  """

  domains: tuple[str, ...]
  routing: Routing
  calibration: Callable[[], np.ndarray]
  distances: Callable[[Sequence[str]], np.ndarray]
  passages: Callable[[str], list[str]]


class Router(Protocol):
  """A router.

  Attributes:
    averages: whether the experts' parameters are averaged, all alike, instead of their probabilities.
    needs_label: whether it must be told what domain a text is from, which nobody knows of a question.
  """

  averages: bool = False
  needs_label: bool = False

  def weights(self, contexts: Contexts) -> np.ndarray:
    """What each expert counts for each context: [N, K], 0 or more, of a positive sum in every row."""


ROUTERS: Registry[Callable[[Mixture], Router]] = Registry("--router")


@dataclasses.dataclass(frozen=True)
class _Weighted:
  """A router that is one function."""

  weights: Callable[[Contexts], np.ndarray]
  averages: bool = False
  needs_label: bool = False


def make_router(name: str, mixture: Mixture) -> Router:
  """The router of a name, which may end in @k. InputError where there is none, or where it gives what are no weights."""
  base, mark, most = name.partition("@")
  if mark and not (most.isdecimal() and 1 <= int(most) <= len(mixture.domains)):
    raise InputError(f"--router={name}: behind @ stands how many experts are kept, 1 to {len(mixture.domains)}")
  router = ROUTERS[base](mixture)
  return _Weighted(lambda contexts: _kept(name, router.weights(contexts), len(contexts.texts), len(mixture.domains), int(most or 0)),
                   getattr(router, "averages", False), getattr(router, "needs_label", False))


def _kept(name: str, weights: np.ndarray, contexts: int, experts: int, most: int) -> np.ndarray:
  """The weights, checked, the largest of each row kept, summing to 1."""
  weights_NxK = np.array(weights, np.float64)
  if weights_NxK.shape != (contexts, experts) or not np.isfinite(weights_NxK).all() or (weights_NxK < 0).any() or (
      weights_NxK.sum(1) <= 0).any():
    raise InputError(f"--router={name}: its weights must be of shape {[contexts, experts]}, finite, 0 or more, with something above 0 in "
                     f"every row; these are of shape {list(weights_NxK.shape)}, such as {weights_NxK.ravel()[:3].tolist()}")
  if most:
    order = np.argsort(-weights_NxK, axis=1, kind="stable")
    np.put_along_axis(weights_NxK, order[:, most:], 0.0, axis=1)
  return weights_NxK / weights_NxK.sum(1, keepdims=True)


def softmax(logits_NxK: np.ndarray) -> np.ndarray:
  """exp, normalised over the last axis, without overflow."""
  powers = np.exp(logits_NxK - logits_NxK.max(-1, keepdims=True))
  return powers / powers.sum(-1, keepdims=True)


def _same(contexts: Contexts, weights_K: Sequence[float] | np.ndarray) -> np.ndarray:
  return np.tile(np.asarray(weights_K, np.float64), (len(contexts.texts), 1))


def _oracle(mixture: Mixture) -> Router:
  """The expert of the domain that a text is from. A question has no such label, so it has no oracle."""
  def weights(contexts: Contexts) -> np.ndarray:
    if contexts.label not in mixture.domains:
      raise InputError("--router=oracle: no expert is known to be right for these texts; leave it out")
    return _same(contexts, [float(domain == contexts.label) for domain in mixture.domains])

  return _Weighted(weights, needs_label=True)


def _best_single(mixture: Mixture) -> Router:
  """The one expert whose mean loss over all domains' training text is least."""
  best = int(np.argmin(mixture.calibration().mean(1)))
  return _Weighted(lambda contexts: _same(contexts, np.arange(len(mixture.domains)) == best))


def _centroid(mixture: Mixture) -> Router:
  """softmax(-d2/T) of the squared distances to the domains' centroids (c-BTM, arXiv 2303.14177, equation 3)."""
  return _Weighted(lambda contexts: softmax(-mixture.distances(contexts.texts) / mixture.routing.temperature))


def _bayes(mixture: Mixture) -> Router:
  """The posterior of the experts given the context, by their own likelihoods, under a uniform prior (DEMix, arXiv 2108.05036)."""
  return _Weighted(lambda contexts: softmax(contexts.expert_log_likelihoods()))


def _bayes_cached(mixture: Mixture) -> Router:
  """The same under a prior that is the mean posterior of the set's first contexts (DEMix's cached prior)."""
  def weights(contexts: Contexts) -> np.ndarray:
    log_likelihoods_NxK = contexts.expert_log_likelihoods()
    prior_K = softmax(log_likelihoods_NxK[:mixture.routing.prior_contexts]).mean(0)
    return softmax(log_likelihoods_NxK + np.log(np.maximum(prior_K, np.finfo(np.float64).tiny)))

  return _Weighted(weights)


def _prefix(mixture: Mixture) -> Router:
  """The posterior by a small model of each domain, which reads the context in the expert's place (SmallTalk LM, arXiv 2410.03529)."""
  return _Weighted(lambda contexts: softmax(contexts.small_log_likelihoods()))


def _uniform(mixture: Mixture) -> Router:
  """All experts alike."""
  return _Weighted(lambda contexts: _same(contexts, np.full(len(mixture.domains), 1.0)))


def _average(mixture: Mixture) -> Router:
  """One model whose parameters are the mean of the experts': the control."""
  return _Weighted(lambda contexts: _same(contexts, np.full(len(mixture.domains), 1.0)), averages=True)


for _name, _router in (("oracle", _oracle), ("best_single", _best_single), ("centroid", _centroid), ("bayes", _bayes),
                       ("bayes_cached", _bayes_cached), ("prefix", _prefix), ("uniform", _uniform), ("average", _average)):
  ROUTERS.add(_name, _router)
