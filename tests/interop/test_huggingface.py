"""Hugging Face folders: logits as transformers computed them (scripts/hf_logits.py), the same bits in and out, refusals in a line."""

import dataclasses
import json
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_near

from jaxsplit.data.tokenizer import AlphabetTokenizer, ByteTokenizer, IdTokenizer, load_tokenizer, train_bpe
from jaxsplit.errors import InputError
from jaxsplit.interop import huggingface
from jaxsplit.interop.tensors import find_tensors
from jaxsplit.interop.tokenizers import read_tokenizer, write_tokenizer

GOLDEN = pathlib.Path(__file__).with_name("golden")
KINDS = sorted(path.name for path in GOLDEN.iterdir())


@pytest.fixture
def folder(tmp_path):
  return shutil.copytree(GOLDEN / "llama_tied", tmp_path / "model")


def bits(directory):
  return {name: tensor.read().tobytes() for name, tensor in find_tensors(directory).items()}


def change(path, **fields):
  path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refused(match, directory, **options):
  with pytest.raises(InputError, match=match):
    huggingface.load(directory, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers(kind):
  golden = np.load(GOLDEN / kind / "logits.npz")
  assert_near(huggingface.load(GOLDEN / kind)(golden["tokens"]), golden["logits"], 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_read_is_written_bit_for_bit(kind, tmp_path):
  huggingface.save(huggingface.load(GOLDEN / kind), tmp_path, shard_bytes=4_000)
  assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
  assert bits(tmp_path) == bits(GOLDEN / kind)
  for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
    assert json.loads((tmp_path / name).read_text()) == json.loads((GOLDEN / kind / name).read_text())


def test_bfloat16_comes_back_bit_for_bit_and_other_windows_are_shorter(folder, tmp_path):
  (tmp_path / "half").mkdir()
  (tmp_path / "again").mkdir()
  huggingface.save(huggingface.load(folder), tmp_path / "half", "bfloat16")
  huggingface.save(huggingface.load(tmp_path / "half"), tmp_path / "again", "bfloat16")
  assert bits(tmp_path / "again") == bits(tmp_path / "half") != bits(folder)
  short = huggingface.load(GOLDEN / "gpt2", context=8)
  tokens = np.load(GOLDEN / "gpt2" / "logits.npz")["tokens"][:, :8]
  np.testing.assert_allclose(short(tokens), huggingface.load(GOLDEN / "gpt2")(tokens), rtol=1e-6)
  refused("32 tokens are to be read, and the model reads 24", GOLDEN / "gpt2", context=32)


def test_published_gpt2_has_no_prefix_and_keeps_masks(tmp_path):
  """As openai-community/gpt2 is: names without `transformer.`, and a mask a layer."""
  from jaxsplit.interop.tensors import write_tensors
  shutil.copytree(GOLDEN / "gpt2", tmp_path / "m")
  theirs = {name.removeprefix("transformer."): np.array(tensor.read()) for name, tensor in find_tensors(GOLDEN / "gpt2").items()}
  theirs["h.0.attn.bias"] = np.ones((1, 1, 4, 4), np.float32)
  write_tensors(tmp_path / "m", {name: x.shape for name, x in theirs.items()}, theirs.__getitem__, np.dtype("<f4"))
  np.testing.assert_array_equal(huggingface.load(tmp_path / "m").params["embed_VxD"], theirs["wte.weight"])


def test_a_part_of_a_parameter_is_that_part_of_the_whole():
  folder = huggingface.open_folder(GOLDEN / "llama_grouped")
  whole = folder.params()["layers"]["attention"]["in_DxGxMxd"]
  index = (slice(1, 2), slice(4, 9), slice(0, 1), slice(None), slice(None))
  np.testing.assert_array_equal(folder.part("layers.attention.in_DxGxMxd", index), whole[index])


@pytest.mark.parametrize("file, fields, match", [
    ("config.json", {"attention_bias": True}, "config.json: attention_bias = True: this family has no biases"),
    ("config.json", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope_parameters = .*scaled by 'llama3' are not computed"),
    ("config.json", {"model_type": "bert"}, "model_type = 'bert': only llama, mistral, qwen3, gpt2 are read"),
    ("config.json", {"hidden_act": "gelu"}, "hidden_act = 'gelu': only 'silu' is read"),
    ("config.json", {"intermediate_size": 40}, "intermediate_size = 40: must be a multiple of 16"),
    ("config.json", {"hidden_size": None}, "hidden_size = None: must be a positive number"),
    ("config.json", {"head_dim": 8}, "head_dim = 8: 4 heads of 8 are 32 wide, where hidden_size = 16"),
    ("config.json", {"num_hidden_layers": 3}, "has no tensor model.layers.2"),
    ("config.json", {"intermediate_size": 32}, r"gate_proj.weight has shape \[48, 16\], where config.json asks for \[32, 16\]"),
    ("config.json", {"vocab_size": 28}, "its tokenizer has ids up to 28, and its model a vocab_size of 28"),
    ("config.json", {"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"rope_type": "yarn"}},
     "rope_scaling = .*scaled by 'yarn'"),
    ("config.json", {"quantization_config": {"bits": 4}}, "has a quantization_config"),
    ("config.json", {"sliding_window": 8}, "sliding_window = 8: .*read at most 8"),
    ("config.json", {"num_hidden_layers": 1}, r"tensor model.layers.1.* \(and 8 more\): no model here has it")])
def test_a_model_that_is_none_of_ours_is_named(folder, file, fields, match):
  change(folder / file, **fields)
  refused(match, folder)


def test_biases_are_refused_by_name(tmp_path):
  from jaxsplit.interop.tensors import write_tensors
  shutil.copytree(GOLDEN / "llama_tied", tmp_path / "m")
  theirs = {name: np.array(tensor.read()) for name, tensor in find_tensors(tmp_path / "m").items()}
  theirs["model.layers.0.self_attn.q_proj.bias"] = np.zeros(16, np.float32)
  write_tensors(tmp_path / "m", {name: x.shape for name, x in theirs.items()}, theirs.__getitem__, np.dtype("<f4"))
  refused("tensor model.layers.0.self_attn.q_proj.bias: this family has no biases here", tmp_path / "m")


def overlapping(whole: bytes) -> bytes:
  """The file with two tensors in one place, by its header."""
  offsets = re.findall(rb'"shape":\[16\],"data_offsets":\[(\d+,\d+)\]', whole)
  return whole.replace(offsets[1], offsets[0].ljust(len(offsets[1])), 1)


def test_damaged_weights_are_named(folder):
  file, whole = folder / "model.safetensors", (folder / "model.safetensors").read_bytes()
  length = int.from_bytes(whole[:8], "little")
  for data, match in [
      (b"abc", "model.safetensors: truncated: 3 bytes are no safetensors file"),
      (whole[:length // 2], "truncated: .* bytes, of which the header alone should have"),
      (whole[:-10], "truncated: model.* ends at byte"),
      ((1 << 62).to_bytes(8, "little") + whole[8:], "truncated: .* the header alone should have"),
      (whole + b"more", "4 bytes follow its last tensor"),
      (whole[:8] + b"[" + whole[9:], "its header is not that of a safetensors file"),
      (whole.replace(b'"F32"', b'"I32"', 1), "has dtype I32; only F64, F32, F16, BF16 are read"),
      (whole.replace(b'"shape":[16]', b'"shape":[17]', 1), r"of F32 \[17\] has 64 bytes"),
      (whole[:-4] + np.float32(np.nan).tobytes(), "model.* is NaN or infinite in 1 of .* places; fetch or save it again"),
      (overlapping(whole), "begins at byte .*, where .* is next")]:
    file.write_bytes(data)
    refused(match, folder)
  with file.open("wb") as f:
    f.write((100_000_001).to_bytes(8, "little"))
    f.truncate(100_000_100)  # Sparse.
  refused("its header of 100,000,001 bytes is larger", folder)
  file.unlink()
  refused("has neither model.safetensors nor model.safetensors.index.json; name a folder", folder)
  (folder / "pytorch_model.bin").touch()
  refused("pytorch_model.bin is a pickle, which can run code", folder)


def test_a_folder_without_tokenizer_or_model_is_named(folder, tmp_path):
  (folder / "tokenizer.json").unlink()
  refused("has no tokenizer.json; put the model's tokenizer beside it", folder)
  (folder / "config.json").unlink()
  refused("no config.json of a model; name a folder that save_pretrained has written", folder)
  refused("hf:.*none: no such folder", tmp_path / "none")


@pytest.mark.parametrize("tokenizer, text", [
    (ByteTokenizer(), "Straße 東京\n\tx\x00y"), (AlphabetTokenizer("abc"), "abccba"),
    (train_bpe(["to be or not to be"] * 3, 260), "to be\n")])
def test_written_tokenizers_have_the_same_ids(tokenizer, text, tmp_path):
  write_tokenizer(tmp_path, tokenizer, 16)
  there = read_tokenizer(tmp_path)
  np.testing.assert_array_equal(there.encode(text), tokenizer.encode(text))
  assert (there.end_of_document, there.vocab_size) == (tokenizer.end_of_document, tokenizer.vocab_size)
  assert there.decode(there.encode(text)) == tokenizer.decode(tokenizer.encode(text))


def test_a_separator_of_another_name_is_the_end_of_a_sequence(tmp_path):
  train_bpe(["a b"], 258).save(tmp_path / "tokenizer.json")
  text = (tmp_path / "tokenizer.json").read_text().replace("<|endoftext|>", "<stop>")
  (tmp_path / "tokenizer.json").write_text(text)
  (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<stop>"}}))
  assert read_tokenizer(tmp_path).end_of_document == load_tokenizer(tmp_path / "tokenizer.json", "<stop>").end_of_document


def test_a_model_without_counterpart_or_tokenizer_is_not_written(tmp_path):
  model = huggingface.load(GOLDEN / "llama_tied")
  with pytest.raises(InputError, match="the corpus was tokens without a tokenizer"):
    huggingface.save(dataclasses.replace(model, tokenizer=IdTokenizer(29, 0)), tmp_path)

  class Other(type(model.config)):
    pass

  fields = {field.name: getattr(model.config, field.name) for field in dataclasses.fields(model.config)}
  with pytest.raises(InputError, match="Architecture.family = 'other': no Hugging Face model is like that family"):
    huggingface.save(dataclasses.replace(model, config=Other(**{**fields, "family": "other"})), tmp_path)


def test_epsilons_of_norms_are_the_models_own(folder):
  change(folder / "config.json", rms_norm_eps=0.1)
  tokens = np.arange(1, 9)[None]
  assert jnp.abs(huggingface.load(folder)(tokens) - huggingface.load(GOLDEN / "llama_tied")(tokens)).max() > 0.01
  jax.tree.map(np.testing.assert_array_equal, huggingface.load(folder).params, huggingface.load(GOLDEN / "llama_tied").params)
