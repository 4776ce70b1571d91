"""Texts read by routed experts: held-out documents and questions, one routing each, by the beginning alone; and what that costs.

A document's first tokens are its context (`Routing.context_tokens`, half of a shorter document); the tokens behind it are what every
row is measured on, whichever way it chooses. A question's context is the question, and one routing serves all of its answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxsplit.data.encoding import Tokenizer
from jaxsplit.errors import InputError
from jaxsplit.evaluation.choices import Answers, ScoredAnswers, fitted
from jaxsplit.evaluation.documents import Document
from jaxsplit.evaluation.experts import Experts, Scores, Span
from jaxsplit.evaluation.routers import Contexts, Router
from jaxsplit.evaluation.tasks import Question

AVERAGE = "average"  # The kind of a model whose parameters are the mean of the experts'.


@dataclasses.dataclass(frozen=True)
class Cost:
  """What it takes to read texts: FLOPs of the chosen experts and of choosing them, and those of one expert that reads the same."""

  flops: float
  of_one: float

  def __add__(self, other: Cost) -> Cost:
    return Cost(self.flops + other.flops, self.of_one + other.of_one)


class RoutedExperts:
  """Experts on the devices, to be read through routers.

  Args:
    experts: all models that are measured; those of kind expert are routed to, one of kind `AVERAGE` stands for routers that average.
    small: a small model of each expert's domain, in their order; None where there are none.
  """

  def __init__(self, experts: Experts, small: Experts | None = None):
    models = experts.models
    self._experts, self._small = experts, small
    self.rows = np.array([row for row, kind in enumerate(models.kinds) if kind == "expert"])
    self._average = next((row for row, kind in enumerate(models.kinds) if kind == AVERAGE), None)
    # Of training a token, a third is the forward pass.
    self._forward = models.config.flops_per_token / 3
    self._small_forward = len(self.rows) * small.models.config.flops_per_token / 3 if small else 0.0

  @property
  def tokenizer(self) -> Tokenizer:
    return self._experts.models.tokenizer

  def document_contexts(self, documents: Sequence[Document], scores: Scores, tokens: int) -> Contexts:
    """The beginnings of documents of one domain, which all models have scored."""
    begins = beginnings(documents, tokens)
    inside = _positions(scores.counts) < np.repeat(begins, scores.counts)
    starts = np.cumsum(scores.counts) - scores.counts
    by_experts = lambda: np.add.reduceat(np.where(inside, scores.log_probs[self.rows], 0), starts, axis=1, dtype=np.float64).T
    spans = [Span(document.tokens[:document.first + begin], document.first) for document, begin in zip(documents, begins)]
    texts = [self.tokenizer.decode(span.tokens[1:]) for span in spans]
    return Contexts(texts, begins, documents[0].domain, by_experts, lambda: self._sums(self._small, spans))

  def question_contexts(self, questions: Sequence[Question]) -> Contexts:
    """The questions of a task, without their answers. What is longer than the models read loses tokens from the left."""
    separator = np.int32(self.tokenizer.end_of_document)
    ids = [encoding.ids.astype(np.int32) for encoding in self.tokenizer.encode_batch([question.prompt for question in questions])]
    spans = [Span(np.concatenate([[separator], one])) for one in ids]
    tokens = np.array([min(len(span.tokens) - 1, self._experts.context) for span in spans])
    by_experts = lambda: self._sums(self._experts, spans)[:, self.rows]
    return Contexts([question.prompt for question in questions], tokens, None, by_experts, lambda: self._sums(self._small, spans))

  def read_documents(self, router: Router, contexts: Contexts, documents: Sequence[Document],
                     scores: Scores) -> tuple[np.ndarray, np.ndarray, Cost]:
    """Log-likelihoods [S] of what follows the contexts of documents; the weights [S, K] of the experts; what it costs."""
    weights_SxK = router.weights(contexts)
    log_probs_N = self._mixed(router, scores.log_probs, np.repeat(weights_SxK, scores.counts, axis=0))
    cost = self._cost(router, contexts, weights_SxK, scores.counts - contexts.tokens)
    return self._behind(log_probs_N, contexts, scores), weights_SxK, cost

  def read_row(self, row: int, contexts: Contexts, scores: Scores) -> np.ndarray:
    """The same log-likelihoods [S] by one model."""
    return self._behind(scores.log_probs[row], contexts, scores)

  def answer(self, router: Router, contexts: Contexts, scored: ScoredAnswers) -> tuple[Answers, np.ndarray, Cost]:
    """What the experts that are chosen by the question give to each of its answers, the weights, and what it costs."""
    weights_QxK = router.weights(contexts)
    per_answer = np.repeat(weights_QxK, [len(question.continuations) for question in scored.questions], axis=0)
    sums = lambda of: None if of is None else self._sums_of(router, scored.scores, of, per_answer)[None]
    # Whether a mixture's likeliest token is the target is known where a single model makes it.
    best = np.full(len(per_answer), self._average) if router.averages else self.rows[per_answer.argmax(1)]
    greedy = scored.scores.all_greedy[:, scored.of][best, np.arange(len(best))]
    ends = np.cumsum([len(question.continuations) for question in scored.questions])
    tokens = np.add.reduceat(scored.scores.counts[scored.of], np.concatenate([[0], ends[:-1]]))
    answers = Answers(scored.questions, sums(scored.of), greedy[None], sums(scored.alone), scored.truncated, scored.headless)
    return answers, weights_QxK, self._cost(router, contexts, weights_QxK, tokens)

  def _sums_of(self, router: Router, scores: Scores, of: np.ndarray, weights_SxK: np.ndarray) -> np.ndarray:
    """The log-likelihoods [S] of chosen spans, each under its own weights of the experts."""
    counts = scores.counts[of]
    at = np.repeat((np.cumsum(scores.counts) - scores.counts)[of], counts) + _positions(counts)
    log_probs_N = self._mixed(router, scores.log_probs[:, at], np.repeat(weights_SxK, counts, axis=0))
    return np.add.reduceat(log_probs_N, np.cumsum(counts) - counts, dtype=np.float64)

  def _behind(self, log_probs_N: np.ndarray, contexts: Contexts, scores: Scores) -> np.ndarray:
    inside = _positions(scores.counts) < np.repeat(contexts.tokens, scores.counts)
    return np.add.reduceat(np.where(inside, 0, log_probs_N), np.cumsum(scores.counts) - scores.counts, dtype=np.float64)

  def _mixed(self, router: Router, log_probs_RxN: np.ndarray, weights_NxK: np.ndarray) -> np.ndarray:
    """The log-probability of each target under the weighted experts, float64 [N]."""
    if router.averages:
      return log_probs_RxN[self._average].astype(np.float64)
    with np.errstate(divide="ignore"):
      return np.logaddexp.reduce(np.log(weights_NxK).T + log_probs_RxN[self.rows], axis=0)

  def _cost(self, router: Router, contexts: Contexts, weights_SxK: np.ndarray, rest: np.ndarray) -> Cost:
    active = np.ones(len(weights_SxK)) if router.averages else np.count_nonzero(weights_SxK, axis=1)
    flops = active * (contexts.tokens + rest) * self._forward
    if "experts" in contexts.read_by:  # Those that go on with the text have read its beginning.
      flops = flops + (len(self.rows) - active) * contexts.tokens * self._forward
    if "small models" in contexts.read_by:
      flops = flops + contexts.tokens * self._small_forward
    return Cost(float(flops.sum()), float((contexts.tokens + rest).sum() * self._forward))

  def _sums(self, experts: Experts | None, spans: Sequence[Span]) -> np.ndarray:
    """The log-likelihood of each span by each model, [S, R]; 0 of one without a target. Those that are too long lose tokens from the
    left."""
    if experts is None:
      raise InputError("--router: there are no small models to route by; train them with python -m jaxsplit.train --add_small_models")
    spans = fitted(spans, experts.context)
    whole = [number for number, span in enumerate(spans) if len(span.tokens) > span.first]
    out = np.zeros((len(spans), len(experts.models.names)))
    if whole:
      out[whole] = experts.score([spans[number] for number in whole]).sums.T
    return out


def beginnings(documents: Sequence[Document], tokens: int) -> np.ndarray:
  """How many targets of each document are its context, int [S]: so many, but at most half of them."""
  return np.array([min(tokens, document.targets // 2) for document in documents])


def behind(documents: Sequence[Document], tokens: int, tokenizer: Tokenizer) -> list[Document]:
  """The documents with what follows their contexts as targets."""
  out = []
  for document, begin in zip(documents, beginnings(documents, tokens)):
    first = document.first + int(begin)
    size = None if document.bytes is None else len(tokenizer.decode(document.tokens[first:]).encode())
    out.append(document._replace(first=first, bytes=size))
  return out


def part_of(scores: Scores, spans: slice) -> Scores:
  """The scores of consecutive spans."""
  ends = np.cumsum(scores.counts)
  tokens = slice(int(ends[spans.start] - scores.counts[spans.start]), int(ends[spans.stop - 1]))
  return Scores(scores.log_probs[:, tokens], scores.greedy[:, tokens], scores.counts[spans])


def _positions(counts: np.ndarray) -> np.ndarray:
  """0, 1, ... for the targets of each span, one after the other."""
  return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
