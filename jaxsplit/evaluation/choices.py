"""Multiple choice: every model's log-probability of every answer, and the accuracy of the most likely one.

Texts become tokens as in lm-evaluation-harness: context and continuation are encoded together, what is more than the context's own
tokens is the continuation, and spaces that end a context belong to the continuation; behind an empty context, an end-of-document
token is read. What is longer than the models read loses tokens of its context, from the left.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsplit.data.encoding import Tokenizer
from jaxsplit.errors import InputError
from jaxsplit.evaluation.countdown import Advance, ignore
from jaxsplit.evaluation.experts import Experts, Scores, Span
from jaxsplit.evaluation.tasks import Question

_Z = 1.959964  # Standard normal quantile of a 95 % interval.


@dataclasses.dataclass(frozen=True)
class Answers:
  """What R models give to the C_q answers of each of Q questions; N is the sum of C_q.

  Attributes:
    questions: Q of them.
    log_likelihoods: float64 [R, N], of continuations, question by question, in nats.
    greedy: bool [R, N], whether greedy decoding would give the continuation.
    unconditional: float64 [R, N], log-likelihoods behind `Question.unconditional`; None where they were not asked for.
    truncated: how many continuations had a context that the models cannot read whole.
    headless: how many of these are themselves longer than what the models read, and lost their beginnings.
  """

  questions: Sequence[Question]
  log_likelihoods: np.ndarray
  greedy: np.ndarray
  unconditional: np.ndarray | None
  truncated: int
  headless: int

  def results(self, models: np.ndarray) -> dict[str, float | int | list[float] | None]:
    """Accuracies where question q is answered by model number `models[q]`, int [Q]: one for all of a question's answers.

    `acc`, with `acc_stderr` and `acc_interval` (95 %, Wilson's); `acc_norm`, by log-likelihoods over the answers' characters, with
    its error; `acc_uncond`, by log-likelihoods less the unconditional ones; None where a task has no choices, or where they were not
    asked for; `num` questions. Tasks without choices have `perplexity` of the continuations instead.
    """
    starts = np.cumsum([0, *(len(question.continuations) for question in self.questions)])
    own = np.repeat(models, np.diff(starts))
    take = lambda values_RxN: None if values_RxN is None else values_RxN[own, np.arange(len(own))]
    found, greedy, alone = map(take, (self.log_likelihoods, self.greedy, self.unconditional))
    sizes = np.array([size for question in self.questions for size in question.sizes], np.float64)
    num = len(self.questions)
    if all(question.is_completion for question in self.questions):
      acc, mean = greedy.mean(), -found.mean()
      spread = found.std(ddof=1) / math.sqrt(num) if num > 1 else None
      return {**_accuracy(acc, num), "acc_norm": None, "acc_norm_stderr": None, "acc_uncond": None, "num": num,
              "perplexity": float(np.exp(mean)), "perplexity_stderr": None if spread is None else float(np.exp(mean) * spread)}
    right = lambda values_N: np.mean([
        np.argmax(values_N[start:end]) == question.gold for question, start, end in zip(self.questions, starts, starts[1:])])
    norm = right(found / sizes)
    return {**_accuracy(right(found), num), "acc_norm": float(norm), "acc_norm_stderr": _error(norm, num),
            "acc_uncond": None if alone is None else float(right(found - alone)), "num": num}


@dataclasses.dataclass(frozen=True)
class ScoredAnswers:
  """The answers of Q questions with every model's score of every token.

  Attributes:
    questions: Q of them.
    scores: of the different pairs of context and continuation.
    of: int [N], which of those pairs each answer is.
    alone: int [N], which pair is the answer without its question; None where that was not asked for.
    truncated, headless: as of `Answers`.
  """

  questions: Sequence[Question]
  scores: Scores
  of: np.ndarray
  alone: np.ndarray | None
  truncated: int
  headless: int

  @property
  def answers(self) -> Answers:
    """What every model gives to each answer."""
    sums = self.scores.sums
    alone = None if self.alone is None else sums[:, self.alone]
    return Answers(self.questions, sums[:, self.of], self.scores.all_greedy[:, self.of], alone, self.truncated, self.headless)


def score_answers(experts: Experts, questions: Sequence[Question], unconditional: bool = False, advance: Advance = ignore) -> ScoredAnswers:
  """Scores every token of every answer of every question by every model.

  Args:
    experts, questions: which.
    unconditional: whether answers are also scored without their question.
    advance: see `Experts.score`.
  """
  pairs = [pair for question in questions for pair in zip(question.contexts, question.continuations)]
  alone = [(question.unconditional, text) for question in questions for text in question.continuations] if unconditional else []
  different = {pair: number for number, pair in enumerate(dict.fromkeys(pairs + alone))}
  whole = encode_pairs(experts.models.tokenizer, list(different))
  spans = fitted(whole, experts.context)
  lost = lambda size: np.array([size(before) > size(now) for before, now in zip(whole, spans)])
  cut, headless = lost(lambda span: len(span.tokens)), lost(lambda span: len(span.tokens) - span.first)
  number = lambda wanted: np.array([different[pair] for pair in wanted])
  of = number(pairs)
  scores = experts.score(spans, advance, as_trees=True)
  return ScoredAnswers(questions, scores, of, number(alone) if unconditional else None, int(cut[of].sum()),
                       int(headless[of].sum()))


def in_words(results: Mapping[str, Any]) -> str:
  """The accuracies of `Answers.results` as text."""
  low, high = results["acc_interval"]
  others = "".join(f", {measure} {results[measure]:.4f}" for measure in ("acc_norm", "acc_uncond", "perplexity")
                   if results.get(measure) is not None)
  return f"acc {results['acc']:.4f} (95 % {low:.4f} .. {high:.4f}){others}"


def encode_pairs(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> list[Span]:
  """Contexts and continuations as tokens, of which the continuations' are targets. InputError for a continuation without a token."""
  split = []
  for context, continuation in pairs:
    stripped = context.rstrip()
    split.append((stripped, context[len(stripped):] + continuation) if stripped else ("", context + continuation))
  texts = dict.fromkeys(text for context, continuation in split for text in (context, context + continuation))
  ids = dict(zip(texts, (encoding.ids for encoding in tokenizer.encode_batch(list(texts)))))
  out = []
  for (context, continuation), pair in zip(split, pairs):
    tokens, first = ids[context + continuation].astype(np.int32), len(ids[context])
    if not first:
      tokens, first = np.concatenate([[np.int32(tokenizer.end_of_document)], tokens]), 1
    if first >= len(tokens):
      raise InputError(f"the continuation {pair[1][:60]!r} has no token of its own behind its context; mend that row")
    out.append(Span(tokens, first))
  return out


def fitted(spans: Sequence[Span], context: int) -> list[Span]:
  """The spans, of at most `context` + 1 tokens, cut from the left; a target keeps a token before it."""
  over = [max(len(span.tokens) - context - 1, 0) for span in spans]
  return [Span(span.tokens[cut:], max(span.first - cut, 1)) for span, cut in zip(spans, over)]


def _accuracy(share: float, num: int) -> dict[str, float | list[float] | None]:
  """An accuracy, its standard error, and Wilson's 95 % interval."""
  middle, width = share + _Z**2 / (2 * num), _Z * math.sqrt(share * (1 - share) / num + _Z**2 / (4 * num**2))
  return {"acc": float(share), "acc_stderr": _error(share, num),
          "acc_interval": [float((middle + way * width) / (1 + _Z**2 / num)) for way in (-1, 1)]}


def _error(share: float, num: int) -> float | None:
  """The standard error of a share of `num` questions."""
  return float(math.sqrt(share * (1 - share) / (num - 1))) if num > 1 else None
