"""What the train entry point refuses, in one line, before anything expensive."""

import os
import re
import shutil
import subprocess
import sys

import jax
import pytest
from small import arguments, write_corpus

from jaxsplit import prepare, train
from jaxsplit.data.corpus import Corpus
from jaxsplit.data.preparation import prepare_store
from jaxsplit.data.store import open_store
from jaxsplit.data.tokenizer import Tokenization
from jaxsplit.errors import InputError
from jaxsplit.experiment import guards
from jaxsplit.results.cells import read_cells


def test_another_experiments_work_directory_is_refused(corpus, finished):
  with pytest.raises(InputError, match=r"another experiment's results \(Experiment.budget_tokens = 12000 there, 13000 here\)"):
    train.main(arguments(corpus, finished, "--gin.Experiment.budget_tokens=13_000"))


def test_a_corpus_that_has_changed_since_is_refused_until_it_is_restored(finished, tmp_path):
  corpus = tmp_path / "corpus"
  corpus.mkdir()
  write_corpus(corpus)
  workdir = shutil.copytree(finished, tmp_path / "w")
  held, tokens = (workdir / "cells.csv").read_bytes(), open_store(workdir / "store").manifest_hash
  text = (corpus / "numbers.jsonl").read_text()
  (corpus / "numbers.jsonl").write_text(text + '{"text": "one more"}\n')
  with pytest.raises(InputError, match="the corpus has changed since its cells were measured .*name another folder, restore the corpus") as caught:
    train.main(arguments(corpus, workdir))
  assert "\n" not in str(caught.value)
  assert (workdir / "cells.csv").read_bytes() == held and open_store(workdir / "store").manifest_hash == tokens
  (corpus / "numbers.jsonl").write_text(text)
  restored = prepare_store(Corpus(str(corpus)), Tokenization(), tmp_path / "restored")
  guards.check_same_corpus(read_cells(workdir / "cells.csv"), workdir, restored)


@pytest.mark.parametrize("workdir", ["corpus", "corpus/runs/w", "link/w", "x/../corpus"])
def test_a_work_directory_within_the_corpus_is_refused_before_it_is_made(tmp_path, monkeypatch, workdir):
  (tmp_path / "corpus").mkdir()
  write_corpus(tmp_path / "corpus")
  (tmp_path / "link").symlink_to("corpus")
  monkeypatch.chdir(tmp_path)
  before = sorted(tmp_path.rglob("*"))
  with pytest.raises(InputError, match=f"--workdir={workdir}: lies in the corpus"):
    train.main(arguments("corpus", workdir))
  assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("more, message", [
    (["--gin.Clustering.k=3"], "Clustering.k = 3 is given, but"),
    (["--gin.Tokenization.kind=bpe", "--gin.Tokenization.path=nowhere.json"], "Tokenization.path: no such file: nowhere.json"),
    (["--gin.Experiment.seed=9"], "holds another experiment's results")])
def test_what_settings_alone_tell_is_said_before_anything_else(corpus, finished, tmp_path, capsys, more, message):
  workdir = shutil.copytree(finished, tmp_path / "w")
  with pytest.raises(InputError, match=message):
    train.main(arguments(corpus, workdir, *more))
  assert capsys.readouterr().out == ""


def test_a_work_directory_within_its_store_is_refused(corpus, tmp_path):
  prepare.main([f"--store={tmp_path / 'store'}", f"--gin.Corpus.path={corpus}"])
  with pytest.raises(InputError, match="--workdir=.*/store/w: lies in the token store, .*; name a folder outside"):
    train.main([*(a for a in arguments(corpus, tmp_path / "store" / "w") if "Corpus" not in a), f"--store={tmp_path / 'store'}"])
  assert not (tmp_path / "store" / "w").exists()


