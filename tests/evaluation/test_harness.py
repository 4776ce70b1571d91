"""lm-evaluation-harness: what it asks of a model, without it and with it."""

import pathlib
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from jaxsplit.interop import huggingface

GOLDEN = pathlib.Path(__file__).parent.parent / "interop" / "golden"


def test_the_package_does_not_ask_for_it():
  code = ("import sys; sys.modules['lm_eval'] = None; import jaxsplit.evaluating, jaxsplit.generate\n"
          "from jaxsplit.errors import InputError\n"
          "try: import jaxsplit.evaluation.harness\n"
          "except InputError as error: assert 'pip install jaxsplit[lm-eval]' in str(error); print('said')")
  assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=300).stdout == "said\n"


def test_a_model_answers_as_the_harness_asks():
  pytest.importorskip("lm_eval", reason="lm-eval is not installed")
  from jaxsplit.evaluation.harness import HarnessModel
  model = huggingface.load(GOLDEN / "llama_grouped")
  adapter, request = HarnessModel(model), lambda *args: types.SimpleNamespace(args=args)
  tokens = model.tokenizer.encode("the quick fox")
  log_TxV = np.asarray(jax.nn.log_softmax(model(tokens[None])[0]))
  ((total, greedy),) = adapter.loglikelihood([request("the quick", " fox")])
  assert total == pytest.approx(sum(log_TxV[t - 1, tokens[t]] for t in range(9, 13)), abs=1e-4) and not greedy
  whole = np.concatenate([[0], tokens])
  log_TxV = np.asarray(jax.nn.log_softmax(model(whole[None])[0]))
  assert adapter.loglikelihood_rolling([request("the quick fox")])[0] == pytest.approx(
      sum(log_TxV[t, token] for t, token in enumerate(tokens)), abs=1e-4)
  assert np.isfinite(adapter.loglikelihood_rolling([request("the quick fox " * 6)])[0])  # Longer than the model reads.
  free, stopped = adapter.generate_until([request("ab", {"max_gen_toks": 8}), request("ab", {"max_gen_toks": 8, "until": ["zz", ""]})])
  assert stopped == free.split("zz")[0]
