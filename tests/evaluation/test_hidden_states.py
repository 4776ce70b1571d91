"""Documents as vectors by the hidden states of a seed model."""

import numpy as np
import pytest
from small import write_corpus

from jaxsplit import prepare
from jaxsplit.clustering.clusters import load_clusters
from jaxsplit.clustering.features import FEATURES
from jaxsplit.clustering.settings import Clustering
from jaxsplit.data.parts import CLUSTERS
from jaxsplit.data.store import open_store
from jaxsplit.errors import InputError
from jaxsplit.evaluation import hidden_states


def of(workdir):
  return FEATURES["hidden_states"](Clustering(k=2, features="hidden_states", model=str(workdir)))


def test_a_vector_is_the_mean_over_all_tokens_of_a_text_whatever_stands_beside_it(finished):
  texts = ["arma virumque", "7 12 299 " * 30, "a", ""]  # The second is of more windows than one.
  model = hidden_states._Model(str(finished))
  means = model.means(texts)
  assert means.shape[0] == 4 and not means[3].any()
  np.testing.assert_allclose(model.means(texts[:1])[0], means[0], rtol=0, atol=1e-5 * np.abs(means).max())
  length = model._model.config.sequence_length
  pieces = [texts[1][first:first + length] for first in range(0, len(texts[1]), length)]
  whole = sum(len(piece) * mean for piece, mean in zip(pieces, model.means(pieces))) / len(texts[1])
  np.testing.assert_allclose(means[1], whole, rtol=0, atol=1e-5 * np.abs(means).max())
  vectors = of(finished).fit(texts, 0).apply(texts)
  np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_domains_are_found_by_them(finished, tmp_path):
  (tmp_path / "corpus").mkdir()
  write_corpus(tmp_path / "corpus")
  prepare.main([f"--gin.Corpus.path={tmp_path / 'corpus'}", "--gin.Corpus.domains_from=cluster", "--gin.Clustering.k=2",
                "--gin.Clustering.features=hidden_states", f"--gin.Clustering.model={finished}", f"--store={tmp_path / 'store'}"])
  store = open_store(tmp_path / "store")
  clusters = load_clusters(store.directory / CLUSTERS)
  found = clusters.assign(["cano troiae qui primus arma " * 4, "17 230 4 99 120 " * 4]).cluster
  assert found[0] != found[1]
  (store.directory / CLUSTERS / "features" / "model.json").write_text("{}")
  with pytest.raises(InputError, match="of another model"):
    load_clusters(store.directory / CLUSTERS)
