"""A law and its plan in words and tables: constants, how far to trust them, the forms compared, what a split is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxsplit.law import Law, Plan
from jaxsplit.law.diagnostics import starts_text
from jaxsplit.report import html

_AXES = {"params": ("model size N", "N"), "seed_tokens": ("number of seed tokens D", "D"),
         "expert_tokens": ("number of expert tokens D′", "D′"), "tokens": ("number of tokens D + D′", "D + D′"),
         "compute": ("compute", "compute")}
_TOLD = 0.005  # Of a form's weight: less would be told as 0 %.


def law_parts(law: Law) -> list[str]:
  """HTML on the law itself: equation, quality, warnings, constants."""
  within = f" (around each domain's own mean: {law.r2_within_domains:.4f})" if len(law.domains) > 1 else ""
  quality = f"It explains a fraction R² = {law.r2:.4f} of the variance of log loss{within} over its {law.num_points:,} cells. "
  if law.held_out:
    quality += (f"Refitted without {rule_text(law.held_out['rule'])}, it predicts these {law.held_out['num_points']:,} held-out cells "
                f"with a mean error of {law.held_out['mre']:.2%} (largest {law.held_out['max']:.2%}, "
                f"bias {law.held_out['bias']:+.2%}).")
  quality += f" {starts_text(law.diagnostics)}"
  dropped = {name: count for name, count in (law.data.get("dropped") or {}).items() if count}
  if dropped:
    quality += " Rows not used: " + ", ".join(f"{count:,} ({name})" for name, count in dropped.items()) + "."
  warnings = (*law.data.get("notes", ()), *law.data.get("remarks", ()), *law.warnings)
  cautions = [html.paragraph("What to know before trusting it:"), html.bullets(warnings)] if warnings else [
      html.paragraph("The fit raised no warnings.")]
  return [html.paragraph(f"Form {law.form}: {law.members[0].model.formula}."), html.paragraph(quality), *cautions, *_constants(law)]


def candidates_table(law: Law) -> str:
  """All forms that were fitted, the best first, then those that these cells cannot determine."""
  rows = []
  for candidate in law.candidates:
    held_out = candidate["held_out"] or {}
    rows.append([candidate["form"], len(candidate["parameters"]), f"{candidate['objective_value']:.4g}",
                 *(_percent(held_out.get(name), signed) for name, signed in (
                     ("mre", False), ("max", False), ("bias", True), ("differences", False)))])
  first = (law.candidates[0]["held_out"] or {}) if law.candidates else {}
  caption = (f"Relative errors on the held-out cells: {rule_text(first['rule'])}. Between splits: the mean error of the predicted "
             "differences between splits of one size, which decide a plan." if first else "Nothing was held out.")
  skipped = law.diagnostics.get("skipped_forms") or {}
  return (html.table(["form", "constants", "objective", "mean error", "largest", "bias", "between splits"], rows, caption)
          + _other_rules(law, first.get("others", ()))
          + (html.bullets(f"{name} was not fitted: {reason}." for name, reason in skipped.items()) if skipped else ""))


def _other_rules(law: Law, others: Sequence[dict[str, Any]]) -> str:
  """The forms' mean errors by each further rule of holding out."""
  if not others:
    return ""
  names = [" and ".join(_AXES[part.partition(":")[0]][1] for part in other["rule"].split("+")) for other in others]
  rows = [[candidate["form"], *(_percent(other["mre"], False) for other in (candidate["held_out"] or {}).get("others", ()))]
          for candidate in law.candidates]
  held_out = "; ".join(f"by {name}, {rule_text(other['rule'])}" for name, other in zip(names, others))
  return html.table(["form", *names], rows, f"Mean errors where other cells are held out: {held_out}.")


