"""Walks the folders of a corpus: every file with its size, or the reason why it is not read."""

from __future__ import annotations

import dataclasses
import errno
import fnmatch
import os
import pathlib
import re
import stat
from collections.abc import Iterator, Sequence

from jaxsplit.data.corpus import Corpus, real
from jaxsplit.data.file_table import CorpusFile, printable
from jaxsplit.data.formats import FORMATS, format_of
from jaxsplit.data.location import Location
from jaxsplit.data.remote import RemotePath
from jaxsplit.errors import InputError, check_decoded

_ABOUT_THE_DATA = re.compile(
    r"(SOURCES?|LICEN[CS]ES?|NOTICES?|COPYING|COPYRIGHT|CITATION|(?i:README|METADATA))([._-].*)?"
    r"|dataset_infos?\.json|features\.json|state\.json|dataset_dict\.json|cache-[0-9a-f]+(_\d+_of_\d+)?\.arrow")
BY_CHOICE = _EXCLUDED, _NOT_INCLUDED = ("matching Corpus.exclude", "not matching Corpus.include")


class Walk:
  """Goes through a corpus in the order of names, without going in a circle."""

  def __init__(self, corpus: Corpus, location: Location):
    self._corpus, self._root, self._starts = corpus, location.root, location.starts

  def files(self) -> Iterator[CorpusFile]:
    """Every file, those that are not read with the reason."""
    return (item for item in self._all() if isinstance(item, CorpusFile))

  def folders(self) -> Iterator[pathlib.Path]:
    """Where the folders, and those that they have links to, really lie, on this machine."""
    return (item for item in self._all() if isinstance(item, pathlib.Path))

  def _all(self) -> Iterator[CorpusFile | pathlib.Path]:
    for start in self._starts:
      inside, place = f"{start}/" if start else "", self._root / start
      if place.is_file() or not place.is_dir():  # In this order, as some file systems read a file to find that it is no folder.
        yield self._file(start, place.size()) if isinstance(place, RemotePath) else self._local_file(start, place.stat())
      elif isinstance(place, RemotePath):
        yield from self._remote(inside)
      else:
        yield real(place)
        yield from self._local(inside, (real(place),))

  def _remote(self, inside: str) -> Iterator[CorpusFile]:
    for entry in (self._root / inside.rstrip("/")).entries():
      path = inside + entry.name
      if reason := self._left_out(path, entry.name):
        yield CorpusFile(path, 0, ignored=reason)
      elif entry.folder:
        yield from self._remote(f"{path}/")
      else:
        yield self._file(path, entry.bytes)

  def _local(self, inside: str, above: Sequence[pathlib.Path]) -> Iterator[CorpusFile | pathlib.Path]:
    try:
      names = sorted(os.listdir(self._root / inside))
    except OSError as error:
      raise self._unreadable(inside.rstrip("/"), error) from None
    for name in names:
      path = inside + name
      check_decoded(printable(str(self._root / path)), name, path=True)
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
          yield from self._local(f"{path}/", (*above, folder))
      else:
        yield self._local_file(path, found)

  def _left_out(self, path: str, name: str) -> str:
    if name.startswith(".") or name == "__MACOSX":  # What macOS adds to archives.
      return "hidden"
    if _ABOUT_THE_DATA.fullmatch(name):
      return "about the data"
    return _EXCLUDED if matching(path, self._corpus.exclude) else ""

  def _local_file(self, path: str, found: os.stat_result) -> CorpusFile:
    if not stat.S_ISREG(found.st_mode):
      return CorpusFile(path, 0, ignored="neither a file nor a folder")
    file = self._file(path, found.st_size)
    if not file.ignored and not os.access(self._root / path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
      raise self._unreadable(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    return file

  def _file(self, path: str, size: int) -> CorpusFile:
    file = CorpusFile(path, size)
    if path.lower().endswith(".idx"):
      return dataclasses.replace(file, ignored="the index of a .bin, read with it")
    if format_of(path.rsplit("/", 1)[-1]) is None:
      return dataclasses.replace(file, ignored=f"of no format that is read ({FORMATS})")
    if self._corpus.include and not matching(path, self._corpus.include):
      return dataclasses.replace(file, ignored=_NOT_INCLUDED)
    return file

  def _unreadable(self, path: str, error: OSError) -> InputError:
    whole = pathlib.Path(self._root / path)
    lost = error.errno in (errno.ENOENT, errno.ELOOP) and os.path.islink(whole)
    what = f"is a link to nothing ({os.readlink(whole)})" if lost else f"cannot be read ({error.strerror})"
    leave = f", or leave it out with Corpus.exclude={(path,)}" if path else ""
    return InputError(f"{printable(str(whole))}: {printable(what)}; mend that{leave}")


def matching(path: str, patterns: Sequence[str]) -> bool:
  """Whether a path, or a folder that it lies in, matches one of the patterns."""
  names = path.rstrip("/").split("/")
  paths = ["/".join(names[:n]) for n in range(1, len(names) + 1)]
  return any(fnmatch.fnmatchcase(one, pattern.rstrip("/")) for pattern in patterns for one in paths)
