"""Every router on contexts whose right answer is known, and what a router of one's own may not give."""

import numpy as np
import pytest

from jaxsplit.errors import InputError
from jaxsplit.evaluation.routers import ROUTERS, Contexts, Mixture, Routing, make_router

DOMAINS = ("law", "math", "news")
LIKELIHOODS = np.log([[0.2, 0.7, 0.1], [0.5, 0.1, 0.4]])


def mixture(**settings):
  losses = np.array([[1.0, 5.0, 3.0], [2.0, 2.0, 2.0], [3.0, 3.0, 1.0]])  # [expert, domain]: math is best on average.
  distances = lambda texts: np.array([[0.1, 0.4, 0.2], [0.9, 0.3, 0.3]], np.float32)[:len(texts)]
  return Mixture(DOMAINS, Routing(**settings), lambda: losses, distances, lambda domain: [domain])


def contexts(label="law"):
  return Contexts(["a", "b"], np.array([3, 3]), label, lambda: LIKELIHOODS, lambda: LIKELIHOODS[::-1])


def weights(name, label="law", **settings):
  return make_router(name, mixture(**settings)).weights(contexts(label))


def test_what_needs_no_likelihoods():
  np.testing.assert_allclose(weights("oracle", "news"), [[0, 0, 1]] * 2)
  np.testing.assert_allclose(weights("best_single"), [[0, 1, 0]] * 2)
  np.testing.assert_allclose(weights("uniform"), np.full((2, 3), 1 / 3))
  powers = np.exp(-np.array([[0.1, 0.4, 0.2], [0.9, 0.3, 0.3]]) / 0.5)
  np.testing.assert_allclose(weights("centroid", temperature=0.5), powers / powers.sum(1, keepdims=True), rtol=1e-6)
  assert make_router("average", mixture()).averages and not make_router("uniform", mixture()).averages


def test_posteriors_follow_the_likelihoods_and_the_prior():
  np.testing.assert_allclose(weights("bayes"), np.exp(LIKELIHOODS))
  np.testing.assert_allclose(weights("prefix"), np.exp(LIKELIHOODS[::-1]))
  prior = np.exp(LIKELIHOODS).mean(0)
  posterior = prior * np.exp(LIKELIHOODS)
  np.testing.assert_allclose(weights("bayes_cached"), posterior / posterior.sum(1, keepdims=True))
  posterior = np.exp(LIKELIHOODS[0]) * np.exp(LIKELIHOODS)  # The prior of the first context alone.
  np.testing.assert_allclose(weights("bayes_cached", prior_contexts=1), posterior / posterior.sum(1, keepdims=True))


def test_the_largest_weights_are_kept_and_sum_to_one():
  np.testing.assert_allclose(weights("bayes@1"), [[0, 1, 0], [1, 0, 0]])
  np.testing.assert_allclose(weights("bayes@2"), [[2 / 9, 7 / 9, 0], [5 / 9, 0, 4 / 9]])
  np.testing.assert_allclose(weights("centroid@1")[1], [0, 1, 0])  # The first of two that are as near.


def test_what_a_router_has_read_is_known():
  for name, read in (("uniform", set()), ("bayes@1", {"experts"}), ("prefix@1", {"small models"})):
    seen = contexts()
    make_router(name, mixture()).weights(seen)
    assert seen.read_by == read


@pytest.mark.parametrize("name, message", [
    ("bayse", "there is none of that name; did you mean bayes"), ("bayes@4", "how many experts are kept, 1 to 3"), ("bayes@", "1 to 3")])
def test_names_that_are_none(name, message):
  with pytest.raises(InputError, match=message):
    make_router(name, mixture())


def test_a_question_has_no_oracle():
  with pytest.raises(InputError, match="no expert is known to be right"):
    weights("oracle", None)


@pytest.mark.parametrize("given", [np.ones((3, 2)), [[1, -1, 1], [1, 1, 1]], [[1, np.nan, 1], [1, 1, 1]], np.zeros((2, 3))])
def test_what_are_no_weights_is_refused(given):
  class Odd:
    def __init__(self, mixture):
      self.weights = lambda contexts: given

  ROUTERS.add("odd", Odd)
  try:
    with pytest.raises(InputError, match=r"--router=odd: its weights must be of shape \[2, 3\], .*; these are of shape"):
      weights("odd")
  finally:
    del ROUTERS["odd"]


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"context_tokens": 0}, {"prior_contexts": 0}, {"calibration_tokens": 0}])
def test_settings_that_cannot_be(settings):
  with pytest.raises(InputError, match=f"Routing.{next(iter(settings))} = 0"):
    Routing(**settings)
