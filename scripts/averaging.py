"""Whether weights averaged along a branch of constant learning rate may stand in for its cooldown: the same best split, the same shape?

    python scripts/averaging.py --out=averaging.jsonl [--sizes=16x2,24x2,40x2] [--replicas=3] [--store=DIR]

At each size a trunk is trained at a constant rate, forked at several shares of the budget into experts, and each expert is measured in
several ways after the same tokens D + D': with a cooldown, as experiments do it (over a fifth of D + D', or all of D' where that is less);
without one; and with the mean of eight snapshots of the constant rate, spread over as long a window as the cooldown, or over half of it.
The last two cost nothing beside the branch. Losses are means over domains, in nats per token; the best split is that of a cubic through
the shares from 10 to 85 %. Each line of --out is one size, replica and share.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplit.data.corpus import Corpus
from jaxsplit.data.preparation import prepare_store
from jaxsplit.data.store import Store, open_store
from jaxsplit.data.stream import Batches, mixture, validation, windows
from jaxsplit.data.tokenizer import Tokenization
from jaxsplit.evaluation.perplexity import held_out
from jaxsplit.models.config import Architecture
from jaxsplit.parallel import sharding
from jaxsplit.parallel.sharding import Layout, present_devices
from jaxsplit.training import fork, stack
from jaxsplit.training.optimizer import NEVER, Optimizer, Schedule

SHARES = 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85
LENGTH, BATCH, WARMUP, BLOCK, SNAPSHOTS = 64, 8, 64, 32, 8
WAYS = {"cooldown": "a cooldown", "none": "no cooldown", "window": "eight snapshots", "half": "eight, half the window"}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--out", required=True, type=pathlib.Path)
  parser.add_argument("--store", help="a token store; by default the bundled texts as bytes")
  parser.add_argument("--sizes", default="16x2,24x2,40x2", help="width x depth")
  parser.add_argument("--budget_tokens", type=int, default=680_000)
  parser.add_argument("--rate", type=float, default=8e-3, help="learning rate of the widest size; others' go with the square root of N")
  parser.add_argument("--replicas", type=int, default=3)
  flags = parser.parse_args()
  present_devices(Layout())
  store = open_store(flags.store) if flags.store else prepare_store(Corpus(), Tokenization(), tempfile.mkdtemp() + "/store")
  sizes = [tuple(map(int, size.split("x"))) for size in flags.sizes.split(",")]
  models = [Architecture(head_dim=8).at(width, depth, store.vocab_size, LENGTH) for width, depth in sizes]
  largest = max(model.params for model in models)
  read = lambda: [json.loads(line) for line in flags.out.read_text().splitlines()] if flags.out.exists() else []
  done = {record["params"] for record in read()}
  for model in models:
    if model.params not in done:
      found = measure(store, model, flags.budget_tokens // (LENGTH * BATCH), flags.rate * (largest / model.params) ** 0.5, flags.replicas)
      with open(flags.out, "a") as f:
        f.writelines(json.dumps(record) + "\n" for record in found)
  print(table(read()))


def measure(store: Store, model, steps: int, rate: float, replicas: int) -> list[dict]:
  """A size's cells: for each replica and share of `steps` steps, the mean loss over domains by each way."""
  domains, records = store.domains, []
  spec_of = lambda runs: stack.StackSpec(model, Optimizer(), Layout(), runs, 1, BATCH, store.end_of_document)
  trunk, experts = spec_of(replicas), spec_of(replicas * len(domains))
  sets = [validation(store, domain, LENGTH, 8_192) for domain in domains] * replicas
  mixed = Batches([mixture(store, dict.fromkeys(domains, 1.0), replica, LENGTH) for replica in range(replicas)], BATCH)
  own = Batches([windows(store, domain, 1_000 + replica, LENGTH) for replica in range(replicas) for domain in domains], BATCH)
  state, at, constant = stack.initialize(trunk, range(replicas)), 0, schedule(rate, experts.runs)
  loss = lambda params: held_out(experts, {"params": params}, [[one] for one in sets])["loss"].reshape(replicas, -1).mean(1)
  for share in SHARES:
    seed = round(share * steps)
    state = trained(trunk, state, mixed, at, seed - at, schedule(rate, replicas))
    at, each = seed, (steps - seed) // len(domains)
    window = min(round(0.2 * (seed + each)), each)
    begun = fork.gather(experts, [state], [replica for replica in range(replicas) for _ in domains])
    begun = trained(experts, begun, own, 0, each - window, constant)
    falling = schedule(rate, experts.runs, seed + each - window, seed + each)
    cooled = trained(experts, jax.tree.map(jnp.copy, begun), own, each - window, window, falling)
    losses = {"cooldown": loss(cooled["params"])}
    kept, here = {}, 0
    stops = {part: [round(window * (1 - part + part * i / SNAPSHOTS)) for i in range(1, SNAPSHOTS + 1)] for part in (1, 0.5)}
    for stop in sorted({stop for those in stops.values() for stop in those}):
      begun = trained(experts, begun, own, each - window + here, stop - here, constant)
      here, kept[stop] = stop, jax.device_get(begun["params"])
    losses["none"] = loss(begun["params"])
    for name, part in (("window", 1), ("half", 0.5)):
      mean = jax.tree.map(lambda *values: np.mean(values, axis=0), *(kept[stop] for stop in stops[part]))
      losses[name] = loss(jax.device_put(mean, experts.shardings["params"]))
    for replica in range(replicas):
      records.append({"params": model.params, "replica": replica, "share": share, "rate": rate,
                      **{name: float(values[replica]) for name, values in losses.items()}})
    found = ", ".join(f"{name} {values.mean():.4f}" for name, values in losses.items())
    print(f"N = {model.params:,}, {share:.0%} seed: {found}", flush=True)
  return records


