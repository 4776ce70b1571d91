"""The plan entry point: a law and a budget in, a recommended split out.

    python -m jaxsplit.plan --law=law.json --params=3e6 --budget_tokens=2e8 --num_domains=5 --accounting=total [--json]
"""

from __future__ import annotations

from jaxsplit import signals

signals.end_at_once(__name__)  # The imports below take seconds.

# ruff: noqa: E402
import dataclasses
import json
from collections.abc import Sequence

from jaxsplit import cli, devices
from jaxsplit.errors import InputError
from jaxsplit.files import check_replaceable
from jaxsplit.law import Law, Plan, PlanSettings, load_law, plan_split
from jaxsplit.law.mapping import flag_number

_COUNTS = {
    "params": "model size N, as in 1.2B; without it, the best one for a FLOP budget",
    "budget_tokens": "C in tokens, as in 60M",
    "budget_flops": "C in FLOPs, 6 N per token; give one of the two budgets",
    "unique_tokens": "number of distinct tokens of each domain; by default as in the table. Used if the law discounts repeats",
}
FLAGS = {
    "law": cli.Path("the law, as written by python -m jaxsplit.fit; required"),
    **_COUNTS,
    "out": cli.Path("also write the plan to this .json file"),
}


def main(argv: Sequence[str] | None = None) -> int:
  """Reads a law, plans, and prints the plan for people or, with --json, for programs."""
  settings = cli.parse("plan", __doc__, [PlanSettings], argv, flags=FLAGS, switches={"json": "print the plan as JSON"},
                       fields_as_flags=True)
  if not settings.flags["law"]:
    raise InputError("--law is missing; give a law, as in --law=law.json")
  if settings.flags["out"]:
    check_replaceable(settings.flags["out"], "--out", "fraction")
  devices.present()
  counts = {name: flag_number(name, settings.flags[name]) for name in _COUNTS if settings.flags[name] is not None}
  law = load_law(settings.flags["law"])
  plan = plan_split(law, settings[PlanSettings], **counts)
  if settings.flags["out"]:
    try:
      plan.save(settings.flags["out"])
    except OSError as error:
      raise InputError(f"--out={settings.flags['out']}: cannot be written ({error.strerror}); name a file that can be") from None
  print(json.dumps(dataclasses.asdict(plan), indent=1) if settings.flags["json"] else _summary(plan, law))
  return 0


def _beyond(plan: Plan) -> str:
  """How far from what was measured a plan stands."""
  return ", ".join(f"{symbol} {plan.beyond[name]:.3g}" for name, symbol in (
      ("params", "N"), ("seed_tokens", "D"), ("expert_tokens", "D'"), ("tokens", "D + D'"))) + " times the largest measured"


def _summary(plan: Plan, law: Law) -> str:
  between = lambda pair, form: f"95 % {pair[0]:{form}} .. {pair[1]:{form}}"
  counted = f"{plan.seed_tokens:.4g} seed + {plan.num_domains} x {plan.expert_tokens:.4g} expert tokens"
  if plan.accounting == "per_model":
    counted = f"{plan.seed_tokens:.4g} seed + {plan.expert_tokens:.4g} expert tokens a model"
  if plan.accounting == "separate" and plan.expert_tokens:
    counted = f"{plan.num_domains} x ({plan.seed_tokens:.4g} seed + {plan.expert_tokens:.4g} expert tokens)"
  corrected = "; with a smooth correction to the cells, which predict's losses are without (docs/law.md)" if law.surface else ""
  lines = [
      f"N = {plan.params:.4g}, C = {plan.budget_tokens:.4g} tokens = {plan.budget_flops:.4g} FLOPs ({plan.accounting})",
      f"split: {plan.fraction:.1%} seed ({between(plan.fraction_interval, '.1%')}): {counted}",
      "beyond the cells: " + _beyond(plan),
      f"forms, by weight: {', '.join(f'{form} {weight:.0%}' for form, weight in plan.forms.items())}{corrected}",
      f"loss: {plan.loss:.4f} ({between(plan.loss_interval, '.4f')}), expected regret {plan.regret:.4f}",
      "full pretraining: never measured (no cell has D' = 0)" if plan.dense_loss is None else
      f"full pretraining: {plan.dense_loss:.4f}, so the split gains {plan.gain_over_dense:.4f} "
      f"({between(plan.gain_over_dense_interval, '.4f')})",
      f"80/20: {plan.fixed_loss:.4f}, so the split gains {plan.gain_over_fixed:.4f} "
      f"({between(plan.gain_over_fixed_interval, '.4f')})",
      "no seed at all: never measured (no cell has D = 0)" if plan.seedless_loss is None else
      f"no seed at all: {plan.seedless_loss:.4f}",
      "split point: " + (f"up to {plan.split_point:.4g} seed tokens a longer seed phase lowers the loss, beyond it experts gain more"
                         if 0 < plan.fraction < 1 else "none, as the best split is at an end"),
      f"{'domain':<20}{'loss':>9}{'full pretraining':>18}{'uneven D':>13}{'uneven D_':>13}{'uneven loss':>13}".replace("D_", "D'"),
  ]
  for d in plan.domains:
    dense = "-" if d.dense_loss is None else f"{d.dense_loss:.4f}"
    lines.append(f"{d.domain:<20}{d.loss:>9.4f}{dense:>18}{d.best_seed_tokens:>13.4g}{d.best_expert_tokens:>13.4g}"
                 f"{d.best_loss:>13.4f}")
  if plan.giving:
    lines.append(f"uneven: the best mean loss of the same total budget; {', '.join(plan.giving)} would do worse than at the common "
                 "split, since other domains gain more from those tokens")
  if plan.unmeasured:
    lines.append(f"uneven: for {', '.join(plan.unmeasured)} it has D = 0 or D' = 0, of which there is no cell: do not rely on it")
  if plan.better_dense:
    lines.append(f"full pretraining is better than an uneven split for {', '.join(plan.better_dense)}: it is all of the budget in one "
                 "model, and a split is chosen for the mean of all domains")
  return "\n".join([*lines, *(f"warning: {text}" for text in plan.warnings)])


if __name__ == "__main__":
  cli.run(main)
