"""Prepares a token store: python -m jaxsplit.prepare --gin.Corpus.path=FOLDER --store=DIR

Tokenizes a corpus once, so that training starts at once; the train door does the same by itself when there is no store.
Running it again with the same settings and files opens what is there.
"""

from __future__ import annotations

from jaxsplit import signals

signals.end_at_once(__name__)  # The imports below take seconds.

# ruff: noqa: E402
from collections.abc import Sequence

from jaxsplit import cli
from jaxsplit.data.corpus import Corpus
from jaxsplit.data.preparation import prepare_store
from jaxsplit.data.store import Store
from jaxsplit.data.tokenizer import Tokenization
from jaxsplit.errors import InputError

_DESCRIPTION = "Tokenizes a corpus (one subfolder or file per domain) into a token store, and prints what it holds."


def main(argv: Sequence[str] | None = None) -> None:
  settings = cli.parse("prepare", _DESCRIPTION, (Corpus, Tokenization), argv, flags={"store": "the folder to write; required"})
  if not settings.flags["store"]:
    raise InputError("--store is missing; name the folder to write the token store to, as in --store=runs/store")
  store = prepare_store(settings[Corpus], settings[Tokenization], settings.flags["store"], lambda line: print(line, flush=True))
  print(_table(store))
  print(f"{store.directory}: {store.tokenizer.kind}, {store.vocab_size:,} ids, store {store.manifest_hash}")


def _table(store: Store) -> str:
  """One line a domain: the train split, and the size of the validation split."""
  rows = [("domain", "documents", "tokens", "bytes", "unique tokens", "valid tokens")]
  for domain in store.domains:
    train = store.counts(domain, "train")
    counts = (train.documents, train.tokens, train.bytes, train.unique_tokens, store.count(domain, "valid"))
    rows.append((domain, *(f"{n:,}" for n in counts)))
  widths = [max(map(len, column)) for column in zip(*rows)]
  return "\n".join("  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))]) for row in rows)


if __name__ == "__main__":
  cli.run(main)
