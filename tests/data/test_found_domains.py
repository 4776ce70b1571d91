"""Domains that are found in texts: from the prepare entry point to the store."""

import json

import numpy as np
import pytest
from pyarrow import parquet
from sklearn.metrics import adjusted_mutual_info_score

from jaxsplit import prepare
from jaxsplit.clustering.clusters import load_clusters
from jaxsplit.data.parts import CLUSTERS
from jaxsplit.data.store import open_store
from jaxsplit.errors import InputError

_SUBJECTS = {
    "sea": "ship sail wave harbour captain anchor storm deck tide rope",
    "law": "court section statute appeal clause judge party contract claim tort",
    "food": "flour butter oven sugar salt boil onion pepper stir dish"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
  """A folder with texts on three subjects, of which `law` has far fewer."""
  folder, random = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
  for name, words in _SUBJECTS.items():
    lines = [{"text": " ".join(random.choice(words.split(), 60))} for _ in range(12 if name == "law" else 60)]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  return folder


def prepared(corpus, store, *flags):
  prepare.main([f"--gin.Corpus.path={corpus}", f"--store={store}", "--gin.Corpus.valid_tokens_min=5", *flags])
  return open_store(store), parquet.read_table(store / "documents.parquet").to_pylist()


CLUSTER = ("--gin.Corpus.domains_from=cluster", "--gin.Clustering.dimensions=8")


def test_domains_are_the_subjects_and_the_store_knows_how_they_were_found(corpus, tmp_path, capsys):
  store, rows = prepared(corpus, tmp_path / "store", *CLUSTER, "--gin.Clustering.k=3")
  said = capsys.readouterr().out
  assert store.domains == ("cluster_0", "cluster_1", "cluster_2")
  kept = [row for row in rows if row["reason"] is None]
  assert len(kept) == 132
  assert adjusted_mutual_info_score([row["label"] for row in kept], [row["domain"] for row in kept]) == 1
  assert {row["label"] for row in rows} == set(_SUBJECTS)
  assert "clusters and labels: 1.00" in said
  assert any(set(line.partition(": ")[2].rpartition(": ")[2].split(", ")) <= set(_SUBJECTS["law"].split())
             for line in said.splitlines() if "of the bytes" in line)
  clusters = load_clusters(store.directory / CLUSTERS)
  for name in store.domains:
    text = store.tokenizer.decode(store.tokens(name, "train")[:200])
    assert f"cluster_{clusters.assign([text]).cluster[0]}" == name
  for split in ("train", "valid"):
    assert sum(store.count(name, split) for name in store.domains) == sum(r["tokens"] for r in kept if r["split"] == split)


def test_a_field_of_documents_is_a_label_to_compare_with(corpus, tmp_path, capsys):
  lines = [json.dumps({**json.loads(line), "meta": {"of": path.stem}}) for path in sorted(corpus.iterdir()) for line in path.open()]
  (tmp_path / "all.jsonl").write_text("\n".join(lines))
  store, rows = prepared(tmp_path / "all.jsonl", tmp_path / "store", "--gin.Corpus.domains_from=cluster:meta.of", *CLUSTER[1:],
                         "--gin.Clustering.k=3")
  assert "clusters and labels: 1.00" in capsys.readouterr().out
  assert store.domains == ("cluster_0", "cluster_1", "cluster_2") and {row["label"] for row in rows} == set(_SUBJECTS)
  by_folder = prepared(corpus, tmp_path / "by_folder", *CLUSTER, "--gin.Clustering.k=3")[1]
  assert {row["sha256"]: row["split"] for row in rows} == {row["sha256"]: row["split"] for row in by_folder}


def test_what_is_held_out_is_the_same_for_every_number_of_clusters(corpus, tmp_path):
  tables = [prepared(corpus, tmp_path / str(i), *flags)[1] for i, flags in enumerate((
      (), (*CLUSTER, "--gin.Clustering.k=2"), (*CLUSTER, "--gin.Clustering.k=4", "--gin.Clustering.by=random")))]
  held_out = [{row["sha256"] for row in rows if row["split"] == "valid"} for rows in tables]
  assert held_out[0] and held_out[0] == held_out[1] == held_out[2]


def test_a_store_is_of_its_clustering(corpus, tmp_path):
  flags = (*CLUSTER, "--gin.Clustering.k=2")
  store, _ = prepared(corpus, tmp_path / "store", *flags)
  assert prepared(corpus, tmp_path / "store", *flags)[0].manifest_hash == store.manifest_hash
  with pytest.raises(InputError, match="clustering"):
    prepared(corpus, tmp_path / "store", *CLUSTER, "--gin.Clustering.k=3")
  again, _ = prepared(corpus, tmp_path / "again", *flags)
  assert again.manifest_hash == store.manifest_hash


def test_balanced_clusters(corpus, tmp_path):
  store, _ = prepared(corpus, tmp_path / "store", *CLUSTER, "--gin.Clustering.k=2", "--gin.Clustering.balance=0.1")
  tokens = [store.count(name, "train") for name in store.domains]
  assert max(tokens) / np.mean(tokens) <= 1.1


@pytest.mark.parametrize("flags, says", [
    (("--gin.Clustering.k=3",), "Clustering.k = 3 is given, but domains are not found"),
    ((*CLUSTER, "--gin.Clustering.k=1000"), "1000 clusters of"),
    ((*CLUSTER, "--gin.Clustering.features=x.npy"), "x.npy: no such file"),
    ((*CLUSTER, "--gin.Clustering.features=lenghts"), "Clustering.features = 'lenghts': there is none of that name"),
    ((*CLUSTER, "--gin.Clustering.features=hidden_states", "--gin.Clustering.model=nowhere"), "no work directory of an experiment"),
    ((*CLUSTER, "--gin.Clustering.k=60"), "take fewer clusters"),
    (("--gin.Corpus.domains_from=magic",), "must be folder, column:NAME, cluster, cluster:NAME or one:NAME")])
def test_clusters_that_cannot_be_domains(corpus, tmp_path, flags, says):
  with pytest.raises(InputError, match=says) as error:
    prepared(corpus, tmp_path / "store", *flags)
  assert "\n" not in str(error.value) and not (tmp_path / "store").exists()


def test_a_listing_tells_more_clusters_than_a_corpus_can_be(corpus, capsys):
  given = ["--list", f"--gin.Corpus.path={corpus}", *CLUSTER]
  prepare.main([*given, "--gin.Clustering.k=66"])
  with pytest.raises(InputError, match="Clustering.k = 67: .* text in train, valid, and the corpus is 132 passages in all; take at most 66"):
    prepare.main([*given, "--gin.Clustering.k=67"])
  with pytest.raises(InputError, match="take at most 44, or more text"):
    prepare.main([*given, "--gin.Clustering.k=45", "--gin.Corpus.test_fraction=0.1"])
  assert capsys.readouterr().out.count("sea.jsonl") == 3, "the table is shown all the same"
  with pytest.raises(InputError, match="Clustering.k = 3 is given, but domains are not found"):
    prepare.main([*given[:2], "--gin.Clustering.k=3"])


def test_vectors_are_of_the_documents_in_the_order_of_documents_parquet(corpus, tmp_path):
  _, rows = prepared(corpus, tmp_path / "plain")
  documents = list(dict.fromkeys((row["source"], row["position"], row["label"]) for row in rows))
  assert len(documents) == 132
  halves = [position % 2 for _, position, _ in documents]  # What no text says.
  np.save(tmp_path / "v.npy", np.array([[half, 0.01 * i / 132] for i, half in enumerate(halves)]))
  flags = (*CLUSTER, "--gin.Clustering.k=2", f"--gin.Clustering.features={tmp_path / 'v.npy'}")
  store, rows = prepared(corpus, tmp_path / "store", *flags)
  assert adjusted_mutual_info_score([row["position"] % 2 for row in rows], [row["domain"] for row in rows]) == 1
  np.save(tmp_path / "v.npy", np.array([[half, 0.02 * i / 132] for i, half in enumerate(halves)]))
  with pytest.raises(InputError, match="clustering"):  # Other vectors under the same name.
    prepared(corpus, tmp_path / "store", *flags)
  np.save(tmp_path / "v.npy", np.zeros((131, 2)))
  with pytest.raises(InputError, match="131 vectors for 132 documents"):
    prepared(corpus, tmp_path / "store", *flags, "--replace")
