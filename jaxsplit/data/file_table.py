"""The file table of a corpus: every file, with the domain and split that it belongs to, or the reason why it is not read."""

from __future__ import annotations

import csv
import dataclasses
import io
import pathlib
from collections.abc import Iterable, Mapping

from jaxsplit.columns import aligned
from jaxsplit.errors import InputError
from jaxsplit.files import write_atomic
from jaxsplit.data.paths import SPLITS
from jaxsplit.data.remote import AnyPath

_NAMED = 3  # Files of a group that a line names.
_EACH_MAX = 300  # Files that have a line each.
_BY_DOCUMENT = "(of each document)"  # Stands for a domain where no file has one.


@dataclasses.dataclass(frozen=True)
class CorpusFile:
  """A file of a corpus, or a folder that is left out whole.

  Attributes:
    path: within the corpus, with / between its names, and behind them where it is a folder.
    bytes: its size on disk, packed where it is.
    domain, split: what it belongs to; "" where it is not read; a domain is "" too where documents say theirs.
    ignored: why it is not read; "" where it is.
    doubt: what its domain or split was taken for on doubtful grounds; "" where there is no doubt.
    documents: how many documents it has; None where they have not been counted.
  """

  path: str
  bytes: int
  domain: str = ""
  split: str = ""
  ignored: str = ""
  doubt: str = ""
  documents: int | None = None


@dataclasses.dataclass(frozen=True)
class FileTable:
  """All files of a corpus, sorted by path. `root` is where they lie."""

  root: AnyPath
  files: tuple[CorpusFile, ...]

  @property
  def domains(self) -> dict[str, dict[str, tuple[CorpusFile, ...]]]:
    """The files that are read: domain -> split -> files, domains sorted by name."""
    found: dict[str, dict[str, list[CorpusFile]]] = {}
    for file in self.files:
      if not file.ignored:
        found.setdefault(file.domain, {}).setdefault(file.split, []).append(file)
    return {domain: {split: tuple(files) for split, files in found[domain].items()} for domain in sorted(found)}

  def counted(self, documents: Mapping[str, int | None]) -> FileTable:
    """The same with the numbers of documents, by path, where they are known."""
    files = (f if f.ignored else dataclasses.replace(f, documents=documents.get(f.path, f.documents)) for f in self.files)
    return FileTable(self.root, tuple(files))

  def save(self, path: pathlib.Path) -> None:
    """Writes the table as CSV, one file of the corpus a line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(CorpusFile))
    writer.writerows(dataclasses.astuple(file) for file in self.files)
    write_atomic(path, text.getvalue().encode(errors="surrogateescape"))

  def lines(self) -> list[str]:
    """The table in short: a line for each domain and split, then what is in doubt and what is not read, with the reasons."""
    rows = [("domain", "split", "files", "documents", "bytes on disk")]
    for domain, splits in self.domains.items():
      for split in SPLITS:
        if split in splits:
          files = splits[split]
          counts = [file.documents for file in files]
          documents = "?" if None in counts else f"{sum(counts):,}"
          rows.append((domain or _BY_DOCUMENT, split, f"{len(files):,}", documents, f"{sum(file.bytes for file in files):,}"))
    groups = _grouped((f"taken as {file.doubt}", file) for file in self.files if file.doubt and not file.ignored)
    groups += _grouped((f"not read, {file.ignored}", file) for file in self.files if file.ignored)
    return [*aligned(rows, left=(0, 1)), *groups]

  def each(self) -> list[str]:
    """What each file is taken for, a line a file; of more than _EACH_MAX files, a line a folder and what they are taken for."""
    alone = len(self.files) <= _EACH_MAX
    groups: dict[tuple[str, ...], list[CorpusFile]] = {}
    for file in self.files:
      folder = file.path.rstrip("/").rpartition("/")[0] or "."
      where = file.path if alone else f"{folder}/"
      doubt = f"taken as {file.doubt}" if file.doubt else ""
      kind = ("", "", f"ignored: {file.ignored}") if file.ignored else (file.domain or _BY_DOCUMENT, file.split, doubt)
      groups.setdefault((where, *kind), []).append(file)
    rows, remarks = [("file" if alone else "folder", "domain", "split", "files", "documents")], [""]
    for (where, domain, split, remark), files in groups.items():
      counts = [file.documents for file in files if not file.ignored]
      documents = "?" if None in counts else f"{sum(counts):,}" if counts else ""
      rows.append((printable(where), domain, split, f"{len(files):,}", documents))
      remarks.append(remark)
    if alone:
      rows = [(*taken, documents) for *taken, _, documents in rows]
    return [f"{row}  {remark}".rstrip() for row, remark in zip(aligned(rows, left=(0, 1, 2)), remarks, strict=True)]


def load_file_table(path: pathlib.Path, root: AnyPath) -> FileTable:
  """Reads what `save` wrote, of files that lie in `root`; InputError where it is damaged."""
  try:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
      rows = list(csv.DictReader(file))
    return FileTable(root, tuple(CorpusFile(**{**row, "bytes": int(row["bytes"]), "documents": int(row["documents"] or -1)
                                               if row["documents"] else None}) for row in rows))
  except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
    raise InputError(f"{path}: cannot be read as a file table ({error}); prepare the store again") from None


def _grouped(files: Iterable[tuple[str, CorpusFile]]) -> list[str]:
  """A line for each reason: how many files, and the first of them."""
  groups: dict[str, list[str]] = {}
  for reason, file in files:
    groups.setdefault(reason, []).append(file.path)
  lines = []
  for reason, paths in groups.items():
    more = f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else ""
    lines.append(f"{reason}: {', '.join(map(printable, paths[:_NAMED]))}{more}")
  return lines


def printable(path: str) -> str:
  """A path on one line and as text, whatever bytes its names have."""
  return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in path)
