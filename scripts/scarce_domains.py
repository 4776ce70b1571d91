"""What resampling other domains' text is worth to experts on scarce domains: their held-out loss by the share that is resampled.

    python scripts/scarce_domains.py --corpora=../shared/data/corpora --out=DIR

Six of the corpora, two of them cut to 40 KB: one that has a relative among the others (Python, beside C), one that has none (biomedical
articles). For each share a seed and six experts of 55 thousand parameters are trained on 1.5 M tokens together: some ten minutes of
processor time. Every share is trained once; called again, it goes on where it was, and prints the table.
"""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys

from found_domains import cut

import jaxsplit

SCARCE, OTHERS = ("biomed_rct", "code_python"), ("code_c", "law_uscode", "standards_pep_eip", "wiki_en")
SETTINGS = """
Corpus.path = '{corpus}'
Tokenization.kind = 'bpe'
Tokenization.vocab_size = 1024
Experiment.budget_tokens = 1_500_000
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
  parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.5, 0.8, 0.95, 1.0])
  flags = parser.parse_args()
  corpus = flags.out / "corpus"
  for name in (*SCARCE, *OTHERS):
    cut(flags.corpora / name, corpus / name, "train", flags.scarce_bytes if name in SCARCE else flags.bytes)
    cut(flags.corpora / name, corpus / name, "valid", 80_000)
  print(f"| resampled | {' | '.join(f'{name} | epochs' for name in SCARCE)} |\n{'|---' * (2 * len(SCARCE) + 1)}|")
  for share in flags.shares:
    workdir = flags.out / f"resampled_{share:g}"
    settings = flags.out / f"resampled_{share:g}.gin"
    resampled = f"Experiment.resample = {SCARCE}\nExperiment.resample_share = {share}\n" if share else ""
    settings.write_text(SETTINGS.format(corpus=corpus.resolve()) + resampled)
    with open(flags.out / f"resampled_{share:g}.log", "w") as log:
      subprocess.run([sys.executable, "-m", "jaxsplit.train", f"--gin_file={settings}", f"--workdir={workdir}"], check=True, stdout=log)
    cells = jaxsplit.Result(workdir).cells
    of = {name: cells[(cells.domain == name) & (cells.expert_tokens > 0) & (cells.role == "split")].iloc[0] for name in SCARCE}
    print(f"| {share:.0%} | {' | '.join(f'{cell.loss:.4f} | {cell.epochs:.1f}' for cell in of.values())} |", flush=True)


if __name__ == "__main__":
  main()
