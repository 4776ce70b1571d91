"""Compares our logits with those that `transformers` computes of the same folder of Hugging Face's.

    python scripts/hf_logits.py make DIR                          # folders of small random models, one of every kind that we write
    python scripts/hf_logits.py train DIR                         # the same of models that train and export have made
    python scripts/hf_logits.py again --out=OUT FOLDER...          # what was read, written again: the same bits
    python scripts/hf_logits.py ours --out=OUT FOLDER... [--text=FILE]
    /tmp/torch/bin/python scripts/hf_logits.py theirs --out=OUT FOLDER... [--save]

The last in an environment with torch and transformers and nothing of ours (python -m venv /tmp/torch; pip install torch
transformers), the others with ours. `ours` imports each folder and keeps in OUT the tokens (of the text, by the folder's tokenizer, or
random ones) and what we compute of them; `theirs` says how far that is from transformers' float32, and ends with exit code 1 where
it is more than 1e-5 of the largest logit. With --save it keeps its own in the folder, as logits.npz: the tests' golden files are made so.

    python scripts/hf_logits.py make tests/interop/golden
    python scripts/hf_logits.py train tests/interop/golden
    python scripts/hf_logits.py ours --out=/tmp/logits tests/interop/golden/*
    /tmp/torch/bin/python scripts/hf_logits.py theirs --out=/tmp/logits --save tests/interop/golden/*
"""

from __future__ import annotations

import argparse
import copy
import pathlib
import shutil
import sys
import tempfile

import numpy as np

KINDS = {
    "llama_tied": dict(tie_embeddings=True, qk_norm=False),
    "llama_grouped": dict(queries_per_kv=2, qk_norm=False, rope_theta=5e5),
    "qwen3": dict(queries_per_kv=2, qk_norm=True),
    "gpt2": dict(family="gpt2")}
WIDTH, DEPTH, HEAD_DIM, LENGTH = 16, 2, 4, 24


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("what", choices=("make", "train", "again", "ours", "theirs"))
  parser.add_argument("folders", nargs="+", type=pathlib.Path)
  parser.add_argument("--out", type=pathlib.Path)
  parser.add_argument("--text", type=pathlib.Path)
  parser.add_argument("--save", action="store_true")
  flags = parser.parse_args()
  if flags.what in ("make", "train"):
    return {"make": make, "train": train}[flags.what](*flags.folders)
  flags.out.mkdir(parents=True, exist_ok=True)
  if flags.what == "again":
    return again(flags.folders, flags.out)
  if flags.what == "ours":
    return ours(flags.folders, flags.out, flags.text)
  return theirs(flags.folders, flags.out, flags.save)


def make(directory: pathlib.Path) -> int:
  import jax
  import jax.numpy as jnp

  from jaxsplit.data.tokenizer import AlphabetTokenizer
  from jaxsplit.interop import huggingface
  from jaxsplit.models.config import Architecture
  from jaxsplit.training.trained import TrainedModel

  tokenizer = AlphabetTokenizer("abcdefghijklmnopqrstuvwxyz .")
  for seed, (name, fields) in enumerate(KINDS.items()):
    config = Architecture(head_dim=HEAD_DIM, document_masking=False, **fields).at(WIDTH, DEPTH, tokenizer.vocab_size, LENGTH)
    random = np.random.default_rng(seed)  # On top of fresh weights, as those of norms and biases are all alike.
    params = jax.tree.map(lambda x: x + jnp.asarray(random.normal(0, 0.1, x.shape), x.dtype), config.initialize(jnp.uint32(seed)))
    (directory / name).mkdir(parents=True, exist_ok=True)
    huggingface.save(TrainedModel(config, params, tokenizer, 0), directory / name)
  return 0


def train(directory: pathlib.Path) -> int:
  """By the commands, from the bundled texts to folders: 60,000 tokens of bytes, on the mixture of the domains."""
  from jaxsplit import export, train

  for name, fields in KINDS.items():
    with tempfile.TemporaryDirectory() as scratch:
      settings = {"Experiment.sizes": (), "Experiment.target": (WIDTH, DEPTH), "Experiment.budget_tokens": 60_000, "Probe.rates": (8e-3,),
                  "Experiment.compare": (1.0,), "Training.sequence_length": LENGTH, "Optimizer.warmup_tokens": 4_000,
                  **{f"Architecture.{field}": value for field, value in (("head_dim", HEAD_DIM), *fields.items())}}
      train.main([f"--workdir={scratch}/work", *(f"--gin.{key}={value!r}" for key, value in settings.items())])
      export.main([f"--workdir={scratch}/work", f"--out={scratch}/out"])
      (directory / f"trained_{name}").mkdir(parents=True, exist_ok=True)
      for path in pathlib.Path(scratch, "out", "dense").iterdir():
        if path.name != "README.md":
          shutil.copy(path, directory / f"trained_{name}")
  return 0


def again(folders: list[pathlib.Path], out: pathlib.Path) -> int:
  from jaxsplit.interop import huggingface
  from jaxsplit.interop.tensors import find_tensors

  bad = 0
  for folder in folders:
    with tempfile.TemporaryDirectory(dir=out) as scratch:
      huggingface.save(huggingface.load(folder), pathlib.Path(scratch))
      before, after = find_tensors(folder), find_tensors(pathlib.Path(scratch))
      other = [name for name in before.keys() | after.keys()
               if name not in before or name not in after or before[name].read().tobytes() != after[name].read().tobytes()]
    print(f"{folder}: {len(before)} tensors; {f'{len(other)} differ, such as {other[0]}' if other else 'all have the same bits'}")
    bad += len(other)
  return int(bad > 0)


def ours(folders: list[pathlib.Path], out: pathlib.Path, text: pathlib.Path | None) -> int:
  from jaxsplit.interop import huggingface

  for folder in folders:
    model = huggingface.load(folder)
    if text:
      tokens = model.tokenizer.encode(text.read_text()[:20_000])[:512][None]
    else:
      tokens = np.random.default_rng(0).integers(1, model.config.vocab_size, (2, min(model.config.sequence_length, 24)))
    np.savez(out / f"{folder.name}.npz", tokens=tokens.astype(np.int32), logits=np.asarray(model(tokens)))
  return 0


def theirs(folders: list[pathlib.Path], out: pathlib.Path, save: bool) -> int:
  import torch
  from transformers import AutoModelForCausalLM, AutoTokenizer

  worst = 0.0
  for folder in folders:
    found = np.load(out / f"{folder.name}.npz")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
      tokens = torch.tensor(found["tokens"], dtype=torch.long)
      logits, exact = (one(tokens).logits.numpy() for one in (model, copy.deepcopy(model).double()))
    off = float(np.abs(logits - found["logits"]).max())
    worst = max(worst, off / float(np.abs(logits).max()))
    rounding = [float(np.abs(exact - one).max()) for one in (found["logits"], logits)]
    print(f"{folder}: {type(model).__name__}, {logits.shape}: off by {off:.2g}, of {np.abs(logits).max():.3g} at most; from its float64 "
          f"ours are {rounding[0]:.2g}, its own {rounding[1]:.2g}; it begins "
          f"{tokenizer.decode(found['tokens'][0, :12])!r}, and the separator is {tokenizer.eos_token!r}")
    if save:
      np.savez(folder / "logits.npz", tokens=found["tokens"], logits=logits)
  return int(worst > 1e-5)


if __name__ == "__main__":
  sys.exit(main())
