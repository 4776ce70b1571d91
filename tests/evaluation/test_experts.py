"""Spans of any lengths, documents in windows, and answers: each against a plain forward pass of each model."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxsplit.data.tokenizer import ByteTokenizer
from jaxsplit.errors import InputError
from jaxsplit.evaluation.choices import Answers, encode_pairs, fitted, score_answers
from jaxsplit.evaluation.documents import Document, score_documents, spans
from jaxsplit.evaluation.batching import Span, batches
from jaxsplit.evaluation.experts import Experts
from jaxsplit.evaluation.matrix import matrix, ratio
from jaxsplit.evaluation.tasks import choose, complete, fill_in
from jaxsplit.models.config import Architecture
from jaxsplit.training.telemetry import compilations
from jaxsplit.training.trained import TrainedModel, side_by_side

LENGTH = 40
CONFIG = Architecture(head_dim=8).at(16, 2, 256, LENGTH)


def model(seed, config=CONFIG):
  params = config.initialize(np.uint32(seed))
  name, size = ("unembed_DxV", 4) if "unembed_DxV" in params else ("embed_VxD", 20)  # So that tokens are far from equally likely.
  return TrainedModel(config, params | {name: size * params[name]}, ByteTokenizer(), seed)


@pytest.fixture(scope="module")
def models():
  return {name: model(seed) for seed, name in enumerate("abc")}


@pytest.fixture(scope="module")
def experts(models):
  return Experts(side_by_side(models), batch_tokens=256)


def log_probs(model, tokens, first):
  """Of the targets from `first` on, by the model as it is called from Python, and whether they are the likeliest."""
  filled = np.pad(np.asarray(tokens)[:-1], (0, LENGTH + 1 - len(tokens)))  # One program for all; no position sees what is behind it.
  log_TxV = np.asarray(jax.nn.log_softmax(model(filled[None])[0]))[:len(tokens) - 1]
  targets = np.asarray(tokens)[first:]
  return log_TxV[np.arange(first - 1, len(tokens) - 1), targets], log_TxV[first - 1:].argmax(1) == targets


def made(count, seed=0):
  rng = np.random.default_rng(seed)
  tokens = [rng.integers(1, 256, rng.integers(2, LENGTH + 2)) for _ in range(count)]
  return [Span(ids, int(rng.integers(1, len(ids)))) for ids in tokens]


def test_every_model_scores_every_target_whatever_the_lengths(models, experts):
  given, seen = made(60), []
  scores = experts.score(given, lambda done, whole: seen.append((done, whole)))
  for r, one in enumerate(models.values()):
    expected = [log_probs(one, *span) for span in given]
    np.testing.assert_allclose(scores.log_probs[r], np.concatenate([log for log, _ in expected]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scores.sums[r], [log.sum() for log, _ in expected], rtol=1e-5)
    assert scores.all_greedy[r].tolist() == [bool(hits.all()) for _, hits in expected]
  whole = sum(len(span.tokens) - 1 for span in given)
  assert seen[-1] == (whole, whole) and len(seen) < len(given) / 3
  before = compilations().compiled
  experts.score(made(60, seed=1)[::-1] + given)
  assert compilations().compiled - before <= 4  # Of a dozen shapes those that the first spans did not have.


def test_what_likeliest_tokens_make_is_greedy(models, experts):
  tokens = [7]
  for _ in range(6):
    tokens.append(int(np.asarray(models["b"](np.array([tokens + [0] * (LENGTH - len(tokens))])))[0, len(tokens) - 1].argmax()))
  assert experts.score([Span(np.array(tokens), 1)]).all_greedy[:, 0].tolist() == [False, True, False]


@pytest.mark.parametrize("given", [[], [Span(np.arange(LENGTH + 2))], [Span(np.arange(3), 3)], [Span(np.arange(3), 0)]])
def test_spans_that_cannot_be_read_are_one_line(experts, given):
  with pytest.raises(InputError, match="spans: each needs a target"):
    experts.score(given)


def test_models_of_other_shapes_are_not_side_by_side(models):
  other = model(0, dataclasses.replace(CONFIG, depth=1))
  with pytest.raises(InputError, match="of different shapes"):
    side_by_side(models | {"other": other})


@pytest.mark.parametrize("length", [2, LENGTH, LENGTH + 1, LENGTH + 2, 97])
def test_every_target_of_a_document_is_scored_once_behind_what_came_before(models, experts, length):
  tokens = np.r_[0, np.random.default_rng(length).integers(1, 256, length - 1)]
  document = Document("d", tokens, 1, length - 1)
  windows = spans(document, LENGTH, 10)
  assert np.concatenate([span.tokens[span.first:] for span in windows]).tolist() == tokens[1:].tolist()
  assert all(span.first >= LENGTH - 9 for span in windows[1:])
  scores = score_documents(experts, [document, document], stride=10)
  assert scores.counts.tolist() == [length - 1] * 2
  expected = [sum(log_probs(one, *span)[0].sum() for span in windows) for one in models.values()]
  np.testing.assert_allclose(scores.sums, np.stack([expected] * 2, 1), rtol=1e-5)
  with pytest.raises(InputError, match=f"--stride=41: must be from 1 to the models' context of {LENGTH}"):
    spans(document, LENGTH, 41)


def test_the_matrix_has_means_per_token_and_per_byte_with_errors_over_documents():
  documents = [Document(d, np.zeros(1 + n, int), 1, b) for d, n, b in (("x", 2, 4), ("x", 6, 8), ("x", 4, 6), ("y", 5, 5))]
  log_likelihoods = -np.array([[3.0, 6.0, 5.0, 10.0], [2.0, 6.0, 4.0, 5.0]])
  found = matrix(documents, log_likelihoods, ("a", "b"), ("expert", "seed"), split="valid", context=8, stride=4)
  assert (found.domains, found.documents, found.tokens, found.bytes) == (("x", "y"), (3, 1), (12, 5), (18, 5))
  a, b = found.rows
  np.testing.assert_allclose(a.loss, [14 / 12, 2])
  np.testing.assert_allclose(a.perplexity, np.exp(a.loss))
  np.testing.assert_allclose(a.bits_per_byte, np.array([14 / 18, 2]) / np.log(2))
  residuals = np.array([3, 6, 5]) - 14 / 12 * np.array([2, 6, 4])
  np.testing.assert_allclose(a.loss_stderr[0], np.sqrt(1.5 * np.sum(residuals**2)) / 12)
  np.testing.assert_allclose(a.perplexity_stderr[0], a.perplexity[0] * a.loss_stderr[0])
  assert a.loss_stderr[1] is a.bits_per_byte_stderr[1] is None and b.loss_stderr[0] == 0


def test_the_error_of_a_mean_is_how_far_means_of_other_documents_are():
  rng = np.random.default_rng(0)
  sizes = rng.integers(1, 50, (4000, 40))
  values = sizes * rng.normal(2, 0.5, sizes.shape) + rng.normal(0, 1, sizes.shape)
  means, errors = zip(*(ratio(v, s) for v, s in zip(values, sizes)))
  assert np.mean(errors) == pytest.approx(np.std(means), rel=0.05)


QUESTIONS = [choose("Is it so?", ("yes", "no", "who knows"), 1), choose("And so?", ("no", "yes"), 0, "Well:"),
             choose("Spaces end it. ", ("aa", "b"), 1), fill_in("The ", ("cat", "dog"), "sat.", 0)]


def test_answers_are_scored_behind_their_contexts_and_without_them(models, experts):
  found = score_answers(experts, QUESTIONS, unconditional=True).answers
  pairs = [pair for q in QUESTIONS for pair in zip(q.contexts, q.continuations)]
  alone = [(q.unconditional, text) for q in QUESTIONS for text in q.continuations]
  encode = lambda text: np.frombuffer(text.encode(), np.uint8).astype(int)
  for r, one in enumerate(models.values()):
    for values, of in ((found.log_likelihoods, pairs), (found.unconditional, alone)):
      expected = []
      for context, text in of:
        cut = len(context.rstrip()) or 1
        expected.append(log_probs(one, encode(context + text) if context else np.r_[0, encode(text)], cut)[0].sum())
      np.testing.assert_allclose(values[r], expected, rtol=1e-5)
  assert found.truncated == 0
  one = found.results(np.full(4, 2))
  ends = np.cumsum([0, 3, 2, 2, 2])
  ours = found.log_likelihoods[2]
  right = [int(np.argmax(ours[a:b]) == q.gold) for q, a, b in zip(QUESTIONS, ends, ends[1:])]
  assert one["acc"] == np.mean(right) and one["num"] == 4 and one["acc_interval"][0] < one["acc"] < one["acc_interval"][1] or one["acc"] in (0, 1)
  assert one["acc_stderr"] == pytest.approx(np.std(right, ddof=1) / 2)


def test_a_router_may_choose_a_model_for_each_question_and_answers_are_divided_by_their_lengths():
  log = np.array([[-1.0, -2.0, -9.0, -3.0, -1.0], [-9.0, -5.0, -10.0, -1.0, -5.0]])
  questions = [choose("a", ("x", "yy", "z" * 20), 2), choose("b", ("v", "wwwww"), 1)]
  found = Answers(questions, log, np.zeros((2, 5), bool), np.array([[0.0] * 5, [-8.5, -1, -2, 0, -4.5]]), 0, 0)
  assert [found.results(np.array(m))["acc"] for m in ((0, 0), (1, 1), (1, 0))] == [0.5, 0.0, 0.5]
  assert [found.results(np.array(m))["acc_norm"] for m in ((0, 0), (1, 1))] == [1.0, 0.5]
  assert found.results(np.array((1, 1)))["acc_uncond"] == 0.5


def test_a_completion_is_right_where_greedy_decoding_gives_it():
  log = np.log([[0.5, 0.25]])
  found = Answers([complete("x", "y")] * 2, log, np.array([[True, False]]), None, 0, 0).results(np.zeros(2, int))
  assert (found["acc"], found["acc_norm"], found["num"]) == (0.5, None, 2)
  assert found["perplexity"] == pytest.approx(np.sqrt(8)) and found["perplexity_stderr"] == pytest.approx(np.sqrt(8) * np.log(2) / 2)


def test_contexts_that_are_too_long_are_cut_from_the_left_and_told(models, experts):
  question = choose("x" * 60, ("yes", "no"), 0)
  found = score_answers(experts, [question, *QUESTIONS]).answers
  assert (found.truncated, found.headless) == (2, 0)
  whole = choose("x", ("yes" * LENGTH, "no"), 0)
  assert score_answers(experts, [whole]).answers.headless == 1
  encoded = fitted(encode_pairs(ByteTokenizer(), [(question.contexts[0], " no")]), LENGTH)
  assert len(encoded[0].tokens) == LENGTH + 1
  expected = [log_probs(one, *encoded[0])[0].sum() for one in models.values()]
  np.testing.assert_allclose(found.log_likelihoods[:, 1], expected, rtol=1e-5)


@pytest.mark.parametrize("architecture", [Architecture(head_dim=8), Architecture("gpt2", 8, document_masking=False)])
def test_what_answers_share_is_read_once_and_changes_nothing(architecture):
  config = architecture.at(16, 2, 256, LENGTH)
  models = {name: model(seed, config) for seed, name in enumerate("ab")}
  experts = Experts(side_by_side(models), batch_tokens=256)
  rng, given = np.random.default_rng(0), []
  for size in (1, 3, 3, 3, 3):  # Answers behind questions of other lengths, some with the end of a document in them.
    before = rng.integers(0, 256, rng.integers(8, 16)) * (rng.random() < 0.7)
    given += [Span(np.r_[before, rng.integers(1, 256, n)], len(before)) for n in rng.integers(1, 8, size)]
  alone, together = experts.score(given), experts.score(given, as_trees=True)
  np.testing.assert_allclose(together.log_probs, alone.log_probs, rtol=1e-4, atol=1e-4)
  np.testing.assert_array_equal(together.greedy, alone.greedy)
  assert together.counts.tolist() == alone.counts.tolist() == [span.targets for span in given]


def test_batches_hold_every_span_once_and_few_shapes():
  given = made(300)
  found = list(batches(given, LENGTH, 256, 2))
  assert sorted(np.concatenate([batch.spans for batch in found]).tolist()) == list(range(300))
  shapes = {(batch.tokens_VxT.shape, batch.targets_VxP.shape) for batch in found}
  assert len(shapes) <= 12 and all(rows % 2 == 0 and rows * length <= 512 for (rows, length), _ in shapes)
  read = sum(len(span.tokens) - 1 for span in given)
  assert sum(batch.tokens_VxT.size for batch in found) < 1.5 * read
