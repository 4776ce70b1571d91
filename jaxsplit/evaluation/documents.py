"""Whole held-out documents, and every model's log-probabilities of them.

A document is read from its beginning, behind an end-of-document token, which is no target itself, to its last token. One that is
longer than the models' context is read in windows that overlap: each token but the first T has `T - stride` tokens or more before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxsplit.data.store import Store
from jaxsplit.data.encoding import Tokenizer
from jaxsplit.errors import InputError
from jaxsplit.evaluation.batching import Span
from jaxsplit.evaluation.countdown import Advance, ignore
from jaxsplit.evaluation.experts import Experts, Scores


class Document(NamedTuple):
  """A document of a domain's held-out text.

  Attributes:
    domain: its name.
    tokens: int [n], an end-of-document token and the document's own; of a record, those of the record.
    first: the first that is a target: 1, or the first behind a record's prompt.
    bytes: the size of its targets as UTF-8 text; None where the tokenizer has no text.
  """

  domain: str
  tokens: np.ndarray
  first: int
  bytes: int | None

  @property
  def targets(self) -> int:
    """How many of its tokens are targets."""
    return len(self.tokens) - self.first


def held_out_split(store: Store) -> str:
  """`test` where every domain has such a split, otherwise `valid`."""
  return "test" if all("test" in store.splits(domain) for domain in store.domains) else "valid"


def read_documents(store: Store, split: str, tokens: int = 0, tokenizer: Tokenizer | None = None) -> list[Document]:
  """The documents of a split, domain by domain.

  Args:
    store: where they lie.
    split: one that every domain has.
    tokens: how many of each domain suffice: then documents from all over the split are taken, one or more, of a longer one its first
      `tokens` tokens; with a larger number the same and others; 0 for all.
    tokenizer: of the models that are to read them, where that is not the store's: text is then encoded anew.

  Raises:
    InputError: a domain without such a split, or without a document in it; records, or a store without text, that cannot be encoded anew.
  """
  other = tokenizer if tokenizer and tokenizer.fingerprint != store.tokenizer.fingerprint else None
  if other and (store.record or store.tokenizer.kind == "tokens"):
    raise InputError(f"{store.directory}: its {'records' if store.record else 'ids'} are no text for another tokenizer than its own")
  out: list[Document] = []
  for domain in store.domains:
    ids = store.tokens(domain, split).view(np.ndarray)
    if store.record:
      starts = np.arange(0, len(ids), store.record.length)
      ends = starts + store.record.length
    else:
      ends = np.flatnonzero(ids == store.end_of_document)
      starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts
    chosen = np.flatnonzero(sizes > 0)
    if not len(chosen):
      raise InputError(f"domain {domain}: its {split} split has no document; name another --split")
    if tokens:
      sizes = sizes if store.record else np.minimum(sizes, tokens)
      chosen = np.random.default_rng(0).permutation(chosen)
      chosen = np.sort(chosen[:1 + np.searchsorted(np.cumsum(sizes[chosen]), tokens)])
    out += [_document(store, other, domain, ids[starts[i]:starts[i] + sizes[i]].astype(np.int32)) for i in chosen]
  return out


def score_documents(experts: Experts, documents: Sequence[Document], stride: int = 0,
                    advance: Advance = ignore) -> Scores:
  """What every model gives to every token of every document.

  Args:
    experts, documents: which.
    stride: tokens by which windows of a document move on; 0: half of the models' context.
    advance: see `Experts.score`.

  Returns:
    Scores with a span a document.

  Raises:
    InputError: a stride that is longer than the context.
  """
  windows = [spans(document, experts.context, stride or experts.context // 2) for document in documents]
  return experts.score([span for spans in windows for span in spans], advance).joined([len(spans) for spans in windows])


def spans(document: Document, context: int, stride: int) -> list[Span]:
  """The windows of a document, of at most `context` + 1 tokens; each target is in one of them. InputError for another stride."""
  if not 1 <= stride <= context:
    raise InputError(f"--stride={stride}: must be from 1 to the models' context of {context} tokens")
  whole, first, out = document.tokens, document.first, []
  end = min(max(context + 1, first + 1), len(whole))
  while True:
    start = max(end - context - 1, 0)
    out.append(Span(whole[start:end], first - start))
    if end == len(whole):
      return out
    first, end = end, min(end + stride, len(whole))


def _document(store: Store, other: Tokenizer | None, domain: str, ids: np.ndarray) -> Document:
  if store.record:
    first, targets = store.record.prompt, ids[store.record.prompt:]
    return Document(domain, ids, first, len(store.tokenizer.decode(targets).encode()))
  text = None if store.tokenizer.kind == "tokens" else store.tokenizer.decode(ids)
  ids = ids if other is None else other.encode(text).astype(np.int32)
  end = (other or store.tokenizer).end_of_document
  return Document(domain, np.concatenate([[np.int32(end)], ids]), 1, None if text is None else len(text.encode()))
