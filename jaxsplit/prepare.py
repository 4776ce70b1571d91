"""Prepares a token store: python -m jaxsplit.prepare --gin.Corpus.path=FOLDER --store=DIR

Reads and tokenizes a corpus once, so that training starts at once (python -m jaxsplit.train --store=DIR); without a store, the
train entry point does the same by itself. Running it again with the same settings and files opens what is there; a store of
others is replaced only with --replace. With --list, it says what each file of the corpus is taken for, and with --check, whether
a store is what was written; both read, and write nothing.
"""

from __future__ import annotations

from jaxsplit import signals

signals.end_at_once(__name__)  # The imports below take seconds.

# ruff: noqa: E402
import shlex
from collections.abc import Sequence

from jaxsplit import cli
from jaxsplit.clustering.settings import Clustering
from jaxsplit.columns import aligned
from jaxsplit.data.beam import Beam
from jaxsplit.data.concerns import describe_files, single_documents, undivided
from jaxsplit.data.corpus import Corpus, real
from jaxsplit.data.domains import check_domains, count_documents
from jaxsplit.data.drivers import Driver, Local
from jaxsplit.data.listing import check_apart, list_files
from jaxsplit.data.parts import FILE_TABLE, PAGE
from jaxsplit.data.preparation import check_settings, check_store, prepare_store
from jaxsplit.data.store import Store
from jaxsplit.data.tokenizer import Tokenization
from jaxsplit.errors import InputError
from jaxsplit.evaluation import hidden_states  # noqa: F401 Adds "hidden_states" to Clustering.features.

_DESCRIPTION = "Tokenizes a corpus (one subfolder or file per domain) into a token store, and prints its contents."
_PIECES = ("pieces: documents to train on, without those left out; a long one counts as several where validation documents are drawn from "
           "training")


def main(argv: Sequence[str] | None = None) -> None:
  settings = cli.parse(
      "prepare", _DESCRIPTION, (Corpus, Clustering, Tokenization), argv,
      flags={"store": cli.Path("the folder to write; required without --list"),
             "runner": "a runner of Apache Beam to read and tokenize with, as DirectRunner or DataflowRunner (docs/corpora.md); "
                       "without it, all cores of this machine are used",
             "runner_args": "arguments of the runner, in quotes, as '--project=mine --region=here'"},
      switches={"list": "show how each file would be read, and count its documents; tokenizes nothing",
                "check": "hash every file of the store, and of the corpus if one is given, and compare them; writes nothing",
                "report": f"write {PAGE} into the store, a page that describes its domains",
                "replace": "replace a store of another corpus or other settings"})
  log = lambda line: print(line, flush=True)
  corpus, tokenization, directory = settings[Corpus], settings[Tokenization], settings.flags["store"]
  ways = [f"--{name}" for name in ("list", "check", "replace") if settings.flags[name]]
  if len(ways) > 1:
    raise InputError(f"{' and '.join(ways)} cannot be given together; leave out {ways[-1]}")
  if settings.flags["list"]:
    if directory:
      raise InputError(f"--list lists a corpus, not --store={directory}; leave that out (the files that a store was made from are in "
                       f"its {FILE_TABLE})")
    check_settings(corpus, tokenization, settings[Clustering])
    table, refused = count_documents(corpus, list_files(corpus), log, settings[Clustering].k)
    notes = (f"note: {line}" for line in (*single_documents(table), *undivided(table, corpus.text_separator)))
    print("\n".join((*table.lines(), *notes, "", *table.each(), *(f"refused: {line}" for line in refused[1:]))), flush=True)
    if refused:
      others = f" ({len(refused) - 1:,} more {'file is' if len(refused) == 2 else 'files are'} refused, as listed)" if refused[1:] else ""
      raise InputError(f"{refused[0]}{others}")
    check_domains(table)
    return
  if not directory:
    raise InputError("--store is missing; name the folder to write the token store to, as in --store=runs/store")
  if settings.flags["check"]:
    given = corpus if corpus != Corpus() else None
    store = check_store(directory, given, tokenization if tokenization != Tokenization() else None, settings[Clustering])
    log(f"all token files are unchanged{', and so are all files of the corpus' if given else ''}")
  else:
    check_apart(corpus, "--store", directory, directory)
    workdir = real(directory).parent
    if settings.flags["replace"] and real(directory).name == "store" and (workdir / "cells.csv").exists():
      raise InputError(f"--store={directory}: the cells in {workdir} were measured with its tokens, so that experiment could not resume "
                       "if they were replaced; name another --store (a damaged one is made anew without --replace)")
    store = prepare_store(corpus, tokenization, directory, log, settings.flags["replace"], clustering=settings[Clustering],
                          driver=_driver(settings.flags["runner"], settings.flags["runner_args"]))
  print("\n".join(describe_files(store)))
  print("\n" + "\n".join(_table(store)))
  if settings.flags["report"]:
    from jaxsplit.report.domains import try_domain_report  # Imports matplotlib, which takes a second.

    print(try_domain_report(store.directory))
  print(f"{store.directory}: {store.tokenizer.kind}, {store.vocab_size:,} ids, store {store.manifest_hash}")


def _driver(runner: str | None, arguments: str | None) -> Driver:
  """What runs the steps: this machine, or Apache Beam."""
  if runner is None:
    if arguments is not None:
      raise InputError(f"--runner_args={arguments} is given without --runner; name the runner too, or leave it out")
    return Local()
  return Beam(runner, shlex.split(arguments or ""))


def _table(store: Store) -> list[str]:
  """One line per domain: the train split, and the size of the validation split."""
  rows = [("domain", "pieces", "tokens", "bytes", "unique tokens", "unknown", "valid tokens")]
  for domain in store.domains:
    train = store.counts(domain, "train")
    rows.append((domain, *(f"{n:,}" for n in (train.documents, train.tokens, train.bytes, train.unique_tokens)),
                 f"{train.unknown:.2%}", f"{store.count(domain, 'valid'):,}"))
  return [*aligned(rows), _PIECES]


if __name__ == "__main__":
  cli.run(main, kept="the same command goes on from here")
