"""Derives the domain and split of a corpus file from its path.

A name is a folder's, or a file's without its suffixes; its words are its runs of letters and digits. The split words are

    train    train, training
    valid    valid, validation, validate, val, dev, eval, evaluation, heldout, holdout (held-out, held_out, hold-out, hold_out)
    test     test, testing

in upper or lower case, also with "set" or digits behind them (devset, test2); they count as whole words only, so testament,
trained-models and development hold none. Numbers and the words of shards (of, part, shard, split, set, data, chunk, file) are no
words of a name, nor is a single letter behind the split word: test-00000-of-00001 and test_b are nothing but the word test.

1. A path that begins with a folder of nothing but a split word (train/law.jsonl, valid/law/a.jsonl) has its domain in the next
   name that has words of its own (train/00000/law.jsonl too). There, a domain without training files, whose name is that of one
   with such files and more words (valid/law_small.jsonl), belongs to that one. A corpus has all of its domains in such folders,
   or none.
2. Any other path begins with its domain. A split word beside others in that first name (law_train.jsonl, dev-blog) is a split's
   where the rest of the name is given for train and for another split (law_train, law_val), or, where the split word comes
   last, is a domain by itself (law, law_val); else it is a part of the domain's name.
3. The split is what a name of nothing but a split word says, wherever in the path; without one, what a name whose last word is a
   split word says (c4-validation.00000); then one that has it before or between others (test_clean); else train. Names that say
   different splits are refused.

Of a corpus whose documents say their domains themselves, only 3 counts, for all names of a path.

Where a split word beside others decided, in 2 and 3, or was taken for a domain's, that is told (`Placed.doubt`), but for train;
so is a name of nothing but a word that is like these and says no split: a plural (evals, tests), validating, vali or tst.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from jaxsplit.errors import InputError

SPLITS = ("train", "valid", "test")

_SPLIT_WORDS = {
    "train": "train", "training": "train", "valid": "valid", "validation": "valid", "validate": "valid", "val": "valid",
    "dev": "valid", "eval": "valid", "evaluation": "valid", "heldout": "valid", "holdout": "valid",
    "test": "test", "testing": "test"}
# Taken for none, which is told: some name domains (devs), or what a corpus of code has beside it (tests).
_LIKE_SPLIT_WORDS = ("validating", "validations", "vali", "vals", "devs", "evals", "evaluations", "heldouts", "holdouts", "tst", "tests")
_SPLIT_WORD = re.compile(rf"({'|'.join(_SPLIT_WORDS)}|h[eo]ld[-_ ]out)(set)?\d*", re.IGNORECASE)
_WORD = re.compile(r"(?<![^\W_])h[eo]ld[-_ ]out(?![^\W_])|[^\W_]+", re.IGNORECASE)
_OF_SHARDS = re.compile(r"\d+|of|part|shard|split|set|data|chunk|file", re.IGNORECASE)
_BETWEEN = " ._-"
SPLIT_FOLDERS = "folders of splits"  # Of `Placed.given_by`.

Path = tuple[str, ...]  # The names of a file's folders within the corpus, and its own without suffixes.


class SplitName(NamedTuple):
  """A name with a split word in it: the split (None for two different ones), the rest of the name ("" where there is nothing
  else), and whether the split word is the last."""

  split: str | None
  rest: str
  last: bool


class Placed(NamedTuple):
  """Where a file belongs: its domain and split; by which name, apart from those of splits, the domain is given ("" where that
  is told apart by a split word); and what was in doubt ("" where nothing was)."""

  domain: str
  split: str
  given_by: str
  doubt: str


def split_name(name: str) -> SplitName | None:
  """What a name says of a split; None where it has no split word."""
  words = [(word, _SPLIT_WORD.fullmatch(word[0])) for word in _WORD.finditer(name)]
  said = [(word, re.sub("[-_ ]", "", match[1].lower())) for word, match in words if match]
  if not said:
    return None
  splits = {_SPLIT_WORDS[text] for _, text in said}
  first, last = said[0][0], said[-1][0]
  before = [word for word, _ in words if word.end() <= first.start() and not _OF_SHARDS.fullmatch(word[0])]
  after = [word for word, _ in words if word.start() >= last.end() and not _OF_SHARDS.fullmatch(word[0]) and not _letter(word[0])]
  rest = name[:first.start()].rstrip(_BETWEEN) if before else ""
  if after:
    rest = rest + name[last.end():] if rest else name[last.end():].lstrip(_BETWEEN)
  if any(not match and first.end() <= word.start() < last.start() and not _OF_SHARDS.fullmatch(word[0]) for word, match in words):
    rest = name  # Words between two split words belong to neither.
  return SplitName(splits.pop() if len(splits) == 1 else None, rest, not after)


def place(paths: Iterable[Path]) -> dict[Path, Placed]:
  """Where each file of a corpus belongs, of those that can be read.

  Raises:
    InputError: a path that names two splits, or a split and no domain.
  """
  read = {}
  for path in paths:
    at = _domain_at(path)
    read[path] = at, _said(path, [split_name(name) for i, name in enumerate(path) if i != at])
  placed: dict[Path, Placed] = {}
  names = _Names(read)
  for path, (at, others) in read.items():
    domain, own, doubt = names.domain(path[at], at, others)
    if own and others.split and others.split != own:
      raise _two(path)
    split = own or others.split or "train"
    if not doubt and others.doubtful and split != "train":
      doubt = f"{split}, by a word in the name"
    if not (doubt or own or others.split) and any(map(_like_a_split, path)):
      doubt = f"{split}, though a name is like that of another split"
    placed[path] = Placed(domain, split, SPLIT_FOLDERS if at else "" if own else domain, doubt)
  joined = _joined({path: where for path, where in placed.items() if where.given_by == SPLIT_FOLDERS})
  return {path: joined.get(path, where) for path, where in placed.items()}


def place_splits(paths: Iterable[Path]) -> dict[Path, Placed]:
  """Which split each file belongs to, of a corpus whose documents say their domains: every name of a path may say it."""
  placed = {}
  for path in paths:
    said = _said(path, map(split_name, path))
    split = said.split or "train"
    doubt = f"{split}, by a word in the name" if said.doubtful and split != "train" else ""
    placed[path] = Placed("", split, "", doubt)
  return placed


def names_a_split(path: Path) -> bool:
  """Whether a name of the path is nothing but a split word."""
  return any(said is not None and not said.rest for said in map(split_name, path))


def _like_a_split(name: str) -> bool:
  words = [word.lower() for word in _WORD.findall(name) if not _OF_SHARDS.fullmatch(word)]
  return bool(words) and all(word in _LIKE_SPLIT_WORDS for word in words)


class _Said(NamedTuple):
  """The split that the names of a path say, apart from the domain's, and whether the words for it stood beside others."""

  split: str | None
  doubtful: bool