def plan_parts(plan: Plan) -> list[str]:
  """HTML on what a plan expects of its split, and of one split for each domain, with its warnings."""
  gain = lambda value, pair: f"{_nats(value)} nats per token (95 % interval {_nats(pair[0])} to {_nats(pair[1])})"
  weights = ", ".join(f"{form} ({weight:.0%})" for form, weight in plan.forms.items() if weight >= _TOLD)
  words = (f"The split is an average over several forms of the law, each with a smooth correction, weighted by evidence: {weights}; "
           "constants and errors under the law itself are those of the one form that stands for them there. "
           if len(plan.forms) > 1 else "")
  if plan.dense_loss is None:
    words += "The loss of a dense model is not known, as no cell has D′ = 0. The law expects a gain of "
  else:
    words += (f"The law expects a gain of {gain(plan.gain_over_dense, plan.gain_over_dense_interval)} over the dense model, and "
              "of ")
  words += (f"{gain(plan.gain_over_fixed, plan.gain_over_fixed_interval)} over spending 80 % on the seed. This split is "
           f"expected to be {_nats(plan.regret)} nats per token worse than the best one, which is not known exactly.")
  if 0 < plan.fraction < 1:
    words += (f" The split point is at {plan.split_point:,.0f} seed tokens: up to there a longer seed phase lowers the expected mean loss, "
              "beyond it the same tokens lower it more when experts train on them.")
  far = ", ".join(f"{plan.beyond[name]:.3g} times in {words_for}" for name, words_for in (
      ("params", "model size N"), ("seed_tokens", "D"), ("expert_tokens", "D′"), ("tokens", "D + D′")))
  words += f" Relative to the largest measured values, the plan is at {far}: above 1 it extrapolates, and the intervals widen."
  rows = [[d.domain, f"{d.loss:.4f}", "{:.4f} to {:.4f}".format(*d.loss_interval),
           "" if d.dense_loss is None else f"{d.dense_loss:.4f}",
           f"{d.best_seed_tokens:,.0f}", f"{d.best_expert_tokens:,.0f}", f"{d.best_loss:.4f}"] for d in plan.domains]
  caption = ("Predicted losses in nats per token, at the common split and for the dense model. Uneven: the best split if each domain "
             "may have its own seed tokens and expert tokens within the same total budget.")
  if plan.giving:
    caption += (f" In the uneven split {', '.join(plan.giving)} would do worse than at the common split, since other domains gain "
                "more from the tokens.")
  if plan.unmeasured:
    caption += f" For {', '.join(plan.unmeasured)} it has no seed or no expert tokens, of which there is no cell: do not rely on it."
  if plan.better_dense:
    caption += f" For {', '.join(plan.better_dense)} the dense model is better than the uneven split."
  header = ["domain", "loss", "95 % interval", "dense", "uneven seed tokens", "uneven expert tokens", "uneven loss"]
  return [html.paragraph(words), *([html.bullets(plan.warnings)] if plan.warnings else []), html.table(header, rows, caption)]


def rule_text(rule: str) -> str:
  """A hold-out rule in words."""
  if rule.partition(":")[0] not in _AXES:
    return "each cell in turn" if rule == "leave_one_out" else rule
  parts = [part.partition(":") for part in rule.split("+")]
  named = [f"the {'largest' if count == '1' else f'{count} largest values of'} {_AXES[axis][0]}" for axis, _, count in parts]
  only = "; errors are on the cells with both" if len(named) > 1 else ""
  return f"the cells with {' or '.join(named)}{only}"


def _constants(law: Law) -> list[str]:
  """The constants: shared ones with their intervals, those of each domain in one row a domain."""
  shared = {name: value for name, value in law.parameters.items() if "[" not in name}
  rows = [[name, f"{value:.5g}", _interval(law.intervals.get(name))] for name, value in shared.items()]
  open_ones = " What the cells leave open of them is the priors'." if law.with_priors else ""
  caption = f"Constants, in plain parameters and tokens.{_at_centre(law)}{open_ones}"
  tables = [html.table(["constant", "value", "95 % interval"], rows, caption)] if rows else []
  owned = list(dict.fromkeys(name.partition("[")[0] for name in law.parameters if "[" in name))
  if owned:
    rows = [[domain, *(f"{law.parameters[f'{name}[{domain}]']:.5g}" for name in owned)] for domain in law.domains]
    tables.append(html.table(["domain", *owned], rows, "Constants of each domain."))
  return tables


def _at_centre(law: Law) -> str:
  """A sentence on exponents that are others where the cells are."""
  member = law.members[0]
  fitted = dict(zip(member.layout.labels(member.model), member.theta))
  there = {name: fitted[name] for name in member.model.form.local if name in fitted}
  if not there:
    return ""
  listed = lambda words: ", ".join([*words[:-2], " and ".join(words[-2:])])
  also = ", where their profiles are drawn," if law.profiles else ""
  return (f" {listed(list(there))} are those where ln N, ln D and ln D′ are 0; at the centre of the cells{also} they are "
          f"{listed([f'{value:.4g}' for value in there.values()])}.")


def _nats(value: float) -> str:
  return f"{value:.4f}".replace("-0.0000", "0.0000").replace("-", "−")


def _interval(pair: Any) -> str:
  return f"{pair[0]:.4g} to {pair[1]:.4g}" if pair and None not in pair else ""


def _percent(value: float | None, signed: bool) -> str:
  return "" if value is None else f"{value:+.2%}" if signed else f"{value:.2%}"
