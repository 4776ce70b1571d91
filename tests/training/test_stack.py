"""Run stacks: one run is a plain model, many are that many runs, and none touches another."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import assert_near
from jax.sharding import PartitionSpec as P

from jaxsplit.data.stream import Windows
from jaxsplit.evaluation.perplexity import compile_held_out, held_out
from jaxsplit.models.config import Architecture
from jaxsplit.models.loss import token_losses
from jaxsplit.parallel import sharding
from jaxsplit.parallel.sharding import Layout, Machine
from jaxsplit.training import fork, stack
from jaxsplit.training.compiler import BackgroundCompiler
from jaxsplit.training.optimizer import Optimizer, Schedule
from jaxsplit.training.stack import StackSpec

ONE_DEVICE, TWO_DEVICES = Layout(devices=1), Layout(devices=2)
STEPS, BATCH, LENGTH = 4, 2, 8


def spec(runs, layout=ONE_DEVICE, runs_per_map=1, **architecture):
  config = Architecture(head_dim=8, **architecture).at(16, 2, 20, LENGTH)
  return StackSpec(config, Optimizer(), layout, runs, runs_per_map, BATCH, end_of_document=0)


def tokens(runs, seed=0):
  return np.random.default_rng(seed).integers(1, 20, (STEPS, runs, BATCH, LENGTH + 1)).astype(np.int32)


def schedule(runs):
  zeros = np.zeros(runs, np.int32)
  return Schedule(np.linspace(1e-3, 1e-2, runs).astype(np.float32), zeros, zeros + 2, zeros + 3, zeros + 8, zeros)


def train(s, state, block, steps=STEPS, plan=None):
  return stack.train_block(s)(state, block, np.int32(steps), plan or schedule(s.runs))


def row(tree, r):
  return jax.tree.map(lambda x: np.asarray(x[r]), tree)


def assert_states_near(found, expected, within):
  for part in ("params", "moments"):
    assert_near(found[part], expected[part], within)
  assert_equal(found["step"], expected["step"])


def assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def three():
  """Three runs trained one after another on one device: (spec, tokens, end state, metrics)."""
  s, block = spec(3), tokens(3)
  state, metrics = train(s, stack.initialize(s, [1, 2, 3]), block)
  return s, block, jax.device_get(state), jax.device_get(metrics)


def test_a_mean_is_of_the_weights_after_each_step_since_its_start():
  plain, block = spec(2), tokens(2)
  averaging, start = dataclasses.replace(plain, averages=True), np.array([1, 7], np.int32)  # The second run's does not begin here.
  plan, after = schedule(2)._replace(mean_start=start), []
  state = mean = stack.initialize(plain, [1, 2])
  for step in range(STEPS):
    state, _ = train(plain, state, block[step:], 1)
    after.append(jax.device_get(state["params"]))
  mean, _ = train(averaging, stack.initialize(averaging, [1, 2]), block, 3, plan)
  mean, _ = train(averaging, mean, block[3:], 1, plan)
  assert_equal(mean["params"], state["params"])
  expected = jax.tree.map(lambda *each: np.mean(each, axis=0, dtype=np.float64)[0], *after[1:])
  assert_near(row(mean["mean"], 0), expected, 1e-6)
  assert_equal(row(mean["mean"], 1), row(state["params"], 1))


def test_a_mean_is_the_same_on_two_devices():
  block, plan = tokens(2), schedule(2)._replace(mean_start=np.array([1, 2], np.int32))
  one, two = (dataclasses.replace(spec(2, layout), averages=True) for layout in (ONE_DEVICE, TWO_DEVICES))
  alone, shared = (jax.device_get(train(s, stack.initialize(s, [1, 2]), block, plan=plan)[0]) for s in (one, two))
  assert_near(shared["mean"], alone["mean"], 1e-6)
  assert not np.array_equal(jax.tree.leaves(alone["mean"])[0], jax.tree.leaves(alone["params"])[0])


def test_a_fork_takes_weights_from_stacks_with_and_without_a_mean():
  plain, averaging = spec(2), dataclasses.replace(spec(2), averages=True)
  with_mean = stack.initialize(averaging, [1, 2])
  with_mean["mean"] = jax.tree.map(jnp.zeros_like, with_mean["mean"])
  forked = fork.gather(plain, [with_mean], [1, 0])
  assert "mean" not in forked
  assert_equal(row(forked["params"], 0), row(with_mean["params"], 1))
  both = fork.gather(averaging, [with_mean, forked], [3, 0])
  assert_equal(row(both["params"], 0), row(with_mean["params"], 0))
  assert_equal(row(both["mean"], 0), row(both["params"], 0))
  assert not any(np.any(x) for x in jax.tree.leaves(row(both["mean"], 1)))  # As it resumes with other idle runs.


def test_a_stack_of_one_is_a_plain_model():
  s, block, plan = spec(1), tokens(1), schedule(1)
  state = stack.initialize(s, [5])
  params = row(state["params"], 0)
  moments = s.transformation.init(params)
  losses = []

  @jax.jit
  @jax.value_and_grad
  def loss_and_gradient(p, windows):
    x, unembed = s.model.apply(p, windows[:, :-1], 0)
    return jnp.mean(token_losses(x, unembed, windows[:, 1:]))

  update = jax.jit(s.transformation.update)
  for i in range(STEPS):
    value, gradient = loss_and_gradient(params, block[i, 0])
    direction, moments = update(gradient, moments, params)
    rate = Schedule(*(a[0] for a in plan)).rate(np.int32(i))
    params = optax.apply_updates(params, jax.tree.map(lambda d: -rate * d, direction))
    losses.append(float(value))
  state, metrics = train(s, state, block)
  np.testing.assert_allclose(metrics["loss"][:, 0], losses, rtol=1e-5)
  assert_near(row(state["params"], 0), params, 1e-5)
  assert int(state["step"][0]) == STEPS


def test_a_stack_of_many_is_that_many_runs(three):
  _, block, state, metrics = three
  one = spec(1)
  for r, seed in enumerate([1, 2, 3]):
    plan = Schedule(*(a[r:r + 1] for a in schedule(3)))
    alone, alone_metrics = train(one, stack.initialize(one, [seed]), block[:, r:r + 1], plan=plan)
    np.testing.assert_allclose(metrics["loss"][:, r], alone_metrics["loss"][:, 0], rtol=1e-5)
    assert_near(row(alone["params"], 0), row(state["params"], r), 1e-5)


@pytest.mark.parametrize("layout, runs_per_map, exact", [(ONE_DEVICE, 1, True), (ONE_DEVICE, 0, False)], ids=["map", "vmap"])
def test_one_run_perturbed_leaves_the_others_as_they_were(layout, runs_per_map, exact):
  s, block = spec(3, layout, runs_per_map), tokens(3)
  state, _ = train(s, stack.initialize(s, [1, 2, 3]), block)
  before = jax.device_get(state)
  block[:, 1] = tokens(3, seed=9)[:, 1]
  state, _ = train(s, stack.initialize(s, [1, 2, 3]), block)
  assert np.abs(before["params"]["embed_VxD"][1] - state["params"]["embed_VxD"][1]).max() > 1e-4
  for r in (0, 2):
    if exact:
      assert_equal(row(before, r), row(state, r))
    else:
      assert_states_near(row(before, r), row(state, r), 3e-7)


def test_runs_sharded_over_devices_are_the_runs():
  one, two = spec(2), spec(2, TWO_DEVICES)
  assert two.mesh.shape["expert"] == 2
  block = tokens(2)
  a, _ = train(one, stack.initialize(one, [1, 2]), block)
  b, _ = train(two, stack.initialize(two, [1, 2]), block)
  assert_states_near(jax.device_get(a), jax.device_get(b), 1e-6)


def test_no_collective_between_experts():
  s = spec(2, TWO_DEVICES)
  text = stack.train_block(s).lower(s.abstract, tokens(2), np.int32(STEPS), schedule(2)).compile().as_text()
  assert not [line for line in text.splitlines() if any(f" {op}(" in line for op in ("all-reduce", "all-gather", "all-to-all", "collective-permute"))]


def test_one_run_on_two_devices_shares_its_batch(three):
  s, block, state, _ = three
  split = dataclasses.replace(s, layout=Layout(data=2, devices=2))
  assert dict(split.mesh.shape) == {"expert": 1, "data": 2, "tensor": 1}
  halves = jax.device_put(block, sharding.batch_sharding(split.mesh))
  assert halves.sharding.shard_shape(halves.shape)[2] == block.shape[2] // 2
  shared, _ = train(split, stack.initialize(split, [1, 2, 3]), halves)
  assert_near(jax.device_get(shared["params"]), state["params"], 1e-5)


def test_parts_of_a_batch_make_the_same_update(three):
  s, block, state, metrics = three
  parts, part_metrics = train(dataclasses.replace(s, accumulation=2), stack.initialize(s, [1, 2, 3]), block)
  np.testing.assert_allclose(part_metrics["loss"], metrics["loss"], rtol=1e-5)
  assert_near(jax.device_get(parts["params"]), state["params"], 1e-5)


@pytest.mark.parametrize("change", [{}, {"accumulation": 2}, {"layout": Layout(data=2, devices=2)}], ids=["whole", "parts", "shared"])
def test_targets_weigh_as_much_in_whichever_part_and_device_they_are(three, change):
  """Weights that differ between examples, so that halves of a batch differ in what they count."""
  s, block, _, _ = three
  weights = np.random.default_rng(3).choice([0, 0.5, 1, 2], (STEPS, 3, BATCH, LENGTH), p=[0.4, 0.2, 0.2, 0.2]).astype(np.float32)
  weights[:, :, 0, 1:] = 0
  weights[:, :, 0, 0] = 1
  weighted = dataclasses.replace(s, weighted=True, **change)
  put = lambda part: jax.device_put(part, sharding.batch_sharding(weighted.mesh))
  state, metrics = stack.train_block(weighted)(
      stack.initialize(weighted, [1, 2, 3]), put(block), np.int32(1), schedule(3), put(weights))
  optimizer = s.transformation
  for r in range(3):
    params = row(stack.initialize(s, [1, 2, 3])["params"], r)

    def mean(p):
      x, unembed = s.model.apply(p, block[0, r, :, :-1], 0)
      return jnp.sum(token_losses(x, unembed, block[0, r, :, 1:]) * weights[0, r]) / weights[0, r].sum()

    value, gradient = jax.value_and_grad(mean)(params)
    np.testing.assert_allclose(metrics["loss"][0, r], value, rtol=1e-5)
    np.testing.assert_allclose(metrics["gradient_norm"][0, r], optax.tree.norm(gradient), rtol=1e-5)
    assert_near(row(state["moments"], r), optimizer.update(gradient, optimizer.init(params), params)[1], 1e-5)


def test_weights_that_are_all_the_same_change_nothing(three):
  s, block, state, metrics = three
  weighted = dataclasses.replace(s, weighted=True)
  same, same_metrics = stack.train_block(weighted)(stack.initialize(s, [1, 2, 3]), block, np.int32(STEPS), schedule(3),
                                                   np.full((STEPS, 3, BATCH, LENGTH), 0.5, np.float32))
  np.testing.assert_allclose(same_metrics["loss"], metrics["loss"], rtol=1e-6)
  assert_near(jax.device_get(same["params"]), state["params"], 1e-5)


def test_moments_may_be_kept_in_bfloat16(three):
  s, block, _, metrics = three
  halved = dataclasses.replace(s, optimizer=Optimizer(moments="bfloat16"))
  state, half_metrics = train(halved, stack.initialize(halved, [1, 2, 3]), block)
  floats = [x for x in jax.tree.leaves(state["moments"]) if jnp.issubdtype(x.dtype, jnp.floating)]
  assert floats and {x.dtype for x in floats} == {jnp.dtype(jnp.bfloat16)}
  np.testing.assert_allclose(half_metrics["loss"], metrics["loss"], rtol=2e-3)
  assert_equal(jax.device_get(fork.gather(halved, [state], [0, 1, 2])), jax.device_get(state))


def test_a_part_of_a_block_is_that_many_steps(three):
  s, block, state, metrics = three
  first, early = train(s, stack.initialize(s, [1, 2, 3]), block, steps=3)
  np.testing.assert_array_equal(early["loss"][3], 0)
  rest = np.concatenate([block[3:], block[:3]])
  second, _ = train(s, first, rest, steps=1)
  assert_equal(jax.device_get(second), state)
  np.testing.assert_array_equal(early["loss"][:3], metrics["loss"][:3])


def test_fork_equals_its_parents_exactly(three):
  s, _, state, _ = three
  rows = [2, 0, 0, 5, 3]
  forked = fork.gather(spec(5), [state, stack.initialize(s, [7, 8, 9])], rows)
  other = stack.initialize(s, [7, 8, 9])
  for r, parent in enumerate(rows):
    assert_equal(row(forked, r), row(state, parent) if parent < 3 else row(other, parent - 3))


def test_fork_of_many_parents_is_shared_out_between_device_groups(three):
  s, _, state, _ = three
  many = spec(4, TWO_DEVICES)
  before = lambda rows: fork.parents_of(many, [rows])[0]["params"]["embed_VxD"]
  assert before(3).shape == (3, 20, 16) and before(3).sharding.spec == P(None, ("tensor", "expert"), None)
  assert before(2).sharding.spec == P(None, "tensor", None)  # No more than each group will have of its own.
  forked = fork.gather(many, [state], [2, 0, 0, 1])
  assert forked["params"]["embed_VxD"].sharding == many.abstract["params"]["embed_VxD"].sharding
  for r, parent in enumerate([2, 0, 0, 1]):
    assert_equal(row(forked, r), row(state, parent))


def test_parents_are_sharded_as_experts_will_be():
  layout = Layout(expert=2, data=2, tensor=2, fsdp=True, devices=8)
  s = dataclasses.replace(spec(2, layout), elsewhere=Machine("tpu", 8, 2**34))
  of = lambda rows: fork.parents_of(s, [rows])[0]["params"]["embed_VxD"].sharding.spec
  assert (of(1), of(4)) == (P(None, "tensor", "data"), P(None, ("tensor", "expert"), "data"))


def test_fork_may_reset_moments(three):
  _, _, state, _ = three
  forked = fork.gather(spec(2), [state], [0, 1], keep_moments=False)
  assert all(not np.any(x) for x in jax.tree.leaves(forked["moments"]))
  assert_equal(row(forked["params"], 1), row(state["params"], 1))
  assert int(forked["step"][1]) == STEPS


def test_a_step_that_is_not_finite_is_left_out_of_its_run_alone(three):
  s, block, state, _ = three
  fresh = stack.initialize(s, [1, 2, 3])
  fresh["params"]["norm"]["scale"] = fresh["params"]["norm"]["scale"].at[1].set(jnp.inf)
  before = row(fresh, 1)
  after, metrics = train(s, fresh, block)
  np.testing.assert_array_equal(metrics["skipped"], [[0, 1, 0]] * STEPS)
  assert_equal(row(after["params"], 1), before["params"])
  assert_equal(row(after["moments"], 1), before["moments"])
  for r in (0, 2):
    assert_equal(row(after, r), row(state, r))


def test_programs_compiled_ahead_are_the_ones_that_run():
  s = dataclasses.replace(spec(2, TWO_DEVICES), batch=3)
  windows = [[Windows(np.ones((5, LENGTH + 1), np.int32))]] * 2
  block = np.ones((STEPS, 2, 3, LENGTH + 1), np.int32)
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
      lambda event, *_, **about: compiled.append(about.get("fun_name")) if event.endswith("backend_compile_duration") else None)
  ahead = BackgroundCompiler()
  for name, compile in (("new", lambda: stack.compile_initialization(s)), ("train", lambda: stack.compile_training(s, STEPS)),
                        ("evaluate", lambda: compile_held_out(s, 5))):
    ahead.ask(name, compile)
    ahead.wait(name)
    compile()
  num_steps = jax.device_put(np.int32(STEPS), sharding.replicated(s.mesh))
  before = {name for name in compiled if name}
  assert before
  compiled.clear()
  on_mesh = sharding.run_sharding(s.mesh)
  state, _ = stack.train_block(s)(
      stack.initialize(s, [1, 2]), jax.device_put(block, sharding.batch_sharding(s.mesh)), num_steps, jax.device_put(schedule(2), on_mesh))
  held_out(s, state, windows)
  assert not before & set(compiled)
  ahead.close()
