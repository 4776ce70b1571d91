"""Spans as prefix trees in rows: what each token sees, what is read once, and how little is padding."""

import numpy as np
import pytest

from jaxsplit.evaluation.batching import Span
from jaxsplit.evaluation.trees import PARTS, tree_batches, trees_of


def answers(questions, longest, seed=0):
  """Spans of few different tokens, so that many begin alike and 0, which ends a document, is among them."""
  rng, given = np.random.default_rng(seed), []
  for _ in range(questions):
    before = rng.integers(0, 5, rng.integers(1, longest))
    given += [Span(np.r_[before, rng.integers(0, 3, rng.integers(1, 30))], len(before)) for _ in range(rng.integers(1, 5))]
  return given


def distinct(given):
  """How many different beginnings the spans have, which is what must be read of them."""
  return len({tuple(span.tokens[:n]) for span in given for n in range(1, len(span.tokens))})


@pytest.mark.parametrize("restart", [None, 0])
def test_a_token_of_a_tree_sees_its_own_text_alone(restart):
  given, seen = answers(60, 120), []
  for rows, places in tree_batches(trees_of(given, restart), 512, 2, 64):
    counts, length = [0, 0], rows.tokens_BxT.shape[1]
    for i, device, first in places:
      seen.append(i)
      counts[device] += given[i].targets
      for j in range(given[i].targets):
        row, column = divmod(rows.at_GxP[device, first + j], length)
        row, text = row + device * len(rows.tokens_BxT) // 2, given[i].tokens[:given[i].first + j]
        columns = [c for c in range(rows.first_BxT[row, column], column + 1) if column < rows.end_BxT[row, c]]
        start = max([0, *(np.flatnonzero(text[:-1] == restart) + 1)]) if restart is not None else 0
        assert rows.tokens_BxT[row, columns].tolist() == text[start:].tolist()
        assert rows.depth_BxT[row, columns].tolist() == list(range(start, len(text)))
        assert rows.targets_GxP[device, first + j] == given[i].tokens[len(text)]
    part = rows.at_GxP.shape[1] // PARTS
    assert max(counts) <= rows.parts * part < max(counts) + part
  assert sorted(seen) == list(range(len(given)))


@pytest.mark.parametrize("width", [None, 512])
def test_trees_fill_their_rows_and_are_of_few_shapes(width):
  given = answers(300, 120)
  trees = trees_of(given, None)
  found = list(tree_batches(trees, 2048, 2, width))
  assert len({batch.rows.tokens_BxT.shape for batch in found}) <= 2 and all(len(batch.rows.tokens_BxT) % 2 == 0 for batch in found)
  read = sum(len(tree.tokens) for tree in trees)
  assert distinct(given) > 0.96 * read and read > 0.94 * sum(batch.rows.tokens_BxT.size for batch in found)


def test_what_questions_have_in_common_is_read_once_but_for_a_few_tokens_a_tree():
  shots = np.arange(1, 201)  # Worked examples before every question.
  given = [Span(np.r_[shots, span.tokens], len(shots) + span.first) for span in answers(100, 40)]
  trees = trees_of(given, None)
  assert sum(len(tree.tokens) for tree in trees) < 2 * distinct(given) < 0.2 * sum(len(span.tokens) for span in given)
  assert max(len(tree.tokens) for tree in trees) < 3 * len(shots)


def test_one_question_is_one_tree_however_long():
  before = np.arange(1, 2001)
  (tree,) = trees_of([Span(np.r_[before, n, n], len(before)) for n in (3, 2, 4)], None)
  assert len(tree.tokens) == 2003 and len(tree.targets) == 6
  (batch,) = tree_batches([tree], 1024, 1, None)
  assert batch.rows.tokens_BxT.shape == (1, 2048)
