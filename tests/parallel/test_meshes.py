"""Eight devices: runs on meshes of their own are the runs, never speak to each other, and take over what other meshes have saved.

The devices are emulated, in one process of their own (this file, run as a program), which writes down what the tests look at.
"""

import dataclasses
import itertools
import json
import math
import pathlib
import re
import sys

import numpy as np
import pytest
from alone import run_alone

RUNS, STEPS, BATCH, LENGTH = 4, 20, 8, 8
OPERATIONS = "all-reduce|all-gather|reduce-scatter|collective-permute|collective-broadcast|all-to-all|ragged-all-to-all"


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
  """What the process of 8 devices has seen."""
  return run_alone(__file__, tmp_path_factory.mktemp("meshes"))


@pytest.mark.parametrize("mesh", ["data", "fsdp"])
def test_runs_on_two_devices_each_are_the_runs_one_after_another_on_one(seen, mesh):
  found = seen[mesh]
  assert found["shape"] == {"expert": 4, "data": 2, "tensor": 1}
  assert found["losses"] < 1e-5 and found["parameters"] < 1e-5
  assert found["learned"] > 100 * 1e-5 and found["fell"] > 0.01  # It is no wonder that what stands still is the same.


@pytest.mark.parametrize("mesh", ["data", "fsdp"])
def test_collectives_stay_within_a_runs_devices(seen, mesh):
  assert seen[mesh]["devices"] == list(range(8))  # In the mesh's order: devices 2r and 2r + 1 have run r.
  groups = [groups_of(line) for line in seen[mesh]["collectives"]]
  assert groups and all(groups)
  for line, those in zip(seen[mesh]["collectives"], groups):
    assert not crossing(those), line
  assert any(len(group) == 2 for those in groups for group in those)


def test_a_sum_over_runs_would_be_found(seen):
  assert any(crossing(groups_of(line)) for line in seen["summed over runs"])


def test_a_stack_saved_on_another_mesh_is_restored_and_forked_to_the_bit(seen):
  found = seen["moved"]
  assert found["from"] == {"expert": 1, "data": 8, "tensor": 1} and found["to"] == {"expert": 4, "data": 2, "tensor": 1}
  assert found["shards before"] == 8 and found["trained"] > 0
  assert found["restored"] == found["forked"] == {"params": True, "moments": True, "step": True}
  assert found["fingerprints"] == found["sharded as planned"] == [True, True]


def test_a_stack_goes_on_on_another_mesh_as_it_would_have(seen):
  assert seen["moved"]["goes on"] < 1e-5


def test_another_family_and_optimizer_are_shared_out_as_well(seen):
  """GPT-2 by Muon, over runs, data and heads: it trains as on one device, and goes on from there on another mesh."""
  found = seen["gpt2 by muon"]
  assert found["shape"] == {"expert": 2, "data": 2, "tensor": 2}
  assert found["losses"] < 1e-5 and found["restored"]
  assert found["learned"] > 1e-3 and max(found["parameters"], found["goes on"]) < 1e-5
  assert found["weights"] == found["moments"] == ["expert", None, "data", None, "tensor", None]


@pytest.mark.parametrize("mesh", ["together", "one by one", "whole", "shared out"])
def test_first_weights_depend_on_no_mesh_and_no_other_run(seen, mesh):
  assert seen["new"][mesh]["apart"] == 0.0


@pytest.mark.parametrize("mesh", ["together", "one by one", "whole", "shared out"])
def test_making_weights_takes_no_more_memory_than_keeping_them(seen, mesh):
  assert seen["new"][mesh]["temporary"] < 0.3 * seen["new"][mesh]["largest"]


def test_devices_that_share_a_run_share_its_evaluation(seen):
  one, shared = seen["evaluated"]["1"], seen["evaluated"]["8"]
  assert shared["flops"] < one["flops"] / 7
  for whose, name in itertools.product(("own", "same"), one["own"]):
    np.testing.assert_allclose(shared[whose][name], one[whose][name], rtol=1e-5)
    np.testing.assert_allclose(seen["evaluated"]["2"][whose][name], one[whose][name], rtol=1e-5)
  assert one["own"]["windows"][0] == one["same"]["windows"][0] and one["own"]["windows"][1] != one["same"]["windows"][1]
  assert all(not crossing(groups_of(line)) for line in seen["evaluated"]["2"]["collectives"])


