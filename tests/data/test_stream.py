"""Streams and batches: every window once an epoch, the mixture of Grain, and batches that are functions of (run, step)."""

import sys

import grain
import numpy as np
import pytest

from jaxsplit.data import stream as stream_module
from jaxsplit.data.plain_tokenizers import ByteTokenizer
from jaxsplit.data.store_writer import Document, write_store
from jaxsplit.data.stream import Batches, bytes_per_token, mixture, validation, windows
from jaxsplit.errors import InputError

T = 4


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  """Three domains of 10, 7 and 25 windows; token = position within the split + 1, so that a window tells where it is from."""
  sizes = {"a": 10, "b": 7, "c": 25}
  splits = [(name, split, [Document(np.arange(1, n * T + 1), 2 * n * T, name.encode())])
            for name, n in sizes.items() for split in ("train", "valid")]
  return write_store(tmp_path_factory.mktemp("stream") / "store", ByteTokenizer(), splits, {})


def test_an_epoch_is_every_window_once_in_another_order_each_time(store):
  stream = windows(store, "c", seed=3, sequence_length=T)
  epochs = [stream.rows(np.arange(25) + 25 * e) for e in range(4)]
  expected = store.windows("c", "train", T)
  orders = [epoch[:, 0].tolist() for epoch in epochs]
  assert all(np.array_equal(epoch[np.argsort(epoch[:, 0])], expected) for epoch in epochs)
  assert len(set(map(tuple, orders))) == 4 and sorted(orders[0]) not in orders
  assert epochs[0].dtype == np.int32 and epochs[0].shape == (25, T + 1)


def test_the_order_never_changes_between_versions_and_machines(store):
  starts = windows(store, "a", seed=0, sequence_length=T).rows(np.arange(20))[:, 0]
  assert starts.tolist() == [1, 9, 21, 33, 17, 37, 5, 25, 13, 29, 21, 37, 33, 13, 9, 25, 5, 17, 1, 29]


def test_seeds_and_domains_are_shuffled_independently(store):
  first = {tuple(windows(store, d, seed, T).rows(np.arange(7))[:, 0].tolist()) for d in "abc" for seed in range(4)}
  assert len(first) == 12


def test_a_stream_is_a_map_dataset_of_grain(store):
  stream = mixture(store, {"a": 1, "b": 2}, seed=0, sequence_length=T)
  assert isinstance(stream, grain.MapDataset) and len(stream) == sys.maxsize
  batched = stream.map(lambda window: window * 2).batch(6)
  assert np.array_equal(batched[3], 2 * stream.rows(np.arange(18, 24)))
  assert np.array_equal(next(iter(stream[5:].to_iter_dataset())), stream[5])


@pytest.mark.parametrize("weights", [{"a": 1, "b": 1, "c": 1}, {"c": 0.7, "a": 0.1, "b": 0.2}, {"a": 3.3, "c": 999.9}])
def test_a_mixture_is_that_of_grain(store, weights):
  stream = mixture(store, weights, seed=5, sequence_length=T)
  names = sorted(weights)
  reference = grain.MapDataset.mix([windows(store, d, 5, T) for d in names], [weights[d] for d in names])
  indices = np.array([*range(400), 10**6 + 7, 10**9, 10**9 + 1])
  assert np.array_equal(stream.rows(indices), np.stack([reference[int(i)] for i in indices]))


@pytest.mark.parametrize("weights, round_of", [
    ({"a": 337, "b": 386}, {"a": 337, "b": 386}), ({"a": 386.0, "b": 386.0}, {"a": 1, "b": 1}), ({"a": 3.3, "c": 1000.0}, {"a": 33, "c": 10_000}),
    ({"a": 0.1, "b": 0.2, "c": 0.7}, {"a": 1, "b": 2, "c": 7}), ({"a": 1e-5, "b": 3e-5}, {"a": 1, "b": 3}), ({"a": 7e20, "b": 21e20}, {"a": 1, "b": 3})])
def test_shares_are_exact(store, weights, round_of):
  stream, length = mixture(store, weights, 0, T), sum(round_of.values())
  for first in (0, 17, 5 * 10**14):
    domains = [domain for domain, _ in stream.origins(np.arange(first, first + length))]
    assert {domain: domains.count(domain) for domain in weights} == round_of


