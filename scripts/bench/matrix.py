"""The K x K matrix of a stack against K evaluations of one model each, over the same documents.

    python scripts/bench/matrix.py [--size=tiny] [--runs=8] [--tokens=20000] [--rounds=5]

Models are random, documents random tokens of 32 to 3 T, as many as --tokens hold. Both ways have both cores: a stack has some models on
each, a model by itself divides its batches over them. All programs are compiled before anything is timed, the ways take turns, and that
they find the same is checked. Prints seconds (medians) and how many times as long the single evaluations take, with quartiles.
"""

from __future__ import annotations

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from stacks import chosen_size, in_turns, size_flags

from jaxsplit.data.tokenizer import ByteTokenizer
from jaxsplit.evaluation.documents import Document, score_documents
from jaxsplit.evaluation.experts import Experts
from jaxsplit.parallel.sharding import Layout, present_devices
from jaxsplit.training.trained import TrainedModel, side_by_side


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  size_flags(parser, "tiny")
  parser.add_argument("--runs", type=int, default=8)
  parser.add_argument("--tokens", type=int, default=20_000)
  parser.add_argument("--rounds", type=int, default=5)
  flags = parser.parse_args()
  present_devices(Layout())
  config = chosen_size(flags).spec().model
  models = {str(run): TrainedModel(config, config.initialize(jnp.uint32(run)), ByteTokenizer(), 0) for run in range(flags.runs)}
  stack = Experts(side_by_side(models))
  singles = [Experts(side_by_side({name: model})) for name, model in models.items()]
  documents = made(flags.tokens, config)
  apart = np.concatenate([score_documents(single, documents).sums for single in singles])
  np.testing.assert_allclose(score_documents(stack, documents).sums, apart, rtol=1e-5)
  seconds = in_turns({"stack": functools.partial(timed, [stack], documents), "singles": functools.partial(timed, singles, documents)},
                     flags.rounds)
  low, middle, high = np.percentile(seconds["singles"] / seconds["stack"], (25, 50, 75))
  print(f"{flags.runs} models of {config.params_total:,} parameters, T = {config.sequence_length}, {len(documents)} documents, "
        f"{jax.device_count()} devices, jax {jax.__version__}: {np.median(seconds['stack']):.2f} s as a stack, "
        f"{np.median(seconds['singles']):.2f} s one after another: {middle:.2f} times as long ({low:.2f} to {high:.2f})")


def made(tokens: int, config) -> list[Document]:
  """Documents of random tokens."""
  random, out = np.random.default_rng(0), []
  while tokens > 0:
    ids = random.integers(0, config.vocab_size, random.integers(32, 3 * config.sequence_length)).astype(np.int32)
    out.append(Document("random", ids, 1, len(ids)))
    tokens -= len(ids)
  return out


def timed(each: list[Experts], documents: list[Document]) -> float:
  """Seconds that scoring the documents takes, one stack after the other."""
  began = time.perf_counter()
  for experts in each:
    score_documents(experts, documents)
  return time.perf_counter() - began


if __name__ == "__main__":
  main()
