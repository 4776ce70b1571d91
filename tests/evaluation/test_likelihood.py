"""Log-probabilities of given targets: those of a plain forward pass, for every run, on one device and on two."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxsplit.data.stream import Windows
from jaxsplit.errors import InputError
from jaxsplit.evaluation.likelihood import log_probabilities
from jaxsplit.evaluation.perplexity import held_out
from jaxsplit.models.config import Architecture
from jaxsplit.parallel.sharding import Layout
from jaxsplit.training import stack
from jaxsplit.training.optimizer import Optimizer
from jaxsplit.training.stack import StackSpec
from jaxsplit.training.telemetry import compilations

RUNS, WINDOWS, LENGTH, VOCAB = 3, 5, 8, 20
ALL = ("targets", "windows", "greedy", "total")
SPEC = StackSpec(Architecture(head_dim=8).at(16, 2, VOCAB, LENGTH), Optimizer(), Layout(devices=1), RUNS, 1, 2, end_of_document=0)
LAYOUTS = {
    "one by one": SPEC, "together": dataclasses.replace(SPEC, runs_per_map=0),
    "a batch on two devices": dataclasses.replace(SPEC, layout=Layout(data=2, devices=2)),
    "units on two devices": dataclasses.replace(SPEC, layout=Layout(tensor=2, devices=2)),
    "runs on two devices": dataclasses.replace(SPEC, layout=Layout(devices=2), runs=RUNS + 1)}


def windows(runs=RUNS, seed=0, length=LENGTH):
  return np.random.default_rng(seed).integers(0, VOCAB, (runs, WINDOWS, length + 1)).astype(np.int32)


def weights(runs=RUNS):
  """Prompts of other lengths in every window, one window without any target, and what counts half."""
  prompts = np.arange(runs * WINDOWS).reshape(runs, WINDOWS, 1) % (LENGTH + 1)
  return np.where(np.arange(LENGTH) < LENGTH - prompts, 0, np.where(np.arange(LENGTH) % 3, 1, 0.5)).astype(np.float32)


@pytest.fixture(scope="module")
def params():
  """Of RUNS runs, with embeddings so large that tokens are far from equally likely."""
  params = jax.device_get(stack.initialize(SPEC, range(RUNS))["params"])
  return params | {"unembed_DxV": 3 * params["unembed_DxV"]}


def by_hand(params, run, tokens):
  """Of one run, log-probabilities [V, T, VOCAB] in float64, from hidden states to softmax."""
  x_VxTxD, unembed_DxV = SPEC.model.apply(jax.tree.map(lambda a: a[run], params), tokens[:, :-1], 0)
  logits = np.asarray(x_VxTxD, np.float64) @ np.asarray(unembed_DxV, np.float64)
  return logits - np.log(np.sum(np.exp(logits), axis=2, keepdims=True))


def placed(spec, params):
  """The parameters where the stack has them, idle runs being copies of the first."""
  rows = [*range(RUNS), *[0] * (spec.runs - RUNS)]
  return jax.device_put(jax.tree.map(lambda a: a[rows], params), spec.shardings["params"])


@pytest.mark.parametrize("name", LAYOUTS)
def test_they_are_those_of_a_plain_forward_pass(params, name):
  spec = LAYOUTS[name]
  tokens, counts = windows(spec.runs), weights(spec.runs)
  found = log_probabilities(spec, placed(spec, params), tokens, counts, ALL)
  for r in range(RUNS):
    every_VxTxN = by_hand(params, r, tokens[r])
    targets = tokens[r][:, 1:]
    expected = np.take_along_axis(every_VxTxN, targets[..., None], 2)[..., 0]
    np.testing.assert_allclose(found["targets"][r], expected, rtol=1e-5)
    np.testing.assert_allclose(found["windows"][r], np.sum(expected * counts[r], axis=1), rtol=1e-5)
    np.testing.assert_allclose(found["total"][r], np.sum(expected * counts[r]), rtol=1e-5)
    hits = (every_VxTxN.argmax(2) == targets) | (counts[r] == 0)
    np.testing.assert_array_equal(found["greedy"][r], hits.all(1))
  assert found["targets"].dtype == found["windows"].dtype == found["total"].dtype == np.float32
  assert {name: value.shape for name, value in found.items()} == {
      "targets": (spec.runs, WINDOWS, LENGTH), "windows": (spec.runs, WINDOWS), "greedy": (spec.runs, WINDOWS), "total": (spec.runs,)}


def test_what_greedy_decoding_would_say_is_found_and_a_window_that_counts_nothing_has_it(params):
  tokens, counts = windows(1), np.ones((WINDOWS, LENGTH), np.float32)
  for t in range(LENGTH):  # The first run's own continuations, of which one errs at the end.
    tokens[0, :, t + 1] = by_hand(params, 0, tokens[0])[:, t].argmax(1)
  tokens[0, 1, -1] = (tokens[0, 1, -1] + 1) % VOCAB
  counts[2] = 0
  found = log_probabilities(SPEC, params, tokens, counts, ("greedy", "windows"))
  assert found["greedy"][0].tolist() == [True, False, True, True, True] and found["windows"][:, 2].tolist() == [0, 0, 0]
  assert not found["greedy"][1:, [0, 1, 3, 4]].any()  # Other runs say other things.


@pytest.mark.parametrize("name", LAYOUTS)
def test_windows_that_all_runs_read_need_be_given_once(params, name):
  spec = LAYOUTS[name]
  tokens, counts, there = windows(1), weights(1), placed(spec, params)
  once = log_probabilities(spec, there, tokens, counts[0], ALL)
  each = log_probabilities(spec, there, np.repeat(tokens, spec.runs, 0), np.repeat(counts, spec.runs, 0), ALL)
  for measure in ALL:
    np.testing.assert_allclose(once[measure], each[measure], rtol=1e-6)


def test_without_weights_all_targets_count_one(params):
  found = log_probabilities(SPEC, params, windows())
  np.testing.assert_allclose(found["windows"], found["targets"].sum(2), rtol=1e-6)
  ones = log_probabilities(SPEC, params, windows(), np.ones((WINDOWS, LENGTH)))
  np.testing.assert_array_equal(ones["windows"], found["windows"])


def test_padding_behind_a_text_and_more_windows_change_nothing(params):
  short, counts = windows(length=5), weights()[..., :5]
  expected = log_probabilities(SPEC, params, short, counts)
  padded = np.concatenate([short, np.random.default_rng(7).integers(0, VOCAB, (RUNS, WINDOWS, LENGTH - 5))], axis=2)
  found = log_probabilities(SPEC, params, padded, np.pad(counts, ((0, 0), (0, 0), (0, LENGTH - 5))))
  np.testing.assert_allclose(found["targets"][..., :5], expected["targets"], rtol=1e-5)
  np.testing.assert_allclose(found["windows"], expected["windows"], rtol=1e-5)
  few = log_probabilities(SPEC, params, short[:, :3], counts[:, :3])
  np.testing.assert_allclose(few["windows"], expected["windows"][:, :3], rtol=1e-6)


def test_a_token_changes_its_own_and_later_targets_alone(params):
  tokens = np.maximum(windows(), 1)  # No end of document, behind which attention begins anew.
  before = log_probabilities(SPEC, params, tokens)["targets"]
  tokens[:, :, 4] = tokens[:, :, 4] % (VOCAB - 1) + 1
  after = log_probabilities(SPEC, params, tokens)["targets"]
  np.testing.assert_allclose(after[..., :3], before[..., :3], rtol=1e-6)
  assert np.all(np.abs(after[..., 3:] - before[..., 3:]).max((0, 1)) > 1e-3)


def test_windows_of_one_shape_are_compiled_for_once(params):
  log_probabilities(SPEC, params, windows(), weights(), ("windows",))
  before = compilations().compiled
  log_probabilities(SPEC, params, windows(seed=1), weights() / 2, ("windows",))
  assert compilations().compiled == before


def test_held_out_losses_are_their_weighted_means(params):
  tokens, counts = windows(), np.maximum(weights(), np.arange(LENGTH) == LENGTH - 1)  # Every window has some target.
  sets = [[Windows(tokens[r], counts[r]), Windows(tokens[r, :2], counts[r, :2])] for r in range(RUNS)]
  found = held_out(SPEC, {"params": params}, sets, exact_match=True)
  sums = log_probabilities(SPEC, params, tokens, counts, ALL)
  for m, count in enumerate((WINDOWS, 2)):
    np.testing.assert_allclose(
        found["loss"][:, m], -sums["windows"][:, :count].sum(1) / counts[:, :count].sum((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(found["exact"][:, m], sums["greedy"][:, :count].mean(1), rtol=1e-12)
  plain = held_out(SPEC, {"params": params}, [[Windows(one)] for one in tokens])
  np.testing.assert_allclose(plain["loss"][:, 0], -sums["targets"].mean((1, 2)), rtol=1e-6)


@pytest.mark.parametrize("tokens, counts, message", [
    (np.zeros((2, 5, 9)), None, r"windows of shape \[2, 5, 9\]: must be \[3 or 1, 1 or more, 2 to 9\], for 3 runs"),
    (np.zeros((3, 5, 10)), None, "2 to 9"), (np.zeros((3, 0, 9)), None, "1 or more"), (np.zeros((5, 9)), None, "must be"),
    (np.full((1, 5, 9), 20), None, "tokens from 20 to 20: the model's vocabulary is 0 to 19"), (np.full((1, 5, 9), -1), None, "tokens from -1"),
    (np.zeros((1, 5, 9)), np.ones((3, 5, 8)), r"weights of shape \[3, 5, 8\]: must broadcast to \[1, 5, 8\]"),
    (np.zeros((3, 5, 9)), np.ones((5, 9)), r"must broadcast to \[3, 5, 8\]")])
def test_what_does_not_fit_is_refused(params, tokens, counts, message):
  with pytest.raises(InputError, match=message):
    log_probabilities(SPEC, params, tokens, counts)
