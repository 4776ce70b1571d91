"""Writes tests/models/gpt2_logits.npy: what `transformers`' GPT-2 computes of the weights and tokens of tests/models/gpt2_golden.py.

    python -m venv /tmp/torch && /tmp/torch/bin/pip install torch transformers
    /tmp/torch/bin/python scripts/gpt2_logits.py [--check]

Needs an environment with torch and transformers, and nothing of ours. With --check it compares instead, and says how far off.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests" / "models"))
import gpt2_golden as golden  # noqa: E402


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--check", action="store_true")
  flags = parser.parse_args()
  model = GPT2LMHeadModel(GPT2Config(
      vocab_size=golden.VOCAB, n_positions=golden.LENGTH, n_embd=golden.WIDTH, n_layer=golden.DEPTH, n_head=golden.HEADS)).eval()
  weights = {name: torch.tensor(value) for name, value in golden.weights().items()}
  left = model.transformer.load_state_dict(weights, strict=False)
  assert not left.unexpected_keys and all(name.endswith((".attn.bias", ".attn.masked_bias")) for name in left.missing_keys), left
  with torch.no_grad():
    logits = model(torch.tensor(golden.tokens())).logits.numpy()
  if flags.check:
    print(f"off by {np.abs(logits - np.load(golden.LOGITS)).max():.2g}, of {np.abs(logits).max():.3g} at most")
  else:
    np.save(golden.LOGITS, logits)


if __name__ == "__main__":
  main()
