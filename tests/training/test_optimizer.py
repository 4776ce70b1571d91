import jax
import numpy as np
import optax
import pytest
from closeness import assert_near

from jaxsplit.errors import InputError
from jaxsplit.training.optimizer import Optimizer, Schedule, transformation


def rates(steps, **fields):
  fields = {"peak": 1.0, "warmup_start": 0, "warmup_end": 0, "decay_start": 0, "decay_end": 0} | fields
  return [float(Schedule(**{k: np.float32(v) if k == "peak" else np.int32(v) for k, v in fields.items()}).rate(np.int32(s))) for s in steps]


def test_warm_up_is_linear_and_ends_on_its_step():
  assert rates([0, 1, 3, 4, 100], warmup_end=4) == [0.25, 0.5, 1.0, 1.0, 1.0]


def test_cooldown_is_linear_to_zero():
  assert rates([79, 80, 90, 99], decay_start=80, decay_end=100) == pytest.approx([1.0, 1.0, 0.5, 0.05])


def test_no_decay_without_a_cooldown():
  assert rates([10**6]) == [1.0]


def test_moments_reset_at_a_fork_warm_up_again():
  assert rates([100, 101, 104], warmup_start=100, warmup_end=104) == [0.25, 0.5, 1.0]


def test_update_is_adamw():
  """Against optax's own adamw at a constant rate, with decay on matrices only."""
  params = {"w": np.ones((3, 2), np.float32), "norm": {"scale": np.ones(3, np.float32)}}
  axes = {"w": ("embed", "mlp"), "norm": {"scale": ("embed",)}}
  ours, theirs = transformation(Optimizer(clip_norm=1.0), axes), optax.chain(
      optax.clip_by_global_norm(1.0), optax.adamw(0.1, 0.9, 0.98, weight_decay=0.1, mask={"w": True, "norm": {"scale": False}}))
  state, other, a, b = ours.init(params), theirs.init(params), params, params
  for i in range(3):
    gradient = jax.tree.map(lambda p: np.cos(np.arange(p.size, dtype=np.float32).reshape(p.shape) + i), params)
    direction, state = ours.update(gradient, state, a)
    a = jax.tree.map(lambda p, d: p - 0.1 * d, a, direction)
    update, other = theirs.update(gradient, other, b)
    b = optax.apply_updates(b, update)
  assert_near(a, b, 1e-6)


def test_moments_in_bfloat16_need_a_short_average():
  with pytest.raises(InputError, match="Optimizer.b2 = 0.999"):
    Optimizer(b2=0.999, moments="bfloat16")
