"""The settings of a corpus: where it is, and which of its files and documents are used."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Literal

from jaxsplit.data.documents import Fields
from jaxsplit.errors import InputError

# Begin what `Corpus.domains_from` names a field, a field beside clusters, or a single domain with.
COLUMN, CLUSTER, ONE = "column:", "cluster:", "one:"


@dataclasses.dataclass(frozen=True)
class Corpus:
  """Which documents to train on, and which to hold out.

  Attributes:
    path: a folder, a file, or a pattern of them with * ? [] ** and {a,b} or {00..12}, here or at a URL that fsspec knows
      (gs://bucket/folder); tfds:NAME:VERSION for a data set of TensorFlow Datasets; or "bundled" for the five public-domain
      domains that ship with the package.
    data_dir: the folder of TensorFlow Datasets; empty for TFDS_DATA_DIR, or ~/tensorflow_datasets without it.
    domains_from: "folder" for domains by the names of folders and files, "column:NAME" for a field of each document, "cluster"
      for domains that are found in the texts (`Clustering`), where folders become labels to compare with, or with "cluster:NAME" a
      field of each document; or "one:NAME" for a single domain.
    domains: the domains to use; empty for all.
    text_key: the field of a document's text; dots separate nested fields, as in meta.text.
    text_separator: the text between two documents of a .txt file; empty if each file is one document.
    include: patterns of the files to read, as in "*.jsonl.zst" or "law/*"; empty for all. A pattern is matched against a
      file's path within the corpus and those of its parent folders; * matches any characters, including /.
    exclude: patterns of files and folders to leave out.
    on_bad_document: "fail" to stop at a document that cannot be read, "skip" to leave it out and count it.
    min_characters: documents with fewer characters (for a corpus of tokens: fewer tokens) are left out of all splits.
    duplicates: "keep" to train on all copies of equal documents, "drop" to keep the first of the corpus.
    valid_fraction: fraction of a domain's bytes to hold out for validation if it has no validation files.
    test_fraction: fraction to hold out for testing as well, if it has no test files.
    valid_tokens_min: minimum number of tokens of a domain's validation set.
  """

  path: str = "bundled"
  data_dir: str = ""
  domains_from: str = "folder"
  domains: tuple[str, ...] = ()
  text_key: str = "text"
  text_separator: str = ""
  include: tuple[str, ...] = ()
  exclude: tuple[str, ...] = ()
  on_bad_document: Literal["fail", "skip"] = "fail"
  min_characters: int = 0
  duplicates: Literal["keep", "drop"] = "keep"
  valid_fraction: float = 0.1
  test_fraction: float = 0.0
  valid_tokens_min: int = 2048

  def __post_init__(self):
    if not self.path.strip():
      raise InputError("Corpus.path is empty; name the corpus folder, or 'bundled' for the texts that ship with the package")
    if not self.by_folder and not (self.domains_from.startswith((COLUMN, CLUSTER)) and self.fields.label) or self.only == "":
      raise InputError(f"Corpus.domains_from = {self.domains_from!r}: must be folder, column:NAME, cluster, cluster:NAME or one:NAME")
    for name, known in (("on_bad_document", ("fail", "skip")), ("duplicates", ("keep", "drop"))):
      if getattr(self, name) not in known:
        raise InputError(f"Corpus.{name} = {getattr(self, name)!r}: must be {' or '.join(known)}")
    if not self.text_key.strip():
      raise InputError("Corpus.text_key is empty; name the field of the text")
    if not 0 < self.valid_fraction < 1:
      raise InputError(f"Corpus.valid_fraction = {self.valid_fraction}: must lie between 0 and 1")
    if not 0 <= self.test_fraction < 1 - self.valid_fraction:
      raise InputError(f"Corpus.test_fraction = {self.test_fraction}: must be 0 or more, and leave something to train on beside "
                       f"Corpus.valid_fraction = {self.valid_fraction}")
    for name, least in (("valid_tokens_min", 1), ("min_characters", 0)):
      if getattr(self, name) < least:
        raise InputError(f"Corpus.{name} = {getattr(self, name)}: must be {least} or more")

  @property
  def by_folder(self) -> bool:
    """Whether a document's label is that of its file, and not in a field."""
    return self.domains_from in ("folder", "cluster") or self.only is not None

  @property
  def clustered(self) -> bool:
    """Whether domains are found in the texts."""
    return self.domains_from == "cluster" or self.domains_from.startswith(CLUSTER)

  @property
  def only(self) -> str | None:
    """The domain that all of it is; None where there may be several."""
    return self.domains_from.removeprefix(ONE) if self.domains_from.startswith(ONE) else None

  @property
  def fields(self) -> Fields:
    """Where its documents lie in records."""
    label = None if self.by_folder else self.domains_from.partition(":")[2]
    return Fields(self.text_key, label, self.text_separator)


def real(path: str | os.PathLike) -> pathlib.Path:
  """The path without links and .. in it, whether anything is there or not."""
  return pathlib.Path(os.path.realpath(path))
