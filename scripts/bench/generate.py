"""What the cache of keys and values saves: a text of 256 tokens with it, and by reading the whole text anew for each token.

    python scripts/bench/generate.py [FOLDER] [--tokens=256] [--cpu_seconds]

FOLDER is a Hugging Face model's; without one, a random Llama of 12 layers, 256 wide. Both loops are compiled before they are timed, and
both give the same tokens, which is checked. --cpu_seconds counts processor time, for machines that others use too. The loop without a
cache reads windows of one length, so that it is one program.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplit.data.tokenizer import ByteTokenizer
from jaxsplit.evaluation.generation import Generation, generate
from jaxsplit.interop import huggingface
from jaxsplit.models.config import Architecture
from jaxsplit.models.family import ModelConfig
from jaxsplit.training.trained import TrainedModel


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("folder", nargs="?")
  parser.add_argument("--tokens", type=int, default=256)
  parser.add_argument("--cpu_seconds", action="store_true")
  flags = parser.parse_args()
  length = flags.tokens + 32
  if flags.folder:
    model = huggingface.load(flags.folder, length)
  else:
    config = Architecture(head_dim=32, qk_norm=False).at(256, 12, 256, length)
    model = TrainedModel(config, config.initialize(jnp.uint32(0)), ByteTokenizer(), 0)
  model = dataclasses.replace(model, tokenizer=_Endless(model.tokenizer))
  clock = time.process_time if flags.cpu_seconds else time.perf_counter
  prompt = model.tokenizer.encode("The capital of France is")
  with_cache = lambda: generate(model, [prompt], Generation(tokens=flags.tokens))[0]
  found, times = {}, {}
  for name, run in (("with the cache", with_cache), ("without", lambda: without_cache(model, prompt, flags.tokens))):
    run()
    begin = clock()
    found[name] = run()
    times[name] = clock() - begin
    print(f"{name}: {times[name]:.2f} {'processor ' if flags.cpu_seconds else ''}seconds, {len(found[name]) / times[name]:.1f} tokens/s",
          flush=True)
  same = int((found["with the cache"] == found["without"]).sum())
  print(f"{times['without'] / times['with the cache']:.1f} times faster; {same} of {flags.tokens} tokens are the same")


class _Endless:
  """A tokenizer none of whose tokens ends a text, so that both loops make as many."""

  def __init__(self, tokenizer):
    self.encode, self.end_of_document = tokenizer.encode, -1


def without_cache(model: TrainedModel, prompt: np.ndarray, count: int) -> np.ndarray:
  """Greedy decoding by the whole window, padded to one length, for each token."""
  tokens = np.zeros((1, len(prompt) + count), np.int32)
  tokens[0, :len(prompt)] = prompt
  next_token = _next_token(model.config)
  for at in range(len(prompt), len(prompt) + count):
    tokens[0, at] = int(next_token(model.params, tokens, at - 1))
  return tokens[0, len(prompt):]


@functools.cache
def _next_token(config: ModelConfig):
  def of(params, tokens_1xT, at):
    x_1xTxD, unembed_DxV = config.apply(params, tokens_1xT, -1)
    return jnp.argmax(x_1xTxD[0, at] @ unembed_DxV)

  return jax.jit(of)


if __name__ == "__main__":
  main()
