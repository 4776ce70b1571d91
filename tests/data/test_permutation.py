"""The shuffle: a permutation for every number of things, alike for all orders, and computed at once where it is asked for."""

import collections
import math
import time
import tracemalloc

import numpy as np
import pytest

from jaxsplit.data.permutation import Permutation


@pytest.mark.parametrize("n", [1, 2, 3, 7, 16, 17, 100, 101, 4097, 65_537])
def test_every_number_is_there_once(n):
  assert np.array_equal(np.sort(Permutation(n, (1, 2))(np.arange(n))), np.arange(n))


def test_all_orders_of_few_things_are_as_frequent():
  count = collections.Counter(tuple(Permutation(4, (7, epoch))(np.arange(4)).tolist()) for epoch in range(4800))
  assert len(count) == math.factorial(4)
  assert sum((number - 200)**2 / 200 for number in count.values()) < 60  # Chi-square of 23 degrees of freedom: 1 in 40,000.


def test_no_place_and_no_neighbour_is_preferred():
  n, epochs = 25, 2000
  places, neighbours = np.zeros((n, n)), np.zeros((n, n))
  for epoch in range(epochs):
    order = Permutation(n, (3, epoch))(np.arange(n))
    places[np.arange(n), order] += 1
    neighbours[order[:-1], order[1:]] += 1
  for table, free in ((places, (n - 1)**2), (neighbours[~np.eye(n, dtype=bool)], n * (n - 1))):
    assert abs(((table - epochs / n)**2 / (epochs / n)).sum() / free - 1) < 6 * math.sqrt(2 / free)


def test_a_billion_windows_take_no_time_and_no_memory():
  tracemalloc.start()
  began = time.process_time()
  numbers = Permutation(10**9, (1, 5))(np.arange(16))
  took, (_, most) = time.process_time() - began, tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert took < 0.1 and most < 1 << 17
  assert len(set(numbers.tolist())) == 16 and 0 <= numbers.min() and numbers.max() < 10**9 and np.ptp(numbers) > 10**8


def test_the_network_is_that_of_whole_numbers_of_any_size():
  n, key = 1000, (11, 4)
  a = math.isqrt(n - 1) + 1
  b = -(-n // a)
  keys = [int(word) for word in np.random.Philox(key=list(key)).random_raw(12)]

  def mixed(x):
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
      x = (x ^ x >> shift) * factor % (1 << 64)
    return x ^ x >> 31

  def sent(x):
    left, right = divmod(x, b)
    for i, word in enumerate(keys):
      left, right = ((left + mixed(right ^ word)) % a, right) if i % 2 == 0 else (left, (right + mixed(left ^ word)) % b)
    return left * b + right

  expected = []
  for x in range(n):
    x = sent(x)
    while x >= n:
      x = sent(x)
    expected.append(x)
  assert Permutation(n, key)(np.arange(n)).tolist() == expected