@pytest.mark.parametrize("text, groups", [
    ("replica_groups={{0,1},{2,3}}, use_global_device_ids=true", [[0, 1], [2, 3]]),
    ("replica_groups=[4,2]<=[8], use_global_device_ids=true", [[0, 1], [2, 3], [4, 5], [6, 7]]),
    ("replica_groups=[2,4]<=[4,2]T(1,0), use_global_device_ids=true", [[0, 2, 4, 6], [1, 3, 5, 7]]),
    ("replica_groups=[4,2]<=[2,2,2]T(2,1,0), use_global_device_ids=true", [[0, 4], [2, 6], [1, 5], [3, 7]]),
    ("replica_groups=mesh['a'=4,'b'=1,'c'=2] {'a'}, use_global_device_ids=true", [[0, 2, 4, 6], [1, 3, 5, 7]]),
    ("replica_groups=mesh['a'=4,'b'=2] {'b'}, use_global_device_ids=true", [[0, 1], [2, 3], [4, 5], [6, 7]]),
    ("replica_groups={}, use_global_device_ids=true", [list(range(8))]),
    ("source_target_pairs={{0,1},{1,0},{5,4}}", [[0, 1], [1, 0], [5, 4]]),
])
def test_groups_are_read_as_they_are_written(text, groups):
  assert groups_of(f"%x = f32[2] all-reduce(%y), channel_id=1, {text}, to_apply=%add") == groups
  assert crossing([[1, 2]]) and crossing([[0, 1], [4, 6]]) and not crossing([[0, 1], [7, 6], [3]])


def groups_of(line):
  """The groups of devices of an HLO collective."""
  pairs = re.search(r"source_target_pairs=\{((?:\{[\d,]*\},?)*)\}", line)
  if pairs:
    return _listed(pairs[1])
  assert "use_global_device_ids=true" in line or re.search(r"all-to-all(-start)?\(", line), line  # The numbers are devices'.
  tiled = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
  if tiled:
    shape, of, order = ([int(n) for n in text.split(",")] if text else None for text in tiled.groups())
    return np.arange(math.prod(of)).reshape(of).transpose(order).reshape(shape).tolist()
  mesh = re.search(r"replica_groups=mesh\[('\w+'=\d+(?:,'\w+'=\d+)*)\] \{('\w+'(?:,'\w+')*)\}, ", line)
  if mesh:
    names, sizes = zip(*(axis.split("=") for axis in mesh[1].split(",")))
    among = [names.index(name) for name in mesh[2].split(",")]
    shape = [int(size) for size in sizes]
    devices = np.moveaxis(np.arange(math.prod(shape)).reshape(shape), among, range(-len(among), 0))
    return devices.reshape(-1, math.prod(shape[axis] for axis in among)).tolist()
  listed = re.search(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}", line)
  assert listed, line
  return _listed(listed[1]) or [list(range(8))]


def _listed(text):
  return [[int(n) for n in group.split(",")] for group in re.findall(r"[\d,]*\d", text.replace("},{", " "))]


