"""A whole experiment in seconds: two small domains, three tiny models, a law."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

import jaxsplit
from jaxsplit.data.store import Store
from jaxsplit.data.store_writer import Document, write_store
from jaxsplit.data.tokenizer import ByteTokenizer
from jaxsplit.interop import huggingface
from jaxsplit.models.config import Architecture
from jaxsplit.training.trained import TrainedModel


def write_store_of(path: pathlib.Path, domains: Sequence[str]) -> Store:
  """A store of short texts drawn at random, each domain of a letter of its own and three that all have."""
  rng = np.random.default_rng(0)

  def documents(domain, count):
    texts = ["".join(rng.choice(list(f"{domain}abc "), 60)) for _ in range(count)]
    return [Document(ByteTokenizer().encode(t), len(t), t.encode()) for t in texts]

  splits = [(d, split, documents(d, n)) for d in domains for split, n in (("train", 60), ("valid", 8))]
  return write_store(path, ByteTokenizer(), splits, {})


def write_corpus(folder: pathlib.Path) -> None:
  """Two domains of other alphabets, one in a folder with a validation file, one in a single file."""
  rng = np.random.default_rng(0)

  def text(words, count):
    return "\n\n".join(" ".join(rng.choice(words, 40)) + "." for _ in range(count))

  (folder / "latin").mkdir()
  (folder / "latin" / "train.txt").write_text(text(["arma", "virumque", "cano", "troiae", "qui", "primus"], 300))
  (folder / "latin" / "valid.txt").write_text(text(["arma", "virumque", "cano", "troiae", "qui", "primus"], 40))
  with (folder / "numbers.jsonl").open("w") as f:
    for _ in range(120):
      f.write(json.dumps({"text": " ".join(map(str, rng.integers(0, 300, 60)))}) + "\n")


def arguments(corpus: pathlib.Path, workdir: pathlib.Path, *more: str) -> list[str]:
  """Flags of the train entry point."""
  return [f"--workdir={workdir}", f"--gin.Corpus.path={corpus}", "--gin.Experiment.budget_tokens=12_000",
          "--gin.Experiment.sizes=((8, 1), (16, 1), (16, 2))", "--gin.Experiment.target=(24, 1)", "--gin.Experiment.validation_tokens=2048",
          "--gin.Experiment.seed_fractions=(0.25, 0.5, 0.9)", "--gin.Experiment.expert_fractions=(0.2, 0.5)", "--gin.Probe.rates=(5e-3,)", "--gin.Architecture.head_dim=8",
          "--gin.Training.sequence_length=16", "--gin.Training.batch_sequences=2", "--gin.Optimizer.warmup_tokens=320",
          "--gin.Layout.devices=2", "--gin.FitSettings.bootstrap=40", "--gin.FitSettings.form=effective_data", *more]


def bindings(corpus: pathlib.Path, base: list[str]) -> dict:
  """Those that make the settings of `arguments` out of those of configs."""
  small = [flag.removeprefix("--gin.").split("=", 1) for flag in arguments(corpus, corpus) if flag.startswith("--gin.")]
  wanted = jaxsplit.read_settings(bindings={name: value if name.endswith((".path", ".form")) else eval(value) for name, value in small})
  there = {type(part): part for part in jaxsplit.read_settings(*base).parts}
  return {f"{type(part).__name__}.{field.name}": getattr(part, field.name) for part in wanted.parts for field in dataclasses.fields(part)
          if getattr(part, field.name) != getattr(there[type(part)], field.name)}


def write_base(folder: pathlib.Path) -> pathlib.Path:
  """A base model as a Hugging Face folder: tiny, of bytes, with weights as they are before training."""
  config = Architecture(head_dim=8, qk_norm=False, tie_embeddings=True).at(16, 1, 256, 32)
  folder.mkdir(parents=True)
  huggingface.save(TrainedModel(config, config.initialize(jnp.uint32(3)), ByteTokenizer(), 0), folder)
  return folder


def base_bindings(corpus: pathlib.Path) -> dict:
  """Those that make base_model.gin as small as `arguments`; the corpus and the base model are yet to be named."""
  theirs = ("Corpus.path", "Experiment.init_from", "Experiment.sizes", "Experiment.target", "Architecture.head_dim", "FitSettings.form")
  mine = {name: value for name, value in bindings(corpus, ["base_model.gin"]).items() if name not in theirs}
  return mine | {"Experiment.seed_fractions": (0, 0.3, 0.8), "Experiment.compare": (0.0, 1.0), "FitSettings.bootstrap": 10}
