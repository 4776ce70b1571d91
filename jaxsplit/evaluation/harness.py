"""Models of ours in EleutherAI's lm-evaluation-harness, with any of its tasks:

    import jaxsplit, lm_eval
    from jaxsplit.evaluation.harness import HarnessModel

    lm_eval.simple_evaluate(HarnessModel(jaxsplit.load_model("runs/mine", "law")), tasks=["arc_easy"])

Needs `pip install jaxsplit[lm-eval]`; nothing else in the package imports this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.evaluation.choices import fitted
from jaxsplit.evaluation.experts import Experts, Span
from jaxsplit.evaluation.generation import Generation, generate
from jaxsplit.training.trained import TrainedModel, side_by_side

try:
  from lm_eval import utils
  from lm_eval.api.model import TemplateLM
except ImportError as error:
  raise InputError(f"lm-evaluation-harness is not there ({error}); pip install jaxsplit[lm-eval]") from None

_LONGEST = 256  # Tokens that are generated where a task says nothing, as in the harness.
_TOGETHER = 16  # Prompts that are gone on with side by side.


class HarnessModel(TemplateLM):
  """One model, as the harness has them. What is longer than the model reads loses tokens from the left, as there."""

  def __init__(self, model: TrainedModel, batch_tokens: int = 0):
    """`batch_tokens`: tokens of a batch, padding included; 0: as `Experts` chooses."""
    super().__init__()
    self._model = model
    self._experts = Experts(side_by_side({"model": model}), batch_tokens)

  @property
  def eot_token_id(self) -> int:
    return self._model.tokenizer.end_of_document

  @property
  def max_length(self) -> int:
    """T, the tokens that the model reads."""
    return self._experts.context

  def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
    return self._model.tokenizer.encode(string).tolist()

  def _loglikelihood_tokens(self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any) -> list[tuple[float, bool]]:
    spans = [Span(np.array(context + continuation), len(context)) for _, context, continuation in requests]
    scores = self._experts.score(fitted(spans, self.max_length), as_trees=True)
    return [(float(total), bool(greedy)) for total, greedy in zip(scores.sums[0], scores.all_greedy[0])]

  def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
    windows = [[utils.make_disjoint_window(pair) for pair in utils.get_rolling_token_windows(
        token_list=self.tok_encode(request.args[0]), prefix_token=self.prefix_token_id, max_seq_len=self.max_length, context_len=1)]
        for request in requests]
    flat = [(None, *pair) for of_text in windows for pair in of_text]
    found = iter(self._loglikelihood_tokens(flat) if flat else ())
    return [sum(next(found)[0] for _ in of_text) for of_text in windows]

  def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
    texts: list[str] = []
    for begin in range(0, len(requests), _TOGETHER):  # Neighbours that ask for the same are gone on with together.
      group: list[Any] = []
      for request in requests[begin:begin + _TOGETHER]:
        if group and request.args[1] != group[0].args[1]:
          texts += self._texts(group)
          group = []
        group.append(request)
      texts += self._texts(group)
    return texts

  def _texts(self, requests: Sequence[Any]) -> list[str]:
    """What follows the contexts of requests that ask for the same."""
    asked, decode = requests[0].args[1], self._model.tokenizer.decode
    until = asked.get("until") or []
    until = [until] if isinstance(until, str) else until
    settings = Generation(min(int(asked.get("max_gen_toks", _LONGEST)), self.max_length - 1),
                          float(asked.get("temperature", 0.0)) if asked.get("do_sample") else 0.0)
    enough = lambda tokens: any(stop and stop in decode(tokens) for stop in until)
    found = generate(self._model, [self.tok_encode(request.args[0]) for request in requests], settings, enough)
    return [_before(decode(tokens), until) for tokens in found]


def _before(text: str, until: Sequence[str]) -> str:
  """The text before the first of some strings."""
  for stop in until:
    text = text.split(stop)[0] if stop else text
  return text
