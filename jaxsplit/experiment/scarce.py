"""Scarce domains of an experiment: the clusters of its training windows, found once and kept in the work directory."""

from __future__ import annotations

from jaxsplit.data import resampling
from jaxsplit.data.resampling import WindowClusters
from jaxsplit.data.store import Store
from jaxsplit.experiment.progress import Progress
from jaxsplit.experiment.recipe import Recipe
from jaxsplit.experiment.workdir import Workdir
from jaxsplit.parallel import hosts

FOLDER = "resampling"  # In a work directory.
_TOLD, _WORTH = 5, 0.005  # The domains that a scarce one is mostly resampled from that are named: at most, and their least share.


def window_clusters(store: Store, recipe: Recipe, workdir: Workdir, progress: Progress) -> WindowClusters:
  """The clusters of the training windows of the experiment's own domains. All processes call this at the same point.

  Raises:
    InputError: too little text for so many clusters, or none of another domain that is like a scarce one's.
  """
  domains = [domain for domain in store.domains if domain not in store.added]
  length, folder = recipe.training.sequence_length, workdir.path / FOLDER
  names = [f"{FOLDER}/{name}" for name in (resampling.WINDOWS, resampling.COUNTS)]
  made_from = {"data": store.manifest_hash, "sequence_length": str(length), "clusters": str(recipe.resample_clusters)}

  def make() -> None:
    if not all(workdir.is_committed(name, made_from) for name in names):
      progress.begin("clustering the training text")
      resampling.find(store, domains, length, recipe.resample_clusters, recipe.seed, folder)
      for name in names:
        workdir.commit(name, made_from)
    found = WindowClusters(folder, store, domains, length)
    for domain, share in recipe.resample.items():
      most = [f"{part:.0%} {name}" for name, part in list(found.origin(domain).items())[:_TOLD] if part >= _WORTH]
      progress.log(f"{share:.0%} of the stream of the expert on {domain} is resampled by clusters that hold {found.covered(domain):.0%} of "
                   f"its own text: {', '.join(most)}")

  hosts.broadcast(make)
  return WindowClusters(folder, store, domains, length)
