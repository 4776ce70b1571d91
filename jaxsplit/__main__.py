"""python -m jaxsplit: the commands there are, each an entry point of its own."""

from __future__ import annotations

import sys

from jaxsplit import __version__

COMMANDS = {
    "train": "from a corpus and a budget to a recommended, trained and measured split",
    "prepare": "a corpus listed, or tokenized once for several experiments",
    "design": "a sweep for a share of the training's compute",
    "fit": "a law from any table of losses",
    "plan": "a split from a law",
    "predict": "losses from a law, and the best N and tokens for growing compute",
    "evaluate": "every expert on every domain, zero-shot tasks, routers",
    "generate": "text that goes on from a prompt",
    "export": "experts as Hugging Face folders",
    "report": "the page of an experiment, or of several side by side",
}


def main() -> int:
  """Lists them; 2 where another word was given, which cannot be a command here."""
  if "--version" in sys.argv[1:]:
    print(f"jaxsplit {__version__}")
    return 0
  words = [word for word in sys.argv[1:] if word not in ("-h", "--help")]
  if words:
    name = words[0] if words[0] in COMMANDS else "train"
    print(f"jaxsplit: {words[0]} is given behind jaxsplit; commands are modules, as in python -m jaxsplit.{name}", file=sys.stderr)
    return 2
  print("\n".join(["python -m jaxsplit.COMMAND, each with --help:", *(f"  {name:<10}{text}" for name, text in COMMANDS.items())]))
  return 0


if __name__ == "__main__":
  sys.exit(main())
