"""The phonebook: unique names, the same book every time, and entries as windows of which only the number counts."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from jaxsplit.data.phonebook import Phonebook, phonebook_store
from jaxsplit.data.stream import Batches, mixture, validation, windows
from jaxsplit.errors import InputError

BOOK = Phonebook(subsets=3, entries=10, name_length=4, number_length=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  return phonebook_store(BOOK, tmp_path_factory.mktemp("phonebook") / "store")


def test_names_are_unique_and_seeds_give_other_books():
  book = Phonebook().book()
  names = [name for entries in book.values() for name, _ in entries]
  assert list(book) == [f"subset_{k}" for k in range(8)] and all(len(entries) == 256 for entries in book.values())
  assert len(set(names)) == 2048 and {len(n) for n in names} == {6}
  assert all(len(number) == 6 and number.isdecimal() for entries in book.values() for _, number in entries)
  assert book == Phonebook().book() != Phonebook(seed=1).book()
  assert book["subset_0"][0] == ("nodqdd", "455241")


def test_the_store_holds_the_book(store):
  for domain, entries in BOOK.book().items():
    rows, _ = validation(store, domain, sequence_length=6)
    assert [store.tokenizer.decode(row) for row in rows] == [name + number for name, number in entries]
  assert store.vocab_size == 37 and store.counts("subset_0", "train").unique_tokens == 70


def test_an_epoch_is_every_entry_once_and_validation_is_the_same_entries(store):
  entries, _ = validation(store, "subset_1", 6)
  epochs = windows(store, "subset_1", seed=0, sequence_length=6).rows(np.arange(20)).reshape(2, 10, 7)
  assert all(sorted(map(tuple, epoch)) == sorted(map(tuple, entries)) for epoch in epochs)
  assert not np.array_equal(epochs[0], epochs[1])
  mixed = mixture(store, {d: 1 for d in store.domains}, 0, 6)
  tokens, weights = Batches([mixed], 4).block([3], 2)
  assert tokens.shape == (2, 1, 4, 7) and weights.shape == (2, 1, 4, 6) and weights.dtype == np.float32
  assert np.unique(weights.reshape(-1, 6), axis=0).tolist() == [[0, 0, 0, 1, 1, 1]]


def test_only_the_digits_are_to_be_predicted(store):
  (tokens, weights), numbers = validation(store, "subset_0", 6, max_tokens=30), [number for _, number in BOOK.book()["subset_0"]]
  assert weights.tolist() == [[0, 0, 0, 1, 1, 1]] * 5 and store.weighted
  assert [store.tokenizer.decode(row[of == 1]) for row, of in zip(tokens[:, 1:], weights)] == numbers[::2]
  assert (store.record.prompt, store.record.length, store.record.sequence_length) == (4, 7, 6)
  with pytest.raises(InputError, match="sequence length 8: the entries in .* need 6"):
    windows(store, "subset_0", 0, 8)


def test_the_same_settings_reuse_the_store_and_others_replace_it(tmp_path):
  first = phonebook_store(BOOK, tmp_path / "store")
  written = (tmp_path / "store" / "manifest.json").stat().st_mtime_ns
  phonebook_store(BOOK, tmp_path / "store")
  assert (tmp_path / "store" / "manifest.json").stat().st_mtime_ns == written
  assert list(tmp_path.glob("tfds/*/phonebook/1.0.0/*.array_record*"))
  other = phonebook_store(Phonebook(3, 10, 4, 3, seed=1), tmp_path / "store")
  assert other.manifest_hash != first.manifest_hash


def test_a_phonebook_needs_no_tensorflow(tmp_path):
  code = ("import sys; from jaxsplit.data.phonebook import *\n"
          f"phonebook_store(Phonebook(2, 3), {str(tmp_path / 'store')!r})\n"
          "assert not {'tensorflow', 'torch'} & set(sys.modules)")
  root = pathlib.Path(__file__).parents[2]
  done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120, check=False)
  assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("settings", [{"subsets": 0}, {"entries": 0}, {"number_length": 0}, {"seed": -1}, {"name_length": 2}])
def test_impossible_books_are_refused(settings):
  with pytest.raises(InputError, match=f"Phonebook.{next(iter(settings))}"):
    Phonebook(**settings)
