"""python -m jaxsplit.design: the cells that determine the best split of a budget for a fraction of the final training's cost.

Prints the sizes and splits to be measured, what that costs with everything counted, how near to the best split a plan read off them
is expected to come, what half and twice the price would give, and the gin bindings with which `train` measures just these cells.
Nothing is trained. The models, batches, the warm-up and the probe are those of the gin files and bindings that are given; sizes and
splits that these give are not used.
"""

from __future__ import annotations

from jaxsplit import signals

signals.end_at_once(__name__)  # The imports below take seconds.

# ruff: noqa: E402
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from jaxsplit import cli
from jaxsplit.cli.values import of_text
from jaxsplit.errors import InputError
from jaxsplit.experiment.ladder import size_near
from jaxsplit.experiment.sweep import Design, designs, no_design
from jaxsplit.experiment.task import Task, task_of
from jaxsplit.experiment.settings import GRID, Experiment, Settings, Sweep
from jaxsplit.law.mapping import flag_number

SETTINGS = tuple(map(type, Settings().parts))
_MOST = {"params": 1e13, "budget_tokens": 1e18}
_BYTES = 256  # Tokens of a vocabulary of bytes.
_PLAIN = {name: getattr(Experiment(), name) for name in ("sizes", *GRID)}  # A grid given in the settings is not used, which is said.


def main(argv: Sequence[str] | None = None) -> int:
  given = cli.parse("design", __doc__, SETTINGS, argv, flags={
      "params": "N of the target model, as in 1.2B; without it Experiment.target",
      "budget_tokens": "C, as in 20B; without it Experiment.budget_tokens",
      "num_domains": "K; required",
      "sweep": "maximum cost of the sweep, as a fraction of the final training's FLOPs; without it Sweep.flops"},
      switches={"json": "print JSON"})
  read = {"params": flag_number, "budget_tokens": flag_number, "num_domains": lambda name, text: of_text(int, text, f"--{name}"),
          "sweep": lambda name, text: of_text(float, text, f"--{name}")}
  number = lambda name, otherwise: otherwise if given.flags[name] is None else _positive(read[name](name, given.flags[name]), name)
  domains = number("num_domains", None)
  if domains is None:
    raise InputError("--num_domains is missing; give K, the number of domains, as in --num_domains=10")
  if domains < 2:
    raise InputError(f"--num_domains={domains}: there is nothing to split for one domain; give 2 or more")
  settings = Settings(*(given[cls] for cls in SETTINGS))
  experiment, flops = settings.experiment, number("sweep", given[Sweep].flops)
  settings = dataclasses.replace(settings, experiment=dataclasses.replace(
      experiment, budget_tokens=int(number("budget_tokens", experiment.budget_tokens))))
  record = design_sweep(settings, domains, params=number("params", None), sweep=flops)
  print(json.dumps(record, indent=2) if given.flags["json"] else _text(record, flops))
  return 0


def design_sweep(settings: Settings, num_domains: int, *, params: float | None = None, sweep: float | None = None) -> dict[str, Any]:
  """The cells that determine the best split for a fraction of the final training's cost, for Python. Nothing is trained.

      design = jaxsplit.design_sweep(jaxsplit.read_settings("scales/1_3b.gin"), 16, sweep=0.05)
      design["price"], design["sizes"], design["points"], design["bindings"]

  Args:
    settings: the experiment's; a grid in them is not used, and named under "unused".
    num_domains: K.
    params: N of the target model; without it `Experiment.target`.
    sweep: maximum cost as a fraction of the final training's FLOPs; without it `Sweep.flops`.

  Returns:
    What `python -m jaxsplit.design --json` prints (docs/sweep.md). Tokens are of one seed and of one expert.

  Raises:
    InputError: no sweep of that price determines a split.
  """
  flops, tokenization = settings.sweep.flops if sweep is None else sweep, settings.tokenization
  unused = [f"Experiment.{name}" for name, plain in _PLAIN.items() if getattr(settings.experiment, name) != plain]
  experiment = dataclasses.replace(settings.experiment, **_PLAIN,
                                   target=size_near(settings.architecture, params) if params else settings.experiment.target)
  vocab_size = _BYTES if tokenization.kind == "bytes" else tokenization.vocab_size
  task = task_of(dataclasses.replace(settings, experiment=experiment), num_domains, vocab_size)
  (half, asked, twice), least = designs(task, (flops / 2, flops, 2 * flops))
  if asked is None:
    raise no_design("--sweep", flops, least)
  return {**_record(task, experiment, asked, half, twice), "unused": unused}


