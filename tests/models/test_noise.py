"""Noise: the generator is the one that JAX has, and its numbers are normal and independent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32

from jaxsplit.models import noise
from jaxsplit.models.config import Architecture

SHAPE = (50, 40, 30)


def draw(seed=0, stream=0, shape=SHAPE):
  return np.asarray(jax.jit(lambda seed: noise.normal(seed, stream, shape))(jnp.uint32(seed)), float)


def test_the_generator_is_jaxs_to_the_bit():
  random = np.random.default_rng(0)
  words = lambda count: jnp.asarray(random.integers(0, 1 << 32, count, np.uint32))
  key, x, y = words(2), words(1000), words(1000)
  mine, theirs = noise.threefry((key[0], key[1]), (x, y)), threefry_2x32(key, jnp.concatenate([x, y]))
  np.testing.assert_array_equal(jnp.concatenate(mine), theirs)


def test_numbers_are_standard_normal():
  numbers, few = draw().ravel(), 5 / np.sqrt(np.prod(SHAPE))  # Five standard errors of a mean.
  for power, moment, deviation in ((1, 0, 1), (2, 1, 2**0.5), (4, 3, 96**0.5)):
    assert abs((numbers**power).mean() - moment) < few * deviation
  assert abs((np.abs(numbers) < 1).mean() - 0.6827) < few and np.isfinite(numbers).all()


@pytest.mark.parametrize("one, other", [
    (draw(), draw(seed=1)), (draw(), draw(stream=1)), (draw(stream=255), draw(seed=255)), (draw()[1:], draw()[:-1]),
    (draw()[:, 1:], draw()[:, :-1]), (draw()[..., 1:], draw()[..., :-1]),
], ids=["seeds", "streams", "either", "rows", "columns", "neighbours"])
def test_numbers_are_independent(one, other):
  assert abs((one * other).mean()) < 5 / np.sqrt(one.size)


def test_weights_have_their_standard_deviations():
  config = Architecture(head_dim=32, mlp_ratio=4).at(64, 2, 300, 16)
  params = config.initialize(jnp.uint32(0))
  layers = params["layers"]
  of = [(1, params["embed_VxD"]), (64**-0.5, params["unembed_DxV"]),
        (64**-0.5, layers["attention"]["in_DxGxMxd"]), ((64 * 4) ** -0.5, layers["attention"]["out_GxQxdxD"]),
        (64**-0.5, layers["mlp"]["in_Dx2xF"]), ((256 * 4) ** -0.5, layers["mlp"]["out_FxD"])]
  for std, weights in of:
    assert np.std(weights) / std == pytest.approx(1, abs=5 / np.sqrt(2 * weights.size))
