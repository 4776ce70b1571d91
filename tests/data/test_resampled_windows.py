"""A scarce domain's stream of other domains' windows: what it has of each topic, and of each window."""

import collections

import numpy as np
import pytest

from jaxsplit.data import resampling
from jaxsplit.data.plain_tokenizers import ByteTokenizer
from jaxsplit.data.resampling import WindowClusters
from jaxsplit.data.store_writer import Document, write_store
from jaxsplit.errors import InputError

LENGTH = 64
TOPICS = {"ships": "harbour anchor sail mast deck rudder", "bread": "flour yeast dough oven crust loaf",
          "stars": "orbit comet lens galaxy nebula moon"}
TEXT = {"scarce": (("ships", 3), ("bread", 1)), "a": (("ships", 20), ("stars", 20)), "b": (("bread", 20), ("stars", 40))}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  """Of each domain so many kilobytes of each topic, in a document of each topic."""
  random = np.random.default_rng(0)

  def document(topic, kilobytes):
    text = " ".join(random.choice(TOPICS[topic].split(), 170 * kilobytes))
    return Document(ByteTokenizer().encode(text), len(text), f"{topic}{random.random()}".encode())

  splits = [(domain, split, [document(topic, 1 if split == "valid" else kilobytes) for topic, kilobytes in topics])
            for domain, topics in TEXT.items() for split in ("train", "valid")]
  return write_store(tmp_path_factory.mktemp("store") / "store", ByteTokenizer(), splits, {})


@pytest.fixture(scope="module")
def clusters(store, tmp_path_factory):
  folder = tmp_path_factory.mktemp("clusters")
  resampling.find(store, store.domains, LENGTH, 3, 0, folder)
  return WindowClusters(folder, store, store.domains, LENGTH)


def topic_of(store, window):
  words = store.tokenizer.decode(window.tolist()).split()
  return collections.Counter(topic for topic, own in TOPICS.items() for word in words if word in own.split()).most_common(1)[0][0]


def test_topics_are_those_of_the_scarce_domain(store, clusters):
  stream = clusters.stream("scarce", 1)
  rows, origins = stream.rows(np.arange(800)), stream.origins(np.arange(800))
  for row, (domain, number) in zip(rows, origins):
    np.testing.assert_array_equal(row, store.windows(domain, "train", LENGTH)[number])
  assert {domain for domain, _ in origins} == {"a", "b"}
  topics = collections.Counter(topic_of(store, row) for row in rows)
  # Where one topic ends and another begins, windows of both are in one cluster.
  assert topics["ships"] / 800 == pytest.approx(0.75, abs=0.05) and topics["bread"] / 800 == pytest.approx(0.25, abs=0.05)
  assert topics["stars"] < 800 * 0.02
  assert clusters.covered("scarce") == 1 and clusters.covered("a") == pytest.approx(1, abs=0.05)
  assert clusters.origin("scarce") == pytest.approx({"a": 0.75, "b": 0.25}, abs=0.05)


def test_each_window_is_read_once_before_any_is_read_again(clusters):
  stream = clusters.stream("scarce", 1)
  seen = collections.Counter(stream.origins(np.arange(3000)))
  for domain in ("a", "b"):  # Each holds one of the two topics.
    counts = [count for (name, _), count in seen.items() if name == domain]
    assert max(counts) - min(counts) <= 1


def test_elements_are_a_function_of_their_index_and_the_seed(clusters):
  stream, indices = clusters.stream("scarce", 1), np.array([512, 3, 3, 10**9])
  np.testing.assert_array_equal(stream.rows(indices), [clusters.stream("scarce", 1)[int(i)] for i in indices])
  assert (stream.rows(np.arange(64)) != clusters.stream("scarce", 2).rows(np.arange(64))).any()


def test_found_again_it_is_the_same(store, clusters, tmp_path):
  resampling.find(store, store.domains, LENGTH, 3, 0, tmp_path)
  again = WindowClusters(tmp_path, store, store.domains, LENGTH)
  np.testing.assert_array_equal(again.stream("a", 5).rows(np.arange(99)), clusters.stream("a", 5).rows(np.arange(99)))


def test_more_clusters_than_text(store, tmp_path):
  with pytest.raises(InputError, match="Experiment.resample_clusters = 1000: "):
    resampling.find(store, store.domains, LENGTH, 1000, 0, tmp_path)
