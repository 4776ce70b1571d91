"""Clusters of documents, from the fit to the folder and back."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from jaxsplit.clustering.clusters import RECORD, fit_clusters, fit_vectors, load_clusters
from jaxsplit.clustering.features import read_vectors
from jaxsplit.clustering.settings import Clustering
from jaxsplit.errors import InputError
from jaxsplit.registry import run_extension

_WORDS = {
    "sea": "ship sail wave harbour captain anchor storm deck tide rope",
    "law": "court section statute appeal clause judge party contract claim tort",
    "code": "return class import self value index print while list none",
    "food": "flour butter oven sugar salt boil onion pepper stir dish"}
SMALL = Clustering(k=4, dimensions=8, iterations=20)


def texts(count=40, words=60, seed=0):
  """Texts on four subjects, and which each is on."""
  random = np.random.default_rng(seed)
  label = random.integers(0, 4, count)
  subjects = [words.split() for words in _WORDS.values()]
  return [" ".join(random.choice(subjects[i], words)) + f" {random.integers(1000)}" for i in label], label


@pytest.fixture(scope="module")
def fitted():
  return fit_clusters(texts()[0], dataclasses.replace(SMALL, levels=(2, 8)))


def test_subjects_are_found_in_texts_of_the_sample_and_others(fitted):
  for seed in (0, 1):
    documents, label = texts(seed=seed)
    assert adjusted_mutual_info_score(label, fitted.assign(documents).cluster) == 1


def test_the_least_distance_is_that_of_the_cluster(fitted):
  for level in (2, 4, 8):
    found = fitted.assign(texts(seed=1)[0], level)
    assert found.distance.shape == (40, level) and found.distance.dtype == np.float32
    np.testing.assert_array_equal(found.distance.argmin(1), found.cluster)
    np.testing.assert_allclose(fitted.shares(level).sum(), 1)


def test_levels_are_unions(fitted):
  documents = texts(seed=1)[0]
  two, four, eight = (fitted.assign(documents, level).cluster.tolist() for level in (2, 4, 8))
  assert len(set(zip(four, two))) == 4
  assert len(set(zip(eight, four))) == len(set(eight))
  with pytest.raises(InputError, match="no 3 clusters here, but 2, 4, 8"):
    fitted.assign(documents, 3)


def test_a_stream_is_assigned_like_a_list(fitted):
  documents = texts(count=300, seed=2)[0]
  assert list(fitted.assign_stream(iter(documents))) == list(zip(documents, fitted.assign(documents).cluster.tolist()))


def test_a_folder_holds_all_of_it(fitted, tmp_path):
  fitted.save(tmp_path / "clusters")
  again = load_clusters(tmp_path / "clusters")
  documents = texts(seed=3)[0]
  for level in (2, 4, 8):
    for a, b in zip(fitted.assign(documents, level), again.assign(documents, level)):
      np.testing.assert_array_equal(a, b)
  assert again.settings == fitted.settings
  assert again.features.top_terms(again.centroids[0], 3) == fitted.features.top_terms(fitted.centroids[0], 3)


def test_the_same_clusters_by_seed(fitted):
  documents = texts()[0]
  again = fit_clusters(iter(documents), fitted.settings)
  np.testing.assert_array_equal(again.centroids, fitted.centroids)
  few = [fit_clusters(documents, dataclasses.replace(SMALL, sample=20, seed=seed)).centroids for seed in (0, 1)]
  assert few[0].shape != few[1].shape or (few[0] != few[1]).any()


def test_top_terms_are_words_of_one_subject(fitted):
  for cluster in range(4):
    words = fitted.features.top_terms(fitted.centroids[fitted.unions[4] == cluster][0], 5)
    assert any(set(words) <= set(subject.split()) for subject in _WORDS.values())


def test_one_long_document_weighs_what_its_passages_do():
  documents, label = texts(words=12)
  book = " ".join(texts(1, 20_000, seed=5)[0])
  found = fit_clusters([*documents, book], SMALL)
  in_tokens = fit_clusters([*documents, book], SMALL, sizes=[1] * len(documents) + [120])
  assert max(found.shares()) > 0.9 and 0.75 < max(in_tokens.shares()) < 0.9
  assert adjusted_mutual_info_score(label, found.assign(documents).cluster) == 1


def test_balanced_clusters_and_their_unions():
  documents, _ = texts(count=800, words=30)
  skewed = documents[:100] + [text for text in documents if "ship" in text]
  found = fit_clusters(skewed, dataclasses.replace(SMALL, k=8, levels=(2, 4), balance=0.05))
  for level in (2, 4, 8):
    assert np.abs(found.shares(level) * level - 1).max() <= 0.05 * (1 + 1e-4)


def test_vectors_that_the_user_supplies(tmp_path):
  random = np.random.default_rng(0)
  label = random.integers(0, 3, 90)
  np.save(tmp_path / "v.npy", 9 * np.eye(3)[label] + random.normal(size=(90, 3)))
  vectors = read_vectors(tmp_path / "v.npy", 90)
  found = fit_vectors(vectors, Clustering(k=3, features=str(tmp_path / "v.npy")))
  assert adjusted_mutual_info_score(label, found.assign_vectors(vectors).cluster) == 1
  found.save(tmp_path / "clusters")
  again = load_clusters(tmp_path / "clusters")
  np.testing.assert_array_equal(again.assign_vectors(vectors).cluster, found.assign_vectors(vectors).cluster)
  with pytest.raises(InputError, match="do not know how text"):
    again.assign(["a text"])
  with pytest.raises(InputError, match="3 dimensions"):
    again.assign_vectors(np.zeros((4, 2)))
  with pytest.raises(InputError, match="row 1 "):
    again.assign_vectors(np.array([[0, 0, 0], [0, np.inf, 0]]))
  with pytest.raises(InputError, match="90 vectors for 91 documents"):
    read_vectors(tmp_path / "v.npy", 91)
  with pytest.raises(InputError, match="no such file"):
    read_vectors(tmp_path / "w.npy")
  (tmp_path / "w.npy").write_text("words")
  with pytest.raises(InputError, match="np.load"):
    read_vectors(tmp_path / "w.npy")
  np.save(tmp_path / "w.npy", np.array(["a"]))
  with pytest.raises(InputError, match="array of numbers"):
    read_vectors(tmp_path / "w.npy")


def test_the_control_draws_and_finds_nothing(tmp_path):
  documents, label = texts(count=2000, words=20)
  control = fit_clusters([], dataclasses.replace(SMALL, by="random", levels=(10,)))
  control.save(tmp_path)
  for clusters in (control, load_clusters(tmp_path)):
    found = clusters.assign(documents)
    assert abs(adjusted_mutual_info_score(label, found.cluster)) < 0.01
    assert np.abs(np.bincount(found.cluster, minlength=4) / 500 - 1).max() < 0.2
    assert np.bincount(clusters.assign(documents, 10).cluster, minlength=10).min() > 120
  other = fit_clusters([], dataclasses.replace(SMALL, by="random", seed=1))
  assert (other.assign(documents).cluster != found.cluster).any()


_LENGTHS = '''
import numpy as np

class Lengths:
  def __init__(self, unit): self.unit = unit
  def apply(self, documents): return np.array([[len(text) / self.unit] for text in documents])
  def save(self, folder): (folder / "unit").write_text(str(self.unit))

class Own:
  def fit(self, documents, seed): return Lengths(max(map(len, documents)))
  def load(self, folder): return Lengths(int((folder / "unit").read_text()))

from jaxsplit.clustering.features import FEATURES
FEATURES.add("lengths", lambda settings: Own())
'''


def test_a_feature_map_in_a_file(tmp_path, extensions):
  (tmp_path / "lengths.py").write_text(_LENGTHS)
  run_extension(tmp_path / "lengths.py")
  documents = ["ab " * n for n in (1, 2, 3, 700, 701, 702)]
  found = fit_clusters(documents, Clustering(k=2, features="lengths"))
  assert len(set(found.assign(documents[:3]).cluster)) == len(set(found.assign(documents[3:]).cluster)) == 1
  found.save(tmp_path / "clusters")
  np.testing.assert_array_equal(load_clusters(tmp_path / "clusters").assign(documents).distance, found.assign(documents).distance)
  extensions()
  with pytest.raises(InputError, match="Clustering.features = 'lengths': there is none of that name.*--extension=FILE"):
    load_clusters(tmp_path / "clusters")
  (tmp_path / "lengths.py").write_text(_LENGTHS + "# Changed.")
  run_extension(tmp_path / "lengths.py")
  with pytest.raises(InputError, match="an extension whose content has changed"):
    load_clusters(tmp_path / "clusters")


@pytest.mark.parametrize("code, says", [
    (_LENGTHS.replace("len(text) / self.unit", "float('nan')"), "40 of them not finite"),
    (_LENGTHS.replace("documents])", "documents[1:]])"), "numbers for 40 documents")])
def test_feature_maps_that_fail(tmp_path, extensions, code, says):
  (tmp_path / "map.py").write_text(code)
  run_extension(tmp_path / "map.py")
  with pytest.raises(InputError, match=says) as error:
    fit_clusters(texts()[0], dataclasses.replace(SMALL, features="lengths"))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("documents, says", [
    (["one text", "and two"], "4 clusters of 2 passages"), ([], "4 clusters of 0 passages"),
    (["?!", "...", "-", "+"], "no words"), (["the same words"] * 9, "1 of 9 points differ")])
def test_documents_that_cannot_be_clustered(documents, says):
  with pytest.raises(InputError, match=says):
    fit_clusters(documents, SMALL)


def test_documents_without_words_have_a_cluster(fitted):
  found = fitted.assign(["", "?!", "unheardof"])
  assert len(set(found.cluster.tolist())) == 1 and np.isfinite(found.distance).all()


def test_damaged_folders(fitted, tmp_path):
  with pytest.raises(InputError, match="no such file"):
    load_clusters(tmp_path)
  fitted.save(tmp_path)
  record = json.loads((tmp_path / RECORD).read_text())
  for damage, says in (({"version": 99}, "version 2"), ({"settings": {"kk": 1}}, "damaged"), ({"settings": None}, "damaged")):
    (tmp_path / RECORD).write_text(json.dumps({**record, **damage}))
    with pytest.raises(InputError, match=says):
      load_clusters(tmp_path)
  (tmp_path / RECORD).write_text(json.dumps(record))
  for path in (tmp_path / "features" / "tfidf.npz", tmp_path / "clusters.npz"):
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=str(tmp_path)):
      load_clusters(tmp_path)


@pytest.mark.parametrize("settings, says", [
    ({"k": 0}, "Clustering.k = 0"), ({"levels": (0,)}, "Clustering.levels"), ({"by": "magic"}, "Clustering.by"),
    ({"features": " "}, "Clustering.features"), ({"features": "hidden_states"}, "Clustering.model"), ({"model": "w"}, "Clustering.model"), ({"balance": 0.0}, "Clustering.balance"),
    ({"balance": 1.5}, "Clustering.balance"), ({"balance": np.nan}, "Clustering.balance"),
    ({"balance": 0.1, "batch": 9}, "Clustering.batch"), ({"balance": 0.1, "levels": (3,)}, "do not make 3"),
    ({"k": 9, "sample": 8}, "Clustering.sample"), ({"seed": -1}, "Clustering.seed")])
def test_settings_that_are_refused(settings, says):
  with pytest.raises(InputError, match=says) as error:
    Clustering(**settings)
  assert "\n" not in str(error.value)


def test_jaxs_debug_switches_find_nothing():
  documents, label = texts(count=37)
  with jax.transfer_guard("disallow"), jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
    found = fit_clusters(documents, dataclasses.replace(SMALL, balance=0.3))
    assert adjusted_mutual_info_score(label, found.assign(documents).cluster) > 0.5
