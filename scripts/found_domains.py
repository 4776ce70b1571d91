"""Experts on found domains against experts on labelled ones and on domains drawn at random, at equal compute, on the same held-out text.

    python scripts/found_domains.py --corpora=../shared/data/corpora --out=DIR

Cuts the corpora (a folder each, jsonl with train and valid files) into passages of up to 4,000 characters and takes as many bytes of
each; trains, on the same passages and tokens, a dense model, and a seed and K experts of the same compute together for each kind of
domain: those of the folders, K clusters of the mixed texts (TF-IDF, k-means), and K sets drawn by hash. All are then measured on the
held-out passages of every corpus, behind a context of 128 tokens. Found and drawn domains have no labels: the nearest centroid to the
context says which expert reads on. A model of 100 thousand parameters and 1.2 M tokens: some 8 minutes of processor time. Every step is
done once; called again, it goes on where it was, and prints the table.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import subprocess
import sys

from jaxsplit.data.documents import read_documents

CHARACTERS = 4000  # Of a passage, at most.
SETTINGS = """
Corpus.path = '{corpus}'
Experiment.budget_tokens = {budget}
Experiment.target = (64, 2)
Experiment.sizes = ()
Experiment.compare = {compare}
Experiment.mixture = 'tokens'
Experiment.validation_tokens = 8_192
Probe.rates = (1e-2,)
Architecture.head_dim = 16
Training.sequence_length = 128
Training.batch_sequences = 8
Training.steps_per_dispatch = 32
Optimizer.warmup_tokens = 32_768
"""
ARMS = {"labelled": "", "found": "Corpus.domains_from = 'cluster'\nClustering.k = {k}\n",
        "drawn at random": "Corpus.domains_from = 'cluster'\nClustering.k = {k}\nClustering.by = 'random'\n"}
ROUTERS = {"labelled": "oracle,centroid@1,centroid", "found": "centroid@1,centroid,uniform", "drawn at random": "centroid@1,uniform"}
SAID = {"oracle": "the label", "centroid@1": "nearest centroid", "centroid": "all, by centroids", "uniform": "all alike"}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--corpora", required=True, type=pathlib.Path)
  parser.add_argument("--out", required=True, type=pathlib.Path)
  parser.add_argument("--exclude", nargs="*", default=["speeches_us"], help="corpora that are left out")
  parser.add_argument("--bytes", type=int, default=1_200_000, help="training text of each corpus")
  parser.add_argument("--held_out", type=int, default=80_000, help="bytes of held-out text of each corpus")
  parser.add_argument("--budget", type=int, default=1_200_000, help="tokens of seed and experts together")
  parser.add_argument("--seed_share", type=float, default=0.4)
  flags = parser.parse_args()
  corpus = flags.out / "corpus"
  names = sorted(path.parent.name for path in flags.corpora.glob("*/train.jsonl*") if path.parent.name not in flags.exclude)
  for name in names:
    for split, size in (("train", flags.bytes), ("valid", flags.held_out)):
      cut(flags.corpora / name, corpus / name, split, size)
  results = {arm: measured(arm, flags, corpus, len(names)) for arm in ARMS}
  print(table(names, results))


def cut(source: pathlib.Path, folder: pathlib.Path, split: str, size: int) -> None:
  """Writes so many bytes of passages from all over a corpus."""
  out = folder / f"{split}.jsonl"
  if out.exists():
    return
  passages = [text[first:first + CHARACTERS] for path in sorted(source.glob(f"{split}.jsonl*")) for text in read_documents(path)
              for first in range(0, len(text), CHARACTERS)]
  total = sum(len(passage.encode()) for passage in passages)
  every = max(1, total // size)
  folder.mkdir(parents=True, exist_ok=True)
  kept, taken = 0, []
  for passage in passages[::every]:
    if kept < size:
      taken.append(json.dumps({"text": passage}))
      kept += len(passage.encode())
  out.write_text("\n".join(taken) + "\n")


def run(workdir: pathlib.Path, command: str, *flags: str) -> None:
  """Runs an entry point on a work directory; what it says goes to WORKDIR.COMMAND.log beside that, and is shown where it fails."""
  log = workdir.with_name(f"{workdir.name}.{command}.log")
  with open(log, "w") as file:
    done = subprocess.run([sys.executable, "-m", f"jaxsplit.{command}", f"--workdir={workdir}", *flags], stdout=file,
                          stderr=subprocess.STDOUT, check=False)
  if done.returncode:
    sys.exit(f"{command} of {workdir} ended with {done.returncode} ({log}): {log.read_text()[-2000:]}")


def measured(arm: str, flags, corpus: pathlib.Path, k: int) -> dict:
  """What `evaluate` says of an arm, trained and measured if it is not yet."""
  name = arm.split()[0]
  workdir, result = flags.out / name, flags.out / f"{name}.json"
  if not result.exists():
    dense = arm == "labelled"  # One is enough: the mixture is the same passages, by tokens.
    settings = SETTINGS.format(corpus=corpus.resolve(), budget=flags.budget,
                               compare=(flags.seed_share, 1.0) if dense else (flags.seed_share,)) + ARMS[arm].format(k=k)
    tokenizer = flags.out / "labelled" / "store" / "tokenizer.json"
    tokens = "vocab_size = 1024" if dense else f"path = '{tokenizer.resolve()}'"
    settings += f"Tokenization.kind = 'bpe'\nTokenization.{tokens}\n"
    (flags.out / f"{name}.gin").write_text(settings)
    run(workdir, "train", f"--gin_file={flags.out / name}.gin")
    run(workdir, "evaluate", f"--store={flags.out / 'labelled' / 'store'}", "--split=valid", "--stride=128",
        f"--router={ROUTERS[arm]}", "--context_tokens=128", f"--out={result}")
  return json.loads(result.read_text())["routers"]


def table(names: list[str], results: dict[str, dict]) -> str:
  """A row a way to read: perplexity on each corpus, the mean over corpora of the loss as perplexity, and the gain over dense."""
  dense = results["labelled"]["dense"]["loss"]
  rows = [("dense", "", dense)] + [(f"{arm} seed", "", found["seed"]["loss"]) for arm, found in results.items()]
  rows += [(arm, SAID[router], results[arm][router]["loss"]) for arm in results for router in ROUTERS[arm].split(",")]
  mean = lambda loss: sum(loss[name] for name in names) / len(names)
  lines = [f"| domains | read by | {' | '.join(names)} | mean | gain over dense |", "|---" * (len(names) + 4) + "|"]
  for arm, router, loss in rows:
    gain = 1 - math.exp(mean(loss) - mean(dense))
    lines.append(f"| {arm} | {router} | {' | '.join(f'{math.exp(loss[name]):.2f}' for name in names)} | {math.exp(mean(loss)):.2f} "
                 f"| {gain:+.1%} |")
  return "\n".join(lines)


if __name__ == "__main__":
  main()
