"""Experts as Hugging Face folders: what is read back is what was trained; generation by them; refusals in a line."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

import jaxsplit
from jaxsplit import export, generate
from jaxsplit.errors import InputError
from jaxsplit.interop import huggingface
from jaxsplit.law import load_plan
from jaxsplit.results.cells import read_cells


def test_every_model_is_written_with_its_card(finished, tmp_path, capsys):
  assert export.main([f"--workdir={finished}", f"--out={tmp_path / 'out'}"]) == 0
  assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["dense", "latin", "numbers", "seed"]
  for name, which in (("latin", "latin"), ("seed", None), ("dense", "dense")):
    there, here = huggingface.load(tmp_path / "out" / name), jaxsplit.load_model(finished, which)
    jax.tree.map(np.testing.assert_array_equal, there.params, here.params)
    tokens = here.tokenizer.encode("arma virumque")[None]
    np.testing.assert_array_equal(there.tokenizer.encode("arma virumque")[None], tokens)
    np.testing.assert_allclose(there(tokens), here(tokens), atol=1e-5)
  point, card = load_plan(finished / "plan.json").point, (tmp_path / "out" / "latin" / "README.md").read_text()
  cell = next(cell for cell in read_cells(finished / "cells.csv") if (cell.role, cell.domain, cell.seed_tokens) == (
      "split", "latin", point.seed_tokens))
  for text in (f"| D, tokens of the seed | {point.seed_tokens:,} |", f"| D', tokens of the expert | {point.expert_tokens:,} |",
               "A specialist on the domain **latin**", f"| latin | {cell.loss:.4f} |"):
    assert text in card
  cards = {name: (tmp_path / "out" / name / "README.md").read_text() for name in ("seed", "dense")}
  for name in cards:
    steps = jaxsplit.load_model(finished, name).steps
    assert f"| D, tokens | {steps * cell.batch_tokens:,} |" in cards[name] and "base model" not in cards[name]
  config = json.loads((tmp_path / "out" / "latin" / "config.json").read_text())
  assert (config["architectures"], config["max_position_embeddings"]) == (["Qwen3ForCausalLM"], 16)
  with pytest.raises(InputError, match="latin exists already; name another folder"):
    export.main([f"--workdir={finished}", f"--out={tmp_path / 'out'}"])
  capsys.readouterr()
  assert generate.main([f"--model=hf:{tmp_path / 'out' / 'numbers'}", "--prompt=1", "--tokens=6"]) == 0
  written = capsys.readouterr().out
  assert generate.main([f"--workdir={finished}", "--domain=numbers", "--prompt=1", "--tokens=6"]) == 0
  assert capsys.readouterr().out == written and set(written.strip()) <= set("0123456789 ")
  assert generate.main([f"--workdir={finished}", "--prompt=17 288", "--tokens=6"]) == 0
  told = capsys.readouterr().out
  assert "expert of numbers (bayes: numbers " in told and ", latin " in told


@pytest.mark.parametrize("out, message", [
    ("run", "lies in the experiment's work directory"), ("run/figures/x", "lies in the experiment's work directory"),
    ("link/new", "lies in the experiment's work directory"), ("tokens/x", "lies in its token store"),
    ("other", "holds an experiment or a model .config.json."), ("stored", "holds a token store .manifest.json."),
    ("texts", r"holds what is no exported model \(a\)")])
def test_no_model_is_written_among_files_of_others(finished, tmp_path, monkeypatch, out, message):
  monkeypatch.chdir(tmp_path)
  shutil.copytree(finished, "run")
  shutil.move("run/store", "tokens")
  (tmp_path / "link").symlink_to("run")
  for name, file in (("other", "config.json"), ("stored", "manifest.json")):
    (tmp_path / name).mkdir()
    (tmp_path / name / file).write_text("{}")
  (tmp_path / "texts" / "a").mkdir(parents=True)  # A corpus.
  before = sorted(tmp_path.rglob("*"))
  with pytest.raises(InputError, match=f"^--out={out}: {message}.*; name a folder .*, as in --out=exported$"):
    export.main(["--workdir=run", "--store=tokens", f"--out={out}"])
  assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("router", ["centroid", "bayes@1", "best_single"])
def test_generate_goes_on_by_the_choice_of_any_router(finished, capsys, router):
  assert generate.main([f"--workdir={finished}", f"--router={router}", "--prompt=17 288", "--tokens=6"]) == 0
  told = capsys.readouterr().out
  assert re.match(rf"expert of (numbers|latin) \({router}: \1 ", told) and (router == "best_single" or "numbers (" in told)


@pytest.mark.parametrize("router, match", [
    ("uniform", "--router=uniform prefers no expert for this prompt; name a domain as --domain"),
    ("bayes,uniform", "one router chooses the expert; name one"), ("oracle", "--router=oracle: no expert is known to be right")])
def test_a_router_that_chooses_no_expert_is_refused(finished, router, match):
  with pytest.raises(InputError, match=match):
    generate.main([f"--workdir={finished}", f"--router={router}", "--prompt=17 288"])


def test_a_longer_prompt_than_the_model_reads_is_cut_and_told(finished, capsys):
  generate.main([f"--workdir={finished}", "--domain=latin", f"--prompt={'arma ' * 9}", "--tokens=6"])
  assert "the first 35 of the prompt's 45 tokens are not read: the model's context is 16 tokens, of which 6 are kept" in capsys.readouterr().out


@pytest.mark.parametrize("entry, argv, match", [
    (export, ["--out=x"], "--workdir is missing; name a folder"),
    (export, ["--workdir=x"], "--out is missing; name a folder"),
    (export, ["--workdir=x", "--out=y", "--shard_bytes=0"], "Export.shard_bytes = 0: must be 1 or more"),
    (generate, ["--workdir=x"], "--prompt is missing"),
    (generate, ["--prompt=x"], "give the model: either --workdir"),
    (generate, ["--prompt=x", "--model=x"], "--model=x: must be hf:DIR"),
    (generate, ["--prompt=x", "--workdir=x", "--domain=y", "--router=bayes"], "--domain names one; give one of the two"),
    (generate, ["--prompt=x", "--model=hf:x", "--domain=y"], "--domain is of an experiment, and --model names a model by itself"),
    (generate, ["--prompt=x", "--model=hf:/none"], "hf:/none: no such folder"),
    (generate, ["--prompt=x", "--workdir=x", "--temperature=-1"], "Generation.temperature = -1.0: must be 0")])
def test_refusals(entry, argv, match):
  with pytest.raises(InputError, match=match):
    entry.main(argv)
