"""A whole experiment in seconds: two small domains, three tiny models, a law."""

from __future__ import annotations

import json
import pathlib

import numpy as np


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