def trained(spec: stack.StackSpec, state, batches: Batches, first: int, steps: int, along: Schedule):
  """The stack after so many more steps, of batches from `first` on; `state` is donated."""
  for begin in range(first, first + steps, BLOCK):
    count = min(BLOCK, first + steps - begin)
    tokens = np.zeros((BLOCK, spec.runs, BATCH, LENGTH + 1), np.int32)
    tokens[:count] = batches.block([begin] * spec.runs, count).tokens
    state, _ = stack.train_block(spec)(state, jax.device_put(tokens, sharding.batch_sharding(spec.mesh)), jax.device_put(
        np.int32(count), sharding.replicated(spec.mesh)), jax.device_put(along, sharding.run_sharding(spec.mesh)))
  return state


def schedule(rate: float, runs: int, decay_start: int = 0, decay_end: int = 0) -> Schedule:
  """The same of every run: a constant rate, or one that falls to zero between two steps."""
  of = lambda value: np.full(runs, value, np.int32)
  return Schedule(np.full(runs, rate, np.float32), of(0), of(WARMUP), of(decay_start), of(decay_end), of(NEVER))


def table(records: list[dict]) -> str:
  """Of each size: mean losses by share and way, and each way's best split with its spread over replicas."""
  lines = ["| N | measured with | " + " | ".join(f"{share:.0%}" for share in SHARES) + " | best split | replicas' best |",
           "| ---: | --- |" + " ---: |" * len(SHARES) + " ---: | --- |"]
  best = lambda losses: float((grid := np.linspace(0.1, 0.85, 751))[np.polyval(np.polyfit(SHARES, losses, 3), grid).argmin()])
  for params in dict.fromkeys(record["params"] for record in records):
    for way, words in WAYS.items():
      by_replica: dict[int, list[float]] = {}
      for record in records:
        if record["params"] == params:
          by_replica.setdefault(record["replica"], []).append(record[way])
      mean = np.mean(list(by_replica.values()), axis=0)
      lines.append(f"| {params:,} | {words} | " + " | ".join(f"{loss:.4f}" for loss in mean) + f" | {best(mean):.2f} | "
                   + ", ".join(f"{best(losses):.2f}" for losses in by_replica.values()) + " |")
  return "\n".join(lines)


if __name__ == "__main__":
  main()
