"""The commands of docs/corpora.md, on small files of the names that it uses."""

import gzip
import json
import pathlib
import re
import shlex

import fsspec
import numpy as np
import pytest
from writing import write_records

from jaxsplit.prepare import main

DOCUMENT = pathlib.Path(__file__).parents[1] / "docs" / "corpora.md"
ALL = re.findall(r"^    python -m jaxsplit\.prepare ((?:.*\\\n)*.*)", DOCUMENT.read_text(), re.MULTILINE)
COMMANDS = [command for command in ALL if "gs://" not in command]  # Nobody's bucket, on nobody's cluster.


def rows(domain, key="text", **more):
  return [{key: f"document {i} of {domain} {'abcdefgh' * 12}", **more} for i in range(300)]


def write(name, documents):
  path = pathlib.Path(name)
  path.parent.mkdir(parents=True, exist_ok=True)
  data = "".join(json.dumps(row) + "\n" for row in documents).encode()
  path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


@pytest.fixture
def files(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for domain in ("law", "med"):
    write(f"corpus/{domain}.jsonl", rows(domain))
    write(f"crawl/{domain}.jsonl", rows(domain, "content"))
    write(f"shards/{domain}/a.jsonl.gz", rows(domain))
    fsspec.filesystem("memory").pipe(f"/corpus/{domain}.jsonl", pathlib.Path(f"corpus/{domain}.jsonl").read_bytes())
  for i in range(3):
    write(f"shards/c4-train.{i:05}.jsonl", rows(f"shard {i}"))
  write("pile.jsonl.gz", [row for label in ("Pile-CC", "arXiv", "math/qa") for row in rows(label, meta={"pile_set_name": label})])
  write("messy/web.jsonl", [*rows("web"), *rows("web")[:50], {"text": "short"}, {"text": None}, {"body": "x"}])
  folder = pathlib.Path("tensorflow_datasets/news/1.0.0")
  folder.mkdir(parents=True)
  (folder / "dataset_info.json").write_text(json.dumps({"name": "news", "fileFormat": "array_record", "splits": [{"name": "train", "shardLengths": ["300"]}]}))
  write_records(folder / "news-train.array_record-00000-of-00001", rows("news"))
  pathlib.Path("tokens/owt").mkdir(parents=True)
  ids = np.random.default_rng(0).integers(0, 50256, (300, 40))
  ids[:, -1] = 50256
  ids.astype(np.uint16).tofile("tokens/owt/train.bin")
  ids[:, :20].repeat(6, axis=1).astype(np.uint16).tofile("tokens/owt/val.bin")
  yield
  fsspec.filesystem("memory").rm("/corpus", recursive=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs(files, command, capsys):
  main(shlex.split(command.replace("\\\n", "")))
  assert "train" in capsys.readouterr().out


def test_all_commands_were_found():
  assert len(ALL) == len(COMMANDS) + 1 == DOCUMENT.read_text().count("python -m jaxsplit.prepare -")