@pytest.mark.parametrize("more, message", [
    (["--gin.Corpus.path=elsewhere"], "already determines corpus and tokenizer, but Corpus.path = 'elsewhere' is given too"),
    (["--gin.Tokenization.kind=bpe"], "but Tokenization.kind = 'bpe' is given too"),
    (["--gin.Experiment.data=phonebook"], "but Experiment.data = 'phonebook' is given too"),
    (["--store=nowhere"], "nowhere: no token store here"),
    (["--store=damaged"], "latin.valid.bin: has other tokens than were written"),
])
def test_a_store_that_cannot_be_taken_is_one_line(finished, tmp_path, monkeypatch, more, message):
  monkeypatch.chdir(tmp_path)
  shutil.copytree(finished / "store", "damaged")
  (tmp_path / "damaged" / "latin.valid.bin").write_bytes(bytes(len((tmp_path / "damaged" / "latin.valid.bin").read_bytes())))
  argv = [a for a in arguments("", tmp_path / "w", f"--store={finished / 'store'}", *more) if a != "--gin.Corpus.path="]
  with pytest.raises(InputError) as caught:
    train.main(argv)
  assert message in str(caught.value) and "\n" not in str(caught.value)
  assert not (tmp_path / "w" / "cells.csv").exists()


@pytest.mark.parametrize("more, message", [
    (["--gin.Corpus.path=/nonexistent"], "/nonexistent"),
    (["--gin.Corpus.path=''"], "Corpus.path is empty"),
    (["--gin.Experiment.target=(16, 2)"], "is one of Experiment.sizes"),
    (["--gin.Experiment.seed_fractions=(0.5, 1.5)"], "1.5 is not a fraction"),
    (["--gin.Experiment.sizes=((8, 1), (16, 1), (8, 1))"], r"\(8, 1\) is given twice"),
    (["--gin.Experiment.seed_fractions=(0.5, 0.5)"], r"seed_fractions = \(0.5, 0.5\): 0.5 is given twice"),
    (["--gin.Experiment.expert_fractions=(0.001, 0.5)"], "0.001 is less than a step; the least that works is 0.00534"),
    (["--gin.Experiment.sizes=((8, 1), (16, 1))"], "params has 2 distinct values .* needs 3; measure another size N"),
    (["--gin.Experiment.seed_fractions=(0.5,)", "--gin.Experiment.expert_fractions=(0.5,)"], "seed_tokens has 1 distinct value"),
    (["--gin.Experiment.seed_fractions=(0.5,)", "--gin.Experiment.expert_fractions=(0.5,)", "--gin.FitSettings.form=auto"],
     "no law can be told from these cells: total_tokens has 2 distinct values"),
    (["--gin.Experiment.expert_fractions=(0.1,)", "--gin.FitSettings.form=auto"], "experts were hardly measured .* Nothing was trained"),
    (["--gin.FitSettings.form=chinchilla"], "form chinchilla takes seed and expert tokens for the same.* Nothing was trained"),
    (["--gin.FitSettings.holdout='params:3'"], "holdout=params:3: the table has only 3 values of params.* Nothing was trained"),
    (["--gin.FitSettings.holdout=none", "--gin.FitSettings.form=auto"], "holdout=none leaves --form=auto nothing to choose by"),
])
def test_what_cannot_work_is_said_in_one_line(corpus, tmp_path, more, message):
  with pytest.raises(InputError, match=message) as caught:
    train.main(arguments(corpus, tmp_path / "w", *more))
  assert "\n" not in str(caught.value) and not (tmp_path / "w" / "metrics.jsonl").exists()


@pytest.mark.parametrize("more", [["--gin.Corpus.domains=('latin',)"], ["--gin.Corpus.domains_from=one:latin"]])
def test_one_domain_is_refused_before_it_is_read(corpus, tmp_path, more):
  with pytest.raises(InputError, match="only one domain, latin: there is nothing to split; give a corpus with a subfolder"):
    train.main(arguments(corpus, tmp_path / "w", *more))
  assert not list((tmp_path / "w").glob("store*"))


