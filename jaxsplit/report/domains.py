"""domains.html of a token store: what its domains are, on one self-contained page, from the store alone."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from pyarrow import compute, parquet

import jaxsplit
from jaxsplit.clustering.portrait import Distances, Portrait, portray
from jaxsplit.data.parts import DOCUMENT_TABLE, PAGE
from jaxsplit.data.source import corpus_of
from jaxsplit.data.store import Store, open_store
from jaxsplit.errors import in_the_way
from jaxsplit.files import write_atomic
from jaxsplit.report import html, resilient, style

_PASSAGES = 240  # Of a domain, for training and held out.
_PASSAGE_TOKENS = 2048
_SHOWN = 24  # Domains that are compared with each other: the largest.
_QUOTED = 280  # Characters of a passage.
_COLOURS = 10


def try_domain_report(store: str | os.PathLike) -> str:
  """`write_domain_report` where there is no page yet, and a line on where it is, or why there is none.

  Raises:
    OSError: the disk is full or lost.
  """
  try:
    page = pathlib.Path(store, PAGE)
    return f"domains: {page if page.is_file() else write_domain_report(open_store(store))}"
  except Exception as error:
    if isinstance(error, OSError) and not in_the_way(error):
      raise
    return f"domains: no page was written ({resilient.why(error)}); the store is complete without it"


def write_domain_report(store: Store) -> pathlib.Path:
  """Writes the page into the store, and returns its path. It is the same for the same store.

  Raises:
    InputError: a damaged store.
    OSError: the page cannot be written.
  """
  path = store.directory / PAGE
  shown = sorted(sorted(store.domains, key=lambda domain: -store.count(domain, "train"))[:_SHOWN])
  portrait = portray({domain: _passages(store, domain, "train") for domain in shown},
                     {domain: _passages(store, domain, "valid") for domain in shown})
  labels = labels_of(store)
  sections = [("sizes", "Sizes and words", [_sizes(store, shown, portrait)]),
              ("picture", "Picture", [_figure(_picture(shown, portrait), (
                  f"{len(portrait.picture[0]):,} training passages; close to each other where their words are similar (TF-IDF, t-SNE). "
                  "Distances between groups that are far apart have no meaning."))]),
              ("apart", "How far apart", _apart(shown, portrait)),
              *([("labels", "Labels", agreement_parts(*labels))] if labels else []),
              ("passages", "Passages", _quotes(shown, portrait))]
  notes = [f"The {_SHOWN} largest of {len(store.domains):,} domains are shown."] if len(store.domains) > _SHOWN else []
  notes += [f"{a} and {b} share {documents:,} training documents." for a, b, documents in store.overlaps[:8]]
  page = html.page(f"{len(store.domains):,} domains", meta=f"jaxsplit {jaxsplit.__version__} · {corpus_of(store)}",
                   answer=_answer(portrait, labels), notes=notes, sections=sections)
  write_atomic(path, page)
  return path


def _passages(store: Store, domain: str, split: str) -> list[str]:
  """Passages of a split, spread evenly over its tokens: from the begin of a document where one is near, to its end at most."""
  tokens = store.tokens(domain, split)
  found = []
  for first in np.unique(np.arange(_PASSAGES) * len(tokens) // _PASSAGES):
    piece = np.asarray(tokens[first:first + 2 * _PASSAGE_TOKENS])
    ends = np.flatnonzero(piece == store.end_of_document)
    begin = 0 if first == 0 or not len(ends) or ends[0] >= min(_PASSAGE_TOKENS, len(piece) - 1) else int(ends[0]) + 1
    end = next((int(at) for at in ends if at > begin), len(piece))
    text = store.tokenizer.decode(piece[begin:min(end, begin + _PASSAGE_TOKENS)])
    if first and not begin:  # In the midst of a document, and mostly of a word.
      text = text.partition(" ")[2] or text
    if text.strip():
      found.append(text)
  return list(dict.fromkeys(found))


def labels_of(store: Store) -> tuple[list[str], np.ndarray, float, float] | None:
  """Of found domains: labels, the tokens of each label in each domain [labels, K], and the adjusted mutual information of both, and
  of labels and a draw. None where domains are labels, or there is but one."""
  from sklearn.metrics import adjusted_mutual_info_score

  path = store.directory / DOCUMENT_TABLE
  if not path.is_file():
    return None
  table = parquet.read_table(path, columns=["label", "domain", "tokens", "reason"])
  table = table.filter(compute.is_null(table["reason"]))
  label, domain = (np.asarray(table[name].to_numpy(zero_copy_only=False), object) for name in ("label", "domain"))
  names, of = np.unique([str(value) for value in label], return_inverse=True)
  _, k = np.unique([str(value) for value in domain], return_inverse=True)
  if len(names) < 2 or all(str(a) == str(b) for a, b in zip(label, domain)):
    return None
  tokens = np.zeros((len(names), len(store.domains)))
  np.add.at(tokens, (of, k), table["tokens"].to_numpy(zero_copy_only=False).astype(float))
  drawn = np.random.default_rng(0).permutation(k)
  return names.tolist(), tokens, adjusted_mutual_info_score(of, k), adjusted_mutual_info_score(of, drawn)


def _answer(portrait: Portrait, labels: tuple | None) -> str:
  apart, control = portrait.distances, portrait.control
  agree = (f" Their adjusted mutual information with the labels is {labels[2]:.2f} (random domains: {labels[3]:.2f})." if labels else "")
  return (f"{apart.own:.0%} of held-out passages are nearest to the centroid of their own domain ({control.own:.0%} for random domains), "
          f"and a domain's n-gram model is {apart.gain:.2f} bits per byte better on it than another domain's (random: "
          f"{control.gain:.2f}).{agree}")


def _sizes(store: Store, shown: Sequence[str], portrait: Portrait) -> str:
  total = sum(store.count(domain, "train") for domain in store.domains)
  rows = []
  for k, domain in enumerate(shown):
    counts = store.counts(domain, "train")
    rows.append((domain, f"{counts.documents:,}", f"{counts.tokens:,}", f"{counts.tokens / total:.1%}",
                 f"{counts.unique_tokens / counts.tokens:.0%}", f"{store.count(domain, 'valid'):,}", ", ".join(portrait.terms[k])))
  return html.table(("domain", "documents", "training tokens", "of all", "unique", "held-out tokens", "characteristic words"), rows)


def _apart(shown: Sequence[str], portrait: Portrait) -> list[str]:
  apart, control = portrait.distances, portrait.control
  rows = [(what, f"{d.own:.0%}", f"{np.diag(d.bits).mean():.3f}", f"{np.diag(d.bits).mean() + d.gain:.3f}", f"{d.gain:+.3f}")
          for what, d in (("these domains", apart), ("random domains", control))]
  return [html.table(("", "nearest to their own", "own n-grams", "another's n-grams", "difference"), rows,
                     "Held-out passages; bits per byte of byte-level 5-grams, mean over domains"),
          _figure(_heat(shown, apart), ("Left: overlap, the fraction of each domain's held-out passages (rows) that are nearest to each "
                                        "centroid (columns). Right: bits per byte of its held-out text by each domain's n-grams."))]


def agreement_parts(names: list[str], tokens: np.ndarray, agreement: float, drawn: float) -> list[str]:
  """What `labels_of` found, as HTML."""
  share = tokens / np.maximum(tokens.sum(1, keepdims=True), 1)
  rows = []
  for name, own in zip(names, share):
    order = np.argsort(-own, kind="stable")[:4]
    rows.append((name, ", ".join(f"{own[k]:.0%} {k}" for k in order if own[k] >= 0.005)))
  return [html.paragraph(f"Adjusted mutual information of labels and domains over documents: {agreement:.2f}; of labels and random "
                         f"domains: {drawn:.2f}. 1: identical partitions, 0: chance."),
          html.table(("label", "domains that hold its tokens: fraction and number of the domain"), rows[:200])]


def _quotes(shown: Sequence[str], portrait: Portrait) -> list[str]:
  parts = []
  for k, domain in enumerate(shown):
    quote = lambda texts: html.bullets(" ".join(text.split())[:_QUOTED] for text in texts)
    parts += [f"<h3>{html.text(domain)}</h3>", html.paragraph("nearest to its centroid:", "meta"), quote(portrait.typical[k]),
              html.paragraph("farthest:", "meta"), quote(portrait.untypical[k])]
  return parts


def _figure(figure: Figure, caption: str) -> str:
  return html.figure(style.inline(style.to_svg(figure)), caption)


@style.styled
def _picture(shown: Sequence[str], portrait: Portrait) -> Figure:
  figure, (axes,) = style.panels(height=4.6)
  points, label = portrait.picture
  colours = _colours(len(shown))
  for k, domain in enumerate(shown):
    own = points[label == k]
    axes.scatter(own[:, 0], own[:, 1], s=9, color=colours[k], marker=style.MARKERS[k // _COLOURS % len(style.MARKERS)], linewidths=0,
                 label=domain)
  axes.set(xticks=[], yticks=[])
  axes.grid(False)
  figure.legend(loc="outside right upper", markerscale=2.0)
  return figure


@style.styled
def _heat(shown: Sequence[str], apart: Distances) -> Figure:
  k = len(shown)
  figure, axes = style.panels(2, height=1.6 + min(k, _SHOWN) * 0.17)
  for panel, table, form in zip(axes, (apart.nearest, apart.bits), ("{:.0%}", "{:.1f}")):
    panel.imshow(table, cmap="viridis", aspect="auto")
    panel.set_xticks(range(k), shown, rotation=90)
    panel.set_yticks(range(k), shown)
    panel.grid(False)
    middle = (table.min() + table.max()) / 2
    if k <= 12:
      for (i, j), value in np.ndenumerate(table):
        panel.text(j, i, form.format(value).rstrip("%"), ha="center", va="center", size=6.5,
                   color="#ffffff" if value < middle else "#000000")
  axes[0].set_title("nearest centroid, per cent")
  axes[1].set_title("n-grams, bits per byte")
  axes[1].set_yticks([])
  return figure


def _colours(count: int) -> list:
  import matplotlib

  return [matplotlib.colormaps["tab10"](k % _COLOURS) for k in range(count)]
