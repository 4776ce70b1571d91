"""From a folder to the file table of a corpus. Reads names and sizes, and no file.

Links are followed. Not read, and listed with the reason, are

- hidden files and folders, and those about the data: SOURCE, LICENSE, NOTICE, COPYING, COPYRIGHT, CITATION in capitals, README
  and metadata in any, alone or before a . _ or -;
- files of formats that are not read (documents.py has those that are);
- text files of a domain that has files of lines or parquet, but for those whose path names their split: lists of file names and
  notes lie beside such files;
- what Corpus.domains, Corpus.include and Corpus.exclude leave out;
- a link to a folder that it lies in, and what is neither a file nor a folder.

What should be there and is not is an error: a link to nothing, a folder or file that may not be read, a folder without text.
"""

from __future__ import annotations

import dataclasses
import errno
import fnmatch
import os
import pathlib
import re
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence

from jaxsplit.data.corpus import Corpus, corpus_root, real
from jaxsplit.data.documents import FORMATS, format_of
from jaxsplit.data.file_table import CorpusFile, FileTable, printable
from jaxsplit.data.paths import SPLIT_FOLDERS, Path, Placed, names_a_split, place
from jaxsplit.errors import InputError, nearest

_ABOUT_THE_DATA = re.compile(
    r"(SOURCES?|LICEN[CS]ES?|NOTICES?|COPYING|COPYRIGHT|CITATION|(?i:README|METADATA))([._-].*)?")
_EXCLUDED, _NOT_INCLUDED = _BY_CHOICE = ("matching Corpus.exclude", "not matching Corpus.include")
_DOMAIN_NAME = re.compile(r"\w[\w .+()&-]*")


def list_files(corpus: Corpus) -> FileTable:
  """Finds the files of a corpus, and which domain and split each belongs to (see paths.py).

  Raises:
    InputError: no such folder, no domains, an unknown or unusable domain name, a domain given twice, a domain folder without
      text, a pattern that no file matches, or a path that cannot be followed or read.
  """
  root = corpus_root(corpus)
  found = list(_Walk(corpus, root).files())
  for name, patterns in (("include", corpus.include), ("exclude", corpus.exclude)):
    for pattern in patterns:
      if not any(_matching(file.path, (pattern,)) for file in found):
        raise InputError(f"Corpus.{name}: no file in {corpus.path} matches {pattern!r}; patterns are compared with paths within "
                         f"the corpus, such as {printable(found[0].path) if found else 'law/a.jsonl'}")
  places = place(_names(file.path) for file in found if not file.ignored)
  files = [file if file.ignored else _placed(file, places[_names(file.path)], corpus) for file in found]
  _check_domains(corpus, root, files, places)
  of_records = {file.domain for file in files if not file.ignored and format_of(file.path).kind != "text"}
  return FileTable(root, tuple(_without_stray_text(file, of_records) for file in files))


def check_apart(corpus: Corpus, flag: str, directory: str | os.PathLike, store: str | os.PathLike) -> None:
  """Refuses folders to write to that would be read with the corpus, or whose replacing would delete it. Follows links and `..`.

  Args:
    corpus: is only listed, and may be anywhere.
    flag: the flag that gives `directory`, as in --workdir.
    directory: must not lie in the corpus, nor in a folder that the corpus has a link to.
    store: within `directory`, or the same; must not be the corpus nor have it in it, as it is replaced when the corpus changes.

  Raises:
    InputError: one does; or the corpus cannot be listed.
  """
  root, target = corpus_root(corpus), real(directory)
  walk = _Walk(corpus, root)
  if real(store) in (real(root), *real(root).parents):
    raise InputError(f"{flag}={directory}: the corpus, {real(root)}, lies where the token store is to be, and would be deleted with "
                     "it; name another folder")
  for folder in walk.folders():
    if folder == target or folder in target.parents:
      raise InputError(f"{flag}={directory}: lies in the corpus ({folder}), and would be read as a part of it; name a folder "
                       "outside")


