"""What the two shares of an expert's stream that are not its own domain are worth: text resampled for scarce domains, and replay.

    python scripts/scarce_domains.py --corpora=../shared/data/corpora --out=DIR

Six of the corpora, two of them cut to 40 KB: one that has a relative among the others (Python, beside C), one that has none (biomedical
articles). For each share a seed and six experts of 55 thousand parameters are trained on 1 M tokens together: some five minutes of
processor time for all. Every share is trained once; called again, it goes on where it was, and prints the tables.
"""

from __future__ import annotations

import argparse
import json
import pathlib

import numpy as np
from found_domains import cut, run

import jaxsplit

SCARCE, OTHERS = ("biomed_rct", "code_python"), ("code_c", "law_uscode", "standards_pep_eip", "wiki_en")
SETTINGS = """
Corpus.path = '{corpus}'
Tokenization.kind = 'bpe'
Tokenization.vocab_size = 1024
Experiment.budget_tokens = 1_000_000
Experiment.target = (48, 2)
Experiment.sizes = ()
Experiment.compare = (0.4,)
Experiment.mixture = 'tokens'
Experiment.validation_tokens = 16_384
Probe.rates = (1e-2,)
Architecture.head_dim = 16
Training.sequence_length = 128
Training.batch_sequences = 16
Training.steps_per_dispatch = 32
Optimizer.warmup_tokens = 65_536
"""


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--corpora", required=True, type=pathlib.Path)
  parser.add_argument("--out", required=True, type=pathlib.Path)
  parser.add_argument("--bytes", type=int, default=1_200_000, help="training text of each of the other corpora")
  parser.add_argument("--scarce_bytes", type=int, default=40_000)
  parser.add_argument("--resampled", type=float, nargs="+", default=[0.5, 1.0])
  parser.add_argument("--replay", type=float, nargs="+", default=[0.01, 0.1])
  flags = parser.parse_args()
  corpus = flags.out / "corpus"
  for name in (*SCARCE, *OTHERS):
    cut(flags.corpora / name, corpus / name, "train", flags.scarce_bytes if name in SCARCE else flags.bytes)
    cut(flags.corpora / name, corpus / name, "valid", 80_000)
  print(f"| resampled | {' | '.join(f'{name}, loss | epochs' for name in SCARCE)} |\n{'|---' * (2 * len(SCARCE) + 1)}|")
  for share in (0.0, *flags.resampled):
    cells = jaxsplit.Result(trained(flags.out, corpus, resample=share)).cells
    of = {name: cells[(cells.domain == name) & (cells.expert_tokens > 0) & (cells.role == "split")].iloc[0] for name in SCARCE}
    print(f"| {share:.0%} | {' | '.join(f'{cell.loss:.4f} | {cell.epochs:.1f}' for cell in of.values())} |", flush=True)
  print("\n| replay | experts on their own domains | on the others | their seed on all |\n|---|---|---|---|")
  for share in (0.0, *flags.replay):
    workdir = trained(flags.out, corpus, replay=share)
    result = workdir / "results.json"
    if not result.exists():
      run(workdir, "evaluate", "--split=valid", "--tokens=8192", f"--out={result}")
    matrix = json.loads(result.read_text())["matrix"]
    loss_KxK = np.array([row["loss"] for row in matrix["rows"] if row["kind"] == "expert"])
    own, seed = np.trace(loss_KxK) / len(loss_KxK), np.mean(next(row["loss"] for row in matrix["rows"] if row["kind"] == "seed"))
    others = (loss_KxK.sum() - np.trace(loss_KxK)) / (loss_KxK.size - len(loss_KxK))
    print(f"| {share:.0%} | {own:.4f} | {others:.4f} | {seed:.4f} |", flush=True)


def trained(out: pathlib.Path, corpus: pathlib.Path, resample: float = 0.0, replay: float = 0.0) -> pathlib.Path:
  """The work directory of an experiment with these shares, trained if it is not yet."""
  workdir = out / f"resample_{resample:g}_replay_{replay:g}"
  settings = SETTINGS.format(corpus=corpus.resolve()) + f"Experiment.replay = {replay}\n"
  if resample:
    settings += f"Experiment.resample = {SCARCE}\nExperiment.resample_share = {resample}\n"
  (out / f"{workdir.name}.gin").write_text(settings)
  run(workdir, "train", f"--gin_file={out / workdir.name}.gin")
  return workdir


if __name__ == "__main__":
  main()
