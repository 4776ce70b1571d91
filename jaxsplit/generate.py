"""Continues a text: python -m jaxsplit.generate --workdir=DIR --prompt=TEXT [--domain=NAME | --router=NAME]

With the expert of a domain, the "seed" or the "dense" model of an experiment, or with --model=hf:DIR a Hugging Face model.
Without --domain, with the expert that a router chooses for the prompt, which is printed (docs/routing.md). Greedy decoding, or
sampling with --temperature=0.8.
"""

from __future__ import annotations

from jaxsplit import signals

signals.end_at_once(__name__)  # The imports below take seconds.

# ruff: noqa: E402
from collections.abc import Mapping, Sequence

from jaxsplit import cli
from jaxsplit.errors import InputError
from jaxsplit.evaluation.experts import Experts
from jaxsplit.evaluation.generation import Generation, fitted, generate, room_for
from jaxsplit.evaluation.routers import Routing
from jaxsplit.evaluation.routing import routed_evaluation
from jaxsplit.files import from_home
from jaxsplit.training.program_cache import keep_programs
from jaxsplit.training.trained import TrainedModel, load_model, load_models

FLAGS = {
    "workdir": cli.Path("the work directory of the experiment whose models continue the text"),
    "model": "hf:DIR, the folder of a Hugging Face model, in place of an experiment's",
    "domain": "the model: a domain, seed or dense; by default the router's choice",
    "router": "the router that chooses an expert by the prompt, one of those of python -m jaxsplit.evaluate; by default bayes",
    "prompt": "the text to continue; required",
    "store": cli.Path("where the experiment's token store is, if it was moved"),
}


def main(argv: Sequence[str] | None = None) -> int:
  """Prints the text that follows the prompt."""
  given = cli.parse("generate", __doc__, [Generation], argv, flags=FLAGS, fields_as_flags=True)
  settings, flags = given[Generation], given.flags
  if flags["prompt"] is None:
    raise InputError("--prompt is missing; give the text to go on with, as in --prompt='Once upon a time'")
  if bool(flags["workdir"]) == bool(flags["model"]):
    raise InputError("give the model: either --workdir, an experiment's, or --model=hf:DIR, a Hugging Face model")
  if flags["router"] and (flags["domain"] or flags["model"]):
    raise InputError(f"--router chooses among an experiment's experts, and --{'domain' if flags['domain'] else 'model'} names one; "
                     "give one of the two")
  keep_programs()
  model = _routed(flags) if flags["workdir"] and not flags["domain"] else _model(flags)
  prompt = model.tokenizer.encode(flags["prompt"])
  cut = len(prompt) - len(fitted(model, prompt, room_for(model, settings)))
  if cut:
    print(f"the first {cut:,} of the prompt's {len(prompt):,} tokens are not read: the model reads {model.config.sequence_length:,} "
          "together with what follows", flush=True)
  print(model.tokenizer.decode(generate(model, [prompt], settings)[0]))
  return 0


def _model(flags: Mapping[str, str | None]) -> TrainedModel:
  if flags["model"]:
    from jaxsplit.interop import huggingface

    if not flags["model"].startswith("hf:"):
      raise InputError(f"--model={flags['model']}: must be hf:DIR, where DIR is the folder of a Hugging Face model")
    return huggingface.load(from_home(flags["model"].removeprefix("hf:"), "--model"))
  return load_model(flags["workdir"], None if flags["domain"] == "seed" else flags["domain"], store=flags["store"])


def _routed(flags: Mapping[str, str | None]) -> TrainedModel:
  """The expert that the router prefers."""
  routing = Routing(router=flags["router"] or "bayes")
  if len(routing.names) != 1:
    raise InputError(f"--router={flags['router']}: one router chooses the expert; name one")
  models = load_models(flags["workdir"], store=flags["store"], log=lambda line: None)
  routed = routed_evaluation(flags["workdir"], routing, Experts(models), replica=0, store=flags["store"])
  weights = routed.weights(flags["prompt"])
  best = next(iter(weights))
  print(f"expert of {best} ({routing.names[0]}: {', '.join(f'{domain} {weight:.1%}' for domain, weight in weights.items())})", flush=True)
  return models[best]


if __name__ == "__main__":
  cli.run(main)