@pytest.mark.parametrize("more, message", [
    (["--gin.Experiment.budget_tokens=100"], "100 is 3 steps of 32 tokens; give at least 100 steps, which are 3200 tokens"),
    (["--gin.Architecture.head_dim=7"], "head_dim = 7"),
    (["--gin.Experiment.target=(16, 1)", "--gin.Experiment.sizes=((8, 1), (24, 1), (8, 2))"],
     r"\(24, 1\) has N = [0-9,]+, more than Experiment.target = \(16, 1\)"),
    (["--gin.Experiment.line=0"], "Experiment.line = 0.0: must be a fraction"),
    (["--gin.Experiment.uneven", "--gin.Experiment.trunk=per_domain"], "an uneven plan needs a law, and experts that share a trunk"),
    (["--gin.Architecture.attention=cudnn", "--gin.Architecture.compute_dtype=bfloat16"], "'cudnn' needs CUDA devices, and here is cpu"),
    (["--gin.Architecture.attention=splash", "--gin.Architecture.head_dim=128", "--gin.Training.sequence_length=128",
      "--gin.Experiment.budget_tokens=1_000_000", "--gin.Experiment.sizes=()", "--gin.Experiment.target=(128, 1)"],
     "'splash' needs TPU devices, and here is cpu"),
    (["--gin.Layout.devices=3"], r"Layout.devices = 3, but there are 2 \(2 x cpu\)"),
    (["--gin.Layout.expert=3"], "Layout.expert = 3"),
    (["--gin.Layout.tensor=3"], "tensor = 3 does not divide 2 devices"),
    (["--gin.Layout.data=2", "--gin.Training.batch_sequences=3"], "a batch of 3 sequences cannot be shared by Layout.data = 2"),
])
def test_what_cannot_work_whatever_the_data_is_said_before_they_are_read(corpus, tmp_path, more, message):
  with pytest.raises(InputError, match=message) as caught:
    train.main(arguments(corpus, tmp_path / "w", *more))
  assert "\n" not in str(caught.value) and not (tmp_path / "w").exists()


def test_programs_that_jax_is_told_to_take_apart_are_refused(corpus, tmp_path):
  with jax.disable_jit(), pytest.raises(InputError, match="JAX_DISABLE_JIT is set, but .* unset it"):
    train.main(arguments(corpus, tmp_path / "w"))


@pytest.mark.parametrize("platform, message", [("cuda", "JAX has no support for it here"), ("cpuu", ".*'cpuu'")])
def test_a_platform_that_is_not_here(corpus, tmp_path, platform, message):
  done = subprocess.run([sys.executable, "-m", "jaxsplit.train", *arguments(corpus, tmp_path / "w")], capture_output=True, text=True,
                        env=os.environ | {"JAX_PLATFORMS": platform}, timeout=120)
  assert done.returncode == 2 and done.stderr.count("\n") == 1 and not (tmp_path / "w").exists()
  assert re.match(f"jaxsplit: JAX_PLATFORMS={platform}: {message}.*; what is there is . x cpu: unset it", done.stderr)


@pytest.mark.parametrize("variable", ["JAX_TRANSFER_GUARD", "JAX_ENABLE_X64", "JAX_NUMPY_RANK_PROMOTION"])
def test_a_value_that_jax_does_not_know(corpus, tmp_path, variable):
  done = subprocess.run([sys.executable, "-m", "jaxsplit.train", *arguments(corpus, tmp_path / "w")], capture_output=True, text=True,
                        env=os.environ | {variable: "bogus"}, timeout=120)
  assert done.returncode == 2 and done.stderr.count("\n") == 1 and not (tmp_path / "w").exists()
  assert re.match(f"(?i)jaxsplit: .*bogus.*{variable}.*; unset that environment variable", done.stderr)


def test_a_domain_too_small_to_validate_is_named(corpus, tmp_path):
  (tmp_path / "c" / "tiny").mkdir(parents=True)
  (tmp_path / "c" / "tiny" / "train.txt").write_text("few words")
  with pytest.raises(InputError, match="tiny"):
    train.main(arguments(tmp_path / "c", tmp_path / "w"))


def test_no_workdir():
  with pytest.raises(InputError, match="--workdir is missing"):
    train.main([])