def test_shares_that_no_short_round_has_are_off_by_less_than_a_billionth(store):
  weights = [1 / 3, 0.1234567890123456, 1e-4]
  shares = stream_module._proportions(weights)
  assert sum(shares) == 2**31
  assert all(abs(share / 2**31 - weight / sum(weights)) < 1e-9 for share, weight in zip(shares, weights))


def test_a_mixture_of_one_domain_is_its_stream_and_weight_zero_is_left_out(store):
  rows = np.arange(30)
  assert np.array_equal(mixture(store, {"a": 0.3, "b": 0}, 0, T).rows(rows), windows(store, "a", 0, T).rows(rows))


@pytest.mark.parametrize("weights, message", [
    ({"a": -1}, "domain a = -1"), ({"a": float("nan")}, "domain a = nan"), ({"a": 0}, "at least one"), ({}, "at least one"),
    ({"z": 1}, "no domain 'z'"), ({"a": 1e-9, "b": 1}, "further apart")])
def test_weights_that_cannot_be_are_refused(store, weights, message):
  with pytest.raises(InputError, match=message):
    mixture(store, weights, 0, T)


def runs(store):
  return [windows(store, "a", 0, T), mixture(store, {"a": 1, "b": 1, "c": 1}, 1, T), windows(store, "c", 2, T)]


def test_row_b_of_step_s_is_element_s_times_batch_size_plus_b(store):
  streams = runs(store)
  block = Batches(streams, batch_size=3).block(first_step=[0, 5, 1000], num_steps=4).tokens
  assert block.shape == (4, 3, 3, T + 1) and block.dtype == np.int32
  for s in range(4):
    for r, first in enumerate([0, 5, 1000]):
      for b in range(3):
        assert np.array_equal(block[s, r, b], streams[r][(first + s) * 3 + b])


def test_blocks_are_pieces_of_one_sequence_for_each_run_alone(store):
  batches = Batches(runs(store), batch_size=3)
  whole = batches.block([2, 4, 6], 10).tokens
  assert np.array_equal(np.concatenate([batches.block([2, 4, 6], 3).tokens, batches.block([5, 7, 9], 7).tokens]), whole)
  other = Batches([windows(store, "b", 9, T), *runs(store)[1:]], 3).block([40, 4, 6], 10).tokens
  assert np.array_equal(other[:, 1:], whole[:, 1:]) and not np.array_equal(other[:, 0], whole[:, 0])


def test_hosts_read_their_own_rows(store):
  batches = Batches(runs(store), batch_size=4)
  whole = batches.block([7, 7, 7], 2).tokens
  parts = [batches.block([7, 7, 7], 2, rows=slice(k, k + 2)).tokens for k in (0, 2)]
  assert np.array_equal(np.concatenate(parts, axis=2), whole)
  scattered = batches.block([7, 7, 7], 2, rows=np.array([0, 3]), runs=np.array([0, 2])).tokens  # As a host's chips lie on a torus.
  assert np.array_equal(scattered, whole[:, [0, 2]][:, :, [0, 3]])


def test_reading_ahead_changes_nothing(store):
  batches = Batches(runs(store), batch_size=2)
  requests = [([s, 2 * s, 0], n) for s, n in ((0, 3), (3, 1), (9, 5))]
  ahead = list(batches.blocks(iter(requests), rows=slice(1, 2)))
  assert [block.tokens.shape[0] for block in ahead] == [3, 1, 5] and {block.weights for block in ahead} == {None}
  assert all(np.array_equal(block.tokens, batches.block(*request, rows=slice(1, 2)).tokens) for block, request in zip(ahead, requests))
  assert list(batches.blocks([])) == []


def test_an_error_while_reading_ahead_reaches_the_loop(store):
  with pytest.raises(ValueError):
    list(Batches(runs(store), 2).blocks([([0, 0], 1)]))


def test_validation_windows_are_spread_evenly(store):
  everything, weights = validation(store, "c", T)
  assert weights is None
  assert np.array_equal(everything, store.windows("c", "valid", T)) and everything.dtype == np.int32
  assert validation(store, "c", T, max_tokens=5 * T).tokens[:, 0].tolist() == everything[::5, 0].tolist()
  assert [len(validation(store, "c", T, max_tokens=most).tokens) for most in (1, 10**9)] == [1, 25]
  with pytest.raises(InputError, match="valid split has 29 tokens"):
    validation(store, "b", 29)


def test_bytes_per_token_counts_separators(store):
  assert bytes_per_token(store, "a") == 80 / 41