class _Names:
  """The names of paths that have a domain: whose split words are a split's, and whose the domain's own.

  Args:
    read: of each path, which of its names has the domain, and what the others say.
  """

  def __init__(self, read: Mapping[Path, tuple[int, _Said]]):
    self._plain: set[str] = set()
    self._splits: dict[str, set[str]] = {}
    self._folders: dict[str, set[str | None]] = {}  # Of a name within folders of splits: which.
    for path, (at, others) in read.items():
      name, said = path[at], split_name(path[at])
      if at:
        self._folders.setdefault(name, set()).add(others.split)
      elif said and said.split:
        self._splits.setdefault(said.rest, set()).add(said.split)
      else:
        self._plain.add(name)

  def domain(self, name: str, at: int, others: _Said) -> tuple[str, str | None, str]:
    """The domain, the split that its name says, and what is in doubt."""
    said = split_name(name)
    if said is None:
      return name, None, ""
    if at:  # The word of its folder may be repeated, as in train/law_train.jsonl; but a name that splits share is a domain's.
      if said.split == others.split and len(self._folders[name]) == 1:
        return said.rest, None, ""
      return name, None, f"a domain of the name {name}"
    splits = self._splits.get(said.rest, set())
    if said.split and "train" in splits and len(splits) > 1:
      return said.rest, said.split, ""
    if said.split not in (None, "train") and said.last and said.rest in self._plain:
      return said.rest, said.split, f"{said.split} of the domain {said.rest}"
    return name, None, f"a domain of the name {name}" if said.split != "train" else ""


def _domain_at(path: Path) -> int:
  """Which name of the path is its domain's: the first, or after folders of a split the first that has words of its own."""
  said = split_name(path[0])
  if said is None or said.rest:
    return 0
  for i, name in enumerate(path[1:], start=1):
    said = split_name(name)
    if (said.rest if said else any(not _OF_SHARDS.fullmatch(word) for word in _WORD.findall(name))):
      return i
  raise InputError(f"corpus file {'/'.join(path)}: its path names a split and no domain; a corpus has one folder or file per "
                   "domain, so put the splits of a domain into a folder of its name")


def _said(path: Path, names: Iterable[SplitName | None]) -> _Said:
  """The split that names say together, apart from the domain's: the plainest of them decide."""
  names = [name for name in names if name]
  for doubtful, deciding in enumerate(([n for n in names if not n.rest], [n for n in names if n.last], names)):
    splits = {name.split for name in deciding}
    if splits:
      if len(splits) > 1 or None in splits:
        raise _two(path)
      return _Said(splits.pop(), doubtful > 0)
  return _Said(None, False)


def _joined(placed: Mapping[Path, Placed]) -> dict[Path, Placed]:
  """Gives held-out domains of another name than any that is trained on to the one whose name begins theirs: law_small to law."""
  trained = {where.domain for where in placed.values() if where.split == "train"}
  joined = {}
  for path, where in placed.items():
    if where.domain not in trained:
      owners = [d for d in trained if where.domain.startswith(d) and where.domain[len(d)] in _BETWEEN]
      if owners:
        owner = max(owners, key=len)
        joined[path] = where._replace(domain=owner, doubt=f"{where.split} of the domain {owner}")
  return joined


def _two(path: Path) -> InputError:
  return InputError(f"corpus file {'/'.join(path)}: its path names more than one split; rename it, or leave it out with "
                    "Corpus.exclude")


def _letter(word: str) -> bool:
  return len(word) == 1 and word.isalpha()