def _positive(value: Any, name: str) -> Any:
  most = _MOST.get(name, 1e6)
  if not 0 < value <= most:
    raise InputError(f"--{name}={value:g}: must be positive, and at most {most:g}")
  return value


def _record(task: Task, experiment: Experiment, asked: Design, half: Design | None, twice: Design) -> dict[str, Any]:
  """What --json prints. Tokens are of one seed and of one expert; cells are all points at all sizes."""
  points = [[point.seed_steps * task.batch_tokens, point.expert_steps * task.batch_tokens] for point in asked.line.points]
  steps = task.probed_steps + task.steps([asked.line.points])
  other = lambda design: design and {"price": design.price, "regret": design.regret, "fraction_width": design.width,
                                     "sizes": [task.candidates[size].params for size in design.sizes]}
  return {
      "params": task.target.params, "target": list(experiment.target), "budget_tokens": experiment.budget_tokens,
      "num_domains": task.budget.num_domains, "accounting": experiment.accounting,
      "sizes": [task.candidates[size].params for size in asked.sizes], "shapes": [list(size) for size in asked.sizes],
      "seed_tokens": sorted({seed for seed, _ in points}), "expert_tokens": sorted({expert for _, expert in points}),
      "points": points, "line": asked.line.tokens, "price": asked.price,
      "prices": [task.price(task.candidates[size], steps) for size in asked.sizes], "flops": asked.price * task.final_flops,
      "final_flops": task.final_flops, "regret": asked.regret, "fraction_width": asked.width, "half": other(half),
      "twice": other(twice),
      "bindings": [f"Experiment.{name} = {value!r}" for name, value in (*asked.bindings.items(), ("averaged", task.averaged))]
                  + ["FitSettings.reading = 'prior'"]}


def _text(record: dict[str, Any], flops: float) -> str:
  """The record in words."""
  text = lambda design: f"{design['price']:.1%} of the FLOPs, regret {design['regret']:.3%}, split within {design['fraction_width']:.2f}"
  lines = [
      f"a sweep for {flops:.3g} of the final training, {record['final_flops']:.3g} FLOPs: N = {record['params']:,}, "
      f"C = {record['budget_tokens']:,} tokens, K = {record['num_domains']}",
      *([f"note: {flops:g} is {100 * flops:g} % of the final training; {flops:g} % is --sweep={flops / 100:g}"] if flops > 1 else []),
      f"price: {text(record)} of the best (95 %)",
      f"{'size':<14}{'N':>16}{'N / target':>12}{'price':>9}",
      *(f"{str(tuple(shape)):<14}{params:>16,}{params / record['params']:>12.4f}{price:>9.2%}"
        for shape, params, price in zip(record["shapes"], record["sizes"], record["prices"])),
      f"at each of them, {len(record['points'])} points D + D', on {'the whole line' if record['line'] == 1 else 'a line of'} "
      f"D + K D' = {'C' if record['line'] == 1 else format(record['line'], 'g') + ' C'} and below it:",
      *(f"  D = {seed:>16,}   D' = {expert:>14,}" for seed, expert in record["points"]),
      "half the price: " + (text(record["half"]) if record["half"] else "too little for a sweep that determines a split"),
      f"twice the price: {text(record['twice'])}", "",
      *([f"not used: {', '.join(record['unused'])}; the bindings take their place"] if record["unused"] else []), "bindings:",
      *record["bindings"]]
  return "\n".join(lines)


if __name__ == "__main__":
  cli.run(main)
