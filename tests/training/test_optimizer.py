import jax
import numpy as np
import optax
import pytest
from closeness import assert_near

from jaxsplit.errors import InputError
from jaxsplit.training.optimizer import Optimizer, Schedule, transformation


def rates(steps, **fields):
  fields = {"peak": 1.0, "warmup_start": 0, "warmup_end": 0, "decay_start": 0, "decay_end": 0, "mean_start": 0} | fields
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


def test_muon_orthogonalizes_every_matrix_of_layers_by_itself():
  """Against optax's own muon of each matrix, and Adam of the rest."""
  axes = {"in": ("layers", "embed", "kv_heads", None, "head_dim"), "out": ("layers", "mlp", "embed"), "table": ("vocab", "embed"),
          "bias": ("layers", "mlp")}
  shapes = {"in": (2, 6, 2, 3, 4), "out": (2, 5, 6), "table": (7, 6), "bias": (2, 5)}
  random = np.random.default_rng(0)
  gradients = [{name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(3)]
  ours = transformation(Optimizer("muon", clip_norm=1e9, weight_decay=0.0), axes)
  params = jax.tree.map(np.zeros_like, gradients[0])
  found = directions(ours, params, gradients)
  muon, adam = optax.contrib.muon(1.0, consistent_rms=0.2), optax.scale_by_adam(b1=0.9, b2=0.98)
  for name in ("table", "bias"):
    assert_near(found[name], directions(adam, params[name], [g[name] for g in gradients]), 1e-6)
  for name, matrices in (("in", lambda x: [x[i, :, :, m].reshape(6, 8) for i in range(2) for m in range(3)]), ("out", list)):
    for mine, *each in zip(matrices(found[name]), *(matrices(g[name]) for g in gradients)):
      theirs = directions(muon, np.zeros_like(each[0]), each)
      assert_near(mine, -theirs, 1e-5)
      values = np.linalg.svd(mine, compute_uv=False) / (0.2 * max(mine.shape) ** 0.5)
      assert 0.6 < values.min() and values.max() < 1.3


def directions(transform, params, gradients):
  """What the last of the gradients becomes."""
  state = transform.init(params)
  for gradient in gradients:
    direction, state = transform.update(gradient, state, params)
  return jax.tree.map(np.asarray, direction)


def test_muon_keeps_nothing_but_moments():
  """All is zero before the first step, as experts' moments are that begin afresh; and nothing is lost in bfloat16 but digits."""
  axes, params = {"w": ("layers", "embed", "mlp")}, {"w": np.ones((1, 4, 4), np.float32)}
  rough, exact = (transformation(Optimizer("muon", moments=moments), axes) for moments in ("bfloat16", "float32"))
  for transform in (rough, exact):
    assert all(not np.any(x) for x in jax.tree.leaves(transform.init(params)))
  gradients = [{"w": np.random.default_rng(i).normal(size=(1, 4, 4)).astype(np.float32)} for i in range(3)]
  assert_near(directions(rough, params, gradients), directions(exact, params, gradients), 0.05)


def test_an_optimizer_that_is_not_there_is_refused():
  with pytest.raises(InputError, match="Optimizer.name = 'moun': there is none of that name; did you mean muon"):
    Optimizer("moun")


def test_moments_in_bfloat16_need_a_short_average():
  with pytest.raises(InputError, match="Optimizer.b2 = 0.999"):
    Optimizer(b2=0.999, moments="bfloat16")