def crossing(groups):
  """Those of the groups in which devices of several runs are."""
  return [group for group in groups if len({device // 2 for device in group}) > 1]


def look(folder):
  """What the tests look at, in a process of 8 devices."""
  import jax
  jax.config.update("jax_num_cpu_devices", 8)
  import jax.numpy as jnp

  from jaxsplit.checkpoint.checkpoints import Checkpoints
  from jaxsplit.data.stream import Windows
  from jaxsplit.evaluation import likelihood
  from jaxsplit.evaluation.perplexity import held_out
  from jaxsplit.models.config import Architecture
  from jaxsplit.parallel import placement, sharding
  from jaxsplit.parallel.sharding import Layout
  from jaxsplit.training import fork, stack
  from jaxsplit.training.fingerprint import fingerprint
  from jaxsplit.training.optimizer import Optimizer, Schedule
  from jaxsplit.training.stack import StackSpec

  model = Architecture(head_dim=8).at(16, 1, 32, LENGTH)
  one = StackSpec(model, Optimizer(), Layout(devices=1), 1, 1, BATCH, end_of_document=0)
  on = lambda runs=RUNS, **layout: dataclasses.replace(one, layout=Layout(devices=8, **layout), runs=runs)
  # Runs of other rates, of which each begins slowly: Adam's first updates are signs, also of gradients that are but rounding.
  plan = Schedule(np.linspace(2e-4, 5e-4, RUNS, dtype=np.float32), *(np.full(RUNS, n, np.int32) for n in (0, 10, 0, 0, 0)))
  rng, seeds = np.random.default_rng(0), list(range(RUNS))
  tokens = np.minimum(rng.geometric(0.15, (STEPS, RUNS, BATCH, LENGTH + 1)), 31).astype(np.int32)  # Some are frequent.

  def trained(spec, state, rows=slice(None), steps=STEPS):
    mesh, of_rows = spec.mesh, Schedule(*(values[rows] for values in plan))
    state, metrics = stack.train_block(spec)(
        state, placement.put(tokens[:, rows], sharding.batch_sharding(mesh)),
        placement.put(np.int32(steps), sharding.replicated(mesh)), placement.put(of_rows, sharding.run_sharding(mesh)))
    return state, np.asarray(metrics["loss"])[:steps]

  def furthest(one, other):
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.max(np.abs(np.asarray(a, float) - np.asarray(b, float)))) for a, b in leaves)

  new = jax.device_get(stack.initialize(on(expert=4, data=2), seeds))
  fresh = lambda spec: jax.device_put(new, spec.shardings)  # To compile it for one mesh is enough.
  alone = [trained(one, stack.initialize(one, [seed]), slice(r, r + 1)) for r, seed in enumerate(seeds)]
  params = jax.tree.map(lambda *rows: np.concatenate(rows), *(jax.device_get(state["params"]) for state, _ in alone))
  losses = np.concatenate([values for _, values in alone], axis=1)

  # What it learned of its own windows: those of one step are too few to tell.
  own = lambda state, r: held_out(one, state, [[Windows(tokens[:, r].reshape(-1, LENGTH + 1))]])["loss"].item()
  fell = min(own(stack.initialize(one, [seed]), r) - own(alone[r][0], r) for r, seed in enumerate(seeds))

  def collectives(program, *arguments):
    text = program.lower(*arguments).compile().as_text()
    return [line.strip() for line in text.splitlines() if re.search(rf" ({OPERATIONS})(-start)?\(", line)]

  seen = {}
  for name, fsdp in (("data", False), ("fsdp", True)):
    spec = on(expert=4, data=2, fsdp=fsdp)
    state, values = trained(spec, fresh(spec))
    seen[name] = {
        "shape": dict(spec.mesh.shape), "devices": [device.id for device in spec.mesh.devices.ravel()],
        "losses": float(np.max(np.abs(values / losses - 1))), "parameters": furthest(jax.device_get(state["params"]), params),
        "learned": furthest(params, new["params"]), "fell": fell,
        "collectives": collectives(stack.train_block(spec), *stack._training_arguments(spec, STEPS))}
  seen["summed over runs"] = collectives(
      jax.jit(lambda params: jax.tree.map(lambda x: jnp.sum(x, axis=0), params)), on(expert=4, data=2).abstract["params"])

  def made(**change):
    spec = dataclasses.replace(on(), model=larger, **change)
    memory = stack._compiled_initialize(spec).lower(jax.ShapeDtypeStruct((RUNS,), jnp.uint32)).compile().memory_analysis()
    return {"apart": furthest(jax.device_get(stack.initialize(spec, seeds)["params"]), apart), "temporary": memory.temp_size_in_bytes,
            "largest": max(math.prod(x.sharding.shard_shape(x.shape)) * 4 for x in jax.tree.leaves(spec.abstract["params"]))}

  larger = Architecture(head_dim=8).at(32, 2, 512, LENGTH)
  alone_of = lambda seed: stack.initialize(dataclasses.replace(one, model=larger), [seed])["params"]
  apart = jax.tree.map(lambda *rows: np.concatenate(rows), *(jax.device_get(alone_of(seed)) for seed in seeds))
  seen["new"] = {
      "together": made(layout=Layout(devices=1), runs_per_map=0), "one by one": made(layout=Layout(devices=1)),
      "whole": made(layout=Layout(expert=4, data=2, devices=8), runs_per_map=0),
      "shared out": made(layout=Layout(expert=2, data=2, tensor=2, fsdp=True, devices=8), runs_per_map=0)}

  # Windows of each run's own and windows that all read, in which other targets count.
  windows, counts = np.minimum(rng.geometric(0.15, (RUNS, 13, LENGTH + 1)), 31), rng.integers(0, 3, (RUNS, 13, LENGTH)) / 2
  measures = ("total", "greedy", "windows", "targets")
  seen["evaluated"] = {}
  for data, spec in ((1, dataclasses.replace(one, runs=RUNS)), (2, on(expert=4, data=2)), (8, on(expert=1, data=8))):
    program, arguments = likelihood._program(spec, measures), likelihood._arguments(dataclasses.replace(spec, weighted=True), 13)
    params = fresh(spec)["params"]
    own = likelihood.log_probabilities(spec, params, windows, counts, measures)
    same = likelihood.log_probabilities(spec, params, windows[:1], counts[0], measures)
    seen["evaluated"][data] = {
        "flops": program.lower(*arguments).compile().cost_analysis()["flops"], "collectives": collectives(program, *arguments),
        "own": {name: value.tolist() for name, value in own.items()}, "same": {name: value.tolist() for name, value in same.items()}}

  wide, narrow = on(expert=1, data=8, fsdp=True), on(expert=4, data=2, fsdp=True)
  begun, _ = trained(wide, fresh(wide), steps=5)
  there, prints = jax.device_get(begun), fingerprint(begun)
  seed = jax.device_put(jax.tree.map(lambda x: x[2:3], there), on(1, expert=1, data=8, fsdp=True).shardings)
  snapshots = Checkpoints(folder / "snapshots")
  snapshots.save("stack", 5, begun, {})
  snapshots.save("seed", 5, seed, {})
  moved = {
      "restored": (snapshots.restore("stack", 5, narrow.abstract), seeds),
      "forked": (fork.gather(narrow, [snapshots.restore("seed", 5, fork.parents_of(narrow, [1])[0])], [0] * RUNS), [2] * RUNS)}
  equal = lambda part, state, rows: all(
      np.array_equal(np.asarray(a), b[rows]) for a, b in zip(jax.tree.leaves(state[part]), jax.tree.leaves(there[part])))
  as_planned = lambda state: all(jax.tree.leaves(jax.tree.map(
      lambda x, to: x.sharding.is_equivalent_to(to.sharding, x.ndim), state, narrow.abstract)))
  seen["moved"] = {
      "from": dict(wide.mesh.shape), "to": dict(narrow.mesh.shape), "trained": furthest(there["params"], new["params"]),
      "shards before": len({str(shard.index) for shard in begun["params"]["embed_VxD"].addressable_shards}),
      **{name: {part: equal(part, state, rows) for part in state} for name, (state, rows) in moved.items()},
      "fingerprints": [
          fingerprint(state) == {part: [of[r] for r in rows] for part, of in prints.items()} for state, rows in moved.values()],
      "sharded as planned": [as_planned(state) for state, _ in moved.values()]}
  snapshots.close()
  ended = [trained(spec, state, steps=10)[0]["params"] for spec, state in ((wide, begun), (narrow, moved["restored"][0]))]
  seen["moved"]["goes on"] = furthest(*map(jax.device_get, ended))

  single = dataclasses.replace(one, model=Architecture(family="gpt2", head_dim=8).at(16, 1, 32, LENGTH), optimizer=Optimizer(name="muon"),
                               runs=2)
  shared = dataclasses.replace(single, layout=Layout(expert=2, data=2, tensor=2, fsdp=True, devices=8))
  two, qkv = slice(0, 2), lambda tree: tree["layers"]["qkv"]["weight"]

  def told(state):
    """Parameters that have gradients: keys' biases have none but rounding, of which Adam makes whole steps."""
    params = jax.tree.map(np.array, jax.device_get(state["params"]))
    params["layers"]["qkv"]["bias"][:, :, 1] = 0
    return params

  begun, _ = trained(single, stack.initialize(single, seeds[two]), two, steps=10)
  kept, (alone, losses) = jax.device_get(begun), trained(single, begun, two, steps=10)
  moved, _ = trained(shared, stack.initialize(shared, seeds[two]), two, steps=10)
  snapshots = Checkpoints(folder / "others")
  snapshots.save("gpt2", 10, moved, {})
  again = snapshots.restore("gpt2", 10, single.abstract)
  snapshots.close()
  momentum = moved["moments"][1].inner_states["muon"].inner_state[0].mu
  seen["gpt2 by muon"] = {
      "shape": dict(shared.mesh.shape), "weights": list(qkv(moved["params"]).sharding.spec), "moments": list(qkv(momentum).sharding.spec),
      "parameters": furthest(told(moved), told(kept)), "learned": furthest(told(kept), told(stack.initialize(single, seeds[two]))),
      "restored": furthest(jax.device_get(again), jax.device_get(moved)) == 0.0}
  gone, values = trained(shared, moved, two, steps=10)
  seen["gpt2 by muon"] |= {"losses": float(np.max(np.abs(values / losses - 1))),
                           "goes on": furthest(told(gone), told(alone))}
  (folder / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
  look(pathlib.Path(sys.argv[1]))
