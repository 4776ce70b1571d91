"""Which folder is a corpus, and which of its files and documents are wanted."""

from __future__ import annotations

import dataclasses
import importlib.resources
import os
import pathlib

from jaxsplit.errors import InputError, nearest
from jaxsplit.files import from_home


@dataclasses.dataclass(frozen=True)
class Corpus:
  """Which documents to learn from, and which to hold out.

  Attributes:
    path: a corpus folder, or "bundled" for the five public-domain domains that ship with the package.
    domains: the domains to use; empty for all.
    include: patterns of the files to read, all where it is empty, as in "*.jsonl.zst" or "law/*": each is compared with a
      file's path within the corpus and with those of the folders that it lies in; * stands for any characters, / too.
    exclude: patterns of files and folders to leave out.
    valid_fraction: the share of a domain's bytes to hold out where it has no validation files.
    valid_tokens_min: the fewest tokens a domain's validation set may have.
  """

  path: str = "bundled"
  domains: tuple[str, ...] = ()
  include: tuple[str, ...] = ()
  exclude: tuple[str, ...] = ()
  valid_fraction: float = 0.1
  valid_tokens_min: int = 2048

  def __post_init__(self):
    if not self.path.strip():
      raise InputError("Corpus.path is empty; name the corpus folder, or 'bundled' for the texts that ship with the package")
    if not 0 < self.valid_fraction < 1:
      raise InputError(f"Corpus.valid_fraction = {self.valid_fraction}: must lie between 0 and 1")
    if self.valid_tokens_min < 1:
      raise InputError(f"Corpus.valid_tokens_min = {self.valid_tokens_min}: must be 1 or more")


def corpus_root(corpus: Corpus) -> pathlib.Path:
  """The folder of a corpus; InputError where there is none."""
  if corpus.path == "bundled":
    return pathlib.Path(str(importlib.resources.files("jaxsplit.data") / "bundled"))
  root = pathlib.Path(from_home(corpus.path, "Corpus.path"))
  if not root.is_dir():
    try:
      known = [p.name for p in root.parent.iterdir() if p.is_dir()] if root.parent.is_dir() else []
    except OSError:
      known = []
    kind = "is no folder" if root.exists() else "no such folder"
    raise InputError(f"Corpus.path: {kind}: {corpus.path}{nearest(root.name, known)}")
  return root


def real(path: str | os.PathLike) -> pathlib.Path:
  """The path without links and .. in it, whether anything is there or not."""
  return pathlib.Path(os.path.realpath(path))
