"""Prepares a token store: python -m jaxsplit.prepare --gin.Corpus.path=FOLDER --store=DIR

Reads and tokenizes a corpus once, so that training starts at once (python -m jaxsplit.train --store=DIR); without a store, the
train entry point does the same by itself. Running it again with the same settings and files opens what is there. With --list, it
only says what each file of the corpus is taken for, and reads but writes nothing.
"""

from __future__ import annotations

from jaxsplit import signals

signals.end_at_once(__name__)  # The imports below take seconds.

# ruff: noqa: E402
from collections.abc import Sequence

from jaxsplit import cli
from jaxsplit.data.concerns import describe_files
from jaxsplit.data.corpus import Corpus
from jaxsplit.data.domains import count_documents
from jaxsplit.data.file_table import aligned
from jaxsplit.data.listing import check_apart, list_files
from jaxsplit.data.preparation import prepare_store
from jaxsplit.data.store import Store
from jaxsplit.data.tokenizer import Tokenization
from jaxsplit.errors import InputError

_DESCRIPTION = "Tokenizes a corpus (one subfolder or file per domain) into a token store, and prints what it holds."


def main(argv: Sequence[str] | None = None) -> None:
  settings = cli.parse(
      "prepare", _DESCRIPTION, (Corpus, Tokenization), argv, flags={"store": cli.Path("the folder to write; required without --list")},
      switches={"list": "say what each file is taken for, and count its documents; tokenizes nothing",
                "check": "hash every file of the corpus and of the store, whatever its time says"})
  say = lambda line: print(line, flush=True)
  corpus, directory = settings[Corpus], settings.flags["store"]
  if settings.flags["list"]:
    print("\n".join(count_documents(list_files(corpus)).lines()))
    return
  if not directory:
    raise InputError("--store is missing; name the folder to write the token store to, as in --store=runs/store")
  check_apart(corpus, "--store", directory, directory)
  store = prepare_store(corpus, settings[Tokenization], directory, say, settings.flags["check"])
  print("\n".join(describe_files(store)))
  print("\n" + "\n".join(_table(store)))
  print(f"{store.directory}: {store.tokenizer.kind}, {store.vocab_size:,} ids, store {store.manifest_hash}")


def _table(store: Store) -> list[str]:
  """One line a domain: the train split, and the size of the validation split."""
  rows = [("domain", "documents", "tokens", "bytes", "unique tokens", "unknown", "valid tokens")]
  for domain in store.domains:
    train = store.counts(domain, "train")
    rows.append((domain, *(f"{n:,}" for n in (train.documents, train.tokens, train.bytes, train.unique_tokens)),
                 f"{train.unknown:.2%}", f"{store.count(domain, 'valid'):,}"))
  return aligned(rows)


if __name__ == "__main__":
  cli.run(main)