class _Walk:
  """Goes through the folders of a corpus, in the order of their names, without going in a circle."""

  def __init__(self, corpus: Corpus, root: pathlib.Path):
    self._corpus, self._root = corpus, root

  def files(self) -> Iterator[CorpusFile]:
    """Every file, those that are not read with the reason."""
    return (item for item in self._within("", (real(self._root),)) if isinstance(item, CorpusFile))

  def folders(self) -> Iterator[pathlib.Path]:
    """Where the folder and those that it has links to really lie."""
    yield real(self._root)
    yield from (item for item in self._within("", (real(self._root),)) if isinstance(item, pathlib.Path))

  def _within(self, inside: str, above: Sequence[pathlib.Path]) -> Iterator[CorpusFile | pathlib.Path]:
    try:
      names = sorted(os.listdir(self._root / inside))
    except OSError as error:
      raise self._unreadable(inside.rstrip("/"), error) from None
    for name in names:
      path = inside + name
      if reason := self._left_out(path, name):
        yield CorpusFile(path, 0, ignored=reason)
        continue
      try:
        found = (self._root / path).stat()
      except OSError as error:
        raise self._unreadable(path, error) from None
      if stat.S_ISDIR(found.st_mode):
        folder = above[-1] / name
        if folder.is_symlink():
          folder = real(folder)
          yield folder
        if folder in above:
          yield CorpusFile(f"{path}/", 0, ignored="a link to a folder that it lies in")
        else:
          yield from self._within(f"{path}/", (*above, folder))
      else:
        yield self._file(path, found)

  def _left_out(self, path: str, name: str) -> str:
    if name.startswith("."):
      return "hidden"
    if _ABOUT_THE_DATA.fullmatch(name):
      return "about the data"
    return _EXCLUDED if _matching(path, self._corpus.exclude) else ""

  def _file(self, path: str, found: os.stat_result) -> CorpusFile:
    if not stat.S_ISREG(found.st_mode):
      return CorpusFile(path, 0, ignored="neither a file nor a folder")
    file = CorpusFile(path, found.st_size)
    if format_of(path.rsplit("/", 1)[-1]) is None:
      return dataclasses.replace(file, ignored=f"of no format that is read ({FORMATS})")
    if self._corpus.include and not _matching(path, self._corpus.include):
      return dataclasses.replace(file, ignored=_NOT_INCLUDED)
    if not os.access(self._root / path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
      raise self._unreadable(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    return file

  def _unreadable(self, path: str, error: OSError) -> InputError:
    whole = self._root / path
    lost = error.errno in (errno.ENOENT, errno.ELOOP) and os.path.islink(whole)
    what = f"is a link to nothing ({os.readlink(whole)})" if lost else f"cannot be read ({error.strerror})"
    leave = f", or leave it out with Corpus.exclude={(path,)}" if path else ""
    return InputError(f"{printable(str(whole))}: {printable(what)}; mend that{leave}")


def _matching(path: str, patterns: Sequence[str]) -> bool:
  """Whether a path, or a folder that it lies in, matches one of the patterns."""
  names = path.rstrip("/").split("/")
  paths = ["/".join(names[:n]) for n in range(1, len(names) + 1)]
  return any(fnmatch.fnmatchcase(one, pattern.rstrip("/")) for pattern in patterns for one in paths)


def _names(path: str) -> Path:
  *folders, file = path.split("/")
  return (*folders, format_of(file).stem)


def _placed(file: CorpusFile, where: Placed, corpus: Corpus) -> CorpusFile:
  left_out = "not in Corpus.domains" if corpus.domains and where.domain not in corpus.domains else ""
  return dataclasses.replace(file, domain=where.domain, split=where.split, doubt=where.doubt, ignored=left_out)


def _without_stray_text(file: CorpusFile, of_records: set[str]) -> CorpusFile:
  """A text file beside records is no document, unless its path says of which split."""
  if file.ignored or file.domain not in of_records or format_of(file.path).kind != "text" or names_a_split(_names(file.path)):
    return file
  return dataclasses.replace(file, ignored="text beside files of lines or parquet, named for no split")


def _check_domains(corpus: Corpus, root: pathlib.Path, files: Sequence[CorpusFile], places: Mapping[Path, Placed]) -> None:
  """Refuses domains that are not there, have no name or the same, and folders that give none."""
  domains: dict[str, set[str]] = {}
  of_layout: dict[bool, str] = {}
  for file in files:
    if file.domain:
      given_by, first = places[_names(file.path)].given_by, file.path.split("/")[0]
      domains.setdefault(file.domain, set()).add(first if given_by == file.domain else given_by)
      of_layout.setdefault(given_by == SPLIT_FOLDERS, first)
  if len(of_layout) > 1:
    raise InputError(f"{root}: {of_layout[True]} is a split's name and {of_layout[False]} a domain's, beside each other; have all "
                     "domains in folders of splits, or none, or leave out the others with Corpus.exclude")
  for name, given_by in domains.items():
    if not _DOMAIN_NAME.fullmatch(name):
      raise InputError(f"{root}: {name!r} cannot name a domain; begin with a letter or digit, then use also spaces and .+-_()&"
                       f"{_undecoded(name)}")
    if len(given_by - {""}) > 1:
      raise InputError(f"{root}: domain {name} is given twice, by {' and '.join(sorted(given_by - {''}))}; rename one")
  folded: dict[str, str] = {}
  for name in domains:
    if folded.setdefault(name.casefold(), name) != name:
      raise InputError(f"{root}: domains {folded[name.casefold()]} and {name} differ in upper and lower case only; rename one")
  _check_folders(corpus, root, files)
  if not domains:
    raise InputError(f"{root}: no domains here; a corpus has one subfolder or one file per domain ({FORMATS})")
  for name in corpus.domains:
    if name not in domains:
      raise InputError(f"Corpus.domains: {corpus.path} has no domain {name!r}{nearest(name, domains)}")


def _undecoded(name: str) -> str:
  """A clause for a name whose bytes Python could not read, as it was told to take names for ASCII."""
  encoding = sys.getfilesystemencoding()
  if encoding == "utf-8" or not any("\udc80" <= c <= "\udcff" for c in name):
    return ""
  return f" (Python's file-name encoding is {encoding} here; set PYTHONUTF8=1 for names in UTF-8)"


def _check_folders(corpus: Corpus, root: pathlib.Path, files: Sequence[CorpusFile]) -> None:
  """Refuses a folder without text, such as one that was not copied, where one is wanted."""
  accounted = {file.path.split("/")[0] for file in files if file.domain or file.path.count("/") == file.path.endswith("/")
               or file.ignored in _BY_CHOICE}
  for path in sorted(root.iterdir()):
    if path.name not in accounted and path.is_dir() and not (corpus.domains and path.name not in corpus.domains):
      raise InputError(f"{path}: no text in it; put {FORMATS} files there, or leave it out with Corpus.exclude={(path.name,)}")
