"""Lists the files of a corpus by their names and sizes, with the domain and split of each. Opens no file.

Links are followed. Not read, and listed with the reason, are

- hidden files and folders, and those about the data: SOURCE, LICENSE, NOTICE, COPYING, COPYRIGHT, CITATION in capitals, README
  and metadata in any, alone or before a . _ or -; and what TensorFlow Datasets and Hugging Face write beside theirs
  (dataset_info.json, features.json, state.json, dataset_dict.json, cache-*.arrow);
- files of formats that are not read (documents.py has those that are);
- text files of a domain that has files of records, but for those whose path names their split: lists of file names and notes
  lie beside such files; and files of tokens in a domain that has text, as weights of models have their suffix too;
- what Corpus.domains, Corpus.include and Corpus.exclude leave out;
- a link to a folder that it lies in, and what is neither a file nor a folder.

What should be there and is not is an error: a link to nothing, a folder or file that may not be read, a folder without text.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from jaxsplit.data.corpus import Corpus, real
from jaxsplit.data.file_table import CorpusFile, FileTable, printable
from jaxsplit.data.formats import FORMATS, format_of, without_shard
from jaxsplit.data.location import Location, locate, may_match
from jaxsplit.data.paths import SPLIT_FOLDERS, Path, Placed, names_a_split, place, place_splits
from jaxsplit.data.remote import RemotePath, folders
from jaxsplit.data.walk import BY_CHOICE, Walk, matching
from jaxsplit.errors import InputError, nearest
from jaxsplit.files import from_home

_DOMAIN_NAME = re.compile(r"\w([\w .+()&-]{0,98}[\w.+()&-])?")
_MODELS = "seed", "dense", "base", "average"  # What commands call an experiment's other models.


def list_files(corpus: Corpus) -> FileTable:
  """Finds the files of a corpus, and which domain and split each belongs to (see paths.py).

  Raises:
    InputError: no such folder, no domains, an unknown or unusable domain name, a domain given twice, a domain folder without
      text, a pattern that no file matches, or a path that cannot be followed or read.
  """
  location = locate(corpus)
  found = list(Walk(corpus, location).files())
  for name, patterns in (("include", corpus.include), ("exclude", corpus.exclude)):
    for pattern in patterns:
      left_out = any(file.ignored and pattern.startswith(f"{file.path.rstrip('/')}/") for file in found)  # A folder, as a whole.
      if not left_out and not any(matching(file.path, (pattern,)) for file in found):
        example = next((printable(file.path) for file in found if not file.ignored), "law/a.jsonl")
        raise InputError(f"Corpus.{name}: no file in {corpus.path} matches {pattern!r}; patterns are compared with paths within "
                         f"the corpus, such as {example}")
  names = {file.path: _names(location.names.get(file.path, file.path)) for file in found if not file.ignored}
  by_folder = corpus.by_folder
  places = place(names.values()) if by_folder and corpus.only is None else place_splits(names.values())
  if corpus.only is not None:
    places = {path: where._replace(domain=corpus.only) for path, where in places.items()}
  files = [file if file.ignored else _placed(file, places[names[file.path]], corpus if by_folder else Corpus()) for file in found]
  if by_folder:
    _check_domains(corpus, location, files, {path: places[own] for path, own in names.items()})
  table = FileTable(location.root, tuple(_without_strays(files, names, by_folder)))
  if not table.domains:
    raise InputError(f"{location.root}: no text here that has a field for its domain; put files of records there ({FORMATS})")
  return table


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
  location, target = locate(corpus), real(directory)
  if isinstance(location.root, RemotePath):
    return
  root = location.root
  if real(store) in (real(root), *real(root).parents):
    raise InputError(f"{flag}={directory}: the corpus, {real(root)}, lies where the token store is to be, and would be deleted "
                     "with it; name another folder")
  inside = next((folder for folder in Walk(corpus, location).folders() if folder in (target, *target.parents)), None)
  if inside is None and corpus.path != "bundled" and not corpus.path.startswith("tfds:"):
    pattern = from_home(corpus.path, "Corpus.path")
    inside = pattern if not os.path.exists(pattern) and may_match(pattern, target) else None
  if inside is not None:
    raise InputError(f"{flag}={directory}: lies in the corpus ({inside}), and would be read as a part of it; name a folder outside")


def _names(path: str) -> Path:
  *folders, file = path.split("/")
  found = format_of(file)
  return (*folders, without_shard(found.stem) if found else file)


def _placed(file: CorpusFile, where: Placed, corpus: Corpus) -> CorpusFile:
  left_out = "not in Corpus.domains" if corpus.domains and where.domain not in corpus.domains else ""
  return dataclasses.replace(file, domain=where.domain, split=where.split, doubt=where.doubt, ignored=left_out)


def _without_strays(files: Sequence[CorpusFile], names: Mapping[str, Path], by_folder: bool) -> Iterator[CorpusFile]:
  """Leaves out text files beside records, unless their path says of which split, and files of tokens beside text."""
  kinds: dict[str, set[str]] = {}
  for file in files:
    if not file.ignored:
      kinds.setdefault(file.domain, set()).add(format_of(file.path).kind)
  in_folders = any("/" in file.path for file in files if not file.ignored)
  for file in files:
    kind, others = "" if file.ignored else format_of(file.path).kind, kinds.get(file.domain, set())
    if kind == "text" and not by_folder:
      yield dataclasses.replace(file, ignored="text without a field for its domain")
    elif kind == "text" and others - {"text", "tokens"} and not names_a_split(names[file.path]):
      yield dataclasses.replace(file, ignored="text beside files of lines or parquet, named for no split")
    elif kind == "tokens" and others != {"tokens"}:
      yield dataclasses.replace(file, ignored="tokens beside text")
    elif kind == "text" and in_folders and "/" not in file.path and not file.doubt:
      yield dataclasses.replace(file, doubt=f"domain {file.domain}, though the other domains are folders; if it is notes or a list of "
                                            "files, leave it out with Corpus.exclude")
    else:
      yield file


def _check_domains(corpus: Corpus, location: Location, files: Sequence[CorpusFile], places: Mapping[str, Placed]) -> None:
  """Refuses domains that are not there, have no name or the same, and folders that give none."""
  root = location.root
  domains: dict[str, set[str]] = {}
  of_layout: dict[bool, str] = {}
  for file in files:
    if file.domain:
      given_by, first = places[file.path].given_by, file.path.split("/")[0]
      alone = first if first != file.path or without_shard(format_of(first).stem) == format_of(first).stem else "its shards"
      alone = "its shards" if file.path in location.names else alone
      domains.setdefault(file.domain, set()).add(alone if given_by == file.domain else given_by)
      of_layout.setdefault(given_by == SPLIT_FOLDERS, first)
  if len(of_layout) > 1:
    raise InputError(f"{root}: {of_layout[True]} is a split's name and {of_layout[False]} a domain's, beside each other; have "
                     "all domains in folders of splits, or none, or leave out the others with Corpus.exclude")
  for name, ways in domains.items():
    check_domain_name(name, str(root))
    if len(ways - {""}) > 1:
      raise InputError(f"{root}: domain {name} is given twice, by {' and '.join(sorted(ways - {''}))}; rename one")
  check_cases(domains, str(root))
  if location.starts == ("",):
    _check_folders(corpus, location, files)
  if not domains:
    raise InputError(f"{root}: no texts here that are read; a corpus has one subfolder or one file per domain, an added domain its files "
                     f"({FORMATS})")
  for name in corpus.domains:
    if name not in domains:
      raise InputError(f"Corpus.domains: {corpus.path} has no domain {name!r}{nearest(name, domains)}")


def check_domain_name(name: str, where: str) -> None:
  """Refuses what cannot name a file everywhere."""
  if not _DOMAIN_NAME.fullmatch(name):
    raise InputError(f"{where}: {name[:120]!r} cannot name a domain; begin with a letter or digit, then use also spaces within and "
                     ".+-_()&, 100 of all of these at most")
  if name in _MODELS:
    raise InputError(f"{where}: {name!r} cannot name a domain, as another model of each experiment is called that; choose another name")


def check_cases(names: Iterable[str], where: str) -> None:
  """Refuses names that some file systems take for one."""
  folded: dict[str, str] = {}
  for name in names:
    if folded.setdefault(name.casefold(), name) != name:
      raise InputError(f"{where}: domains {folded[name.casefold()]} and {name} differ in upper and lower case only; rename one")


def _check_folders(corpus: Corpus, location: Location, files: Sequence[CorpusFile]) -> None:
  """Refuses a folder without text, such as one that was not copied, where one is wanted."""
  accounted = {file.path.split("/")[0] for file in files if file.domain or file.path.count("/") == file.path.endswith("/")
               or file.ignored in BY_CHOICE}
  for name in folders(location.root):
    if name not in accounted and not (corpus.domains and name not in corpus.domains):
      raise InputError(f"{location.root / name}: no text in it; put {FORMATS} files there, or leave it out with "
                       f"Corpus.exclude={(name,)}")
