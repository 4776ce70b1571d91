"""The jitted k-means against scikit-learn's, from the same centroids, on the same machine in the same run.

    python scripts/bench/clustering.py --corpus=../shared/data/corpora [--features=FILE.npy]
    python scripts/bench/clustering.py --corpus=FOLDER --passages=2000 --dimensions=16 --clusters=16 --rounds=1     less

TF-IDF and a truncated SVD of passages of the corpus, kept in FILE where one is named. KMeans and Lloyd's iterations: as many of
them, none ended early. MiniBatchKMeans and minibatches: as many of one size. Sides take turns; times are medians over rounds and
hold everything from the array to centroids, labels and objective; programs are compiled before. Objectives are computed in one
way for both. Where other jobs share the machine, the ratio of processor times says more than that of times.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import time

import jax
import numpy as np
import sklearn
from sklearn.cluster import KMeans, MiniBatchKMeans

from jaxsplit.clustering import kmeans
from jaxsplit.clustering.tfidf import Tfidf
from jaxsplit.data.documents import read_documents

BATCH, EPOCHS = 4096, 2


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--corpus", required=True)
  parser.add_argument("--features", help="a .npy file, written where it is not there")
  parser.add_argument("--passages", type=int, default=200_000)
  parser.add_argument("--dimensions", type=int, default=384)
  parser.add_argument("--clusters", type=int, nargs="+", default=[16, 1024])
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--iterations", type=int, default=20)
  flags = parser.parse_args()
  x = features(flags)
  print(f"{os.cpu_count()} cores, jax {jax.__version__} on {jax.default_backend()}, scikit-learn {sklearn.__version__}; "
        f"{len(x):,} passages, {x.shape[1]} dimensions, {flags.rounds} rounds\n")
  print("| | K | ours, s | scikit-learn, s | ours / theirs, time | processor time | objective, ours / theirs - 1 |\n"
        "|---|---|---|---|---|---|---|")
  for k in flags.clusters:
    start = np.asarray(kmeans.plus_plus(*kmeans.seeding_points(x, np.ones(len(x), np.float32), k, 0), k, jax.random.key(0)))
    compare(f"Lloyd, {flags.iterations} iterations", x, k, flags.rounds, lambda: lloyd(x, start, flags.iterations),
            lambda: KMeans(k, init=start, n_init=1, max_iter=flags.iterations, tol=0).fit(x).cluster_centers_)
    batches = EPOCHS * len(x) // BATCH
    theirs = MiniBatchKMeans(k, init=start, n_init=1, max_iter=EPOCHS, batch_size=BATCH, tol=0, max_no_improvement=None,
                             reassignment_ratio=0, random_state=0)
    compare(f"{batches} minibatches of {BATCH:,}", x, k, flags.rounds, lambda: minibatch(x, start, batches),
            lambda: theirs.fit(x).cluster_centers_)


def compare(what: str, x: np.ndarray, k: int, rounds: int, ours, theirs) -> None:
  """Prints a row of the table."""
  centroids = ours(), theirs()
  seconds = np.array([[timed(side) for side in ((ours, theirs) if i % 2 else (theirs, ours))][::1 if i % 2 else -1]
                      for i in range(rounds)])  # [rounds, side, time and processor time]
  ratio = np.median(seconds[:, 0] / seconds[:, 1], axis=0)
  objective = [exact_objective(x, c) for c in centroids]
  print(f"| {what} | {k:,} | {np.median(seconds[:, 0, 0]):.2f} | {np.median(seconds[:, 1, 0]):.2f} "
        f"| {ratio[0]:.2f} | {ratio[1]:.2f} | {objective[0] / objective[1] - 1:+.3%} |", flush=True)


def lloyd(x: np.ndarray, start: np.ndarray, iterations: int) -> np.ndarray:
  """Centroids, after as many iterations; labels and objective too, as scikit-learn's have them."""
  weight, block = np.ones(len(x), np.float32), kmeans.block_size(len(x), len(start))
  centroids, _ = kmeans.lloyd(x, weight, start, iterations, 0.0, block)
  return finished(x, weight, centroids, block)


def minibatch(x: np.ndarray, start: np.ndarray, batches: int) -> np.ndarray:
  """The same after minibatches."""
  weight = np.ones(len(x), np.float32)
  centroids = kmeans.minibatch(x, weight, start, jax.random.key(1), batches, BATCH)
  return finished(x, weight, centroids, kmeans.block_size(len(x), len(start)))


def finished(x, weight, centroids, block) -> np.ndarray:
  seen = kmeans.look_once(x, weight, centroids, np.zeros(len(centroids), np.float32), block)
  np.asarray(seen.cluster), float(seen.squared.sum())
  return np.asarray(centroids)


def exact_objective(x: np.ndarray, centroids: np.ndarray) -> float:
  """The sum of squared distances, in float64."""
  c = centroids.astype(np.float64)
  total = 0.0
  for first in range(0, len(x), 4096):
    part = x[first:first + 4096].astype(np.float64)
    total += ((part**2).sum(1) + ((c**2).sum(1) - 2 * part @ c.T).min(1)).sum()
  return total


def features(flags) -> np.ndarray:
  """Vectors of passages of one length, cut so that the corpus gives as many as are asked for."""
  if flags.features and pathlib.Path(flags.features).is_file():
    return np.load(flags.features)
  texts = [text for path in sorted(pathlib.Path(flags.corpus).rglob("*train*.jsonl*")) for text in read_documents(path)]
  length = max(200, sum(map(len, texts)) // flags.passages)
  pieces = [text[first:first + length] for text in texts for first in range(0, len(text), length)]
  chosen = np.sort(np.random.default_rng(0).choice(len(pieces), min(flags.passages, len(pieces)), replace=False))
  pieces = [pieces[i] for i in chosen]
  fitted = Tfidf(flags.dimensions).fit(pieces[::8], 0)
  x = np.concatenate([fitted.apply(pieces[first:first + 4096]) for first in range(0, len(pieces), 4096)])
  if flags.features:
    np.save(flags.features, x)
  return x


def timed(work) -> tuple[float, float]:
  """Seconds, and seconds of processor time."""
  start = time.perf_counter(), time.process_time()
  work()
  return time.perf_counter() - start[0], time.process_time() - start[1]


if __name__ == "__main__":
  main()
