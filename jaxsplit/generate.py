"""Continues a text: python -m jaxsplit.generate --workdir=DIR --prompt=TEXT [--domain=NAME | --router=NAME]

With the expert of a domain, the "seed" or the "dense" model of an experiment, or with --model=hf:DIR a Hugging Face model.
Without --domain, with the expert that a router chooses for the prompt, which is printed (docs/routing.md). Greedy decoding, or
sampling with --temperature=0.8.
"""

from __future__ import annotations

from jaxsplit import signals

signals.end_at_once(__name__)  # The imports below take seconds.

# ruff: noqa: E402
import os
from collections.abc import Callable, Mapping, Sequence

from jaxsplit import cli
from jaxsplit.errors import InputError
from jaxsplit.evaluation.experts import Experts
from jaxsplit.evaluation.generation import Generation, fitted, generate, room_for
from jaxsplit.evaluation.routers import Routing
from jaxsplit.evaluation.routing import routed_evaluation
from jaxsplit.files import from_home
from jaxsplit.interop import huggingface
from jaxsplit.training.program_cache import keep_programs
from jaxsplit.training.loading import load_model, load_models
from jaxsplit.training.trained import TrainedModel

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
  for name in ("domain", "store"):
    if flags["model"] and flags[name]:
      raise InputError(f"--{name} is of an experiment, and --model names a model by itself; give one of the two")
  keep_programs()
  log = lambda line: print(line, flush=True)
  if flags["workdir"] and not flags["domain"]:
    model, weights = route(flags["workdir"], flags["prompt"], flags["router"] or "bayes", flags["store"])
    shares = ", ".join(f"{domain} {weight:.1%}" for domain, weight in weights.items())
    log(f"expert of {next(iter(weights))} ({flags['router'] or 'bayes'}: {shares})")
  else:
    model = _model(flags)
  log(continue_text(model, flags["prompt"], settings, log))
  return 0


def continue_text(model: TrainedModel, prompt: str, settings: Generation = Generation(), log: Callable[[str], None] = print) -> str:
  """What a model writes behind a text, without the text.

      jaxsplit.continue_text(jaxsplit.load_model("runs/mine", "law"), "Whereas", jaxsplit.Generation(tokens=64))

  Args:
    model: of `jaxsplit.load_model`, `jaxsplit.route` or `jaxsplit.load_huggingface`.
    prompt: the text; where the model cannot read all of it together with what follows, its end is read, and `log` gets a line.
    settings: greedy decoding by default.
    log: gets that line.

  Raises:
    InputError: the model reads too few tokens, or its family does not generate.
  """
  tokens = model.tokenizer.encode(prompt)
  cut = len(tokens) - len(fitted(model, tokens, room_for(model, settings)))
  if cut:
    log(f"the first {cut:,} of the prompt's {len(tokens):,} tokens are not read: the model's context is {model.config.sequence_length:,} "
        f"tokens, of which {room_for(model, settings):,} are kept for what follows (--tokens)")
  return model.tokenizer.decode(generate(model, [tokens], settings)[0])


def route(workdir: str | os.PathLike, prompt: str, router: str = "bayes",
          store: str | os.PathLike | None = None) -> tuple[TrainedModel, dict[str, float]]:
  """The expert that a router chooses for a text, and the weights of all, the largest first.

      expert, weights = jaxsplit.route("runs/mine", "Whereas")

  Args:
    workdir: the experiment's.
    prompt: the text.
    router: one of docs/routing.md.
    store: where the experiment's token store is, if it was moved.

  Raises:
    InputError: no experts, no such router, or one that prefers none of them.
  """
  routing = Routing(router=router)
  if len(routing.names) != 1:
    raise InputError(f"--router={router}: one router chooses the expert; name one")
  models = load_models(workdir, store=store, log=lambda line: None)
  weights = routed_evaluation(workdir, routing, Experts(models), replica=0, store=store).weights(prompt)
  return models[next(iter(weights))], weights


def _model(flags: Mapping[str, str | None]) -> TrainedModel:
  if flags["model"]:
    if not flags["model"].startswith("hf:"):
      raise InputError(f"--model={flags['model']}: must be hf:DIR, where DIR is the folder of a Hugging Face model")
    return huggingface.load(from_home(flags["model"].removeprefix("hf:"), "--model"))
  return load_model(flags["workdir"], flags["domain"], store=flags["store"])


if __name__ == "__main__":
  cli.run(main)
