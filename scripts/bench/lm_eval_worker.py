"""lm-evaluation-harness with a model of transformers, for evaluate.py: scores tasks whose rows are local files, and times it.

Reads lines of JSON from standard input, answers each with one. The first says where the model is and how many threads there are; the
others name a task, the file of its rows, how many of them are taken, and the batch size, or pairs of tokens whose log-likelihoods are
wanted in float64. Needs torch, transformers and lm-eval; and jaxsplit where the first line asks for its adapter in the place of
transformers' model.
"""

import copy
import gzip
import json
import logging
import os
import pathlib
import sys
import tempfile
import time

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import torch  # noqa: E402
import yaml  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402


def rows_of(path: str, limit: int) -> list[dict]:
  with gzip.open(path, "rt") if path.endswith(".gz") else open(path) as file:
    rows = [json.loads(line) for line in file if line.strip()][:limit or None]
  for row in rows:  # The harness has BoolQ as SuperGLUE does, and LAMBADA as whole texts.
    if isinstance(row.get("answer"), bool):
      row["label"] = int(row.pop("answer"))
    if set(row) == {"context", "continuation"}:
      row["text"] = f"{row.pop('context')} {row.pop('continuation')}"
  return rows


def task_of(manager: TaskManager, name: str, rows: list[dict], folder: str):
  """The harness's own task, with these rows in place of the hub's."""
  data = pathlib.Path(folder) / f"{name}.jsonl"
  data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  config = {"include": str(manager.task_index[name].yaml_path), "task": f"{name}_here", "dataset_path": "json", "dataset_name": None,
            "dataset_kwargs": {"data_files": {"validation": str(data)}}, "training_split": None, "test_split": None,
            "validation_split": "validation"}
  path = pathlib.Path(folder) / f"{name}_here.yaml"
  path.write_text(yaml.safe_dump(config))
  (task,) = manager.load(str(path))["tasks"].values()
  return task


def exact(model: HFLM, pairs: list[tuple[list[int], list[int]]]) -> list[float]:
  """Log-likelihoods of continuations behind their contexts, computed in float64."""
  wide, sums = copy.deepcopy(model.model).double(), []
  for context, continuation in pairs:
    tokens = torch.tensor((context + continuation)[-model.max_length - 1:])
    with torch.no_grad():
      logs = torch.log_softmax(wide(tokens[None, :-1]).logits[0], -1)
    sums.append(float(logs.gather(-1, tokens[1:, None])[-len(continuation):].sum()))
  return sums


def main() -> None:
  answers, sys.stdout = sys.stdout, sys.stderr  # The libraries print.
  logging.disable(logging.WARNING)
  asked = json.loads(sys.stdin.readline())
  torch.set_num_threads(asked["threads"])
  if asked["adapter"]:
    from jaxsplit.evaluation.harness import HarnessModel
    from jaxsplit.interop import huggingface
    model = HarnessModel(huggingface.load(asked["model"], asked["context"]))
  else:
    model = HFLM(pretrained=asked["model"], dtype="float32", device="cpu", batch_size=1, max_length=asked["context"])
  manager = TaskManager()
  print(json.dumps({"ready": True}), file=answers, flush=True)
  for line in sys.stdin:
    asked = json.loads(line)
    if "exact" in asked:
      print(json.dumps({"sums": exact(model, asked["exact"])}), file=answers, flush=True)
      continue
    model.batch_size_per_gpu = asked["batch"]
    with tempfile.TemporaryDirectory() as folder:
      task = task_of(manager, asked["task"], rows_of(asked["file"], asked["limit"]), folder)
      task.build_all_requests(limit=None)
      began, clock = time.perf_counter(), time.process_time()
      found = model.loglikelihood(task.instances, disable_tqdm=True)
      seconds, processor = time.perf_counter() - began, time.process_time() - clock
      by_row: dict[int, list] = {}
      for instance, value in zip(task.instances, found):
        tokens = model._encode_pair(*instance.args)
        by_row.setdefault(instance.doc_id, []).append((instance.idx, *value, tokens))
      rows = []
      for number, doc in enumerate(task.eval_docs):
        of = sorted(by_row[number])
        metrics = task.process_results(doc, [(log, greedy) for _, log, greedy, _ in of])
        rows.append({"log_likelihoods": [log for _, log, _, _ in of], "tokens": [tokens for _, _, _, tokens in of],
                     "acc": float(metrics["acc"]), "acc_norm": metrics.get("acc_norm")})
    print(json.dumps({"seconds": seconds, "processor": processor, "rows": rows}), file=answers, flush=True)


if __name__ == "__main__":
  main()
