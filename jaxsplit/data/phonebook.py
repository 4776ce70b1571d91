"""The phonebook: names and numbers that share no structure, so that knowing them is memorising them and nothing else.

Source of the task: Seto et al., arXiv 2603.19149. Every subset of the book is one domain; every entry is one training window,
the letters of a name and then the digits of its number, and only the digits are to be predicted.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import string

import numpy as np

from jaxsplit.data.domains import document_hash
from jaxsplit.data.plain_tokenizers import AlphabetTokenizer
from jaxsplit.data.store import Record, Store, intact_store
from jaxsplit.data.store_writer import Document, write_store
from jaxsplit.errors import InputError

_LETTERS, _DIGITS = string.ascii_lowercase, string.digits


@dataclasses.dataclass(frozen=True)
class Phonebook:
  """A seeded phonebook.

  Attributes:
    subsets: number of domains.
    entries: entries (a name and a number) of each domain.
    name_length: letters of a name; no two names are equal.
    number_length: digits of a number.
    seed: random seed of names and numbers.
  """

  subsets: int = 8
  entries: int = 256
  name_length: int = 6
  number_length: int = 6
  seed: int = 0

  def __post_init__(self):
    for field, least in (("subsets", 1), ("entries", 1), ("name_length", 1), ("number_length", 1), ("seed", 0)):
      if getattr(self, field) < least:
        raise InputError(f"Phonebook.{field} = {getattr(self, field)}: must be {least} or more")
    names = len(_LETTERS) ** self.name_length
    if 2 * self.subsets * self.entries > names:
      raise InputError(f"Phonebook.name_length = {self.name_length}: {names} possible names are too few for {self.subsets} x "
                       f"{self.entries} entries that differ (half are left unused); use longer names")

  @property
  def domains(self) -> tuple[str, ...]:
    """The names of the subsets, in order."""
    return tuple(f"subset_{k:0{len(str(self.subsets - 1))}}" for k in range(self.subsets))

  def book(self) -> dict[str, list[tuple[str, str]]]:
    """All entries, (name, number), by subset."""
    words = np.random.Philox(key=self.seed)
    names: dict[str, None] = {}
    while len(names) < self.subsets * self.entries:
      # Raw words modulo the alphabet, as NumPy keeps these the same in every version; the bias is below 1e-17.
      draws = words.random_raw(self.subsets * self.entries * self.name_length).reshape(-1, self.name_length) % len(_LETTERS)
      names.update(dict.fromkeys("".join(_LETTERS[i] for i in row) for row in draws))
    digits = words.random_raw(self.subsets * self.entries * self.number_length).reshape(-1, self.number_length) % 10
    entries = [(name, "".join(_DIGITS[i] for i in row)) for name, row in zip(names, digits)]
    return {domain: entries[k * self.entries:(k + 1) * self.entries] for k, domain in enumerate(self.domains)}


def phonebook_store(settings: Phonebook, directory: str | os.PathLike) -> Store:
  """The phonebook as a token store in `directory`, written unless it is there already.

  Training windows are the entries; the validation split holds the same entries, as memory is what is measured. The store's
  `record` says how many tokens of an entry are the prompt. The book itself is a TensorFlow Datasets data set of array_record
  files in the folder `tfds` beside `directory`.
  """
  directory = pathlib.Path(directory)
  source = {"phonebook": dataclasses.asdict(settings)}
  store = intact_store(directory)
  if store and store.source == source:
    return store
  # Importing TensorFlow Datasets takes a second, which only those who make a phonebook should wait for.
  from jaxsplit.data.phonebook_builder import write_book
  tokenizer = AlphabetTokenizer(_DIGITS + _LETTERS)
  splits = []
  s = settings
  folder = f"{s.subsets}x{s.entries}_{s.name_length}_letters_{s.number_length}_digits_seed_{s.seed}"
  for domain, entries in write_book(settings.book(), directory.parent / "tfds" / folder).items():
    texts = [name + number for name, number in entries]
    documents = [Document(tokenizer.encode(text), len(text), document_hash(text)) for text in texts]
    splits += [(domain, "train", documents), (domain, "valid", documents)]
  record = Record(length=settings.name_length + settings.number_length, prompt=settings.name_length)
  return write_store(directory, tokenizer, splits, source, record)
