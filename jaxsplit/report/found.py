"""The chapter of an experiment's report on domains that were found in the texts: how large, told by which words, beside which labels."""

from __future__ import annotations

import os
import pathlib
import urllib.parse

from jaxsplit.clustering.clusters import load_clusters
from jaxsplit.data.parts import CLUSTERS, PAGE
from jaxsplit.data.store import Store, open_store
from jaxsplit.errors import InputError
from jaxsplit.report import html
from jaxsplit.report.album import Album
from jaxsplit.report.domains import agreement_parts, labels_of
from jaxsplit.report.evidence import Evidence

_TERMS = 8


def is_worth_it(evidence: Evidence) -> bool:
  """Whether the experiment's store has clusters."""
  return (_store(evidence) / CLUSTERS).is_dir()


def found(evidence: Evidence, album: Album) -> list[str]:
  """The table of domains, their agreement with labels where there are any, and the way to the page that shows more."""
  store = open_store(_store(evidence))
  labels, words = labels_of(store), _words(store)
  total = sum(store.count(domain, "train") for domain in store.domains)
  rows = []
  for k, domain in enumerate(store.domains):  # Sorted, as clusters are numbered.
    counts = store.counts(domain, "train")
    rows.append((domain, f"{counts.documents:,}", f"{counts.tokens:,}", f"{counts.tokens / total:.1%}",
                 f"{store.count(domain, 'valid'):,}", words[k]))
  parts = [html.table(("domain", "documents", "training tokens", "share", "held out", "words"), rows),
           *(agreement_parts(*labels) if labels else [])]
  page = store.directory / PAGE
  if page.is_file():
    link = urllib.parse.quote(pathlib.PurePath(os.path.relpath(page.resolve(), evidence.path.resolve())).as_posix())
    parts.append("<p>Passages, a picture, and how far apart they are beside domains that are drawn: "
                 f'<a href="{html.text(link)}">{PAGE}</a>.</p>')
  return parts


def _words(store: Store) -> list[str]:
  """Of each cluster, the words that tell it best; none where its features are no words."""
  try:
    clusters = load_clusters(store.directory / CLUSTERS)
  except InputError:  # Features of an extension, say, which a report is not given.
    return [""] * len(store.domains)
  return [", ".join(clusters.top_terms(k, _TERMS)) for k in range(len(store.domains))]


def _store(evidence: Evidence) -> pathlib.Path:
  """Where the experiment's tokens lie."""
  return pathlib.Path(evidence.config.get("Store", {}).get("path") or evidence.path / "store")
