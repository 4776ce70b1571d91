"""Documents and questions behind routers, against the same sums written out, and what they cost."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxsplit.data.tokenizer import ByteTokenizer
from jaxsplit.errors import InputError
from jaxsplit.evaluation.choices import score_answers
from jaxsplit.evaluation.documents import Document, score_documents
from jaxsplit.evaluation.experts import Experts
from jaxsplit.evaluation.routed import RoutedExperts, beginnings, behind
from jaxsplit.evaluation.routers import Mixture, Routing, make_router
from jaxsplit.evaluation.routing import with_average
from jaxsplit.evaluation.tasks import choose, complete
from jaxsplit.models.config import Architecture
from jaxsplit.training.trained import TrainedModel, side_by_side

CONFIG = Architecture(head_dim=8).at(8, 1, 256, 24)
TOKENS = 4  # Of a document's beginning.


@pytest.fixture(scope="module")
def models():
  make = lambda seed: TrainedModel(CONFIG, CONFIG.initialize(np.uint32(seed)), ByteTokenizer(), 10 + seed)
  named = side_by_side({"law": make(0), "math": make(1), "seed": make(2)})
  return with_average(dataclasses.replace(named, kinds=("expert", "expert", "seed")))


@pytest.fixture(scope="module")
def routed(models):
  experts = Experts(models, batch_tokens=128)
  return RoutedExperts(experts, Experts(side_by_side({name: models[name] for name in ("math", "law")}))), experts


@pytest.fixture(scope="module")
def documents():
  rng = np.random.default_rng(0)
  make = lambda size: Document("law", np.concatenate([[0], rng.integers(1, 256, size)]).astype(np.int32), 1, size)
  return [make(size) for size in (1, 3, 12, 24, 20)]


def router(name):
  distances = lambda texts: np.array([[len(text), 2.0] for text in texts])
  return make_router(name, Mixture(("law", "math"), Routing(), lambda: np.eye(2), distances, lambda domain: []))


def probabilities(models, tokens):
  """Of every target of a document by every model, [R, n]."""
  padded = np.pad(tokens[:-1], (0, 24 - len(tokens) + 1))
  out = [jax.nn.softmax(models[name](padded[None])[0])[np.arange(len(tokens) - 1), tokens[1:]] for name in models.names]
  return np.array(out, np.float64)


def test_what_follows_a_beginning_has_the_probability_of_the_mixture(models, routed, documents):
  mixed, experts = routed
  scores = score_documents(experts, documents)
  begins = [min(TOKENS, (len(document.tokens) - 1) // 2) for document in documents]
  assert beginnings(documents, TOKENS).tolist() == begins == [0, 1, 4, 4, 4]
  expected = [probabilities(models, document.tokens) for document in documents]
  for name, weigh in (("bayes", lambda p_KxB: p_KxB.prod(1) / p_KxB.prod(1).sum()), ("uniform", lambda p_KxB: np.full(2, 0.5)),
                      ("bayes@1", lambda p_KxB: np.eye(2)[p_KxB.prod(1).argmax()]), ("oracle", lambda p_KxB: np.eye(2)[0]),
                      ("prefix", lambda p_KxB: p_KxB[::-1].prod(1) / p_KxB.prod(1).sum())):
    contexts = mixed.document_contexts(documents, scores, TOKENS)
    found, weights, cost = mixed.read_documents(router(name), contexts, documents, scores)
    for i, (p_RxN, begin) in enumerate(zip(expected, begins)):
      weights_K = weigh(p_RxN[:2, :begin])
      np.testing.assert_allclose(weights[i], weights_K, rtol=1e-4)
      np.testing.assert_allclose(found[i], np.log(weights_K @ p_RxN[:2, begin:]).sum(), rtol=1e-4)
    whole, start = sum(document.targets for document in documents), sum(begins)
    passes = {"bayes": 2 * whole, "uniform": 2 * whole, "bayes@1": whole + start, "oracle": whole, "prefix": 2 * whole + 2 * start}[name]
    assert cost.flops / cost.of_one == pytest.approx(passes / whole)
  assert contexts.texts[2] == ByteTokenizer().decode(documents[2].tokens[1:5])


def test_the_average_is_one_model(models, routed, documents):
  mixed, experts = routed
  scores = score_documents(experts, documents)
  contexts = mixed.document_contexts(documents, scores, TOKENS)
  found, _, cost = mixed.read_documents(router("average"), contexts, documents, scores)
  mean = jax.tree.map(lambda x_Rx: (x_Rx[0] + x_Rx[1]) / 2, models.params)
  np.testing.assert_allclose(jax.tree.leaves(models["average"].params)[0], jax.tree.leaves(mean)[0], rtol=1e-6)
  expected = [np.log(probabilities(models, one.tokens)[3, begin:]).sum() for one, begin in zip(documents, beginnings(documents, TOKENS))]
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  assert cost.flops == cost.of_one
  one = mixed.read_row(2, contexts, scores)
  np.testing.assert_allclose(one[2], np.log(probabilities(models, documents[2].tokens)[2, 4:]).sum(), rtol=1e-4)


def test_targets_and_bytes_are_those_behind_the_beginnings(documents):
  left = behind(documents, TOKENS, ByteTokenizer())
  assert [document.targets for document in left] == [1, 2, 8, 20, 16]
  assert [document.first for document in left] == [1, 2, 5, 5, 5]


QUESTIONS = [choose("Is it?", ("yes", "no", "yes"), 1), complete("And", "so"), choose("", ("a", "b"), 0)]


def test_a_question_is_routed_once_for_all_of_its_answers(models, routed):
  mixed, experts = routed
  scored = score_answers(experts, QUESTIONS, unconditional=True)
  contexts = mixed.question_contexts(QUESTIONS)
  assert contexts.tokens.tolist() == [6, 3, 0] and contexts.label is None
  answers, weights, cost = mixed.answer(router("bayes"), contexts, scored)
  encode = lambda text: np.concatenate([[0], np.frombuffer(text.encode(), np.uint8)]).astype(np.int32)
  row = 0
  for question, weights_K in zip(QUESTIONS, weights):
    prompt = probabilities(models, encode(question.prompt))[:2] if question.prompt else np.ones((2, 1))
    np.testing.assert_allclose(weights_K, prompt.prod(1) / prompt.prod(1).sum(), rtol=1e-4)
    for continuation in question.continuations:
      text = question.prompt + continuation if question.prompt else continuation
      tokens = encode(text)[1:] if question.prompt else encode(text)
      own = probabilities(models, tokens)[:2, -len(continuation):]
      np.testing.assert_allclose(answers.log_likelihoods[0, row], np.log(weights_K @ own).sum(), rtol=1e-4)
      alone = probabilities(models, encode(continuation))[:2, -len(continuation):]
      np.testing.assert_allclose(answers.unconditional[0, row], np.log(weights_K @ alone).sum(), rtol=1e-4)
      row += 1
  whole = sum(len(question.prompt) + sum(map(len, question.continuations)) for question in QUESTIONS)
  assert cost.flops / cost.of_one == pytest.approx(2) and cost.of_one == pytest.approx(whole * CONFIG.flops_per_token / 3)
  assert answers.results(np.zeros(3, int))["num"] == 3


def test_questions_have_no_oracle(routed):
  mixed, experts = routed
  with pytest.raises(InputError, match="no expert is known to be right"):
    mixed.answer(router("oracle"), mixed.question_contexts(QUESTIONS), score_answers(experts, QUESTIONS))
